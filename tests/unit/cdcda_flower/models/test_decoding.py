"""The decode loop: transformers' own greedy search token for token, and what ends, forces and restricts a text."""

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cdcda_flower.models import decoding
from cdcda_flower.models.decoding import Row, Stop, decode, next_tokens, stops_of
from cdcda_flower.models.device_model import answer
from cdcda_flower.models.loading import LoadedModel
from cdcda_flower.models.lora import StackedAdapters
from tiny_models import SENTENCES, load_tiny

CPU = torch.device("cpu")
WORDS, EOS, NEWLINE, DOT_NEWLINE = 12, 0, 1, 2
STOP = Stop(eos=frozenset({EOS}), newline={NEWLINE: "", DOT_NEWLINE: "."})
NEVER = Stop(eos=frozenset(), newline={})


@pytest.fixture(scope="module", params=["tiny_llama", "tiny_qwen2"])
def model(request: pytest.FixtureRequest) -> LoadedModel:
    folder: Path = request.getfixturevalue(request.param)
    return load_tiny(folder)


def prompts_of(model: LoadedModel) -> list[list[int]]:
    texts = [*SENTENCES, "A", "A lonely sailor", SENTENCES[0]]
    return [list(model.tokenizer(text)["input_ids"]) for text in texts]


def greedy(model: LoadedModel, prompt: list[int], *, limit: int, eos: int | None = None) -> list[int]:
    """Returns what transformers writes after a prompt alone, end-of-text excluded."""
    ids = torch.tensor([prompt])
    written = model.model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=limit, eos_token_id=eos or -1
    )
    return [token for token in written[0, len(prompt) :].tolist() if token != eos]


def fed(row: Row, best: list[int]) -> list[int]:
    """Lets a row read scores that favour `best`, in turn, until it is done; returns the tokens it feeds the model."""
    tokens = []
    for word in best:
        tokens += next_tokens([row], torch.nn.functional.one_hot(torch.tensor([word]), WORDS).float(), STOP)
        if row.done:
            break
    return tokens


def test_greedy_equals_transformers_generate(model: LoadedModel) -> None:
    prompts = prompts_of(model)
    limits = [3 + 4 * index for index in range(len(prompts))]
    rows = [Row(prompt=prompt, limit=limit, lines=0) for prompt, limit in zip(prompts, limits, strict=True)]
    assert decode(model.model, rows, NEVER, device=CPU) == sum(limits)
    assert [row.written for row in rows] == [
        greedy(model, prompt, limit=limit) for prompt, limit in zip(prompts, limits, strict=True)
    ]


def test_end_of_text_ends_a_row_and_not_its_neighbours(model: LoadedModel) -> None:
    prompts = prompts_of(model)
    # A token that an untrained model writes on its own account stands in for end-of-text.
    eos = greedy(model, prompts[0], limit=6)[5]
    rows = [Row(prompt=prompt, limit=20, lines=0) for prompt in prompts]
    decode(model.model, rows, Stop(eos=frozenset({eos}), newline={}), device=CPU)
    assert [row.written for row in rows] == [greedy(model, prompt, limit=20, eos=eos) for prompt in prompts]
    assert len(rows[0].written) <= 5 < max(len(row.written) for row in rows)


def test_a_sampled_text_is_the_same_alone_and_in_a_batch(model: LoadedModel) -> None:
    prompts = prompts_of(model)

    def row(index: int) -> Row:
        return Row(prompt=prompts[index], limit=5 + index, lines=0, temperature=0.7, rng=random.Random(index))

    together = [row(index) for index in range(len(prompts))]
    decode(model.model, together, NEVER, device=CPU)
    for index, found in enumerate(together):
        alone = row(index)
        decode(model.model, [alone], NEVER, device=CPU)
        assert found.written == alone.written
    assert together[0].written != together[-1].written[:5], "same prompt, other seed"


def test_answers_are_lines_without_the_prompt(model: LoadedModel) -> None:
    queries = [(0, "Which tag fits?"), (0, "word " * 300), (0, "")]
    stop = stops_of(model.tokenizer, model.model)
    adapters = StackedAdapters(load_tiny(Path(model.model.name_or_path)), slots=1, rank=4, alpha=8)

    def answers(queries: list[tuple[int, str]]) -> list[str]:
        return answer(adapters, queries, stop=stop, max_new_tokens=8, max_tokens=64)

    together = answers(queries)
    assert together == [answers([query])[0] for query in queries]
    assert all("\n" not in text and text == text.strip() for text in together)
    assert answers([]) == []


def test_stops_know_newlines_inside_tokens(tiny_qwen2: Path, tiny_llama: Path) -> None:
    qwen, llama = load_tiny(tiny_qwen2), load_tiny(tiny_llama)
    assert set(stops_of(qwen.tokenizer, qwen.model).newline.values()) >= {"", "."}
    assert set(stops_of(llama.tokenizer, llama.model).newline.values()) == {""}
    assert stops_of(qwen.tokenizer, qwen.model).eos == {qwen.tokenizer.eos_token_id}


@pytest.mark.parametrize("end", [NEWLINE, EOS])
def test_then_replaces_the_first_newline_and_end_of_text(end: int) -> None:
    row = Row(prompt=[9], limit=10, lines=2, then=[NEWLINE, 7, 8])
    tokens = fed(row, [5, end, 3, 3, 4, EOS])
    assert row.written == tokens[:-1] == [5, NEWLINE, 7, 8, 4]
    assert row.done


def test_then_follows_a_token_that_holds_more_than_the_newline() -> None:
    row = Row(prompt=[9], limit=10, lines=2, then=[7, 8])
    fed(row, [5, DOT_NEWLINE, 3, 3, 4, NEWLINE])
    assert row.written == [5, DOT_NEWLINE, 7, 8, 4, NEWLINE]


def test_a_line_ends_at_its_newline_and_a_text_without_lines_does_not() -> None:
    line, text = Row(prompt=[9], limit=10, lines=1), Row(prompt=[9], limit=10, lines=0)
    assert fed(line, [5, NEWLINE, 6]) == [5, NEWLINE]
    assert fed(text, [5, NEWLINE, 6, EOS, 7]) == [5, NEWLINE, 6, EOS]
    assert text.written == [5, NEWLINE, 6]


def test_x_and_y_have_a_limit_each_and_what_then_forces_comes_on_top() -> None:
    x = Row(prompt=[9], limit=3, lines=2, then=[7, 8])
    fed(x, [5] * 9)
    assert (x.written, x.cut) == ([5, 5, 5], "limit")
    y = Row(prompt=[9], limit=4, lines=2, then=[7, 8])
    assert y.room == 1 + 4 + 2 + 4
    fed(y, [5, NEWLINE, 3, *[5] * 9])
    assert (y.written, y.cut) == ([5, 7, 8, 5, 5, 5, 5], "limit")


@given(
    tokens=st.lists(st.sampled_from([EOS, NEWLINE, DOT_NEWLINE, 5, 6]), min_size=20, max_size=20),
    limit=st.integers(1, 6),
    lines=st.sampled_from([0, 1, 2]),
)
def test_a_text_is_cut_exactly_where_its_limit_comes_before_its_end(tokens: list[int], limit: int, lines: int) -> None:
    row = Row(prompt=[9], limit=limit, lines=lines, then=[7, 8] if lines == 2 else [])
    fed(row, tokens)
    assert row.done
    ends, left = ({EOS, NEWLINE, DOT_NEWLINE} if lines else {EOS}), tokens
    for _ in range(max(lines, 1)):
        end = next((place for place, token in enumerate(left[:limit]) if token in ends), None)
        if end is None:
            assert row.cut
            return
        # The first of the two forced tokens takes the place of an end that holds no text.
        left = left[end + (3 if left[end] == DOT_NEWLINE else 2) :]
    assert not row.cut


@pytest.mark.parametrize("ends_loops", [True, False])
def test_a_text_that_repeats_itself_is_cut_where_that_is_asked(ends_loops: bool) -> None:
    row = Row(prompt=[9], limit=200, lines=1, ends_loops=ends_loops)
    fed(row, [3, 3, *([4, 5, 6, 7] * 50)])
    # Looked at after 32 tokens, of which the first two are others, and after 64.
    assert (len(row.written), row.cut) == ((64, "loop") if ends_loops else (200, "limit"))


def test_a_text_that_repeats_itself_up_to_its_limit_is_a_loop_too() -> None:
    row = Row(prompt=[9], limit=40, lines=1, ends_loops=True)
    # After 32 tokens the eight others hide it.
    fed(row, [*([3, 3, 4, 4] * 2), *([4, 5] * 50)])
    assert (len(row.written), row.cut) == (40, "loop")


def test_a_text_that_says_something_three_times_is_not_cut() -> None:
    row = Row(prompt=[9], limit=200, lines=1, ends_loops=True)
    fed(row, [*([3, 4, 5, 6, 7, 8, 3, 3, 4, 4, 5] * 3), NEWLINE])
    assert (row.done, row.cut) == (True, "")


def test_the_models_window_cuts_too() -> None:
    row = Row(prompt=[9] * 5, limit=10, lines=0, window=8)
    assert row.room == 8
    fed(row, [5] * 9)
    assert (row.written, row.cut) == ([5, 5, 5], "limit")
    ended = Row(prompt=[9] * 5, limit=10, lines=0, window=8)
    fed(ended, [5, 5, EOS])
    assert (ended.done, ended.cut) == (True, "")
    full = Row(prompt=[9] * 8, limit=10, lines=0, window=8)
    assert (full.done, full.cut) == (True, "limit")


def test_what_is_longer_than_planned_is_left_unfinished(model: LoadedModel) -> None:
    [prompt, *_] = prompts_of(model)
    long, short = Row(prompt=prompt, limit=9, lines=0, planned=4), Row(prompt=prompt, limit=3, lines=0, planned=4)
    decode(model.model, [long, short], NEVER, device=CPU)
    assert (len(long.written), long.done) == (4, False)
    assert (len(short.written), short.done, short.cut) == (3, True, "limit")
    at_once, long.planned = Row(prompt=prompt, limit=9, lines=0), 9
    decode(model.model, [long], NEVER, device=CPU)
    decode(model.model, [at_once], NEVER, device=CPU)
    assert (long.written, long.done) == (at_once.written, True)


@pytest.mark.parametrize("choices", [[], [[3, EOS], [4, 4, EOS]]], ids=["free", "choices"])
@pytest.mark.parametrize("planned", [1, 2, 3, 5, 8])
def test_a_text_of_two_lines_goes_on_from_wherever_its_room_ended(
    model: LoadedModel, planned: int, choices: list[list[int]]
) -> None:
    """Its room is that of the whole text, also when a part of it is written."""
    prompt = prompts_of(model)[0]
    # The model's own tokens end a line where it is to have some length.
    [fourth] = greedy(model, prompt, limit=4)[3:]
    stop = Stop(eos=frozenset({EOS}), newline={fourth: ""})

    def row() -> Row:
        return Row(prompt=prompt, limit=6, lines=2, then=[7, 8], choices=choices)

    at_once, in_parts = row(), row()
    in_parts.planned = planned
    decode(model.model, [at_once], stop, device=CPU)
    parts = 0
    while not in_parts.done and parts < 9:
        decode(model.model, [in_parts], stop, device=CPU)
        in_parts.planned *= 3
        parts += 1
    assert (in_parts.written, in_parts.done, in_parts.cut) == (at_once.written, True, at_once.cut)
    assert len(at_once.written) > 5


LABELS = st.lists(st.lists(st.integers(3, 5), min_size=1, max_size=4), min_size=1, max_size=6, unique_by=tuple)


@given(labels=LABELS, then=st.sampled_from([[], [7], [7, 8]]), limit=st.integers(1, 4), seed=st.integers(0, 99))
def test_choices_yield_one_of_them_whatever_the_model_wants(
    labels: list[list[int]], then: list[int], limit: int, seed: int
) -> None:
    choices = [[*label, EOS] for label in labels]
    rng = random.Random(seed)
    row = Row(prompt=[9], limit=limit, lines=2 if then else 1, temperature=1.0, rng=rng, then=then, choices=choices)
    generator = torch.Generator().manual_seed(seed)
    if then:
        next_tokens([row], torch.nn.functional.one_hot(torch.tensor([NEWLINE]), WORDS) * 1e9, STOP)
    while not row.done:
        next_tokens([row], torch.randn(1, WORDS, generator=generator) * 3, STOP)
    assert row.written[: len(then)] == then
    assert row.written[len(then) :] in choices
    assert not row.cut


def test_a_choice_that_begins_another_and_the_longer_one_can_both_come() -> None:
    def written(scores: list[int]) -> list[int]:
        row = Row(prompt=[9], limit=9, lines=1, choices=[[3, EOS], [3, 4, EOS]])
        fed(row, scores)
        return row.written

    assert written([3, EOS]) == [3, EOS]
    assert written([3, 4]) == [3, 4, EOS]


def test_sampling_follows_the_softmax_at_its_temperature() -> None:
    scores, rows = torch.tensor([[0.0, 1.0, -1.0]]), 4000
    sampled = [Row(prompt=[9], limit=9, lines=0, temperature=0.7, rng=random.Random(seed)) for seed in range(rows)]
    counts = torch.bincount(torch.tensor(next_tokens(sampled, scores.expand(rows, -1), NEVER)), minlength=3)
    torch.testing.assert_close(counts / rows, torch.softmax(scores[0] / 0.7, -1), rtol=0, atol=0.025)


def test_rows_of_all_kinds_draw_together_as_each_does_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(decoding._DRAWN_AT_ONCE, "cpu", 3 * WORDS)

    def rows() -> list[Row]:
        made = [
            Row(prompt=[9], limit=9, lines=1, temperature=heat, rng=random.Random(seed), choices=choices)
            for seed in range(4)
            for heat in (0.0, 0.3, 2.0)
            for choices in ([], [[3, EOS], [4, EOS]], [[5, 6, EOS], [5, 7, EOS]])
        ]
        made[4].done = True
        return [*made, Row(prompt=[9], limit=9, lines=1)]

    together, alone = rows(), rows()
    scores = torch.randn(len(together), WORDS, generator=torch.Generator().manual_seed(1))
    scores[:, EOS], scores[:, NEWLINE] = -torch.inf, -torch.inf
    for _ in range(3):
        found = next_tokens(together, scores, STOP)
        assert found == [next_tokens([row], scores[[index]], STOP)[0] for index, row in enumerate(alone)]
    assert [row.written for row in together] == [row.written for row in alone]
    assert together[-1].written == [int(scores[-1].argmax())] * 3
    assert together[4].written == []
