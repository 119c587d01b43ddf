"""A certificate authority, the SuperLink's certificate and the SuperNodes' keys, as the files that Flower's commands take.

`python -P -m experiments.deployment.keys FOLDER HOST...` writes the first two, for these host names and addresses.
"""

import inspect
import ipaddress
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_VALID_DAYS = 365
# The clocks of two machines may differ.
_CLOCK_SKEW = timedelta(minutes=5)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFiles:
    """What a SuperLink needs for TLS; devices need `authority` alone."""

    authority: Path
    certificate: Path
    key: Path


def write_server_files(folder: Path, hosts: Sequence[str], *, valid_days: float) -> ServerFiles:
    """Makes an authority and a certificate of these host names and addresses; nothing else can be signed afterwards.

    The authority's key is not written: who holds it could stand in for the SuperLink.
    """
    folder.mkdir(parents=True, exist_ok=True)
    signer, own = _new_key(), _new_key()
    until = datetime.now(UTC) + timedelta(days=valid_days)
    authority = _certificate("cdcda-flower authority", signer, signer, "cdcda-flower authority", until)
    authority = authority.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    # Python 3.13 and newer verify strictly: an authority says what its key may do.
    signs = dict.fromkeys(inspect.signature(x509.KeyUsage).parameters, False) | {"key_cert_sign": True}
    authority = authority.add_extension(x509.KeyUsage(**signs), critical=True)
    certificate = _certificate(hosts[0], own, signer, "cdcda-flower authority", until)
    certificate = certificate.add_extension(x509.SubjectAlternativeName(list(map(_alternative, hosts))), critical=False)
    files = ServerFiles(authority=folder / "ca.crt", certificate=folder / "server.pem", key=folder / "server.key")
    # First: it overwrites none, and without it the others are not written either.
    _write_secret(files.key, own, serialization.PrivateFormat.PKCS8)
    for builder, file in ((authority, files.authority), (certificate, files.certificate)):
        file.write_bytes(builder.sign(signer, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    return files


def write_node_key(file: Path) -> Path:
    """Makes the key pair of one SuperNode: the private half in `file`, the public one in `file.pub`, whose path is returned."""
    file.parent.mkdir(parents=True, exist_ok=True)
    key = _new_key()
    _write_secret(file, key, serialization.PrivateFormat.OpenSSH)
    public = file.with_name(f"{file.name}.pub")
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH) + b"\n"
    )
    return public


def main(arguments: Sequence[str]) -> int:
    """Writes a server's files; returns the exit code."""
    if len(arguments) < 2:
        sys.stderr.write("usage: python -P -m experiments.deployment.keys FOLDER HOST...\n")
        return 2
    folder, *hosts = arguments
    try:
        files = write_server_files(Path(folder), hosts, valid_days=_VALID_DAYS)
    except OSError as error:
        sys.stderr.write(f"{folder}: {error.strerror}; name a new folder\n")
        return 2
    sys.stdout.write(f"{files.authority} for the devices; {files.certificate} and {files.key} for the SuperLink\n")
    return 0


def _new_key() -> ec.EllipticCurvePrivateKey:
    # Flower takes NIST's curves only.
    return ec.generate_private_key(ec.SECP384R1())


def _write_secret(file: Path, key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat) -> None:
    file.touch(mode=0o600, exist_ok=False)
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))


def _certificate(
    name: str, own: ec.EllipticCurvePrivateKey, signer: ec.EllipticCurvePrivateKey, issuer: str, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(issuer))
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(datetime.now(UTC), until) - _CLOCK_SKEW)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(own.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
