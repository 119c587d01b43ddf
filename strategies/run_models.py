"""The models of one run: found when they are first needed, each noted in the manifest with its digest."""

from pathlib import Path

from cdcda_flower.cloud_api import api_model
from cdcda_flower.config import RunConfig
from cdcda_flower.data.prepared import Prepared
from cdcda_flower.errors import ModelError
from cdcda_flower.models.model_files import kinds_of, loaded_models
from cdcda_flower.models.sources import files_digest, find_model
from cdcda_flower.plugins.seams import CLOUD_ENGINE, CONSISTENCY_SCORER, Plugin
from cdcda_flower.runs.folder import CloudUsage, ModelName, RunFolder
from cdcda_flower.runs.identity import plugin_model
from cdcda_flower.runs.locations import cache_folder
from cdcda_flower.types import ModelRef
from strategies.base_cache import base_model
from strategies.model_transfer import files_to_send
from strategies.phases import Phases
from strategies.recording import Recording

_ECHO = ModelRef(name="echo (test double)", path="", digest="echo")
# Raise the number with every change of what it writes: the tape keeps its answers.
_CONTROL = ModelRef(name="corpus-control (positive control)", path="", digest="corpus-control 2")


class Models:
    """What the config's model keys stand for."""

    def __init__(self, config: RunConfig, folder: RunFolder, recording: Recording, phases: Phases) -> None:
        self._config, self._folder, self._recording, self._phases = config, folder, recording, phases
        self._cache = cache_folder(config)
        self._kinds = kinds_of(config)
        self._found: dict[str, ModelRef] = {}

    def check(self) -> None:
        """Finds every model that the run loads, converts what must be converted, and sees that its files give all its weights.

        Before anything is shared or asked of the cloud; raises ModelError.
        """
        keys = loaded_models(self._config)
        if not keys:
            return
        # torch and transformers take seconds to import; a run with doubles needs neither.
        from cdcda_flower.models.load_report import check_loads

        with self._phases.phase("models", len(keys)):
            for key in keys:
                found, kind = self._here(key), self._kinds[key]
                if kind != "gguf":
                    folder = Path(self.loadable(found).path)
                    check_loads(folder, kind)
                    if key == "device-model" and self._config.devices == "real" and not self._config.base_epochs:
                        files_to_send(folder)  # a trained M_base is written by us
                self._phases.advance(1, 0)
        if "bertscore-model" in keys:
            name = f"{self._config.bertscore_model}, layer {self._config.bertscore_layer}"
            self._note("bertscore", name, self._here("bertscore-model").digest)

    def cloud(self) -> ModelRef:
        """Returns the cloud LLM as it is found."""
        engine, name = self._config.cloud_engine, self._config.cloud_model
        if engine not in CLOUD_ENGINE.built_in:
            own = plugin_model(Plugin(CLOUD_ENGINE, engine), self._config)
            self._note("cloud", engine, own.digest)
            return own
        ref = self._recording.model("cloud-model", engine, name, self._found_cloud)
        self._note("cloud", ref.name, ref.digest)
        return ref

    def consistency(self) -> ModelRef:
        """Returns the model of the consistency scorer, which loads it."""
        scorer, name = self._config.consistency_scorer, self._config.consistency_model
        if scorer == "echo":
            return _ECHO
        if scorer not in CONSISTENCY_SCORER.built_in:
            ref = plugin_model(Plugin(CONSISTENCY_SCORER, scorer), self._config)
            self._note("consistency", scorer, ref.digest)
            return ref
        ref = self._recording.model("consistency-model", scorer, name, lambda: self._here("consistency-model"))
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
        without_model = {"echo": _ECHO, "corpus-control": _CONTROL}
        return without_model.get(self._config.cloud_engine) or self._here("cloud-model")

    def device(self) -> ModelRef:
        """Returns the model that devices start from."""
        echo = self._config.device_executor == "echo"
        ref = _ECHO if echo else self.loadable(self._here("device-model"))
        self._note("device", ref.name, ref.digest)
        return ref

    def loadable(self, model: ModelRef) -> ModelRef:
        """Returns the model as a folder with safetensors; a GGUF file is converted once."""
        from cdcda_flower.models.loading import loadable

        return loadable(model, self._cache)

    def _here(self, key: str) -> ModelRef:
        """Returns the model that a key names on this machine; its files are digested once."""
        if key not in self._found:
            self._found[key] = find_model(str(self._config.to_flwr()[key]), self._kinds[key])
        return self._found[key]

    def _note(self, role: str, name: str, digest: str) -> None:
        manifest = self._folder.manifest()
        before = manifest.models.get(role)
        if manifest.pauses and before and before.digest != digest:
            raise ModelError(
                f"the {role} model {name} has changed since the run stopped (digest {before.digest[:12]}, now {digest[:12]}); "
                "bring it back and resume, or start a new run"
            )
        models = {**manifest.models, role: ModelName(name=name, digest=digest)}
        self._folder.update(models=models)
