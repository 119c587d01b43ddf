"""The cloud's generation: tokens per second of k samples per shared review, against one sample at a time and llama.cpp.

llama.cpp reads the 4-bit file as it is; ours computes in 16 or 32 bits, as the models on the devices do.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.cases import Case, Settings, command, medians
from benchmarks.sample_requests import requests, run_config
from cdcda_flower.models.decoding import stops_of
from cdcda_flower.models.generation import CausalGenerator
from cdcda_flower.models.llama_cpp import LlamaCppGenerator
from cdcda_flower.models.loading import load_causal, pick_device, resolve_causal
from cdcda_flower.models.sources import EMBEDDED_CAUSAL, embedded_path
from cdcda_flower.plugins import GenerationRequest
from cdcda_flower.runs.locations import cache_folder

K, PROMPTS = 5, 200
OURS_SAMPLE, ONE_BY_ONE_SAMPLE, LLAMA_SAMPLE = 20, 3, 4
SLOTS, SLOT_TOKENS = 8, 1024
TEMPERATURE = 0.7
LARGE = "qwen-coder-1.5b/*.gguf"
MODELS_VARIABLE = "CDCDA_MODELS"

Requests = Sequence[GenerationRequest]
Write = Callable[[Requests], int]


class Work(NamedTuple):
    """Two ways to write the same requests (the peer a part of them), each returning the tokens that it wrote."""

    case: str
    ours: tuple[Write, Requests]
    peer: tuple[Write, Requests]
    note: str


def measure(settings: Settings) -> list[Case]:
    """Returns written tokens per second of every case that this machine has the model for."""
    small = embedded_path(EMBEDDED_CAUSAL)
    cases = [_one_by_one(settings)]
    large = sorted(Path(os.environ.get(MODELS_VARIABLE, "~/.cache/cdcda-models")).expanduser().glob(LARGE))
    if large:
        # Its size makes a repeat take minutes.
        once = settings._replace(repeats=settings.repeats if settings.full else 1)
        cases.append(_llama_cpp("llama-cpp", _Engine(large[0]), large[0], once))
        if settings.full:
            cases.append(_llama_cpp("llama-cpp-transformers", _Ours(str(large[0])), large[0], once))
    else:
        print(f"llama-cpp is left out: no {LARGE} in ${MODELS_VARIABLE} or ~/.cache/cdcda-models", file=sys.stderr)
    cases.append(_llama_cpp("llama-cpp-smollm2", _Engine(small), small, settings))
    if settings.full:
        cases.append(_llama_cpp("llama-cpp-smollm2-transformers", _Ours("embedded"), small, settings))
    return cases


def _one_by_one(settings: Settings) -> Case:
    """The guided form, as the small model is asked, against `model.generate` with one prompt and one sample per call."""
    asked = _asked(PROMPTS if settings.full else OURS_SAMPLE, "guided")
    part = asked if settings.full else asked[:ONE_BY_ONE_SAMPLE]
    ours = _Ours("embedded")
    peer = _OneByOne("embedded")
    note = f"SmolLM2, {len(asked)} prompts x {K}, guided; peer on {len(part)}, up to the newline (ours writes the rating too)"
    return _case(Work("one-by-one", (ours.write, asked), (peer.write, part), note), settings.repeats)


def _llama_cpp(case: str, ours: "_Ours | _Engine", gguf: Path, settings: Settings) -> Case:
    """The paper's form, whole answers, against llama.cpp with parallel slots and continuous batching on all cores."""
    asked = _asked(PROMPTS if settings.full else LLAMA_SAMPLE, "paper")
    peer = _LlamaCpp(gguf)
    note = f"{gguf.stem}, {len(asked)} prompts x {K}, paper's form; ours: {ours.name}; peer: {SLOTS} slots, a call per sample"
    return _case(Work(case, (ours.write, asked), (peer.write, asked), note), settings.repeats)


def _case(work: Work, repeats: int) -> Case:
    """Tokens are counted in every repeat: the peers' samples differ from one to the next."""
    written: dict[str, list[int]] = {"ours": [], "peer": []}

    def ours() -> None:
        written["ours"].append(work.ours[0](work.ours[1]))

    def peer() -> None:
        written["peer"].append(work.peer[0](work.peer[1]))

    times = medians([ours, peer], repeats=repeats, label=work.case)
    our_rate, peer_rate = (sum(written[who]) / repeats / time for who, time in zip(written, times, strict=True))
    return Case(work.case, our_rate, peer_rate, "written tokens/s", work.note)


def _asked(prompts: int, form: str) -> list[GenerationRequest]:
    with tempfile.TemporaryDirectory() as folder:
        return requests(Path(folder), prompts, k=K, prompt_form=form)


class _Ours:
    """The cloud's default engine, with the run's default budget of tokens in flight."""

    name = "cloud-engine transformers"

    def __init__(self, model: str) -> None:
        config = run_config()
        ref = resolve_causal(model, cache_folder(config))
        self._model = CausalGenerator(
            ref, pick_device("auto"), temperature=TEMPERATURE, batch_tokens=config.cloud_batch_tokens
        )

    def write(self, asked: Requests) -> int:
        """Returns the tokens written."""
        tokens: list[int] = []
        self._model.generate(asked, on_answer=lambda index, texts, written: tokens.append(written))
        return sum(tokens)


class _Engine:
    """The cloud's engine llama-cpp, with the same budget."""

    name = "cloud-engine llama-cpp"

    def __init__(self, gguf: Path) -> None:
        self._model = LlamaCppGenerator(gguf, temperature=TEMPERATURE, batch_tokens=run_config().cloud_batch_tokens)

    def write(self, asked: Requests) -> int:
        """Returns the tokens written."""
        tokens: list[int] = []
        self._model.generate(asked, on_answer=lambda index, texts, written: tokens.append(written))
        return sum(tokens)


class _OneByOne:
    """transformers' own `generate`: one prompt and one sample per call, drawn from the whole vocabulary as ours."""

    def __init__(self, model: str) -> None:
        self._loaded = load_causal(resolve_causal(model, cache_folder(run_config())), pick_device("auto"))
        stops = stops_of(self._loaded.tokenizer, self._loaded.model)
        self._ends = sorted({*stops.eos, *stops.newline})

    def write(self, asked: Requests) -> int:
        """Returns the tokens written."""
        return sum(self._sample(request) for request in asked for _ in range(request.samples))

    def _sample(self, request: GenerationRequest) -> int:
        turn = [{"role": "user", "content": request.prompt}]
        text = self._loaded.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        prompt = self._loaded.tokenizer(text + request.prefix, add_special_tokens=False, return_tensors="pt")
        written = self._loaded.model.generate(
            **prompt.to(self._loaded.device),
            do_sample=True,
            temperature=TEMPERATURE,
            top_k=0,
            num_return_sequences=1,
            max_new_tokens=request.max_new_tokens,
            eos_token_id=self._ends,
            pad_token_id=self._ends[0],
        )
        return int(written.shape[1] - prompt["input_ids"].shape[1])


class _LlamaCpp:
    """llama.cpp's server: parallel slots, continuous batching, all cores."""

    def __init__(self, gguf: Path) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(gguf)
        params.n_parallel, params.n_ctx, params.cont_batching = SLOTS, SLOTS * SLOT_TOKENS, True
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = torch.get_num_threads()
        params.verbosity = -1
        self._server: Any = xllamacpp.Server(params)

    def write(self, asked: Requests) -> int:
        """Returns the tokens written."""
        samples = [(request, sample) for request in asked for sample in range(request.samples)]
        with ThreadPoolExecutor(SLOTS) as pool:
            return sum(pool.map(self._sample, samples))

    def _sample(self, asked: tuple[GenerationRequest, int]) -> int:
        request, sample = asked
        answer = self._server.handle_chat_completions(
            {
                "messages": [{"role": "user", "content": request.prompt}],
                "temperature": TEMPERATURE,
                "top_k": 0,
                "top_p": 1.0,
                "min_p": 0.0,
                "max_tokens": request.max_new_tokens,
                "seed": request.seed % 2**31 + sample,
            }
        )
        return int(answer["usage"]["completion_tokens"])


if __name__ == "__main__":
    command("Cloud generation", measure)
