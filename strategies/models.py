"""The models of one run: found when they are first needed, each noted in the manifest with its digest."""

from pathlib import Path

from cdcda_flower.cloud_api import api_model
from cdcda_flower.config import RunConfig
from cdcda_flower.data.prepared import Prepared
from cdcda_flower.language.sources import encoder_digest, files_digest, find_causal
from cdcda_flower.runs.folder import CloudUsage, ModelName, RunFolder
from cdcda_flower.runs.places import cache_folder
from cdcda_flower.tasks import task_named
from cdcda_flower.types import ModelRef
from strategies.base_model import base_model
from strategies.phases import Phases
from strategies.recording import Recording

_ECHO = ModelRef(name="echo (test double)", path="", digest="echo")


class Models:
    """What the config's model keys stand for."""

    def __init__(self, config: RunConfig, folder: RunFolder, recording: Recording, phases: Phases) -> None:
        self._config, self._folder, self._recording, self._phases = config, folder, recording, phases
        self._cache = cache_folder(config)
        if config.bertscore_model != "none" and "bert-f1" in task_named(config.task).metrics:
            name = f"{config.bertscore_model}, layer {config.bertscore_layer}"
            self._note("bertscore", name, encoder_digest(config.bertscore_model))

    def cloud(self) -> ModelRef:
        """Returns the cloud LLM; its engine loads it, and converts it first where it must."""
        engine, name = self._config.cloud_engine, self._config.cloud_model
        ref = self._recording.model("cloud-model", engine, name, self._found_cloud)
        self._note("cloud", ref.name, ref.digest)
        return ref

    def consistency(self) -> ModelRef:
        """Returns the model of the consistency scorer, which loads it."""
        scorer, name = self._config.consistency_scorer, self._config.consistency_model
        if scorer == "echo":
            return _ECHO
        ref = self._recording.model("consistency-model", scorer, name, lambda: _encoder(name))
        self._note("consistency", f"{scorer}: {name}", ref.digest)
        return ref

    def note_usage(self, usage: CloudUsage) -> None:
        """Adds what the cloud's server counted since it was asked for the first time; a run may ask twice."""
        before = self._folder.manifest().cloud_usage
        counts = {name: count + (getattr(before, name) if before else 0) for name, count in usage.model_dump().items()}
        self._folder.update(cloud_usage=CloudUsage(**counts))

    def base(self, prepared: Prepared) -> ModelRef:
        """Returns M_base, trained first where the cache has none."""
        source = self.device()
        if source is _ECHO:
            return source
        with self._phases.phase("base", prepared.base_row_count * self._config.base_epochs):
            base = base_model(self._config, source, prepared, self._cache, self._phases.advance)
        self._note("base", base.name, base.digest)
        if base != source:
            # Its digest is of what it was made from, which another machine rounds otherwise.
            self._folder.update(base_weights=files_digest(Path(base.path).glob("*.safetensors")))
        return base

    def _found_cloud(self) -> ModelRef:
        if self._config.cloud_engine == "openai":
            return api_model(self._config)
        return _ECHO if self._config.cloud_engine == "echo" else find_causal(self._config.cloud_model)

    def device(self) -> ModelRef:
        """Returns the model that devices start from."""
        echo = self._config.device_executor == "echo"
        ref = _ECHO if echo else self.loadable(find_causal(self._config.device_model))
        self._note("device", ref.name, ref.digest)
        return ref

    def loadable(self, model: ModelRef) -> ModelRef:
        """Returns the model as a folder with safetensors; converting a GGUF file, once, is a phase between others."""
        # torch and transformers take seconds to import; a run with doubles needs neither.
        from cdcda_flower.language.models import is_loadable, loadable

        if is_loadable(model, self._cache):
            return loadable(model, self._cache)
        with self._phases.phase("convert", 1):
            folder = loadable(model, self._cache)
            self._phases.advance(1, 0)
        return folder

    def _note(self, role: str, name: str, digest: str) -> None:
        models = {**self._folder.manifest().models, role: ModelName(name=name, digest=digest)}
        self._folder.update(models=models)


def _encoder(name: str) -> ModelRef:
    return ModelRef(name=name, path="", digest=encoder_digest(name))
