"""Certificates and keys are what Flower's commands take, and their secret halves are for their owner alone."""

import ssl
import stat
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from experiments.deployment.keys import main, write_node_key, write_server_files


def _mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


def test_the_authority_vouches_for_the_server_under_its_names(tmp_path: Path) -> None:
    files = write_server_files(tmp_path, ["server.example", "10.0.0.5"], valid_days=3)
    authority, certificate = (
        x509.load_pem_x509_certificate(f.read_bytes()) for f in (files.authority, files.certificate)
    )
    certificate.verify_directly_issued_by(authority)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["server.example"]
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.5"]
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=2.9) < left < timedelta(days=3.1)
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(files.certificate, files.key)
    assert _mode(files.key) == 0o600
    assert {file.name for file in tmp_path.iterdir()} == {"ca.crt", "server.pem", "server.key"}


def test_a_strict_client_takes_the_certificate(tmp_path: Path) -> None:
    files = write_server_files(tmp_path, ["server.example"], valid_days=3)
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=str(files.authority))
    server.load_cert_chain(files.certificate, files.key)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname="server.example"),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(3):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    assert ends[0].getpeercert()


def test_a_nodes_key_is_a_pair_on_a_curve_that_flower_takes(tmp_path: Path) -> None:
    public = write_node_key(tmp_path / "key")
    private = load_ssh_private_key((tmp_path / "key").read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert private.curve.name == "secp384r1"
    assert load_ssh_public_key(public.read_bytes()) == private.public_key()
    assert _mode(tmp_path / "key") == 0o600


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "certificates"), "localhost"]) == 0
    before = {file: file.read_bytes() for file in (tmp_path / "certificates").iterdir()}
    assert main([str(tmp_path / "certificates"), "localhost"]) == 2
    assert {file: file.read_bytes() for file in (tmp_path / "certificates").iterdir()} == before
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
