"""The cloud as teacher: what each user gets for what was shared, and who cannot teach."""

from pathlib import Path

import pytest
from lamp_folder import ROOT
from tiny_models import SENTENCES, tiny_ref, write_tiny_model

from cdcda_flower.config import RunConfig, Scalar, read_defaults
from cdcda_flower.errors import ConfigError, ModelError
from cdcda_flower.language.examples import tokenize
from cdcda_flower.language.models import load_tokenizer
from cdcda_flower.types import Example, ModelRef, Upload
from strategies.supply.teacher import teacher_supply


def config_with(**changes: Scalar) -> RunConfig:
    values: dict[str, Scalar] = {"device": "cpu", "rkd-top-k": 3, "max-tokens": 64}
    changed = {key.replace("_", "-"): value for key, value in changes.items()}
    return RunConfig.from_flwr(read_defaults(ROOT / "pyproject.toml") | values | changed)


def upload(user: str, *numbers: int) -> Upload:
    examples = tuple(
        Example(
            id=f"{user}{n}", query=f"{SENTENCES[n].partition('Answer:')[0]} {user}", response="dark comedy" + "!" * n
        )
        for n in numbers
    )
    return Upload(user_id=user, policy="all", history_size=5, query_count=1, examples=examples)


UPLOADS = [upload("b", 2, 0), upload("c"), upload("a", 1)]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    return tiny_ref(write_tiny_model(tmp_path_factory.mktemp("s") / "student", "qwen2", seed=5, padding_rows=3))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> ModelRef:
    return tiny_ref(write_tiny_model(tmp_path_factory.mktemp("t") / "teacher", "qwen2", seed=6, padding_rows=9))


def test_each_user_gets_targets_for_what_was_shared(student: ModelRef, teacher: ModelRef) -> None:
    reports: list[tuple[int, int]] = []
    config = config_with()
    found = teacher_supply(UPLOADS, config, teacher, student, lambda *report: reports.append(report))
    assert {user: [example_id for example_id, _ in own] for user, own in found.items()} == {
        "a": ["a1"],
        "b": ["b0", "b2"],
    }
    tokenizer = load_tokenizer(student)
    examples = {example.id: example for upload in UPLOADS for example in upload.examples}
    for example_id, targets in (pair for own in found.values() for pair in own):
        row = tokenize(tokenizer, examples[example_id].query, examples[example_id].response, max_tokens=64)
        assert (targets.positions, targets.top_k) == (row.answer, 3)
    assert sum(done for done, _ in reports) == 3
    again = teacher_supply(UPLOADS[::-1], config, teacher, student, lambda *report: None)
    assert again == found


def test_who_shares_nothing_needs_no_teacher(student: ModelRef) -> None:
    nowhere = ModelRef(name="none", path="/none", digest="")
    assert teacher_supply([upload("a")], config_with(), nowhere, student, lambda *report: None) == {}


@pytest.mark.parametrize("engine", ["llama-cpp", "openai", "echo"])
def test_an_engine_without_distributions_is_refused(engine: str) -> None:
    model = {"openai": "m"}.get(engine, "embedded")
    with pytest.raises(ConfigError, match='rkd-ft needs cloud-engine = "transformers"'):
        config_with(methods="rkd-ft", cloud_engine=engine, cloud_model=model, prompt_form="paper")


def test_another_vocabulary_is_refused_before_the_teacher_is_loaded(student: ModelRef, tmp_path: Path) -> None:
    other = write_tiny_model(tmp_path / "other", "qwen2", seed=6)
    tokenizer = load_tokenizer(tiny_ref(other))
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save_pretrained(other)
    ref = tiny_ref(other)
    (other / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"teacher .*other and student .*student have no common vocabulary"):
        teacher_supply(UPLOADS, config_with(), ref, student, lambda *report: None)
