"""Kept pairs are sent back, and new ones name the shared example that they are made from."""

from half_texts import HalfTexts

from cdcda_flower.plugins import Example, NewPair, Provenance, SyntheticPair, Upload, WrittenPair

SHARED = Example(id="1", query="one two three four", response="4")
UPLOAD = Upload(user_id="u", policy="all", history_size=9, query_count=1, examples=(SHARED,))


def written(text: str, *, kept: bool) -> WrittenPair:
    """Returns a pair as the cloud writes one."""
    provenance = Provenance(user_id="u", source_id="1", generator="g", prompt_digest="", seed=0, sample=0)
    pair = SyntheticPair(id=f"u/1/{text}", query=text, response="4", provenance=provenance)
    return WrittenPair(pair=pair, kept=kept)


def test_kept_pairs_and_halves_are_sent() -> None:
    kept, rejected = written("kept", kept=True), written("rejected", kept=False)
    half = NewPair(source_id="1", query="one two", response="4")
    assert HalfTexts().pairs(UPLOAD, [kept, rejected], seed=1) == [kept.pair, half]
    assert HalfTexts(count=0).pairs(UPLOAD, [kept], seed=1) == [kept.pair]
