# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from coppice.errors import AddressRefusedError, PublicationError
from coppice.formats.oci import OciReference
from coppice.http import Credential, Reply
from coppice.http.credential import ClientCertificate
from coppice.imagelist.registry import WritableRepository
from coppice.model.credential import CredentialKind

pytestmark = [pytest.mark.unit, pytest.mark.threat("T54")]
URL = "https://registry.example.org"
REFERENCE = OciReference(scheme="https", registry="registry.example.org", repository="vo/list")
JANE = Credential.basic("jane", "canary")


class FakeWeb:
    """Answers as a registry that wants a token from ``realm``."""

    server_anchors = None
    gives = "tok"
    more = ""

    def __init__(self, realm, credential) -> None:
        self.realm = realm
        self.held = credential
        self.asked = []
        self.client = self

    def credential(self):
        return self.held

    def request(self, method, url, *, credential=None, **_):
        self.asked.append((url, None if credential is None else credential.authorization))
        if url.startswith(self.realm):
            return Reply(status=200, headers={}, body=json.dumps({"token": self.gives}).encode(), url=url)
        is_let_in = credential is not None and credential.authorization == f"Bearer {self.gives}"
        headers = {"www-authenticate": f'Bearer realm="{self.realm}",service="s"{self.more}', "content-length": "5"}
        return Reply(status=200 if is_let_in else 401, headers=headers, body=b"", url=url)


def size_at(web, **more):
    return WritableRepository(REFERENCE, web, chunk_bytes=1, **more).blob_size("sha256:" + "0" * 64)


def test_the_credential_is_shown_for_a_token_to_the_registrys_own_server():
    web = FakeWeb(f"{URL}/token", JANE)
    assert size_at(web) == 5
    assert [shown for _, shown in web.asked] == [JANE.authorization, JANE.authorization, "Bearer tok"]


@pytest.mark.parametrize(
    "realm",
    ["https://evil.example/token", "http://registry.example.org/token", f"{URL}.evil.example/", f"{URL}:444/token"],
)
def test_the_credential_is_shown_to_no_other_server_for_a_token_unless_it_was_named(realm):
    web = FakeWeb(realm, JANE)
    for named in (None, "https://tokens.example.org/"):
        with pytest.raises(PublicationError, match="another server") as caught:
            size_at(web, token_server=named)
        assert "token_server" in caught.value.resolution
    assert [url for url, _ in web.asked if url.startswith(realm)] == []
    assert size_at(web, token_server=realm) == 5


def test_without_a_credential_a_token_may_come_from_another_server_with_tls():
    assert size_at(FakeWeb("https://tokens.example.org/token", None)) == 5
    with pytest.raises(PublicationError):
        size_at(FakeWeb("http://tokens.example.org/token", None))
    with pytest.raises(AddressRefusedError):
        size_at(FakeWeb("file:///etc/passwd", None))


def test_a_token_is_had_for_all_scopes_that_the_registry_named(monkeypatch):
    web = FakeWeb(f"{URL}/token", JANE)
    repository = WritableRepository(REFERENCE, web, chunk_bytes=1)
    scopes = ["repository:vo/list:pull", "repository:vo/list:delete"]
    for scope in scopes:
        monkeypatch.setattr(web, "more", f',scope="{scope}"')
        monkeypatch.setattr(web, "gives", scope[-4:])
        repository.blob_size("sha256:" + "0" * 64)
    asked = [parse_qs(urlsplit(url).query)["scope"] for url, _ in web.asked if url.startswith(web.realm)]
    assert asked == [scopes[:1], scopes]
    assert repository.credential().authorization == "Bearer lete"


@pytest.mark.parametrize("token", ["", "a b", "a\r\nX: 1"])
def test_what_is_no_token_is_a_failure_of_the_place(monkeypatch, token):
    web = FakeWeb(f"{URL}/token", JANE)
    monkeypatch.setattr(web, "gives", token)
    with pytest.raises(PublicationError, match="no token"):
        size_at(web)


def test_a_client_certificate_is_shown_along_with_the_token_that_it_brought():
    certificate = ClientCertificate(certificate=Path("c.pem"), key=Path("k.pem"))
    web = FakeWeb(f"{URL}/token", Credential(kind=CredentialKind.CLIENT_CERTIFICATE, certificate=certificate))
    repository = WritableRepository(REFERENCE, web, chunk_bytes=1)
    assert repository.blob_size("sha256:" + "0" * 64) == 5
    assert (repository.credential().authorization, repository.credential().certificate) == ("Bearer tok", certificate)
