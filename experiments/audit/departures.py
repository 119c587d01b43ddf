"""The rule on what left the devices: no more than the share policy lets go and the methods need, in as many bytes as noted."""

import json
from collections import Counter
from collections.abc import Iterator

from cdcda_flower.errors import DataError
from cdcda_flower.runs.folder import predictions_file
from experiments.audit import recomputed
from experiments.audit.evidence import Checked, Evidence, Finding, Unchecked, Violation, differing
from experiments.reports.predictions import read_predictions


def uploads(run: Evidence) -> Iterator[Finding]:
    """Each device shared what the policy lets go, once, in the noted bytes; where no method needs it, nothing."""
    wanted = any(method.shares for method in run.config.chosen_methods)
    policy = run.config.share_policy if wanted else "none"
    failed = {failure.user_id for failure in run.failures}
    sent = {upload.user_id: upload for upload in run.uploads}
    for user in sorted(run.private.keys() - sent.keys() - failed):
        yield Violation(f"user {user}", "the ledger lacks its upload, and names no failure of the user")
    for user in sorted((sent.keys() | {owner for owner, _ in run.shared}) - (run.private.keys() & sent.keys())):
        yield Violation(f"user {user}", "something left for a user who is none of the run, or has no upload")
    for user, upload in sent.items():
        if user not in run.private:
            continue
        who, (history, queries) = f"user {user}", run.private[user]
        counts = (upload.policy, upload.history_size, upload.query_count)
        yield from differing(who, "policy, history items and queries", counts, (policy, len(history), len(queries)))
        noted = (len(upload.examples), recomputed.upload_bytes(upload))
        yield from differing(who, "the number of shared examples and bytes", run.counted[user], noted)
    try:
        yield from _choices(run, wanted=wanted)
    except DataError as error:
        yield Unchecked(str(error))
    yield Checked(len(sent), "uploads")


def _choices(run: Evidence, *, wanted: bool) -> Iterator[Finding]:
    for upload in run.uploads:
        if upload.user_id in run.private:
            expected = (
                recomputed.choice(run.config, upload.user_id, run.private[upload.user_id].history) if wanted else ()
            )
            chosen, shared = {one.id for one in expected}, {one.id for one in upload.examples}
            if odd := sorted(chosen ^ shared):
                said = (
                    "shared, and the policy keeps it back"
                    if odd[0] in shared
                    else "not shared, and the policy lets it go"
                )
                yield Violation(f"user {upload.user_id}, example {odd[0]}", f"it was {said} ({len(odd)} such examples)")


def choices(run: Evidence) -> Iterator[Finding]:
    """Each device's own note of what its policy chose is what the cloud received."""
    if not any(method.shares for method in run.config.chosen_methods):
        yield Checked(0, "notes of devices")
        return
    for upload in run.uploads:
        file = run.folder.devices / upload.user_id / "shared.json"
        try:
            noted = json.loads(file.read_text(encoding="utf-8"))["ids"]
        except (OSError, ValueError, KeyError, TypeError):
            yield Unchecked(f"{file} is missing, or holds no ids")
            continue
        if noted != [example.id for example in upload.examples]:
            yield Violation(
                f"user {upload.user_id}", "its device's note of what was chosen is not what the cloud received"
            )
    yield Checked(len(run.uploads), "notes of devices")


def questions(run: Evidence) -> Iterator[Finding]:
    """Held-out inputs went to the cloud for the methods that it answers only, once each, and its answers are the device's."""
    asking = {method.name: method for method in run.config.chosen_methods if method.answers == "cloud"}
    asked, answered = run.ledger.questions(), run.ledger.answers()
    for user, name in sorted(asked.keys() - {(user, name) for user in run.private for name in asking}):
        yield Violation(f"user {user}, method {name}", "questions left, and the cloud does not answer this method")
    for user in run.answered:
        for name, method in asking.items():
            who, own = f"user {user}, method {name}", run.private[user]
            try:
                shared = recomputed.choice(run.config, user, own.history) if method.retrieval else ()
                size = recomputed.question_bytes(run.config, user, own, shared, name)
                yield from differing(who, "questions and bytes", asked.get((user, name)), (len(own.queries), size))
                kept = read_predictions(predictions_file(run.folder.devices / user, name))
            except (OSError, DataError) as error:
                yield Unchecked(f"{who}: {error}")
                continue
            texts = json.dumps([one.output for one in kept], ensure_ascii=False).encode()
            yield from differing(who, "the bytes of the cloud's answers", answered.get((user, name)), len(texts))
    for user, (examples, _) in run.ledger.taught().items():
        shared_count = sum(owner == user for owner, _ in run.shared)
        yield from differing(f"user {user}", "examples that a teacher spoke of", examples, shared_count)
    yield Checked(len(asked), "sets of questions")


def accounts(run: Evidence) -> Iterator[Finding]:
    """Every reply that the cloud noted is on its device's own account, and no device sent more than `egress-bytes` allows."""
    noted = run.ledger.egress()
    received = {user: Counter((one.reply, one.bytes) for one in noted if one.user_id == user) for user in run.private}
    for user in sorted({one.user_id for one in noted} - run.private.keys()):
        yield Violation(f"user {user}", "a reply is noted of a user who is none of the run")
    for user, replies in received.items():
        file = run.folder.devices / user / "sent.jsonl"
        try:
            lines = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
            sent = Counter((line["reply"], line["bytes"]) for line in lines)
        except (OSError, ValueError, KeyError, TypeError):
            if replies:
                yield Unchecked(f"{file} is missing, or holds no account")
            continue
        if unknown := replies - sent:
            yield Violation(f"user {user}", f"{unknown.total()} noted replies are not on its device's account")
        total = sum(size * count for (reply, size), count in sent.items() if reply != "Failed")
        if run.config.egress_bytes and total > run.config.egress_bytes:
            yield Violation(f"user {user}", f"{total} bytes left, and egress-bytes is {run.config.egress_bytes}")
    yield Checked(len(noted), "replies")
