"""The cloud as teacher: what each user gets for what was shared, and who cannot teach."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from cdcda_flower.config import RunConfig, Scalar, read_defaults
from cdcda_flower.errors import ConfigError, DataError, ModelError, RunError
from cdcda_flower.models.loading import load_tokenizer
from cdcda_flower.models.tokens import tokenize
from cdcda_flower.runs.folder import RunFolder
from cdcda_flower.runs.tape import Tape
from cdcda_flower.types import Example, ModelRef, Upload
from repository import ROOT
from strategies.augmentation.teacher import Targets, teacher_supply
from strategies.recording import Recording, recording
from tiny_models import SENTENCES, tiny_ref, write_tiny_model


def config_with(**changes: Scalar) -> RunConfig:
    values: dict[str, Scalar] = {"device": "cpu", "rkd-top-k": 3, "max-tokens": 64}
    changed = {key.replace("_", "-"): value for key, value in changes.items()}
    return RunConfig.from_flwr(read_defaults(ROOT / "pyproject.toml") | values | changed)


def supplied(
    uploads: Sequence[Upload],
    teacher: ModelRef,
    student: ModelRef,
    on_progress: Callable[[int, int], None] = lambda done, tokens: None,
    /,
    **changes: Scalar,
) -> tuple[Mapping[str, Targets], Recording]:
    """Returns the supply and the run's account; without a `tape` it keeps none."""
    config = config_with(**{"tape_mode": "record" if "tape" in changes else "off", **changes})
    with TemporaryDirectory() as runs, recording(config, RunFolder.create(Path(runs), "run")) as taped:
        return teacher_supply(uploads, config, teacher, student, taped, on_progress), taped


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
    found, _ = supplied(UPLOADS, teacher, student, lambda *report: reports.append(report))
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
    assert supplied(UPLOADS[::-1], teacher, student)[0] == found


def test_who_shares_nothing_needs_no_teacher(student: ModelRef) -> None:
    nowhere = ModelRef(name="none", path="/none", digest="")
    assert supplied([upload("a")], nowhere, student)[0] == {}


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
        supplied(UPLOADS, ref, student)


# The tape


def account(taped: Recording) -> tuple[int, int]:
    return taped.use.calls_taken, taped.use.calls_asked


def test_what_a_teacher_said_once_is_taken_from_the_tape_and_replayed_without_its_files(
    student: ModelRef, teacher: ModelRef, tmp_path: Path
) -> None:
    tape = str(tmp_path / "t.sqlite")
    first, taped = supplied([UPLOADS[0]], teacher, student, tape=tape)
    assert account(taped) == (0, 2)
    found, taped = supplied(UPLOADS, teacher, student, tape=tape)
    assert account(taped) == (2, 1)
    assert found["b"] == first["b"]
    absent = ModelRef(name=teacher.name, path="/none", digest=teacher.digest)
    reports: list[tuple[int, int]] = []
    again, taped = supplied(
        UPLOADS, absent, student, lambda *report: reports.append(report), tape=tape, tape_mode="replay"
    )
    assert again == found
    assert (account(taped), reports) == ((3, 0), [(3, 0)])


def test_a_teacher_that_the_tape_lost_is_named_again_by_the_next_recording(
    student: ModelRef, teacher: ModelRef, tmp_path: Path
) -> None:
    tape = tmp_path / "t.sqlite"
    supplied([UPLOADS[0]], teacher, student, tape=str(tape))
    with closing(sqlite3.connect(tape)) as connection, connection:
        connection.execute("DELETE FROM models")
    _, taped = supplied([UPLOADS[0]], teacher, student, tape=str(tape))
    assert account(taped) == (2, 0)
    with Tape(tape, writable=False) as read:
        assert [model.digest for model in read.models()] == [teacher.digest]


@pytest.mark.parametrize("changes", [{"rkd_top_k": 2}, {"max_tokens": 16}])
def test_another_question_to_the_teacher_is_not_on_the_tape(
    student: ModelRef, teacher: ModelRef, tmp_path: Path, changes: dict[str, Scalar]
) -> None:
    tape = str(tmp_path / "t.sqlite")
    supplied(UPLOADS, teacher, student, tape=tape)
    with pytest.raises(DataError, match=r"tape .* lacks 3 of the 3 calls that this run makes of embedded"):
        supplied(UPLOADS, teacher, student, tape=tape, tape_mode="replay", **changes)


def test_two_who_share_the_same_text_ask_once(student: ModelRef, teacher: ModelRef) -> None:
    [own] = upload("a", 1).examples
    both = [Upload(user_id=u, policy="all", history_size=1, query_count=1, examples=(own,)) for u in "ab"]
    found, taped = supplied(both, teacher, student)
    assert account(taped) == (0, 1)
    assert found["a"] == found["b"]


def test_a_budget_in_calls_holds_for_the_teacher_and_loses_nothing(
    student: ModelRef, teacher: ModelRef, tmp_path: Path
) -> None:
    tape = str(tmp_path / "t.sqlite")
    with pytest.raises(RunError, match="budget-calls is 2 and 2 calls were asked; 1 of 3 calls remain"):
        supplied(UPLOADS, teacher, student, tape=tape, budget_calls=2)
    _, taped = supplied(UPLOADS, teacher, student, tape=tape, budget_calls=2)
    assert account(taped) == (2, 1)
