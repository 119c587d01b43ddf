"""What crosses the wire arrives as it left; what does not fit is refused without a word of private text."""

import json
from typing import Any

import pytest
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from cdcda_flower.errors import RunError
from cdcda_flower.messages import (
    AskRequest,
    EvaluateReply,
    EvaluateRequest,
    Failed,
    ModelHoldings,
    ModelRequest,
    PersonalizeReply,
    PersonalizeRequest,
    Questions,
    ShareRequest,
)
from cdcda_flower.teacher_targets import TeacherTargets
from cdcda_flower.types import Example, TrainingStats, Upload, UserResult
from cdcda_flower.wire import decode, encode, is_bare, payload_bytes, payload_fields, tokens_of

MESSAGES = (
    ShareRequest,
    Upload,
    AskRequest,
    Questions,
    ModelRequest,
    ModelHoldings,
    PersonalizeRequest,
    PersonalizeReply,
    EvaluateRequest,
    EvaluateReply,
    Failed,
)
SECRET = "my private diary"
UPLOAD = Upload(
    user_id="u", policy="all", history_size=1, query_count=0, examples=(Example(id="1", query=SECRET, response="ü"),)
)

_finite = st.floats(allow_nan=False, allow_infinity=False)
st.register_type_strategy(
    UserResult, st.builds(UserResult, sums=st.dictionaries(st.text(), _finite, max_size=3), seconds=_finite)
)
st.register_type_strategy(
    Questions, st.builds(Questions, prompts=st.dictionaries(st.text(), st.lists(st.text()).map(tuple), max_size=3))
)
st.register_type_strategy(
    TrainingStats, st.builds(TrainingStats, first_loss=_finite, last_loss=_finite, seconds=_finite)
)
st.register_type_strategy(
    TeacherTargets, st.binary(min_size=4, max_size=4).map(lambda raw: TeacherTargets.of_bytes(raw, raw, top_k=1))
)


def _damaged(text: str, kind: str = "Upload") -> RecordDict:
    return RecordDict({"domain": ConfigRecord({"kind": kind, "json": text})})


@pytest.mark.parametrize("kind", MESSAGES)
@settings(max_examples=30)
@given(data=st.data())
def test_decode_of_encode_is_the_value(kind: type[Any], data: st.DataObject) -> None:
    value = data.draw(st.from_type(kind))
    content = encode(value)
    records = {key: type(record).inflate(record.deflate()) for key, record in content.children.items()}
    assert decode(RecordDict.inflate(content.deflate(), records), kind) == value


def test_the_alternative_is_recognised_by_its_kind() -> None:
    failed = Failed(user_id="u", code="data")
    assert decode(encode(failed), Upload, otherwise=Failed) == failed
    assert decode(encode(UPLOAD), Upload, otherwise=Failed) == UPLOAD


def test_another_kind_is_named() -> None:
    with pytest.raises(RunError, match="a message carries another type, expected ShareRequest or Failed"):
        decode(encode(UPLOAD), ShareRequest, otherwise=Failed)
    with pytest.raises(RunError, match="carries nothing, expected Upload"):
        decode(RecordDict(), Upload)


@pytest.mark.parametrize("cut", range(0, 100, 7))
def test_a_truncated_message_is_refused_without_its_text(cut: int) -> None:
    text = str(encode(UPLOAD).config_records["domain"]["json"])
    with pytest.raises(RunError, match="arrived damaged") as caught:
        decode(_damaged(text[:cut]), Upload)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_wrong_type_is_refused_by_its_rule_only() -> None:
    fields = payload_fields(encode(UPLOAD))
    fields["examples"][0]["query"] = {"text": SECRET}
    with pytest.raises(RunError, match="its Upload breaks the rules string_type") as caught:
        decode(_damaged(json.dumps(fields)), Upload)
    assert SECRET not in str(caught.value)


def test_a_key_of_a_mapping_is_not_said() -> None:
    sums = {"user_id": "u", "results": [{"sums": {SECRET: "no number"}}]}
    with pytest.raises(RunError, match="arrived damaged") as caught:
        decode(_damaged(json.dumps(sums), "EvaluateReply"), EvaluateReply)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_is_refused_where_it_arose(number: float) -> None:
    result = UserResult(
        user_id="u", method="m", adapter_of=None, queries=1, unparsed=0, sums={"n": number}, seconds=0.0
    )
    with pytest.raises(RunError, match="not finite"):
        encode(EvaluateReply(user_id="u", results=(result,)))


def test_payload_is_the_values_json_in_utf8() -> None:
    content = encode(UPLOAD, tokens=12)
    assert payload_bytes(content) == len(
        json.dumps(payload_fields(content), ensure_ascii=False, separators=(",", ":")).encode()
    )
    assert set(payload_fields(content)) == {"user_id", "policy", "history_size", "query_count", "examples"}


def test_only_a_value_and_its_tokens_are_bare() -> None:
    assert is_bare(encode(UPLOAD))
    assert is_bare(encode(UPLOAD, tokens=12))
    more: list[ConfigRecord | MetricRecord] = [
        ConfigRecord({"text": SECRET}),
        MetricRecord({"tokens": 1, "more": 2}),
        MetricRecord({"tokens": 1.5}),
    ]
    for record in more:
        content = RecordDict({**encode(UPLOAD), "costs": record})
        assert not is_bare(content)
        assert tokens_of(content) in (0, 1)
    assert not is_bare(RecordDict())


def test_tokens_travel_beside_the_value() -> None:
    assert tokens_of(encode(UPLOAD, tokens=12)) == 12
    assert tokens_of(encode(UPLOAD)) == 0
    assert decode(encode(UPLOAD, tokens=12), Upload) == UPLOAD
