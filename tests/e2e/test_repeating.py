"""`cdcda run --repeat`: a real run again from its manifest, and what an audit says of both."""

from commands import Done, Place, cdcda


def test_a_run_again_from_its_manifest_is_the_same_and_both_pass_an_audit(first: Done, place: Place) -> None:
    again = cdcda(place, "run", "--repeat", str(first.folder.path), "--name", "repeated")
    assert again.code == 0, again.out + again.err
    assert "all tables are equal" in again.out
    assert again.folder.path == place.runs / "repeated"
    assert again.folder.manifest().config_digest == first.folder.manifest().config_digest
    audited = cdcda(place, "audit", "repeated")
    # Of a policy of the user's own, no file proves the choice; all else holds.
    assert audited.code == 3, audited.out + audited.err
    unproved = "not checked: uploads: share-policy names the plug-in 'policies:Newest', whose choice no file proves"
    assert unproved in " ".join(audited.out.split())
    assert audited.out.count("not checked: ") == 1
    assert "violated" not in audited.out
