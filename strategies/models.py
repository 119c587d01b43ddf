"""The models of one run: resolved when they are first needed, each noted in the manifest with its digest."""

from cdcda_flower.cloud_api import api_model
from cdcda_flower.config import RunConfig
from cdcda_flower.data.prepared import Prepared
from cdcda_flower.language.sources import encoder_digest, gguf_model
from cdcda_flower.runs.folder import CloudUsage, ModelName, RunFolder
from cdcda_flower.runs.places import cache_folder
from cdcda_flower.tasks import task_named
from cdcda_flower.types import ModelRef
from strategies.base_model import base_model
from strategies.phases import Phases

_ECHO = ModelRef(name="echo (test double)", path="", digest="echo")


class Models:
    """What the config's model keys stand for."""

    def __init__(self, config: RunConfig, folder: RunFolder) -> None:
        self._config, self._folder = config, folder
        self._cache = cache_folder(config)
        if config.consistency_scorer != "echo":
            name = f"{config.consistency_scorer}: {config.consistency_model}"
            self._note("consistency", name, encoder_digest(config.consistency_model))
        if config.bertscore_model != "none" and "bert-f1" in task_named(config.task).metrics:
            name = f"{config.bertscore_model}, layer {config.bertscore_layer}"
            self._note("bertscore", name, encoder_digest(config.bertscore_model))

    def cloud(self) -> ModelRef:
        """Returns the cloud LLM."""
        engine = self._config.cloud_engine
        if engine in {"openai", "llama-cpp"}:
            ref = api_model(self._config) if engine == "openai" else gguf_model(self._config.cloud_model)
            self._note("cloud", ref.name, ref.digest)
            return ref
        return self._resolved("cloud", self._config.cloud_model, double=engine == "echo")

    def note_usage(self, usage: CloudUsage) -> None:
        """Notes what the cloud's server counted."""
        self._folder.update(cloud_usage=usage)

    def base(self, prepared: Prepared, phases: Phases) -> ModelRef:
        """Returns M_base, trained first where the cache has none."""
        source = self._resolved("device", self._config.device_model, double=self._config.device_executor == "echo")
        if source is _ECHO:
            return source
        with phases.phase("base", prepared.base_row_count * self._config.base_epochs):
            base = base_model(self._config, source, prepared, self._cache, phases.advance)
        self._note("base", base.name, base.digest)
        return base

    def _resolved(self, role: str, name: str, *, double: bool) -> ModelRef:
        if double:
            ref = _ECHO
        else:
            # torch and transformers take seconds to import; a run with doubles needs neither.
            from cdcda_flower.language.models import resolve_causal

            ref = resolve_causal(name, self._cache)
        self._note(role, ref.name, ref.digest)
        return ref

    def _note(self, role: str, name: str, digest: str) -> None:
        models = {**self._folder.manifest().models, role: ModelName(name=name, digest=digest)}
        self._folder.update(models=models)
