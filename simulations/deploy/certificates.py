"""The CA's certificate and the SuperLink's: made, read, and checked against each other and the calendar."""

import ipaddress
import os
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from models.core.errors import UserError
from simulations.deploy.keys import unwritable

SOON = 30
"""Days before a certificate's end from which every command that reads it says so."""
BACKDATED = timedelta(hours=1)
"""How long before now a certificate begins, for machines whose clock is behind."""
ITSELF = ("localhost", "127.0.0.1", "::1")
"""Names in every certificate of a SuperLink, by which its own machine reaches it."""


def make_ca(key: ec.EllipticCurvePrivateKey, days: int, now: datetime | None = None) -> x509.Certificate:
    """Return a CA's certificate, signed by its own key; it signs servers and no further CA."""
    name = _name("polyfed deploy CA")
    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)  # signs certificates
    builder = _builder(name, name, key.public_key(), days, now)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage, critical=True)
    return builder.sign(key, hashes.SHA384())


def make_server(
    key: ec.EllipticCurvePrivateKey,
    hosts: Sequence[str],
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    days: int,
    now: datetime | None = None,
) -> x509.Certificate:
    """Return the certificate of a SuperLink that is reached under `hosts`, names and addresses alike."""
    usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)  # signs handshakes
    names = x509.SubjectAlternativeName([_alternative(host) for host in dict.fromkeys([*hosts, *ITSELF])])
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    builder = _builder(_name(hosts[0]), ca.subject, key.public_key(), days, now)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(usage, critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(names, critical=False)
    return builder.add_extension(issuer, critical=False).sign(ca_key, hashes.SHA384())


def read(path: Path) -> x509.Certificate:
    """Return the certificate of a file; UserError where there is none."""
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except OSError as error:
        raise UserError(f"the certificate {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} holds no certificate in PEM ({error})") from error


def write(path: Path, certificate: x509.Certificate) -> None:
    """Write a certificate, in the place of an earlier one if there is one: it is no secret."""
    new = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        new.write_bytes(certificate.public_bytes(Encoding.PEM))
        os.replace(new, path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        new.unlink(missing_ok=True)


def check_dates(path: Path, certificate: x509.Certificate, now: datetime | None = None) -> str:
    """Return a line where a certificate ends soon, else ""; UserError where it has ended or not begun."""
    now = now or datetime.now(UTC)
    end, start = certificate.not_valid_after_utc, certificate.not_valid_before_utc
    if now > end:
        raise UserError(
            f"the certificate {path} expired on {end:%Y-%m-%d %H:%M} UTC: {_renewal(certificate)}"
        )
    if now < start:
        raise UserError(
            f"the certificate {path} holds from {start:%Y-%m-%d %H:%M} UTC on, and here it is "
            f"{now:%Y-%m-%d %H:%M} UTC: set this machine's clock"
        )
    left = days_left(certificate, now)
    if left > SOON:
        return ""
    return f"the certificate {path} expires in {left} days, on {end:%Y-%m-%d}: {_renewal(certificate)}"


def days_left(certificate: x509.Certificate, now: datetime | None = None) -> int:
    """Return the whole days until a certificate ends; below 0 where it has."""
    return (certificate.not_valid_after_utc - (now or datetime.now(UTC))).days


def check_pair(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey, path: Path) -> None:
    """Raise UserError where a certificate is not of this key."""
    if certificate.public_key() != key.public_key():
        raise UserError(
            f"{path} is not the certificate of the key beside it: make a new one with polyfed deploy cert"
        )


def check_issuer(certificate: x509.Certificate, ca: x509.Certificate, path: Path, ca_path: Path) -> None:
    """Raise UserError where a certificate is signed by another CA."""
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, ValueError, TypeError):
        raise UserError(
            f"{path} is not signed by the CA of {ca_path}, but by another ({issuer_of(certificate)}): "
            "take the certificates of one CA"
        ) from None


def check_host(certificate: x509.Certificate, host: str, path: Path) -> None:
    """Raise UserError where a certificate does not hold for the name or address `host`."""
    there = hosts_of(certificate)
    if _plain(host) not in {_plain(each) for each in there}:
        raise UserError(f"{path} holds for {', '.join(there)}, not for {host}: make one with --host {host}")


def hosts_of(certificate: x509.Certificate) -> list[str]:
    """Return the names and addresses that a certificate holds for."""
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    return [*names.get_values_for_type(x509.DNSName), *addresses]


def issuer_of(certificate: x509.Certificate) -> str:
    """Return who signed a certificate, in words."""
    return certificate.issuer.rfc4514_string()


def _renewal(certificate: x509.Certificate) -> str:
    is_ca = certificate.issuer == certificate.subject
    return f"renew it with polyfed deploy {'ca' if is_ca else 'cert'} --renew"


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, days: int, now: datetime | None
) -> x509.CertificateBuilder:
    start = now or datetime.now(UTC)
    return x509.CertificateBuilder(
        issuer_name=issuer,
        subject_name=subject,
        public_key=key,
        serial_number=x509.random_serial_number(),
        not_valid_before=start - BACKDATED,
        not_valid_after=start + timedelta(days=days),
        extensions=[
            x509.Extension(
                x509.SubjectKeyIdentifier.oid, False, x509.SubjectKeyIdentifier.from_public_key(key)
            )
        ],
    )


def _name(common: str) -> x509.Name:
    # A common name has 64 characters at most, and is read by nobody but people.
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common[:64])])


def _plain(host: str) -> str:
    """Return a name or an address in one of the ways in which it can be written."""
    return str(_alternative(host).value).lower()


def _alternative(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host.encode("idna").decode())
    except UnicodeError as error:
        raise UserError(f"--host takes names and addresses with commas between, got {host!r}") from error
