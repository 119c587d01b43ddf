"""Which models a run loads on this machine, and what each must be able to do; without torch."""

from cdcda_flower.config import RunConfig
from cdcda_flower.methods import METHODS
from cdcda_flower.models.model_files import Kind
from cdcda_flower.tasks import task_named


def kinds_of(config: RunConfig) -> dict[str, Kind]:
    """Returns, by config key, what the models must be that the keys name."""
    return {
        "device-model": "causal",
        "cloud-model": "gguf" if config.cloud_engine == "llama-cpp" else "causal",
        "consistency-model": "nli" if config.consistency_scorer == "nli" else "sentence",
        "bertscore-model": "encoder",
    }


def loaded_models(config: RunConfig) -> tuple[str, ...]:
    """Returns the keys of the models that the run loads; a replay takes the cloud's and the scorer's words off the tape."""
    trains = config.device_executor != "echo" and any(METHODS[name].answers == "device" for name in config.method_names)
    asks = config.tape_mode != "replay"
    scores = config.bertscore_model != "none" and "bert-f1" in task_named(config.task).metrics
    wanted = {
        "device-model": trains,
        "cloud-model": asks and asks_cloud(config) and config.cloud_engine in {"transformers", "llama-cpp"},
        "consistency-model": asks and judges(config) and config.consistency_scorer != "echo",
        "bertscore-model": scores,
    }
    return tuple(key for key, is_wanted in wanted.items() if is_wanted)


def asks_cloud(config: RunConfig) -> bool:
    """Says whether a method of the run has the cloud's model write, answer or teach."""
    methods = [METHODS[name] for name in config.method_names]
    return judges(config) or any(method.answers == "cloud" or method.supply == "teacher" for method in methods)


def judges(config: RunConfig) -> bool:
    """Says whether the run may write pairs, which the consistency scorer judges."""
    by_ratio = config.share_policy in {"ratio", "recent"}
    shares = config.share_policy != "none" and (config.share_ratio > 0 or not by_ratio)
    return shares and any(METHODS[name].augmented for name in config.method_names)
