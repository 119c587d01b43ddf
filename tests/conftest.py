"""Fixtures that all tests share. Its place puts this folder's helpers on the path of the tests below."""

from pathlib import Path

import pytest
from tiny_models import write_tiny_model


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama's folder; nobody writes there."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny-llama", "llama", seed=1)


@pytest.fixture(scope="session")
def tiny_qwen2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Qwen2's folder; nobody writes there."""
    return write_tiny_model(tmp_path_factory.mktemp("models") / "tiny-qwen2", "qwen2", seed=2)
