"""Real encoders: MiniLM from PyPI, and a tiny seeded cross-encoder whose label positions vary."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cdcda_flower.config import RunConfig, read_defaults
from cdcda_flower.errors import ModelError
from cdcda_flower.models.encoders import BertScorer, NliEncoder, SentenceEncoder
from repository import ROOT
from strategies.selection.scorers import make_scorer
from written_models import write_cross_encoder


@pytest.fixture(scope="module")
def minilm() -> SentenceEncoder:
    return SentenceEncoder("embedded", "cpu")


@pytest.fixture(scope="module")
def bert() -> BertScorer:
    return BertScorer("embedded", 5, "cpu")


PREMISES = ["the cat sat down", "a dog ran", "the cat", ""]
HYPOTHESES = ["a cat sat", "the cat sat down the cat sat down", "the cat", "dog"]


def test_entailment_is_read_from_id2label(tmp_path: Path) -> None:
    orders = (
        ["contradiction", "entailment", "neutral"],
        ["ENTAILMENT", "neutral", "contradiction"],
        ["contradiction", "neutral", "Entailment"],
    )
    by_order = []
    for number, labels in enumerate(orders):
        (tmp_path / str(number)).mkdir()
        encoder = NliEncoder(str(write_cross_encoder(tmp_path / str(number), labels)), "cpu")
        by_order.append(torch.tensor(encoder.score(PREMISES, HYPOTHESES)))
    # The weights are the same, so the three positions' probabilities complete each other.
    assert torch.allclose(torch.stack(by_order).sum(dim=0), torch.ones(4), atol=1e-5)
    assert all(((scores >= 0) & (scores <= 1)).all() for scores in by_order)


def test_nli_scores_do_not_depend_on_the_batch_and_have_a_direction(tmp_path: Path) -> None:
    encoder = NliEncoder(str(write_cross_encoder(tmp_path, ["entailment", "not_entailment"])), "cpu")
    together = encoder.score(PREMISES, HYPOTHESES)
    alone = [encoder.score([p], [h])[0] for p, h in zip(PREMISES, HYPOTHESES, strict=True)]
    assert together == pytest.approx(alone, abs=1e-4)
    assert together[0] != pytest.approx(encoder.score([HYPOTHESES[0]], [PREMISES[0]])[0], abs=1e-4)


def test_no_text_ends_the_premise_by_a_mark_of_its_own(tmp_path: Path) -> None:
    encoder = NliEncoder(str(write_cross_encoder(tmp_path, ["entailment", "other"])), "cpu")
    unknown, marked = encoder.score(["the cat", "the cat"], ["a xx dog", "a </s> dog"])
    assert encoder.score(["the cat"], ["a xx xx xx dog"]) != [unknown]
    # The mark is three unknown words to this model, `</`, `s` and `>`, and no end of a sentence.
    assert marked == pytest.approx(encoder.score(["the cat"], ["a xx xx xx dog"])[0], abs=1e-5)


def test_long_pairs_are_cut_to_the_positions_of_the_model(tmp_path: Path) -> None:
    encoder = NliEncoder(str(write_cross_encoder(tmp_path, ["entailment", "other"])), "cpu")
    [score] = encoder.score(["the cat " * 200], ["a dog " * 200])
    assert 0 <= score <= 1


def test_a_model_without_entailment_is_refused_with_its_labels(tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path, ["negative", "positive"])
    with pytest.raises(ModelError, match='negative, positive; an NLI model needs exactly one label "entailment"'):
        NliEncoder(str(folder), "cpu")


def test_sentence_encoder_orders_pairs_and_stays_in_range(minilm: SentenceEncoder) -> None:
    first = ["a cat sat on the mat"] * 3
    scores = minilm.score(first, [first[0], "the cat is sitting on a rug", "the central bank raised its rates"])
    assert scores[0] == pytest.approx(1.0)
    assert 1 > scores[1] > 0.6 > 0.3 > scores[2] >= 0
    assert minilm.score(["x"], [""])[0] == pytest.approx(minilm.score([""], ["x"])[0]), "a cosine has no direction"
    assert minilm.score([], []) == []


def test_marks_in_a_text_are_plain_text_to_the_sentence_encoder(minilm: SentenceEncoder) -> None:
    marked = "a cat [SEP] a dog [CLS] [MASK] [PAD]"
    # To this model a bracket is a word of its own, and `cls` is `cl` and `##s`; the cases do not count.
    plain = "a cat [ sep ] a dog [ cls ] [ mask ] [ pad ]"
    assert minilm.score([marked], [plain])[0] == pytest.approx(1.0, abs=1e-5)
    assert minilm.score([marked], ["a cat a dog"])[0] < 0.99


def test_a_text_without_marks_keeps_its_embedding(minilm: SentenceEncoder) -> None:
    from sentence_transformers import SentenceTransformer

    from cdcda_flower.models.sources import locate

    texts = ["a cat sat", "[x] <y> [SEP x] 旧火车站 😀", "long " * 400, "", "naïve\ttext\n"]
    as_it_is = SentenceTransformer(str(locate("embedded", "sentence")), device="cpu", local_files_only=True)
    options: dict[str, Any] = {"show_progress_bar": False, "convert_to_tensor": True, "normalize_embeddings": True}
    assert torch.equal(minilm._model.encode(texts, **options), as_it_is.encode(texts, **options))


def test_bert_score_orders_pairs(bert: BertScorer) -> None:
    reference = "a cat sat on the mat"
    same, near, far, empty = bert.score([reference, "the cat sat on a rug", "rates rise", " "], [reference] * 4)
    assert same == pytest.approx(1.0, abs=1e-4)
    assert same > near > far > 0
    assert empty == 0.0
    assert bert.score([], []) == []
    assert bert.name == "bert-f1 embedded, layer 5"


def test_bert_score_reads_long_texts(bert: BertScorer) -> None:
    assert 0 < bert.score(["word " * 2000], ["word"])[0] <= 1


def test_a_model_that_cannot_be_loaded_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match="bertscore-layer is 9"):
        BertScorer("embedded", 9, "cpu")
    with pytest.raises(ModelError, match="does not exist"):
        SentenceEncoder(str(tmp_path / "absent"), "cpu")
    with pytest.raises(ModelError, match="NLI model"):
        NliEncoder(str(tmp_path), "cpu")


def test_pairs_of_unequal_number_are_refused(minilm: SentenceEncoder) -> None:
    with pytest.raises(ValueError, match="got 1 and 2"):
        minilm.score(["a"], ["a", "b"])


def test_make_scorer_builds_what_the_config_names(tmp_path: Path) -> None:
    defaults = read_defaults(ROOT / "pyproject.toml") | {"device": "cpu"}
    nli = {"consistency-scorer": "nli", "consistency-model": str(write_cross_encoder(tmp_path, ["Entailment", "x"]))}
    for keys, kind in ((nli, NliEncoder), ({}, SentenceEncoder)):
        with make_scorer(RunConfig.from_flwr(defaults | keys)) as scorer:
            assert type(scorer) is kind
            assert 0 <= scorer.score(["the cat"], ["a cat"])[0] <= 1
