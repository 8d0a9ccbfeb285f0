# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import hashlib
import os
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from coppice.errors import (
    CoppiceError,
    CredentialError,
    MalformedListError,
    TransferError,
    TransferTooLargeError,
    UnreachableError,
    UnsignedListError,
)
from coppice.formats.oci import OciDescriptor, OciManifest, image_list_manifest, write_manifest
from coppice.http import Fetched, Reply, Validators
from coppice.model.credential import CredentialKind, CredentialReference
from coppice.subscription import fetch
from coppice.subscription.fetch import fetch_list
from coppice.subscription.model import Subscription, TrustPolicy

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.unit
TAGGED = Validators(etag='"1"')


class Recorder:
    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def get_if_changed(self, url: str, **asked: Any) -> Fetched:
        self.asked.append((url, asked))
        return Fetched(body=self.answer, validators=TAGGED)


class FakeRegistry:
    """Gives what it holds, by path; records what is asked."""

    def __init__(self, held: dict[str, bytes]) -> None:
        self.held = held
        self.asked: list[str] = []

    def request(self, method: str, url: str, **asked: Any) -> Reply:
        assert method == "GET"
        self.asked.append(url)
        body = self.held[url.partition("/v2/")[2]]
        return Reply(status=200, headers={}, body=body, url=url)


@pytest.fixture
def old_files(monkeypatch):
    """Make files old enough for their times to tell them apart."""
    real = time.time_ns
    monkeypatch.setattr(fetch.time, "time_ns", lambda: real() + 10**10)


def subscription(uri: str, **changed: Any) -> Subscription:
    return Subscription(
        name="one",
        uri=uri,
        list_identifier=None,
        trust=TrustPolicy(endorsers=(), anchors=changed.pop("anchors")),
        added_at=datetime(2026, 1, 1, tzinfo=UTC),
        **changed,
    )


def test_http_goes_through_the_client_with_its_limit_and_what_was_known() -> None:
    client: Any = Recorder(b"list")
    found = fetch_list("https://lists.example.org/a", client, 10, validators=TAGGED)
    assert found == Fetched(body=b"list", validators=TAGGED)
    assert client.asked == [
        (
            "https://lists.example.org/a",
            {"limit_bytes": 10, "validators": TAGGED, "credential": None, "server_anchors": None},
        )
    ]


def test_what_did_not_change_has_no_body() -> None:
    client: Any = Recorder(None)
    assert fetch_list("https://lists.example.org/a", client, 10, validators=TAGGED).body is None


def test_a_subscription_brings_its_credential_and_its_server_anchors(tmp_path: Path) -> None:
    client: Any = Recorder(b"list")
    secret = tmp_path / "token"
    secret.write_text("canary\n")
    secret.chmod(0o600)
    reference = CredentialReference(kind=CredentialKind.BEARER, secret_file=secret)
    one = subscription("https://x/", anchors=tmp_path, credential=reference, server_anchors=tmp_path)
    fetch_list(one, client, 10)
    assert client.asked[0][1]["credential"].authorization == "Bearer canary"
    assert client.asked[0][1]["server_anchors"] == tmp_path
    secret.unlink()
    with pytest.raises(CredentialError):
        fetch_list(one, client, 10)


def test_a_file_is_read_up_to_the_limit(tmp_path: Path) -> None:
    client: Any = Recorder(b"")
    path = tmp_path / "a b.list"
    path.write_bytes(b"12345")
    assert fetch_list(path.as_uri(), client, 5).body == b"12345"
    with pytest.raises(TransferTooLargeError):
        fetch_list(path.as_uri(), client, 4)
    assert client.asked == []


@pytest.mark.usefixtures("old_files")
def test_a_file_that_did_not_change_is_not_read_again(tmp_path: Path) -> None:
    client: Any = Recorder(b"")
    path = tmp_path / "a.list"
    path.write_bytes(b"12345")
    first = fetch_list(path.as_uri(), client, 5)
    assert first.validators
    again = fetch_list(path.as_uri(), client, 5, validators=first.validators)
    assert again == Fetched(body=None, validators=first.validators)
    assert fetch_list(path.as_uri(), client, 5, validators=TAGGED).body == b"12345"


@pytest.mark.usefixtures("old_files")
def test_a_file_of_the_same_size_and_date_is_read_again(tmp_path: Path) -> None:
    client: Any = Recorder(b"")
    path = tmp_path / "a.list"
    path.write_bytes(b"12345")
    first = fetch_list(path.as_uri(), client, 5)
    kept = path.stat()
    time.sleep(0.02)
    path.write_bytes(b"54321")
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    assert fetch_list(path.as_uri(), client, 5, validators=first.validators).body == b"54321"
    other = tmp_path / "other"
    other.write_bytes(b"00000")
    os.utime(other, ns=(kept.st_atime_ns, kept.st_mtime_ns))
    second = fetch_list(path.as_uri(), client, 5)
    other.replace(path)
    assert fetch_list(path.as_uri(), client, 5, validators=second.validators).body == b"00000"


def test_a_file_that_was_written_a_moment_ago_is_read_again_the_next_time(tmp_path: Path) -> None:
    client: Any = Recorder(b"")
    path = tmp_path / "a.list"
    path.write_bytes(b"12345")
    assert not fetch_list(path.as_uri(), client, 5).validators


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    client: Any = Recorder(b"")
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "missing", "."):
        with pytest.raises(UnreachableError):
            fetch_list(f"file://{tmp_path}/{name}", client, 10)
    with pytest.raises(UnreachableError):
        fetch_list("file:///a%00b", client, 10)


@pytest.mark.parametrize(
    "uri",
    [
        "ftp://x/y",
        "list",
        "",
        "file://host/x",
        "http:///x",
        "gopher://x",
        "http://[x",
        "oci://registry/name",
        "oci://registry/../x:1",
        "oci:registry/name:1",
    ],
)
def test_other_addresses_are_refused(uri: str) -> None:
    client: Any = Recorder(b"")
    with pytest.raises(TransferError, match="cannot be fetched"):
        fetch_list(uri, client, 10)


def test_an_empty_answer_is_no_list() -> None:
    client: Any = Recorder(b"")
    with pytest.raises(UnsignedListError, match="empty"):
        fetch_list("http://lists.example.org/", client, 10)


@pytest.mark.threat("T54")
def test_credentials_in_an_address_stay_out_of_errors() -> None:
    client: Any = Recorder(b"")
    for uri in (
        "https://me:canary@lists.example.org/a",
        "ftp://me:canary@lists.example.org/a",
        "oci://me:canary@lists.example.org/a:1",
    ):
        with pytest.raises(CoppiceError) as caught:
            fetch_list(uri, client, 10)
        assert "canary" not in str(caught.value.as_dict())


def held(manifest: bytes, *, tag: str = "1", blob: bytes = b"signed") -> dict[str, bytes]:
    digest = hashlib.sha256(manifest).hexdigest()
    blob_digest = hashlib.sha256(b"signed").hexdigest()
    return {
        f"vo/list/manifests/{tag}": manifest,
        f"vo/list/manifests/sha256:{digest}": manifest,
        f"vo/list/blobs/sha256:{blob_digest}": blob,
    }


def test_a_list_is_pulled_from_a_registry_and_only_looked_at_the_next_time() -> None:
    client: Any = FakeRegistry(held(write_manifest(image_list_manifest(b"signed"))))
    found = fetch_list("oci://registry.example.org/vo/list:1", client, 10)
    assert found.body == b"signed"
    assert [url.rpartition("/")[0] for url in client.asked] == [
        "https://registry.example.org/v2/vo/list/manifests",
        "https://registry.example.org/v2/vo/list/blobs",
    ]
    client.asked.clear()
    again = fetch_list("oci://registry.example.org/vo/list:1", client, 10, validators=found.validators)
    assert again == Fetched(body=None, validators=found.validators)
    assert len(client.asked) == 1


def test_a_manifest_that_is_named_by_its_digest_is_held_against_it() -> None:
    manifest = write_manifest(image_list_manifest(b"signed"))
    digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    client: Any = FakeRegistry(held(manifest))
    assert fetch_list(f"oci://r/vo/list@{digest}", client, 10).body == b"signed"
    client.held[f"vo/list/manifests/{digest}"] = manifest.replace(b'"size":6', b'"size":7')
    with pytest.raises(TransferError, match="not the content"):
        fetch_list(f"oci://r/vo/list@{digest}", client, 10)


@pytest.mark.parametrize("blob", [b"forged", b"signe", b"signed!"])
def test_a_layer_that_is_not_what_its_digest_says_is_refused(blob: bytes) -> None:
    client: Any = FakeRegistry(held(write_manifest(image_list_manifest(b"signed")), blob=blob))
    with pytest.raises(TransferError, match=r"not the content|longer than the 6 bytes"):
        fetch_list("oci://r/vo/list:1", client, 10)


def test_a_layer_beyond_the_limit_is_not_asked_for() -> None:
    client: Any = FakeRegistry(held(write_manifest(image_list_manifest(b"signed"))))
    with pytest.raises(TransferTooLargeError):
        fetch_list("oci://r/vo/list:1", client, 5)
    assert len(client.asked) == 1


def test_the_only_layer_is_the_list_whatever_its_type_and_two_are_refused() -> None:
    layer = OciDescriptor.of(b"signed", "application/octet-stream")
    client: Any = FakeRegistry(held(write_manifest(OciManifest(layers=(layer,)))))
    assert fetch_list("oci://r/vo/list:1", client, 10).body == b"signed"
    client = FakeRegistry(held(write_manifest(OciManifest(layers=(layer, layer)))))
    with pytest.raises(MalformedListError, match="2 layers"):
        fetch_list("oci://r/vo/list:1", client, 10)


@pytest.mark.parametrize("payload", [b"", b"{}", b"[]", b"\xff", b'{"schemaVersion":1}'])
def test_what_is_no_manifest_is_no_list(payload: bytes) -> None:
    client: Any = FakeRegistry(held(payload))
    with pytest.raises(MalformedListError):
        fetch_list("oci://r/vo/list:1", client, 10)
