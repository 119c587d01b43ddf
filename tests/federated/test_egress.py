"""What leaves each device is on record at both ends, and a budget in bytes holds for every kind of reply."""

import json
from collections import Counter

import pytest

from cdcda_flower.errors import ShareError
from cdcda_flower.runs.folder import RunFolder
from experiments.launching.resuming import reopen
from federation import Federation, Outcome
from strategies import server_app

USERS = ("A", "B", "C", "D")


def _sent(folder: RunFolder, user: str) -> list[dict[str, object]]:
    lines = (folder.devices / user / "sent.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def test_both_ends_say_the_same_of_what_left(four: Federation) -> None:
    outcome = four.run(four.config(methods="cloud,device,direct-ft,cdcda"))
    egress = outcome.ledger.egress()
    for user in USERS:
        own = [(line["reply"], line["bytes"]) for line in _sent(outcome.folder, user)]
        assert own == [(one.reply, one.bytes) for one in egress if one.user_id == user]
        assert [reply for reply, _ in own] == ["Upload", "Questions", "PersonalizeReply", "EvaluateReply"]
    uploads = {upload.user_id: upload.bytes_up for upload in outcome.ledger.uploads()}
    assert uploads == {one.user_id: one.bytes for one in egress if one.reply == "Upload"}


def test_no_byte_more_leaves_than_the_budget_allows(four: Federation) -> None:
    whole = four.run(four.config())
    uploads = {one.user_id: one.bytes for one in whole.ledger.egress() if one.reply == "Upload"}
    trainings = {one.user_id: one.bytes for one in whole.ledger.egress() if one.reply == "PersonalizeReply"}
    # All may share; the one who shares most may not say what its training took.
    most = max(USERS, key=lambda user: uploads[user] + trainings[user])
    bound = uploads[most] + trainings[most] - 1
    outcome = four.run(four.config(egress_bytes=bound))
    sent = Counter[str]()
    for one in outcome.ledger.egress():
        sent[one.user_id] += one.bytes
    assert max(sent.values()) <= bound
    failures = {failure.user_id: failure.reason for failure in outcome.ledger.failures()}
    assert "egress-bytes allows; nothing was sent" in failures[most]
    assert all(line["reply"] != "PersonalizeReply" for line in _sent(outcome.folder, most))


def test_a_budget_that_lets_nobody_share_is_bad_input(four: Federation) -> None:
    with pytest.raises(ShareError, match="more bytes would have left the device than egress-bytes allows"):
        four.run(four.config(egress_bytes=10))


def test_what_left_before_a_stop_stays_on_record(four: Federation) -> None:
    config = four.config()
    folder = four.folder(config)
    server_app.run(four.grid(config), config, folder)
    before = Outcome("", folder).ledger.egress()
    reopen(folder, config)
    server_app.run(four.grid(config), config, folder)
    after = Outcome("", folder).ledger.egress()
    assert after[: len(before)] == before
    assert len(after) == 2 * len(before)
    assert len(_sent(folder, "A")) == 2 * sum(one.user_id == "A" for one in before)
