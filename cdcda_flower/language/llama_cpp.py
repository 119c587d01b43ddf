"""The cloud's model through llama.cpp: GGUF weights as they are, many samples side by side, on all cores.

llama.cpp batches what its slots have to do at any moment, so which samples share a product depends on timing: two runs
agree up to rounding, and a sample may then differ now and then. `language.generation` gives the same bits each time.
"""

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from cdcda_flower.errors import ModelError
from cdcda_flower.language.generation import OnAnswer, Sampling, rendered
from cdcda_flower.seeding import derive_seed

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
        except (OSError, ValueError, KeyError) as error:
            raise ModelError(f"{gguf} cannot be read as a GGUF model: {error}") from error
        self._server: Any = None

    def close(self) -> None:
        """Ends the server and drops the weights; the object cannot be used afterwards."""
        self._server = None

    def generate(self, requests: Sequence[Sampling], *, on_answer: OnAnswer) -> None:
        """Writes `samples` texts per request, without the prefix or an end newline."""
        # llama.cpp begins every prompt with the model's first token by itself.
        begin = self._tokenizer.bos_token or ""
        prompts = [rendered(self._tokenizer, request).removeprefix(begin) for request in requests]
        slots = self._started(prompts, requests)
        parts = [
            (number, first, min(slots, request.samples - first))
            for number, request in enumerate(requests)
            for first in range(0, request.samples, slots)
        ]
        texts: list[dict[int, tuple[str, ...]]] = [{} for _ in requests]
        alone = threading.Lock()

        def write(number: int, first: int, count: int) -> None:
            written = self._samples(prompts[number], requests[number], first, count)
            # From the worker: a request that ends after another one failed is handed over too.
            with alone:
                texts[number][first] = written
                if sum(map(len, texts[number].values())) == requests[number].samples:
                    whole = tuple(text for _, part in sorted(texts[number].items()) for text in part)
                    on_answer(number, whole, sum(len(self._tokens(text)) for text in whole))

        with ThreadPoolExecutor(slots) as pool:
            try:
                for done in as_completed([pool.submit(write, *part) for part in parts]):
                    done.result()
            finally:
                # After an error nobody wants the samples that have not begun.
                pool.shutdown(cancel_futures=True)

    def _started(self, prompts: Sequence[str], requests: Sequence[Sampling]) -> int:
        """Starts the server with as many slots as the budget has room for, and returns their number."""
        xllamacpp = _library()
        sizes = zip(prompts, requests, strict=True)
        room = max((len(self._tokens(prompt)) + self._room(request) for prompt, request in sizes), default=1)
        slots = max(1, min(self._batch_tokens // room, _MOST_SLOTS))
        params = xllamacpp.CommonParams()
        params.model.path = str(self._gguf)
        params.n_parallel, params.n_ctx, params.cont_batching = slots, slots * room, True
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
        params.verbosity = -1
        self._server = xllamacpp.Server(params)
        return slots

    def _samples(self, prompt: str, request: Sampling, first: int, count: int) -> tuple[str, ...]:
        """Returns some samples of one request, which share the prompt's prefill."""
        answer = self._server.handle_completions(
            {
                "prompt": prompt,
                "n": count,
                "temperature": 0.0 if request.greedy else self._temperature,
                # Multinomial over the whole vocabulary: llama.cpp cuts it three ways by default.
                "top_k": 1 if request.greedy else 0,
                "top_p": 1.0,
                "min_p": 0.0,
                "n_predict": self._room(request),
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
        return tuple(str(choice["text"]).rstrip("\n") for choice in ordered)

    def _tokens(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _room(self, request: Sampling) -> int:
        """The most tokens that a request may write: its free text, then what is forced and chosen."""
        forced = len(self._tokens(f"\n{request.then}")) if request.then else 0
        return (
            request.max_new_tokens + forced + max((len(self._tokens(f" {c}")) for c in request.choices), default=0) + 1
        )


def grammar(request: Sampling) -> str:
    """Returns what may be written, in llama.cpp's notation: "" for anything.

    With a prefix an answer is one line; `then` begins a second one, and the last part is one of the choices.
    """
    if not request.prefix:
        return ""
    line = "[^\\n]+"
    choices = " | ".join(json.dumps(f" {choice}", ensure_ascii=False) for choice in dict.fromkeys(request.choices))
    last = f"({choices})" if choices else line
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
