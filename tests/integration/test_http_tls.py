# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from asn1crypto import x509 as asn1
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from coppice.errors import SettingsError, TrustAnchorError, UnreachableError
from coppice.testing import server as behave
from coppice.testing.authority import Authority
from coppice.testing.client import loopback_client
from coppice.testing.igtf import clone_directory
from coppice.testing.server import LoopbackServer
from coppice.testing.tls import server_tls, throw_away_tls

pytestmark = [pytest.mark.integration, pytest.mark.threat("T55")]
NOW = datetime.now(UTC)
DAY = timedelta(days=1)


@pytest.fixture
def authority():
    return Authority.create("Grid CA")


def pem(authority):
    return authority.identity.certificate.public_bytes(Encoding.PEM)


@pytest.fixture
def igtf(tmp_path, authority):
    """Return a directory in the style of the IGTF: names by hash, policies, CRLs, and entries that nobody can use."""
    directory = tmp_path / "certificates"
    directory.mkdir()
    (directory / "0a1b2c3d.0").write_bytes(b"Certificate:\n    Data: text before the PEM\n" + pem(authority))
    (directory / "0a1b2c3d.namespaces").write_text('TO Issuer "/DC=org/DC=example/CN=Grid CA" PERMIT Subject ".*"\n')
    (directory / "0a1b2c3d.signing_policy").write_text("access_id_CA X509 '/CN=x'\n")
    (directory / "0a1b2c3d.r0").write_bytes(authority.crl().public_bytes(Encoding.PEM))
    (directory / "Same.pem").write_bytes(pem(authority))
    (directory / "expired.pem").write_bytes(pem(Authority.create("Old", not_after=NOW - DAY)))
    (directory / "broken.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    (directory / "garbage.0").write_bytes(b"\xff\x00" * 1000)
    (directory / "gone.0").symlink_to(tmp_path / "nowhere")
    (directory / "folder.pem").mkdir()
    return directory


def fetch(context, anchors=None, client=None, host="127.0.0.1"):
    with LoopbackServer(tls=context) as server:
        server.set("x", behave.serve(b"ok"))
        client = client or loopback_client(resolver=lambda *_: ["127.0.0.1"])
        try:
            return client.get_bytes(server.url("x", host), limit_bytes=9, server_anchors=anchors)
        finally:
            assert len(server.requests) <= 1
            server_saw = bool(server.requests)
            fetch.was_asked = server_saw


def test_a_server_with_a_grid_certificate_is_trusted_where_the_grid_is(tmp_path, authority, igtf):
    context = server_tls(tmp_path, authority)
    assert fetch(context, igtf) == b"ok"
    with pytest.raises(UnreachableError, match="unable to get local issuer certificate"):
        fetch(context)
    assert not fetch.was_asked


def test_a_file_of_authorities_will_do_too(tmp_path, authority):
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(b"# comment\n" + pem(Authority.create("Another")) + pem(authority).replace(b"\n", b"\r\n"))
    assert fetch(server_tls(tmp_path, authority), bundle) == b"ok"


def test_an_intermediate_that_the_server_leaves_out_is_found_in_the_directory(tmp_path, authority, igtf):
    below = authority.issue_authority("Below")
    context = server_tls(tmp_path, Authority(identity=below.identity))
    assert fetch(context, igtf) == b"ok"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("wrong host", "not valid for 'lists.example.org'"),
        ("expired", "certificate has expired"),
        ("not yet valid", "certificate is not yet valid"),
        ("self signed", "self-signed certificate"),
        ("another authority of the same name", "certificate"),
        ("of an expired authority", "certificate has expired"),
    ],
)
def test_a_server_whose_certificate_does_not_do_is_refused_and_why_is_said(tmp_path, authority, igtf, name, reason):
    names = () if name == "wrong host" else ("lists.example.org",)
    old = Authority.create("Old", not_after=NOW - DAY)
    (igtf / "expired.pem").write_bytes(pem(old))
    context = {
        "wrong host": lambda: server_tls(tmp_path, authority),
        "expired": lambda: server_tls(tmp_path, authority, *names, not_before=NOW - 2 * DAY, not_after=NOW - DAY),
        "not yet valid": lambda: server_tls(tmp_path, authority, *names, not_before=NOW + DAY, not_after=NOW + 2 * DAY),
        "self signed": lambda: throw_away_tls(tmp_path, *names)[0],
        "another authority of the same name": lambda: server_tls(tmp_path, Authority.create("Grid CA"), *names),
        "of an expired authority": lambda: server_tls(tmp_path, old, *names),
    }[name]()
    with pytest.raises(UnreachableError, match=reason) as caught:
        fetch(context, igtf, host="lists.example.org")
    assert not fetch.was_asked
    assert caught.value.context["final"]


def test_a_name_without_its_own_certificate_is_not_passed_over_for_the_next_address(tmp_path, authority, igtf):
    tried = []
    with LoopbackServer(tls=server_tls(tmp_path, authority)) as server:
        client = loopback_client(resolver=lambda *_: tried.append(1) or ["127.0.0.1", "127.0.0.2"])
        with pytest.raises(UnreachableError, match="not valid for"):
            client.get_bytes(server.url("x", "lists.example.org"), limit_bytes=9, server_anchors=igtf)
    assert tried == [1]


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1:DeprecationWarning")
def test_old_versions_of_tls_are_not_spoken(tmp_path, authority, igtf):
    context = server_tls(tmp_path, authority)
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.raises(UnreachableError, match="TLS"):
        fetch(context, igtf)


def test_plain_http_on_the_port_is_no_tls():
    with LoopbackServer() as server, pytest.raises(UnreachableError, match="TLS"):
        loopback_client(attempts=1).get_bytes(server.url("x").replace("http:", "https:"), limit_bytes=9)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", None]
)
def test_anchors_without_a_certificate_are_an_error_and_nothing_is_asked(tmp_path, content):
    anchors = tmp_path / "anchors.pem"
    if content is not None:
        anchors.write_bytes(content)
    for path in (anchors, tmp_path / "missing", tmp_path):
        with pytest.raises(TrustAnchorError):
            loopback_client().get_bytes("https://127.0.0.1:1/", limit_bytes=9, server_anchors=path)


def test_a_file_for_every_server_that_cannot_be_used_is_an_error_of_the_settings(tmp_path):
    with pytest.raises(SettingsError):
        loopback_client(ca_file=tmp_path / "missing").get_bytes("https://127.0.0.1:1/", limit_bytes=9)


def test_anchors_of_one_request_are_not_those_of_another(tmp_path, authority, igtf):
    client = loopback_client()
    context = server_tls(tmp_path, authority)
    assert fetch(context, igtf, client) == b"ok"
    with pytest.raises(UnreachableError):
        fetch(context, None, client)


def test_a_directory_that_changed_is_read_anew(tmp_path, authority, igtf):
    client = loopback_client()
    context = server_tls(tmp_path, authority)
    assert fetch(context, igtf, client) == b"ok"
    (igtf / "0a1b2c3d.0").unlink()
    (igtf / "Same.pem").write_bytes(pem(Authority.create("Another")))
    with pytest.raises(UnreachableError):
        fetch(context, igtf, client)


def test_threads_share_the_contexts(tmp_path, authority, igtf):
    with LoopbackServer(tls=server_tls(tmp_path, authority)) as server:
        url = server.set("x", behave.serve(b"ok"))
        client = loopback_client()
        start = threading.Barrier(8)

        def fetch_some(_):
            start.wait()
            return [client.get_bytes(url, limit_bytes=9, server_anchors=igtf) for _ in range(5)]

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(fetch_some, range(8))) == [[b"ok"] * 5] * 8


def test_keys_of_connections_are_written_nowhere(tmp_path, monkeypatch, authority, igtf):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    assert fetch(server_tls(tmp_path, authority), igtf) == b"ok"
    assert not (tmp_path / "keys").exists()


def test_a_body_that_a_broken_tls_stream_cuts_is_tried_again(tmp_path, authority, igtf):
    with LoopbackServer(tls=server_tls(tmp_path, authority)) as server:
        data = b"x" * 100_000
        url = server.set(
            "x", behave.in_turn(behave.cut(data, 50_000, reset=True), behave.cut(data, 9), behave.serve(data))
        )
        assert loopback_client().get_bytes(url, limit_bytes=len(data), server_anchors=igtf) == data


def serves(certificate):
    """Whether an authority may certify servers, as far as its certificate says."""
    try:
        usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return True
    return ExtendedKeyUsageOID.SERVER_AUTH in usages


def test_servers_below_doubles_of_the_real_grid_authorities_are_trusted_while_those_are_valid(tmp_path):
    (tmp_path / "certificates").mkdir()
    clones = clone_directory(Path("/etc/grid-security/certificates"), tmp_path / "certificates")
    # A double of an authority that the machine trusts as well stands beside its original, which has another key.
    machine = ssl.create_default_context().get_ca_certs(binary_form=True)
    doubled = {asn1.Certificate.load(one).subject.dump() for one in machine}
    client = loopback_client()
    trusted = 0
    for clone in clones:
        context = server_tls(tmp_path, clone.authority)
        if any(one.not_valid_after_utc < NOW for one in clone.path):
            with pytest.raises(UnreachableError, match="expired"):
                fetch(context, tmp_path / "certificates", client)
        elif not all(map(serves, clone.path)):
            with pytest.raises(UnreachableError, match="unsuitable certificate purpose"):
                fetch(context, tmp_path / "certificates", client)
        elif not any(one.subject.public_bytes() in doubled for one in clone.path):
            assert fetch(context, tmp_path / "certificates", client) == b"ok"
            trusted += 1
    assert trusted > 40
