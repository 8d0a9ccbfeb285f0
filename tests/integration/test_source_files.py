# SPDX-License-Identifier: Apache-2.0
"""Image files with signed checksums at a real server: which directory, which files, what is forged."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from coppice.clock import FixedClock
from coppice.errors import (
    ChangedListError,
    CoppiceError,
    HttpStatusError,
    MalformedListError,
    OlderListError,
    SignatureFormError,
    SignerExpiredError,
    TamperedListError,
    TransferError,
    UnreachableError,
    UnsignedListError,
    UntrustedSignerError,
    UnverifiedSourceError,
)
from coppice.formats.limits import DEFAULT_LIMITS
from coppice.subscription.anchors import AnchorShelf
from coppice.subscription.list_warnings import DEFAULT_TERMS
from coppice.subscription.model import SourceReference, TrustedVersion
from coppice.subscription.source.fetching import DocumentFetcher
from coppice.subscription.source.files import FilesSource
from coppice.subscription.source.protocol import Circumstances, SourceSupplies
from coppice.testing.client import loopback_client
from coppice.testing.stages.files import FilesByDetachedKey
from coppice.testing.stages.stage import NOW

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from coppice.subscription.model import Subscription, VerifiedImageList

pytestmark = pytest.mark.integration
UBUNTU = {"pattern": r"noble-server-cloudimg-(?P<arch>amd64|arm64)\.img", "directory": "[0-9]{8}(\\.[0-9]+)?"}


class Folder(FilesByDetachedKey):
    """A server of image files, and a site that looks at it."""

    base = "images"

    def with_options(self, **options: object) -> Subscription:
        given = {**UBUNTU, "keyring": str(self.keyring), **options}
        chosen = {name: value for name, value in given.items() if value is not None}
        return replace(self.subscription(), source=SourceReference(driver="files", options=chosen))

    def source(self) -> FilesSource:
        client = loopback_client(attempts=1)
        return FilesSource(
            SourceSupplies(client=client, clock=FixedClock(NOW), limits=DEFAULT_LIMITS, anchors=AnchorShelf())
        )

    def put(self, directory: str, files: Mapping[str, bytes], *, at: datetime | None = None) -> bytes:
        """Publish a directory; return its checksum file."""
        for name, data in files.items():
            self.server.put(f"images/{directory}/{name}", data)
        sums = "".join(f"{hashlib.sha256(data).hexdigest()} *{name}\n" for name, data in files.items()).encode()
        self.server.put(f"images/{directory}/SHA256SUMS", sums)
        signature = self.gnupg.sign_detached(sums, self.key, at=at or NOW - timedelta(hours=1))
        self.server.put(f"images/{directory}/SHA256SUMS.gpg", signature)
        return sums

    def message(self, **options: object) -> bytes:
        found = self.source().fetch(self.with_options(**options), None).body
        assert found is not None
        return found

    def verified(
        self, message: bytes | None = None, *, last: VerifiedImageList | None = None, **options: object
    ) -> VerifiedImageList:
        floor = None
        if last is not None:
            floor = TrustedVersion(version=last.content.version, payload_checksum=last.payload_checksum)
        circumstances = Circumstances(last=floor, now=NOW, limits=DEFAULT_LIMITS, terms=DEFAULT_TERMS)
        found = self.message(**options) if message is None else message
        return self.source().verify(found, self.with_options(**options), circumstances)


def image(arch: str = "amd64") -> str:
    return f"noble-server-cloudimg-{arch}.img"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    with Folder(tmp_path / "folder") as found:
        yield found


def test_the_newest_directory_that_has_what_is_wanted_counts(folder: Folder):
    folder.put("20260101", {image(): b"one"}, at=NOW - timedelta(hours=9))
    folder.put("20260102.9", {image(): b"nine"}, at=NOW - timedelta(hours=8))
    folder.put("20260102.10", {image(): b"ten", image("arm64"): b"arm"}, at=NOW - timedelta(hours=7))
    folder.put("20260103", {"other.img": b"-"}, at=NOW - timedelta(hours=6))
    folder.put("latest", {image(): b"moves"})
    folder.server.put("images/20260104/README", b"being uploaded")
    found = folder.verified()
    images = {each.operating_system.architecture: each for each in found.content.images}
    assert images["x86_64"].uri == folder.server.url(f"/images/20260102.10/{image()}")
    assert images["x86_64"].size_bytes == 3
    assert set(images) == {"x86_64", "aarch64"}
    signed_at = NOW - timedelta(hours=7)
    assert found.content.version == images["x86_64"].version == f"{signed_at:%Y%m%d%H%M%S}"
    assert found.content.validity.expires == signed_at + timedelta(days=180)
    with pytest.raises(MalformedListError, match="no checksum file"):
        folder.message(max_items=2)


@pytest.mark.threat("T29")
def test_an_older_directory_under_a_newer_name_is_older_all_the_same(folder: Folder):
    folder.put("20260101", {image(): b"old"}, at=NOW - timedelta(hours=9))
    old = folder.verified()
    folder.put("20260102", {image(): b"new"}, at=NOW - timedelta(hours=8))
    last = folder.verified(last=old)
    for name in ("SHA256SUMS", "SHA256SUMS.gpg", image()):
        path = folder.server.root / f"images/20260101/{name}"
        folder.server.put(f"images/20260103/{name}", path.read_bytes())
    with pytest.raises(OlderListError):
        folder.verified(last=last)


@pytest.mark.threat("T30")
def test_one_date_has_one_content(folder: Folder):
    at = NOW - timedelta(hours=9)
    folder.put("20260101", {image(): b"one"}, at=at)
    last = folder.verified()
    folder.put("20260101", {image(): b"two"}, at=at)
    with pytest.raises(ChangedListError):
        folder.verified(last=last)


@pytest.mark.threat("T5")
def test_checksums_and_signatures_must_belong_together(folder: Folder):
    sums = folder.put("20260101", {image(): b"one"})
    place = "images/20260101/SHA256SUMS"
    folder.server.put(place, sums.replace(b"-server", b"-Server"))
    with pytest.raises(MalformedListError):
        folder.message()
    folder.server.put(place, sums + b"0" * 64 + b" *x\n")
    with pytest.raises(TamperedListError):
        folder.verified()
    folder.server.put(place, sums)
    cases: list[tuple[bytes, type[CoppiceError]]] = [
        (folder.gnupg.sign_detached(b"other", folder.key), TamperedListError),
        (folder.gnupg.sign_detached(sums, folder.gnupg.make_key("Mallory")), UntrustedSignerError),
        (folder.gnupg.sign_inline(sums, folder.key), SignatureFormError),
        (folder.gnupg.clear_sign(sums, folder.key), SignatureFormError),
        (b"not found", SignatureFormError),
    ]
    for signature, error in cases:
        folder.server.put(f"{place}.gpg", signature)
        with pytest.raises(error):
            folder.verified()
    (folder.server.root / f"{place}.gpg").unlink()
    with pytest.raises(UnsignedListError):
        folder.message()
    folder.server.put(f"{place}.asc", folder.gnupg.sign_detached(sums, folder.key, armour=True))
    assert folder.verified().trusted_by.signer == folder.key.fingerprint


@pytest.mark.threat("T6")
def test_unsigned_checksums_are_believed_only_where_that_is_said(folder: Folder):
    folder.put("20260101", {image(): b"one"})
    (folder.server.root / "images/20260101/SHA256SUMS.gpg").unlink()
    with pytest.raises(UnverifiedSourceError):
        folder.message(keyring=None)
    message = folder.message(keyring=None, trust="transport")
    found = folder.verified(message, keyring=None, trust="transport")
    assert [each.version for each in found.content.images] == ["20260101"]
    assert found.trusted_by.signer == folder.server.url("").rstrip("/")
    for options in ({}, {"keyring": None}):
        with pytest.raises((UnsignedListError, UnverifiedSourceError)):
            folder.verified(message, **options)


def test_a_size_that_nobody_tells_leaves_the_image_unknown(folder: Folder):
    folder.put("20260101", {image(): b"one", image("arm64"): b"two"})
    (folder.server.root / f"images/20260101/{image('arm64')}").unlink()
    content = folder.verified().content
    assert [each.operating_system.architecture for each in content.images] == ["x86_64"]
    assert "size is not known" in content.unreadable[0].problem


def test_a_clear_signed_file_may_bring_its_sizes(folder: Folder):
    digest = hashlib.sha256(b"one").hexdigest()
    text = f"# {image()}: 3 bytes\nSHA256 ({image()}) = {digest}\n".encode()
    folder.server.put("images/20260101/SHA256SUMS", folder.gnupg.clear_sign(text, folder.key))
    (found,) = folder.verified().content.images
    assert (found.size_bytes, found.checksum.hexdigest) == (3, digest)
    # Nobody looked at the image: what was signed is enough.
    assert not (folder.server.root / f"images/20260101/{image()}").exists()


@pytest.mark.threat("T78")
@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "a\\b"])
def test_checksums_name_nothing_that_is_elsewhere(folder: Folder, name: str):
    sums = f"{'a' * 64} *{image()}\n{'b' * 64} *{name}\n".encode()
    folder.server.put("images/20260101/SHA256SUMS", sums)
    folder.server.put("images/20260101/SHA256SUMS.gpg", folder.gnupg.sign_detached(sums, folder.key))
    with pytest.raises(MalformedListError):
        folder.message()


def test_what_could_not_be_found_out_is_not_an_empty_folder(folder: Folder):
    with pytest.raises(HttpStatusError):
        folder.message()
    folder.server.put("images/README", b"-")
    with pytest.raises(MalformedListError) as refused:
        folder.message()
    assert "no directory fits" in (refused.value.details or "")
    folder.put("20260101", {image(): b"one"})
    folder.server.go_down()
    with pytest.raises(TransferError):
        folder.message()


def test_a_folder_of_this_machine_will_do(folder: Folder):
    folder.put("20260101", {image(): b"one"})
    folder.put("20260102", {"other": b"-"})
    subscription = replace(folder.with_options(), uri=(folder.server.root / "images").as_uri())
    first = folder.source().fetch(subscription, None)
    assert first.body is not None
    circumstances = Circumstances(last=None, now=NOW, limits=DEFAULT_LIMITS, terms=DEFAULT_TERMS)
    (found,) = folder.source().verify(first.body, subscription, circumstances).content.images
    assert found.uri == (folder.server.root / f"images/20260101/{image()}").as_uri()
    assert found.size_bytes == 3
    assert folder.source().fetch(subscription, first.validators).body is None
    with pytest.raises(UnreachableError):
        folder.source().fetch(replace(subscription, uri="file:///nowhere/at/all"), None)


@pytest.mark.threat("T18")
def test_a_list_stays_when_its_key_expires_and_no_new_one_comes(folder: Folder):
    folder.key = folder.gnupg.make_key("Short", at=NOW - timedelta(days=30), expires="20d")
    folder.keyring.write_bytes(folder.gnupg.export(folder.key))
    made = NOW - timedelta(days=15)
    folder.put("20260101", {image(): b"one"}, at=made)
    message = folder.message()
    with pytest.raises(SignerExpiredError):
        folder.verified(message)
    circumstances = Circumstances(
        last=None, now=NOW, limits=DEFAULT_LIMITS, terms=DEFAULT_TERMS, first_verified_at=made + timedelta(days=1)
    )
    recalled = folder.source().verify(message, folder.with_options(), circumstances)
    assert [str(each) for each in recalled.warnings if "will be refused" in str(each)]


def test_a_checksum_file_that_is_replaced_meanwhile_is_no_forgery(folder: Folder, monkeypatch: pytest.MonkeyPatch):
    folder.put("20260101", {image(): b"one"}, at=NOW - timedelta(hours=9))
    looked: list[str] = []
    ask = DocumentFetcher.get_if_there

    def get_if_there(self: DocumentFetcher, uri: str, limit_bytes: int) -> bytes | None:
        looked.append(uri)
        if uri.endswith(".gpg") and len(looked) == 2:
            folder.put("20260101", {image(): b"two"}, at=NOW - timedelta(hours=8))
        return ask(self, uri, limit_bytes)

    monkeypatch.setattr(DocumentFetcher, "get_if_there", get_if_there)
    (found,) = folder.verified().content.images
    assert found.checksum.hexdigest == hashlib.sha256(b"two").hexdigest()
