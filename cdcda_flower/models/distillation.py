"""Reverse KL distillation: what a teacher says about shared answers, and a student's distance from it.

At each position of an answer let p be the student's distribution and q the teacher's, S the teacher's k likeliest
tokens, p_o and q_o what p and q give to all other tokens together:

    RKL  = sum over v in S of p(v) log(p(v) / q(v))  +  p_o log(p_o / q_o)
    loss = (1 - w) CE + w RKL

With k = the whole vocabulary RKL is KL(p || q). With less it is a lower bound of it: the KL of both after all tokens
outside S were made one. The temperature is 1. Rows of the output matrix beyond the tokenizer's last token (padding)
count in neither p nor q; CE is taken over all rows, as without a teacher.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AutoConfig

from cdcda_flower.errors import DataError, ModelError
from cdcda_flower.models.loading import LoadedModel, load_tokenizer
from cdcda_flower.models.tokens import Teaching, TokenizedExample, answer_logits, collate, packed
from cdcda_flower.teacher_targets import TeacherTargets
from cdcda_flower.types import ModelRef

# Where every token is an answer's (LaMP-7), a pass of so many makes 1.2 GB of logits with Qwen2.5's 152 000 words.
_PASS_TOKENS = 2048


class Vocabulary(NamedTuple):
    """A model's tokenizer and the number of rows of its output matrix, which may exceed that of its tokens."""

    name: str
    tokenizer: Any
    rows: int


def vocabulary_of(ref: ModelRef) -> Vocabulary:
    """Returns a model's vocabulary; its weights stay on disk."""
    config = AutoConfig.from_pretrained(ref.path).get_text_config()
    return Vocabulary(ref.name, load_tokenizer(ref), config.vocab_size)


def vocabulary_size(tokenizer: Any) -> int:
    """Returns how many first rows of the output matrix stand for tokens."""
    return 1 + max(_tokens(tokenizer).values())


def _tokens(tokenizer: Any) -> dict[str, int]:
    # llama.cpp's converter names the padding rows too: a GGUF file of Qwen2.5 has the tokens [PAD151665] to [PAD151935].
    return {token: number for token, number in tokenizer.get_vocab().items() if token != f"[PAD{number}]"}


def check_common_vocabulary(teacher: Vocabulary, student: Vocabulary) -> int:
    """Returns the size of the vocabulary that both share; raises ModelError where they do not.

    Every token must have the same id, and an answer must end in the same one; padding may differ.
    """
    tokens, own = _tokens(teacher.tokenizer), _tokens(student.tokenizer)
    size = vocabulary_size(student.tokenizer)
    if tokens != own:
        differing = len(tokens.items() ^ own.items())
        reason = f"{len(tokens)} and {len(own)} tokens, {differing} of them in one only or with another id"
    elif teacher.tokenizer.eos_token_id != student.tokenizer.eos_token_id:
        reason = f"their texts end in {teacher.tokenizer.eos_token!r} and {student.tokenizer.eos_token!r}"
    elif min(teacher.rows, student.rows) < size:
        reason = f"output matrices of {teacher.rows} and {student.rows} rows for {size} tokens"
    else:
        return size
    raise ModelError(
        f"teacher {teacher.name} and student {student.name} have no common vocabulary: {reason}; rkd-ft needs a "
        "cloud-model and a device-model of one family, such as Qwen2.5-3B-Instruct and Qwen2.5-0.5B-Instruct"
    )


@torch.inference_mode()
def teacher_targets(
    teacher: LoadedModel,
    rows: Mapping[str, TokenizedExample],
    *,
    top_k: int,
    vocabulary: int,
    batch_tokens: int,
    on_batch: Callable[[Mapping[str, TeacherTargets], int], None],
) -> None:
    """Has the teacher say what it holds likeliest at each position of each row's answer, among the first `vocabulary` tokens.

    The rows are the device's own: its form, cut and ids. `on_batch(key -> targets, tokens)` gets each batch.
    """
    by_length = sorted(rows, key=lambda key: len(rows[key].ids))
    budget = min(batch_tokens, _PASS_TOKENS)
    for keys in packed(by_length, budget=budget, room=lambda key: len(rows[key].ids)):
        batch = collate([rows[key] for key in keys], pad=teacher.tokenizer.pad_token_id, device=teacher.device)
        found = {
            key: likeliest(logits[-rows[key].answer :, :vocabulary], top_k)
            for key, logits in zip(keys, answer_logits(teacher.model, batch), strict=True)
        }
        on_batch(found, batch.tokens)


def likeliest(logits: torch.Tensor, top_k: int) -> TeacherTargets:
    """Returns the targets of a teacher's logits (positions, vocabulary); at most the whole vocabulary."""
    log_q = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(-1)
    top_k = min(top_k, log_q.shape[1])
    best = log_q.topk(top_k)
    others = log_q.scatter(-1, best.indices, -torch.inf).logsumexp(-1, keepdim=True)
    # -inf says that there is nothing, not that there is less than float16 can say.
    least = torch.finfo(torch.float16).min
    log_probs = [best.values.clamp(min=least), others if top_k == log_q.shape[1] else others.clamp(min=least)]
    return TeacherTargets.of_bytes(
        best.indices.cpu().numpy().astype("<i4").tobytes(),
        torch.cat(log_probs, -1).cpu().numpy().astype("<f2").tobytes(),
        top_k=top_k,
    )


def taught(
    row: TokenizedExample, targets: TeacherTargets | None, *, weight: float, vocabulary: int
) -> TokenizedExample:
    """Returns the row with what the teacher says about its answer; raises DataError where that is another's answer."""
    if targets is None:
        return row
    if targets.positions != row.answer:
        raise DataError(
            f"a teacher's targets are for {targets.positions} positions of an answer that has {row.answer} here; "
            "teacher and student must read it with one tokenizer and one max-tokens"
        )
    ids = np.frombuffer(targets.id_bytes, "<i4").reshape(row.answer, targets.top_k)
    log_probs = np.frombuffer(targets.log_prob_bytes, "<f2").reshape(row.answer, targets.top_k + 1)
    # The other tokens together have no probability where there are none.
    finite = log_probs[:, :-1] if targets.top_k == vocabulary else log_probs
    if ids.min() < 0 or ids.max() >= vocabulary or not np.isfinite(finite).all():
        raise DataError(
            f"a teacher's targets name tokens outside the student's vocabulary of {vocabulary}, or no probability; "
            "rkd-ft needs a cloud-model and a device-model of one family"
        )
    return row._replace(
        teaching=Teaching(
            torch.from_numpy(ids.astype(np.int64)),
            torch.from_numpy(log_probs.astype(np.float32)),
            torch.full((row.answer,), weight, dtype=torch.float64),
        )
    )


def mixed(
    losses: torch.Tensor, logits: torch.Tensor, teachings: Iterable[tuple[torch.Tensor, Teaching]]
) -> torch.Tensor:
    """Returns the losses (P,), those at taught places mixed with the reverse KL of `logits` (P, vocabulary) there."""
    for places, teaching in teachings:
        apart = reverse_kl(logits[places], teaching.ids, teaching.log_probs) - losses[places]
        losses = losses.index_add(0, places, teaching.weights.to(losses.dtype) * apart)
    return losses


def reverse_kl(student_logits: torch.Tensor, ids: torch.Tensor, log_probs: torch.Tensor) -> torch.Tensor:
    """Returns KL(student || teacher) (P,) over the teacher's `ids` (P, k) and all other tokens as one; see the module.

    `student_logits` is (P, vocabulary), `log_probs` (P, k + 1), the last column of all other tokens together.
    """
    log_p, log_q = student_logits.log_softmax(-1), log_probs.to(student_logits.dtype)
    inside = log_p.gather(-1, ids)
    distance = (inside.exp() * (inside - log_q[:, :-1])).sum(-1)
    if ids.shape[1] < log_p.shape[1]:
        outside = log_p.scatter(-1, ids, -torch.inf).logsumexp(-1)
        distance = distance + outside.exp() * (outside - log_q[:, -1])
    return distance
