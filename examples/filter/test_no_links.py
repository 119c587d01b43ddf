"""Texts with web addresses are not kept."""

from no_links import NoLinks

from cdcda_flower.plugins import Candidate, Example, Provenance, SyntheticPair


def candidate(text: str) -> Candidate:
    """Returns a candidate as a run makes one."""
    source = Example(id="1", query="a shared text", response="4")
    provenance = Provenance(user_id="u", source_id="1", generator="g", prompt_digest="", seed=0, sample=0)
    pair = SyntheticPair(id="u/1/0", query=text, response="4", provenance=provenance)
    return Candidate(pair=pair, source=source, text=text, source_text=source.query)


def test_a_text_with_a_link_is_not_kept() -> None:
    said = NoLinks().judge([candidate("plain words"), candidate("see https://example.com and http://example.org")])
    assert [(one.keep, one.score, one.reason) for one in said] == [(True, 0, "links 0"), (False, 2, "links 2")]


def test_the_limit_is_kept() -> None:
    [said] = NoLinks(limit=1).judge([candidate("see https://example.com")])
    assert said.keep
