# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import base64
import json
import logging
import ssl
import traceback
from urllib.parse import quote

import pytest

from coppice.errors import (
    AddressRefusedError,
    CredentialError,
    HttpStatusError,
    RedirectRefusedError,
    TransferError,
    UnreachableError,
)
from coppice.http import Credential, Validators, resolve_credential
from coppice.model.credential import CredentialKind, CredentialReference
from coppice.testing import server as behave
from coppice.testing.authority import Authority
from coppice.testing.client import loopback_client
from coppice.testing.server import LoopbackServer
from coppice.testing.tls import server_tls, throw_away_tls

pytestmark = [pytest.mark.integration, pytest.mark.threat("T54")]
CANARY = "cAnArY/31337+x="
TOKEN = Credential.basic(CANARY, "x-oauth-basic")
BEARER = Credential.bearer(CANARY)
FORMS = (CANARY, quote(CANARY, safe=""), base64.b64encode(f"{CANARY}:x-oauth-basic".encode()).decode())


@pytest.fixture
def tls(tmp_path):
    return throw_away_tls(tmp_path)


@pytest.fixture
def server(tls):
    with LoopbackServer(tls=tls[0]) as running:
        yield running


@pytest.fixture
def other(tls):
    with LoopbackServer(tls=tls[0]) as running:
        yield running


@pytest.fixture
def client(tls):
    return loopback_client(ca_file=tls[1])


def sent(server):
    return [request.headers.get("Authorization") for request in server.requests]


@pytest.mark.parametrize("credential", [TOKEN, BEARER])
def test_a_credential_is_shown_to_the_server_that_was_asked(server, client, credential):
    url = server.set("x", behave.guarded(credential.authorization, behave.serve(b"list")))
    assert client.get_bytes(url, limit_bytes=9, credential=credential) == b"list"
    assert client.get_if_changed(url, limit_bytes=9, validators=None, credential=credential).body == b"list"
    assert client.request("GET", url, expected={200}, limit_bytes=9, credential=credential).body == b"list"
    got = bytearray()
    client.download(url, expected_size_bytes=4, sink=got.extend, credential=credential)
    assert got == b"list"
    with pytest.raises(HttpStatusError):
        client.get_bytes(url, limit_bytes=9)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_credential_follows_to_the_same_server_only(server, other, client, code):
    server.set("here", behave.serve(b"ok"))
    other.set("there", behave.serve(b"ok"))
    for target in (server.url("here"), other.url("there"), server.url("here", "localhost")):
        url = server.set("x", behave.redirect(target, code))
        assert client.get_bytes(url, limit_bytes=9, credential=TOKEN) == b"ok"
        assert client.request("GET", url, expected={200}, limit_bytes=9, credential=TOKEN).was_redirected
    # Asked twice for each of three targets; the last one is this server by another name.
    assert sent(server) == [TOKEN.authorization] * 6 + [TOKEN.authorization, None] * 2
    assert sent(other) == [None, None]


def test_a_credential_does_not_come_back_from_elsewhere(server, other, client):
    server.set("back", behave.serve(b"ok"))
    other.set("there", behave.redirect(server.url("back")))
    url = server.set("x", behave.redirect(other.url("there")))
    assert client.get_bytes(url, limit_bytes=9, credential=TOKEN) == b"ok"
    assert sent(server) == [TOKEN.authorization, None]


def test_other_headers_stay_with_the_server_that_was_asked(server, other, client):
    other.set("there", behave.serve(b"ok"))
    url = server.set("x", behave.redirect(other.url("there")))
    headers = {"X-Auth-Token": CANARY, "Range": "bytes=0-1", "Accept": "a/b"}
    client.request("GET", url, expected={200}, limit_bytes=9, headers=headers)
    assert server.requests[0].headers["X-Auth-Token"] == CANARY
    assert "X-Auth-Token" not in other.requests[0].headers
    assert (other.requests[0].headers["Range"], other.requests[0].headers["Accept"]) == ("bytes=0-1", "a/b")


@pytest.mark.parametrize("credential", [TOKEN, BEARER])
def test_a_credential_is_not_sent_in_clear_text_but_on_loopback(loopback_server, credential):
    loopback_server.set("x", behave.serve(b"ok"))
    assert loopback_client().get_bytes(loopback_server.url("x"), limit_bytes=9, credential=credential) == b"ok"
    for addresses in (["10.0.0.1"], ["127.0.0.1", "10.0.0.1"], ["192.0.2.1"]):
        client = loopback_client(resolver=lambda *_, found=addresses: found)
        with pytest.raises(AddressRefusedError, match="clear text") as caught:
            client.get_bytes("http://lists.example.org/x", limit_bytes=9, credential=credential)
        assert CANARY not in str(caught.value.as_dict())
    with pytest.raises(AddressRefusedError, match="clear text"):
        loopback_client().get_bytes(loopback_server.url("x").replace("://", "://a:b@"), limit_bytes=9)
    assert len(loopback_server.requests) == 1


def test_a_downgrade_is_refused_before_anything_is_sent(server, loopback_server, client):
    loopback_server.set("x", behave.serve(b"ok"))
    url = server.set("x", behave.redirect(loopback_server.url("x")))
    with pytest.raises(RedirectRefusedError):
        client.get_bytes(url, limit_bytes=9, credential=TOKEN)
    assert loopback_server.requests == []


def test_two_credentials_are_one_too_many(server, client):
    url = server.set("x", behave.serve(b"ok")).replace("://", "://jane:other@")
    with pytest.raises(CredentialError) as caught:
        client.get_bytes(url, limit_bytes=9, credential=TOKEN)
    assert "other" not in str(caught.value.as_dict())
    assert server.requests == []


def test_nothing_is_sent_to_a_server_that_is_not_the_one(tmp_path, tls):
    with LoopbackServer(tls=server_tls(tmp_path, Authority.create("Stranger"))) as stranger:
        stranger.set("x", behave.serve(b"ok"))
        with pytest.raises(UnreachableError, match="TLS"):
            loopback_client(ca_file=tls[1]).get_bytes(stranger.url("x"), limit_bytes=9, credential=TOKEN)
    assert stranger.requests == []


def misbehaviours():
    echo = json.dumps({"error": f"no such token {CANARY}", "headers": TOKEN.authorization}).encode()
    return {
        "refused": behave.status(401, b"no"),
        "repeated": behave.status(403, echo),
        "repeated in a page": behave.status(403, f"<p>{quote(CANARY, safe='')} {FORMS[2]}</p>".encode()),
        "repeated with slashes escaped": behave.status(403, CANARY.replace("/", r"\/").encode()),
        "repeated at the edge": behave.status(500, b"x" * 290 + CANARY.encode() * 3),
        "cut": behave.cut(b"x" * 100, 5),
        "too long": behave.serve(b"x" * 100),
        "silent": behave.stall(b"x", 0),
        "a loop": behave.redirect("x"),
        "to a file": behave.redirect("file:///etc/passwd"),
        "no http": behave.raw(b"hello\r\n\r\n"),
    }


@pytest.mark.parametrize("name", misbehaviours())
@pytest.mark.parametrize("way", ["credential", "url"])
def test_no_failure_shows_a_credential(server, tls, caplog, name, way):
    caplog.set_level(logging.DEBUG)
    client = loopback_client(ca_file=tls[1], attempts=2, read_timeout_seconds=1.0)
    url = server.set("x", misbehaviours()[name])
    credential = TOKEN if way == "credential" else None
    if way == "url":
        url = url.replace("://", f"://{quote(CANARY, safe='')}:x-oauth-basic@")
    with pytest.raises(TransferError) as caught:
        client.get_if_changed(url, limit_bytes=9, validators=Validators(etag='"1"'), credential=credential)
    assert sent(server)[0] == TOKEN.authorization
    shown = "".join(traceback.format_exception(caught.value)) + json.dumps(caught.value.as_dict()) + caplog.text
    assert not [form for form in FORMS if form in shown]


def test_an_explanation_without_secrets_is_still_told(server, client):
    url = server.set("x", behave.status(403, b"quota exceeded"))
    with pytest.raises(HttpStatusError) as caught:
        client.get_bytes(url, limit_bytes=9, credential=TOKEN)
    assert "quota exceeded" in caught.value.details


@pytest.fixture
def clients():
    return Authority.create("Clients")


@pytest.fixture
def certificate(tmp_path, clients):
    """Return a reference to a client certificate with an encrypted key, and its passphrase."""
    paths = clients.issue("jane").write_to(tmp_path, "jane", passphrase=CANARY.encode())
    secret = tmp_path / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text(f"{CANARY}\n")
    return CredentialReference(
        kind=CredentialKind.CLIENT_CERTIFICATE, certificate=paths[0], key=paths[1], secret_file=secret
    )


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_certificate_is_shown_to_the_server_that_was_asked_alone(tmp_path, clients, certificate, version):
    servers = Authority.create("Servers")
    servers.write_to(tmp_path)
    context = server_tls(tmp_path, servers, clients=clients)
    context.minimum_version = context.maximum_version = version
    optional = server_tls(tmp_path, servers, clients=clients)
    optional.verify_mode = ssl.CERT_OPTIONAL
    client = loopback_client(ca_file=tmp_path / "ca.pem")
    credential = resolve_credential(certificate)
    with LoopbackServer(tls=context) as server, LoopbackServer(tls=optional) as other:
        url = server.set("x", behave.serve(b"ok"))
        assert client.get_bytes(url, limit_bytes=9, credential=credential) == b"ok"
        assert server.requests[0].client == "jane"
        server.set("x", behave.redirect(other.set("y", behave.serve(b"ok"))))
        assert client.get_bytes(url, limit_bytes=9, credential=credential) == b"ok"
        assert other.requests[0].client is None
        assert client.get_bytes(other.url("y"), limit_bytes=9, credential=credential) == b"ok"
        assert other.requests[1].client == "jane"
        with pytest.raises(TransferError, match=r"refused the TLS connection|broke"):
            loopback_client(ca_file=tmp_path / "ca.pem", attempts=1).get_bytes(url, limit_bytes=9)


def test_a_client_certificate_is_not_shown_to_a_server_that_is_not_the_one(tmp_path, clients, certificate):
    shown = []
    context = server_tls(tmp_path, Authority.create("Stranger"), clients=clients)
    context.sni_callback = lambda *_: None
    with LoopbackServer(tls=context) as stranger:
        stranger.set("x", lambda talk: shown.append(talk.handler.connection.getpeercert()))
        with pytest.raises(UnreachableError, match="TLS"):
            loopback_client().get_bytes(stranger.url("x"), limit_bytes=9, credential=resolve_credential(certificate))
    assert shown == []


def test_a_client_certificate_needs_https(loopback_server, certificate):
    with pytest.raises(CredentialError, match="takes no client certificate"):
        loopback_client().get_bytes(
            loopback_server.set("x", behave.serve(b"ok")), limit_bytes=9, credential=resolve_credential(certificate)
        )
    assert loopback_server.requests == []


@pytest.mark.parametrize("change", ["passphrase", "no passphrase", "long passphrase", "other key", "no key", "no pem"])
def test_a_client_certificate_that_cannot_be_used_is_an_error_without_a_prompt(tmp_path, clients, certificate, change):
    secret = certificate.secret_file
    if change == "passphrase":
        secret.write_text("wrong\n")
    elif change == "long passphrase":
        secret.write_text("x" * 5000)
    elif change == "other key":
        clients.issue("mallory").write_to(tmp_path, "jane")[0].unlink()
        clients.issue("jane").write_to(tmp_path, "other")[0].replace(certificate.certificate)
    elif change == "no pem":
        certificate.certificate.write_text("hello")
    reference = CredentialReference(
        kind=certificate.kind,
        certificate=certificate.certificate,
        key=certificate.key,
        secret_file=None if change == "no passphrase" else secret,
    )
    credential = resolve_credential(reference)
    if change == "no key":
        certificate.key.unlink()
    with pytest.raises(CredentialError) as caught:
        loopback_client().get_bytes("https://127.0.0.1:1/", limit_bytes=9, credential=credential)
    assert CANARY not in str(caught.value.as_dict())
