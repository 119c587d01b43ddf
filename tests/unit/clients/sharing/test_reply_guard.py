"""The guard lets nothing out but what a policy may share and a reply may hold."""

from dataclasses import asdict, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdcda_flower.errors import ShareError
from cdcda_flower.messages import EvaluateReply, Failed, PersonalizeReply, Questions, Submitted
from cdcda_flower.types import AdapterRef, Example, TrainingReport, TrainingStats, Upload, UserHistory, UserResult
from cdcda_flower.what_leaves import unfit
from cdcda_flower.wire import decode
from clients.sharing.reply_guard import as_it_leaves, checked_examples, guarded, guarded_questions, guarded_upload
from lamp_folder import RATING, config

HISTORY = tuple(Example(id=str(n), query=f"text {n}", response="4") for n in range(10))


def _upload(*examples: Example) -> Upload:
    return Upload(user_id="u", policy="p", history_size=10, query_count=1, examples=examples)


@given(st.sets(st.sampled_from(HISTORY)))
def test_any_subset_passes_the_guard_and_arrives(chosen: set[Example]) -> None:
    upload = _upload(*chosen)
    assert decode(guarded_upload(upload, HISTORY), Upload) == upload


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ("text", "returned str"),
        (None, "returned NoneType"),
        ({HISTORY[0]}, "returned set"),
        (["0"], "returned a str"),
        ([replace(HISTORY[0], response="5")], "example '0', which is not in this user's history"),
        ([Example(id="x", query="q", response="r")], "example 'x', which is not"),
        ([HISTORY[1], HISTORY[1]], "example '1' twice"),
    ],
)
def test_the_guard_names_what_may_not_leave(chosen: object, said: str) -> None:
    with pytest.raises(ShareError, match=said) as caught:
        checked_examples(chosen, HISTORY, policy="mine")
    assert "'mine'" in str(caught.value)
    assert "text 0" not in str(caught.value)


def test_the_guard_reads_what_was_serialised() -> None:
    class Disguised(Example):
        def __eq__(self, other: object) -> bool:
            return True

        def __ne__(self, other: object) -> bool:
            return False

        __hash__ = None  # type: ignore[assignment]

    with pytest.raises(ShareError, match="serialised upload"):
        guarded_upload(_upload(Disguised(id="0", query="another text", response="4")), HISTORY)


RESULT = UserResult(user_id="u", method="device", adapter_of=None, queries=2, unparsed=0, sums={"n": 2.0}, seconds=0.5)
ADAPTER = AdapterRef(user_id="u", method="cdcda", trained_as="direct-ft", base_digest="b", weights_digest="w")
STATS = TrainingStats(steps=3, tokens=9, first_loss=2.0, last_loss=1.0, seconds=0.5)
REPORT = TrainingReport(adapter=ADAPTER, private=9, synthetic=1, dropped=0, stats=STATS)
SECRET = "what the user wrote"


@pytest.mark.parametrize(
    "reply",
    [
        Failed(user_id="u", code="data"),
        Failed(user_id="", code="data"),
        Submitted(),
        PersonalizeReply(user_id="u", reports=(REPORT,)),
        EvaluateReply(user_id="u", results=(RESULT, replace(RESULT, adapter_of="v"))),
        Questions(user_id="u", prompts={"cloud": (SECRET,)}),
        _upload(HISTORY[0]),
    ],
    ids=lambda reply: type(reply).__name__,
)
def test_a_reply_as_the_table_says_leaves(reply: Any) -> None:
    assert decode(guarded(reply, users=["u", "v"], sums=["n"]), type(reply)) == reply


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Failed(user_id="u", code=SECRET), "code must be"),
        (Failed(user_id=SECRET, code="data"), "user_id must be"),
        (PersonalizeReply(user_id="v", reports=()), "user_id must be"),
        (
            PersonalizeReply(user_id="u", reports=(replace(REPORT, adapter=replace(ADAPTER, trained_as=SECRET)),)),
            "a method",
        ),
        (
            PersonalizeReply(user_id="u", reports=(replace(REPORT, adapter=replace(ADAPTER, weights_digest=SECRET)),)),
            "digits",
        ),
        (PersonalizeReply(user_id="u", reports=(replace(REPORT, stats=replace(STATS, tokens=-1)),)), "a whole number"),
        (EvaluateReply(user_id="u", results=(replace(RESULT, method=SECRET),)), "a method"),
        (EvaluateReply(user_id="u", results=(replace(RESULT, adapter_of="w"),)), "adapter_of must be"),
        (EvaluateReply(user_id="u", results=(replace(RESULT, sums={SECRET: 1.0}),)), "sums.keys must be"),
        (EvaluateReply(user_id="u", results=(replace(RESULT, queries=10**13),)), "a whole number"),
        (Questions(user_id="u", prompts={SECRET: ()}), "prompts.keys must be"),
        (Questions(user_id="u", prompts={"cloud": ("x" * 1_000_001,)}), "at most 1,000,000 characters"),
        (replace(_upload(), policy="x" * 256), "at most 255 characters"),
    ],
)
def test_a_reply_that_holds_more_than_the_table_says_stays(reply: object, said: str) -> None:
    with pytest.raises(ShareError, match=said) as caught:
        guarded(reply, users=["u"], sums=["n"])
    assert SECRET not in str(caught.value)


def test_a_field_that_the_table_does_not_know_stays() -> None:
    fields = {"user_id": "u", "results": [{**asdict(RESULT), "note": SECRET}]}
    said = unfit("EvaluateReply", fields, users=["u"], sums=["n"])
    assert said == "it holds what is no field of the table of what leaves a device"


def test_questions_are_the_held_out_queries_of_the_methods_that_ask() -> None:
    own = UserHistory(user_id="u", examples=HISTORY, queries=(Example(id="q", query="a question", response=SECRET),))
    plain, found = {"cloud": ("a question",)}, {"cloud+rag": ("an item. a question",)}
    methods = ["cloud", "cloud+rag"]
    assert guarded_questions(Questions(user_id="u", prompts=plain | found), own, methods)
    for prompts, asked in (
        ({"cloud": (f"a question {SECRET}",)}, methods),
        ({"cloud": ("a question", "a question")}, methods),
        ({"cloud+rag": ()}, methods),
        (found, ["cloud"]),
        ({"device": ("a question",)}, [*methods, "device"]),
        ({"global>cdcda+rag": ("an item. a question",)}, [*methods, "global>cdcda+rag"]),
    ):
        with pytest.raises(ShareError, match="held-out queries"):
            guarded_questions(Questions(user_id="u", prompts=prompts), own, asked)


def test_with_redact_an_item_leaves_as_the_guard_redacts_it_and_in_no_other_form() -> None:
    mine = replace(HISTORY[3], query=f"{RATING.before}write to me@example.org", response="4")
    gone = replace(mine, query=f"{RATING.before}write to [email]")
    plain, redacting = config(share_policy="ratio"), config(share_policy="redact+ratio")
    assert decode(guarded_upload(_upload(gone), as_it_leaves([mine], redacting)), Upload) == _upload(gone)
    assert decode(guarded_upload(_upload(mine), as_it_leaves([mine], plain)), Upload) == _upload(mine)
    almost = replace(gone, query=f"{RATING.before}write [email]")
    for upload, run in ((mine, redacting), (almost, redacting), (gone, plain)):
        with pytest.raises(ShareError, match="not in this user's history") as caught:
            guarded_upload(_upload(upload), as_it_leaves([mine], run))
        assert "me@" not in str(caught.value)
