# SPDX-License-Identifier: Apache-2.0
"""Lists in OCI registries: Debian's docker-registry with each of its logins, and registries that lie."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import time
from dataclasses import replace
from typing import Self
from urllib.parse import parse_qs, urlsplit

import bcrypt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from coppice.errors import (
    AddressRefusedError,
    CredentialError,
    HttpStatusError,
    MalformedListError,
    TransferError,
    TransferTooLargeError,
    UnreachableError,
)
from coppice.factory.ports import free_port
from coppice.formats.oci import (
    EMPTY_BYTES,
    MANIFEST_MEDIA_TYPE,
    OciReference,
    digest_of,
    image_list_manifest,
    write_manifest,
)
from coppice.http import Credential, Registry
from coppice.http.client import same_origin
from coppice.subscription.fetch import fetch_list
from coppice.testing import server as behave
from coppice.testing.authority import Authority
from coppice.testing.client import loopback_client
from coppice.testing.server import LoopbackServer
from coppice.testing.tls import server_tls

pytestmark = pytest.mark.integration
LIST = b"signed list"
JANE = Credential.basic("jane", "cAnArY-31337")


class Daemon:
    """A docker-registry on loopback."""

    def __init__(self, directory, auth=None, tls=None) -> None:
        self.port = free_port()
        http = {"addr": f"127.0.0.1:{self.port}"} | ({"tls": tls} if tls else {})
        config = {
            "version": 0.1,
            "log": {"level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(directory / "registry")}},
            "http": http,
        } | ({"auth": auth} if auth else {})
        path = directory / "registry.yml"
        path.write_text(json.dumps(config))
        self.log = (directory / "registry.log").open("wb")
        self.process = subprocess.Popen(
            ["docker-registry", "serve", str(path)], stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL
        )
        self.scheme = "https" if tls else "http"

    def __enter__(self) -> Self:
        for _ in range(200):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return self
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        self.__exit__()
        raise AssertionError("the registry does not start")

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait(20)
        self.log.close()

    def reference(self, tag="1", **changed):
        found = OciReference(scheme=self.scheme, registry=f"127.0.0.1:{self.port}", repository="vo/list", tag=tag)
        return replace(found, **changed)


def push(client, reference, message=LIST, **more):
    """Put a list into a registry, as a publisher does."""
    registry = Registry(client, reference, writes=True, **more)
    manifest = write_manifest(image_list_manifest(message))
    for blob in (EMPTY_BYTES, message):
        begun = registry.request("POST", registry.url("blobs/uploads/"), expected={202}, limit_bytes=1000)
        place = begun.header("location")
        assert same_origin(place, registry.url(""))
        url = f"{place}{'&' if '?' in place else '?'}digest={digest_of(blob)}"
        registry.request("PUT", url, expected={201}, limit_bytes=1000, body=blob)
    registry.request(
        "PUT",
        registry.url(f"manifests/{reference.tag}"),
        expected={201},
        limit_bytes=1000,
        body=manifest,
        headers={"Content-Type": MANIFEST_MEDIA_TYPE},
    )
    return digest_of(manifest)


def test_a_list_is_fetched_from_a_real_registry_and_again_only_when_it_changed(tmp_path):
    client = loopback_client()
    with Daemon(tmp_path) as daemon:
        digest = push(client, daemon.reference())
        first = fetch_list(str(daemon.reference()), client, 100)
        assert first.body == LIST
        again = fetch_list(str(daemon.reference()), client, 100, validators=first.validators)
        assert (again.body, again.validators) == (None, first.validators)
        assert fetch_list(str(daemon.reference(tag=None, digest=digest)), client, 100).body == LIST
        push(client, daemon.reference(), b"another list")
        changed = fetch_list(str(daemon.reference()), client, 100, validators=first.validators)
        assert changed.body == b"another list"
        assert fetch_list(str(daemon.reference(tag=None, digest=digest)), client, 100).body == LIST
        with pytest.raises(TransferTooLargeError):
            fetch_list(str(daemon.reference()), client, 5)
        with pytest.raises(HttpStatusError):
            fetch_list(str(daemon.reference(tag="none")), client, 100)


def test_a_registry_without_tls_is_asked_only_where_that_is_said(tmp_path):
    with Daemon(tmp_path) as daemon, pytest.raises(UnreachableError, match="TLS"):
        fetch_list(str(daemon.reference(scheme="https")), loopback_client(attempts=1), 100)


@pytest.mark.threat("T54")
def test_a_password_is_shown_when_the_registry_asks(tmp_path):
    users = tmp_path / "users"
    users.write_bytes(b"jane:" + bcrypt.hashpw(b"cAnArY-31337", bcrypt.gensalt(4)) + b"\n")
    client = loopback_client()
    with Daemon(tmp_path, auth={"htpasswd": {"realm": "lists", "path": str(users)}}) as daemon:
        push(client, daemon.reference(), credential=JANE)
        assert fetch_list(str(daemon.reference()), client, 100, credential=JANE).body == LIST
        for wrong in (None, Credential.basic("jane", "wrong"), Credential.bearer("wrong")):
            with pytest.raises(HttpStatusError, match="401"):
                fetch_list(str(daemon.reference()), client, 100, credential=wrong)


def encoded(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def signed_token(identity, service, scope, lifetime=60):
    """Return a token as registries take them (distribution's specification of token authentication)."""
    chain = [base64.b64encode(identity.certificate.public_bytes(Encoding.DER)).decode()]
    kind, name, actions = scope.split(":")
    now = int(time.time())
    claims = {
        "iss": "tokens",
        "sub": "jane",
        "aud": service,
        "exp": now + lifetime,
        "nbf": now - 10,
        "iat": now,
        "jti": "1",
        "access": [{"type": kind, "name": name, "actions": actions.split(",")}],
    }
    head = {"typ": "JWT", "alg": "ES256", "x5c": chain}
    text = f"{encoded(json.dumps(head).encode())}.{encoded(json.dumps(claims).encode())}"
    r, s = decode_dss_signature(identity.key.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
    return f"{text}.{encoded(r.to_bytes(32, 'big') + s.to_bytes(32, 'big'))}"


@pytest.mark.threat("T54")
def test_a_token_from_another_server_is_had_without_a_credential_or_not_at_all(tmp_path):
    authority = Authority.create("Servers")
    authority.write_to(tmp_path)
    issuer = Authority.create("Tokens").issue("tokens")
    bundle = tmp_path / "tokens.pem"
    bundle.write_bytes(
        issuer.certificate.public_bytes(Encoding.PEM)
        + Authority.create("x").identity.certificate.public_bytes(Encoding.PEM)
    )
    client = loopback_client(ca_file=tmp_path / "ca.pem")

    def give(talk):
        asked = parse_qs(urlsplit(talk.handler.path).query)
        body = json.dumps({"token": signed_token(issuer, asked["service"][0], asked["scope"][0])}).encode()
        talk.whole(200, {"Content-Length": str(len(body))}, body)

    with LoopbackServer(tls=server_tls(tmp_path, authority)) as tokens:
        realm = tokens.set("token", give)
        auth = {"token": {"realm": realm, "service": "lists", "issuer": "tokens", "rootcertbundle": str(bundle)}}
        with Daemon(tmp_path, auth=auth) as daemon:
            push(client, daemon.reference())
            assert fetch_list(str(daemon.reference()), client, 100).body == LIST
            scopes = [parse_qs(urlsplit(request.path).query)["scope"][0] for request in tokens.requests]
            # The registry names actions in any order.
            assert [sorted(scope.rpartition(":")[2].split(",")) for scope in scopes] == [["pull", "push"], ["pull"]]
            assert {scope.rpartition(":")[0] for scope in scopes} == {"repository:vo/list"}
            with pytest.raises(CredentialError, match="another server"):
                fetch_list(str(daemon.reference()), client, 100, credential=JANE)
    assert all("Authorization" not in request.headers for request in tokens.requests)


def registry_on(server, then, *, challenge):
    """Behave as a registry that wants a token, and gives one at /token to jane alone."""
    manifest = write_manifest(image_list_manifest(LIST))
    server.set("v2/vo/list/manifests/1", behave.guarded("Bearer tok", behave.serve(manifest), challenge))
    server.set(f"v2/vo/list/blobs/{digest_of(LIST)}", behave.guarded("Bearer tok", behave.serve(LIST), challenge))
    server.set("token", then)
    return f"oci+http://127.0.0.1:{server.port}/vo/list:1"


@pytest.mark.threat("T54")
def test_a_token_of_the_registrys_own_server_is_had_with_the_credential_which_then_rests(loopback_server):
    challenge = f'Basic realm="x", Bearer realm="{loopback_server.url("token")}",service="s",scope="repository:evil:*"'
    then = behave.guarded(JANE.authorization, behave.serve(b'{"access_token": "tok"}'))
    uri = registry_on(loopback_server, then, challenge=challenge)
    assert fetch_list(uri, loopback_client(), 100, credential=JANE).body == LIST
    shown = [
        (urlsplit(one.path).path.split("/")[-2:][0], one.headers.get("Authorization"))
        for one in loopback_server.requests
    ]
    assert shown == [
        ("manifests", None),
        ("", JANE.authorization),
        ("manifests", "Bearer tok"),
        ("blobs", "Bearer tok"),
    ]
    assert "evil" not in loopback_server.requests[1].path
    with pytest.raises(HttpStatusError):
        fetch_list(uri, loopback_client(), 100)


@pytest.mark.threat("T54")
@pytest.mark.parametrize(
    ("challenge", "error"),
    [
        ("", HttpStatusError),
        ("Negotiate", HttpStatusError),
        ("Bearer", AddressRefusedError),
        ('Bearer realm=""', AddressRefusedError),
        ('Bearer realm="file:///etc/passwd"', AddressRefusedError),
        ('Bearer realm="http://127.0.0.1:1/token"', AddressRefusedError),
        ('Bearer realm="https://u:p@127.0.0.1:1/token"', AddressRefusedError),
        ('Bearer realm="https://127.0.0.1:1/token?a=b"', AddressRefusedError),
        ('Bearer realm="https://169.254.169.254/token"', AddressRefusedError),
        ("Bearer " + "x" * 60_000, AddressRefusedError),
    ],
)
def test_a_challenge_that_leads_astray_is_not_followed(loopback_server, challenge, error):
    uri = registry_on(loopback_server, behave.serve(b"{}"), challenge=challenge)
    with pytest.raises(error):
        fetch_list(uri, loopback_client(), 100)
    assert len(loopback_server.requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"{}",
        b'{"token": 1}',
        b'{"token": ""}',
        b'{"token": "a b"}',
        b'{"token": "a\\r\\nX: 1"}',
        b"tok",
        b"x" * 70_000,
    ],
)
def test_what_is_no_token_is_an_error_that_does_not_show_it(loopback_server, answer):
    uri = registry_on(loopback_server, behave.serve(answer), challenge=f'Bearer realm="{loopback_server.url("token")}"')
    with pytest.raises(TransferError) as caught:
        fetch_list(uri, loopback_client(), 100)
    assert "a b" not in str(caught.value.as_dict())
    assert len(loopback_server.requests) == 2


def test_a_registry_that_never_takes_its_own_token_is_given_up(loopback_server):
    challenge = f'Bearer realm="{loopback_server.url("token")}"'
    uri = registry_on(loopback_server, behave.serve(b'{"token": "other"}'), challenge=challenge)
    with pytest.raises(HttpStatusError, match="401"):
        fetch_list(uri, loopback_client(), 100)
    assert len(loopback_server.requests) == 3


def test_a_blob_that_lies_elsewhere_is_fetched_without_the_token(loopback_server, tmp_path):
    challenge = f'Bearer realm="{loopback_server.url("token")}"'
    uri = registry_on(loopback_server, behave.serve(b'{"token": "tok"}'), challenge=challenge)
    with LoopbackServer() as store:
        target = store.set("blob", behave.serve(LIST)) + "?X-Amz-Signature=canary"
        moved = behave.guarded("Bearer tok", behave.redirect(target), challenge)
        loopback_server.set(f"v2/vo/list/blobs/{digest_of(LIST)}", moved)
        assert fetch_list(uri, loopback_client(), 100).body == LIST
        assert "Authorization" not in store.requests[0].headers
        store.set("blob", behave.serve(b"x" * len(LIST)))
        with pytest.raises(TransferError, match="not the content") as caught:
            fetch_list(uri, loopback_client(), 100)
    assert "canary" not in str(caught.value.as_dict())


def test_a_registry_that_lies_about_its_manifest_is_not_believed(loopback_server):
    manifest = write_manifest(image_list_manifest(LIST))
    uri = f"oci+http://127.0.0.1:{loopback_server.port}/vo/list:1"
    wrong = {"Docker-Content-Digest": digest_of(b"other")}
    loopback_server.set("v2/vo/list/manifests/1", behave.status(200, manifest, wrong))
    with pytest.raises(TransferError, match="not the content"):
        fetch_list(uri, loopback_client(), 100)
    loopback_server.set("v2/vo/list/manifests/1", behave.serve(b"<html>"))
    with pytest.raises(MalformedListError):
        fetch_list(uri, loopback_client(), 100)
    loopback_server.set("v2/vo/list/manifests/1", behave.endless())
    with pytest.raises(TransferTooLargeError):
        fetch_list(uri, loopback_client(), 100)
