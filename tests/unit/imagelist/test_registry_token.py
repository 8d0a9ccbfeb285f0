# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from coppice.errors import AddressRefusedError, PublicationError
from coppice.http import Credential, Reply
from coppice.imagelist.registry import Registry

pytestmark = [pytest.mark.unit, pytest.mark.threat("T54")]
URL = "https://registry.example.org"
JANE = Credential.basic("jane", "canary")


class FakeWeb:
    """Answers as a registry that wants a token from ``realm``."""

    def __init__(self, realm, credential) -> None:
        self.realm = realm
        self.held = credential
        self.asked = []

    def credential(self):
        return self.held

    def ask(self, method, url, *, credential=None, **_):
        shown = credential or self.held
        self.asked.append((url, None if shown is None else shown.authorization))
        if url.startswith(self.realm):
            return Reply(status=200, headers={}, body=b'{"token": "tok"}', url=url)
        is_let_in = credential is not None and credential.authorization == "Bearer tok"
        headers = {"www-authenticate": f'Bearer realm="{self.realm}",service="s"', "content-length": "5"}
        return Reply(status=200 if is_let_in else 401, headers=headers, body=b"", url=url)


def size_at(web, **more):
    return Registry(URL, "vo/list", web, chunk_bytes=1, **more).blob_size("sha256:" + "0" * 64)


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
