"""The cloud's model through llama.cpp: GGUF weights as they are, many samples side by side, on all cores.

llama.cpp batches what its slots have to do at any moment, so which samples share a product depends on timing: two runs
agree up to rounding, and a sample may then differ now and then. `language.generation` gives the same bits each time.
"""

import json
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer

from cdcda_flower.errors import ModelError
from cdcda_flower.models.generation import OnAnswer, Sampling, request_ids, window_of
from cdcda_flower.seeding import derive_seed
from cdcda_flower.types import Sample
from cdcda_flower.words import limit_or_loop

# llama.cpp's seeds have 32 bits, and its largest means "any".
_LARGEST_SEED = 2**31 - 1
# Beyond so many a CPU is no faster, and llama.cpp refuses more than 256.
_MOST_SLOTS = 32


class LlamaCppGenerator:
    """A GGUF model that samples at one temperature; the server behind it starts with the first requests."""

    def __init__(self, gguf: Path, *, temperature: float, batch_tokens: int) -> None:
        self._gguf, self._temperature, self._batch_tokens = gguf, temperature, batch_tokens
        _library()
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
            self._window = window_of(AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name))
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{gguf} cannot be read as a GGUF model: {error}") from error
        self._server: Any = None

    def close(self) -> None:
        """Ends the server and drops the weights; the object cannot be used afterwards."""
        self._server = None

    def generate(self, requests: Sequence[Sampling], *, on_answer: OnAnswer) -> None:
        """Writes `samples` texts per request, without the prefix or an end newline."""
        # As token ids: to a text llama.cpp adds the model's first token or not, as the file says.
        prompts = [request_ids(self._tokenizer, request) for request in requests]
        slots = self._started(prompts, requests)
        parts = [
            (number, first, min(slots, request.samples - first))
            for number, request in enumerate(requests)
            for first in range(0, request.samples, slots)
        ]
        found: list[dict[int, tuple[Sample, ...]]] = [{} for _ in requests]
        alone = threading.Lock()

        def write(number: int, first: int, count: int) -> None:
            written = self._samples(prompts[number], requests[number], first, count)
            # From the worker: a request that ends after another one failed is handed over too.
            with alone:
                found[number][first] = written
                if sum(map(len, found[number].values())) == requests[number].samples:
                    whole = tuple(sample for _, part in sorted(found[number].items()) for sample in part)
                    on_answer(number, whole, sum(len(self._tokens(sample.text)) for sample in whole))

        with ThreadPoolExecutor(slots) as pool:
            try:
                for done in as_completed([pool.submit(write, *part) for part in parts]):
                    done.result()
            finally:
                # After an error nobody wants the samples that have not begun.
                pool.shutdown(cancel_futures=True)

    def _started(self, prompts: Sequence[list[int]], requests: Sequence[Sampling]) -> int:
        """Starts the server with as many slots as the budget has room for, and returns their number."""
        xllamacpp = _library()
        sizes = zip(prompts, requests, strict=True)
        room = max((len(prompt) + self._room(prompt, request) for prompt, request in sizes), default=1)
        slots = max(1, min(self._batch_tokens // room, _MOST_SLOTS))
        params = xllamacpp.CommonParams()
        params.model.path = str(self._gguf)
        params.n_parallel, params.n_ctx, params.cont_batching = slots, slots * room, True
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
        params.verbosity = -1
        self._server = xllamacpp.Server(params)
        return slots

    def _samples(self, prompt: list[int], request: Sampling, first: int, count: int) -> tuple[Sample, ...]:
        """Returns some samples of one request, which share the prompt's prefill."""
        room = self._room(prompt, request)
        if not room:
            return (Sample(text="", cut="limit"),) * count
        answer = self._server.handle_completions(
            {
                "prompt": prompt,
                "n": count,
                "temperature": 0.0 if request.greedy else self._temperature,
                # Multinomial over the whole vocabulary: llama.cpp cuts it three ways by default.
                "top_k": 1 if request.greedy else 0,
                "top_p": 1.0,
                "min_p": 0.0,
                "n_predict": room,
                "seed": derive_seed(request.seed, "sample", str(first)) % _LARGEST_SEED,
                "grammar": grammar(request),
            }
        )
        if "choices" not in answer:
            raise ModelError(
                f"llama.cpp refuses a request for {self._gguf.name} (code {answer.get('code')}); "
                "raise cloud-batch-tokens, or take another cloud-engine"
            )
        ordered = sorted(answer["choices"], key=lambda choice: choice["index"])
        return tuple(self._sample(choice, request) for choice in ordered)

    def _sample(self, choice: Mapping[str, Any], request: Sampling) -> Sample:
        """Returns a written text; a grammar bounds no part by itself, so one that took more than its share is cut too."""
        written = str(choice["text"])
        text = written.rstrip("\n")
        free = text.split(f"\n{request.then}", 1) if request.then else [text]
        longest = max(len(self._tokens(part)) for part in free[: request.free_texts]) if request.free_texts else 0
        # The token that ends a text counts.
        is_cut = choice["finish_reason"] == "length" or longest >= request.max_new_tokens
        return Sample(text=text, cut=limit_or_loop(written) if is_cut else "")

    def _tokens(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _room(self, prompt: list[int], request: Sampling) -> int:
        """The most tokens that a request may write: its free texts, what is forced and chosen, and what ends all."""
        # A grammar lets the model spell what is forced in any tokens, at most one a byte.
        forced = len(f"\n{request.then}".encode()) if request.then else 0
        chosen = max((len(f" {choice}".encode()) for choice in request.choices), default=0)
        most = request.max_new_tokens * request.free_texts + forced + chosen + 1
        return max(min(most, self._window - len(prompt)), 0)


def grammar(request: Sampling) -> str:
    """Returns what may be written, in llama.cpp's notation: "" for anything.

    With a prefix an answer is one line; `then` begins a second one, and the last part is one of the choices. A line
    that the model writes freely ends as the model likes: with a newline too.
    """
    if not request.prefix:
        return ""
    line = "[^\\n]+"
    choices = " | ".join(json.dumps(f" {choice}", ensure_ascii=False) for choice in dict.fromkeys(request.choices))
    last = f"({choices})" if choices else f'{line} "\\n"?'
    first = f"{line} {json.dumps(chr(10) + request.then, ensure_ascii=False)} " if request.then else ""
    return f"root ::= {first}{last}\n"


def _library() -> Any:
    try:
        import xllamacpp
    except ImportError:
        raise ModelError(
            'cloud-engine is "llama-cpp", which needs the package xllamacpp; run `pip install xllamacpp`, '
            'or take cloud-engine = "transformers"'
        ) from None
    return xllamacpp
