"""The benchmarks, on tiny models: every case is there, and says numbers. What they measure is never asserted."""

import math
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import Qwen2Config

from benchmarks import answer, gpu, train
from benchmarks.cases import Case, Settings
from benchmarks.embedded import Rows, jobs
from cdcda_flower.models import loading
from cdcda_flower.models.loading import load_causal, load_tokenizer
from cdcda_flower.models.lora import StackedAdapters
from cdcda_flower.models.training import Fleet
from tiny_models import tiny_ref

CPU = torch.device("cpu")
ONCE = Settings(full=False, repeats=1)
TINY = train.Sizes(
    rows=Rows(tokens=24, answer=8),
    users=2,
    steps=1,
    rank=2,
    reload_users=2,
    reload_all=3,
    reload_sample=1,
    reload_examples=2,
    reload_batch=1,
    attended=((2, 8),),
)


def assert_figures(cases: Sequence[Case], names: Sequence[str]) -> None:
    assert [case.case for case in cases] == list(names)
    for case in cases:
        assert all(math.isfinite(figure) and figure > 0 for figure in (case.ours, case.peer, case.ratio))
        assert case.note
        assert case.unit


# TRL asks transformers for a name of its own past.
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
def test_training_has_its_cases(tiny_llama: Path) -> None:
    trl = ["trl"] if find_spec("trl") else []
    loops = ["peft-loop-b4", "peft-loop-tuned-b4"]
    names = ["peft-loop-b1", "peft-loop-tuned-b1", "floor", *trl, *loops, "uneven", "reload", "nf4-dequantised"]
    names.append("attention-8")
    assert_figures(train.cases(ONCE, TINY, tiny_ref(tiny_llama)), names)


def test_answering_has_its_cases_and_the_peer_says_the_same(tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # In 16 bits a batch's rounding may decide between two words.
    monkeypatch.setattr(loading, "compute_dtype", lambda device: torch.float32)
    sizes = answer.Sizes(users=3, all_users=4, slots=2, sample=1, sample_short=2, written=8, rank=2)
    cases = answer.cases(ONCE, sizes, tiny_ref(tiny_llama))
    assert_figures(cases[:2], ["one-by-one", "one-by-one-short"])
    # A difference of two times of so small a model may be anything.
    assert [case.case for case in cases[2:]] == ["step-even", "step-uneven"]
    assert "2 of 2 answers equal" in cases[0].note
    assert "4 of 4 answers equal" in cases[1].note


def test_the_gpu_benchmark_has_its_cases(tiny_qwen2: Path) -> None:
    shape = Qwen2Config(
        num_hidden_layers=1,
        hidden_size=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        vocab_size=512,
        tie_word_embeddings=True,
    )
    sizes = gpu.Sizes(
        trained=TINY, small=shape, large=shape, texts=(1, 2), prompt=4, new_tokens=3, copied_bytes=1 << 12
    )
    names = [
        f"train-{weights}-b{batch}-{peer}"
        for weights in ("bf16", "nf4")
        for batch in (1, 4)
        for peer in ("loop", "one-adapter")
    ]
    assert_figures(gpu.cases(ONCE, sizes, tiny_ref(tiny_qwen2), CPU), [*names, "decode-1", "decode-2"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_the_gpu_benchmark_refuses_without_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        gpu.measure(ONCE)
    assert refused.value.code == 2
    assert "needs a CUDA device" in capsys.readouterr().err


def test_rows_are_of_one_length_and_begin_differently(tiny_llama: Path) -> None:
    tokenizer = load_tokenizer(tiny_ref(tiny_llama))
    trained = jobs(tokenizer, train.recipe(TINY, batch=2), TINY.rows, users=3, examples=2)
    batches = [batch for job in trained for batch in train.batches(tokenizer, job)]
    assert {len(row) for batch in batches for row in batch.ids} == {24}
    assert {sum(label != -100 for label in row) for batch in batches for row in batch.labels} == {8}
    assert train.tokens_of(trained) == 3 * 2 * 24


def test_ours_and_the_loop_train_the_same(tiny_llama: Path) -> None:
    ours, peer = (load_causal(tiny_ref(tiny_llama), CPU) for _ in range(2))
    one = train.recipe(TINY, batch=2)
    trained = jobs(ours.tokenizer, one, TINY.rows, users=2, examples=2)
    fits = dict(Fleet(StackedAdapters(ours, slots=2, rank=one.rank, alpha=one.alpha)).fit(trained))
    losses = [fits[place].stats.last_loss for place in range(2)]
    # One step: a fresh adapter adds nothing, so the first losses are the base's.
    assert train.one_by_one(peer, trained) == pytest.approx(losses, rel=2e-2)
