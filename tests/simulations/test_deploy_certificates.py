import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from command_line import polyfed
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from models.core.errors import UserError
from simulations.deploy import authority, certificates, keys
from simulations.deploy.folder import Folder
from simulations.deploy.server import check_files

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def made(tmp_path: Path, *hosts: str) -> Folder:
    """Return the folder of a server with a certificate of a CA in `ca`."""
    assert polyfed("deploy", "ca", tmp_path / "ca").code == 0
    ended = polyfed("deploy", "cert", tmp_path / "ca", tmp_path / "server", "--host", ",".join(hosts))
    assert ended.code == 0, ended.err
    return Folder(tmp_path / "server")


def heard(folder: Folder, host: str = "127.0.0.1") -> list[str]:
    lines: list[str] = []
    check_files(folder, host, lines.append)
    return lines


def test_a_certificate_holds_for_what_it_says_and_for_its_own_machine(tmp_path: Path) -> None:
    folder = made(tmp_path, "fed.example.org", "192.0.2.10", "2001:db8::1")
    certificate = certificates.read(folder.certificate)
    assert certificates.hosts_of(certificate) == [
        "fed.example.org", "localhost", "192.0.2.10", "2001:db8::1", "127.0.0.1", "::1",
    ]  # fmt: skip
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert heard(folder) == heard(folder, "0.0.0.0") == heard(folder, "192.0.2.10") == []


def test_openssl_takes_the_chain(tmp_path: Path) -> None:
    folder = made(tmp_path, "fed.example.org")
    command = [
        "openssl",
        "verify",
        "-x509_strict",
        "-purpose",
        "sslserver",
        "-verify_hostname",
        "fed.example.org",
    ]
    try:
        ended = subprocess.run(
            [*command, "-CAfile", str(folder.ca), str(folder.certificate)], capture_output=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    assert ended.returncode == 0, ended.stderr


def test_the_ca_signs_no_other_ca(tmp_path: Path) -> None:
    certificate = certificates.make_ca(keys.new_key(), 10, NOW)
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length == 0
    assert certificate.not_valid_after_utc == NOW + timedelta(days=10)
    assert certificate.not_valid_before_utc == NOW - certificates.BACKDATED


def test_a_certificate_of_another_ca_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path, "here")
    certificates.write(folder.ca, certificates.make_ca(keys.new_key(), 10))
    with pytest.raises(UserError, match=r"server\.crt is not signed by the CA of .*ca\.crt, but by another"):
        heard(folder)


def test_a_certificate_of_another_key_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path, "here")
    folder.key.unlink()
    keys.write_key(folder.key, keys.new_key())
    with pytest.raises(UserError, match="is not the certificate of the key beside it"):
        heard(folder)


def test_a_host_that_the_certificate_does_not_name_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path, "here")
    with pytest.raises(UserError, match=r"holds for here, localhost, .*, not for 192\.0\.2\.10"):
        heard(folder, "192.0.2.10")


def test_a_host_may_be_written_in_several_ways() -> None:
    ca_key = keys.new_key()
    ca = certificates.make_ca(ca_key, 10, NOW)
    hosts = ["Fed.example.org", "2001:db8::1"]
    certificate = certificates.make_server(keys.new_key(), hosts, ca, ca_key, 10, NOW)
    for host in ("fed.EXAMPLE.org", "2001:DB8:0:0::1", "::1", "127.0.0.1"):
        certificates.check_host(certificate, host, Path("server.crt"))
    with pytest.raises(UserError, match=r"not for example\.org"):
        certificates.check_host(certificate, "example.org", Path("server.crt"))


def test_no_key_is_left_behind_for_hosts_that_cannot_be(tmp_path: Path) -> None:
    authority.make_authority(tmp_path / "ca", 10, False, print)
    with pytest.raises(UserError, match="--host takes names"):
        authority.make_certificate(tmp_path / "ca", tmp_path / "server", ["a..b"], 10, False, print)
    authority.make_certificate(tmp_path / "ca", tmp_path / "server", ["a.b"], 10, False, print)


def test_the_end_is_told_thirty_days_ahead(tmp_path: Path) -> None:
    path, certificate = tmp_path / "ca.crt", certificates.make_ca(keys.new_key(), 100, NOW)

    def after(days: float) -> str:
        return certificates.check_dates(path, certificate, NOW + timedelta(days=days))

    assert after(69) == ""
    told = (
        f"the certificate {path} expires in 30 days, on 2027-03-06: renew it with polyfed deploy ca --renew"
    )
    assert after(70) == told
    assert "expires in 0 days" in after(99.5)
    with pytest.raises(
        UserError, match=r"ca\.crt expired on 2027-03-06 12:00 UTC: renew it with polyfed deploy ca"
    ):
        after(100.1)
    with pytest.raises(UserError, match="holds from 2026-11-26 11:00 UTC on, and here it is 2026-11-26 10:"):
        after(-0.06)


def test_an_expired_certificate_of_a_server_is_refused_by_name(tmp_path: Path) -> None:
    folder = made(tmp_path, "here")
    ca, ca_key = certificates.read(folder.ca), keys.read_key(tmp_path / "ca" / "ca.key")
    key = keys.read_key(folder.key)
    certificates.write(
        folder.certificate, certificates.make_server(key, ["here"], ca, ca_key, 10, NOW - timedelta(days=400))
    )
    ended = polyfed("deploy", "server", folder.path, "--port", "1")
    assert ended.code == 2
    assert f"{folder.certificate} expired on" in ended.err
    assert "renew it with polyfed deploy cert --renew" in ended.err


def test_renewal_keeps_the_keys_and_what_they_signed(tmp_path: Path) -> None:
    folder = made(tmp_path, "here")
    before = (
        (tmp_path / "ca" / "ca.key").read_bytes(),
        folder.key.read_bytes(),
        folder.certificate.read_bytes(),
    )
    again = polyfed("deploy", "cert", tmp_path / "ca", folder.path, "--host", "here")
    assert (again.code, "server.key is there already" in again.err) == (2, True)
    assert polyfed("deploy", "ca", tmp_path / "ca", "--renew", "--days", "20").code == 0
    # The new certificate of the CA answers for what was signed before it.
    folder.ca.write_bytes((tmp_path / "ca" / "ca.crt").read_bytes())
    (line,) = heard(folder)
    assert "ca.crt expires in 19 days" in line
    assert (
        polyfed("deploy", "cert", tmp_path / "ca", folder.path, "--host", "here,there", "--renew").code == 0
    )
    assert (tmp_path / "ca" / "ca.key").read_bytes() == before[0]
    assert folder.key.read_bytes() == before[1]
    assert folder.certificate.read_bytes() != before[2]
    certificates.check_host(certificates.read(folder.certificate), "there", folder.certificate)
