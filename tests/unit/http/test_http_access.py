# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from coppice.errors import CredentialError
from coppice.http.access import Access, credential_for, server_anchors_for
from coppice.model.credential import CredentialKind, CredentialReference

pytestmark = [pytest.mark.unit, pytest.mark.threat("T54")]


def reference(path):
    return CredentialReference(kind=CredentialKind.BEARER, secret_file=path)


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.touch(mode=0o600)
    path.write_text("canary")
    return path


def test_a_lists_credential_is_for_images_on_the_very_server_of_the_list(secret):
    accesses = [
        Access(url="https://elsewhere.example.org/list", credential=reference(Path("/nowhere"))),
        Access(url="https://Lists.example.org/list", credential=reference(secret)),
        Access(url="oci://registry.example.org/vo/list:1", credential=reference(secret)),
    ]
    for url in (
        "https://lists.example.org:443/images/a?b",
        "https://registry.example.org/v2/vo/images/blobs/x",
        f"oci://registry.example.org/vo/images@sha256:{'0' * 64}",
    ):
        assert credential_for(url, accesses).authorization == "Bearer canary"
    for url in (
        "http://lists.example.org/a",
        "https://lists.example.org:444/a",
        "https://images.example.org/a",
        "https://lists.example.org.evil.example/a",
        "https://evil.example/https://lists.example.org/a",
        "https://jane:own@lists.example.org/a",
        f"oci+http://registry.example.org/vo/images@sha256:{'0' * 64}",
        f"oci://other.example.org/vo/images@sha256:{'0' * 64}",
        "file:///etc/passwd",
        "nonsense",
        "",
    ):
        assert credential_for(url, accesses) is None


def test_a_secret_is_read_only_when_it_is_needed_and_then_it_must_be_there():
    accesses = [Access(url="https://a/list", credential=reference(Path("/nowhere")))]
    assert credential_for("https://b/image", accesses) is None
    with pytest.raises(CredentialError):
        credential_for("https://a/image", accesses)


def test_a_lists_server_anchors_count_for_its_images_wherever_they_are():
    assert server_anchors_for([]) is None
    assert server_anchors_for([Access(url="https://a/"), Access(url="https://b/", server_anchors=Path("/x"))]) == Path(
        "/x"
    )
