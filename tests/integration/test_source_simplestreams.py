# SPDX-License-Identifier: Apache-2.0
"""Signed streams at a real server: what belongs together, what is older, what is forged."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from coppice.clock import FixedClock
from coppice.errors import (
    ChangedListError,
    CoppiceError,
    ExpiredListError,
    FutureListError,
    HttpStatusError,
    KeyringError,
    MalformedListError,
    OlderListError,
    SignatureFormError,
    SignerExpiredError,
    TamperedListError,
    TransferTooLargeError,
    UnsignedListError,
    UntrustedSignerError,
    UnverifiedSourceError,
    WrongSignerError,
)
from coppice.formats.limits import DEFAULT_LIMITS
from coppice.http import Validators
from coppice.subscription.anchors import AnchorShelf
from coppice.subscription.list_warnings import DEFAULT_TERMS
from coppice.subscription.model import SourceReference, TrustedVersion
from coppice.subscription.source.gathered import Gathered, read_gathered, write_gathered
from coppice.subscription.source.protocol import Circumstances, SourceSupplies
from coppice.subscription.source.simplestreams import SimplestreamsSource
from coppice.testing import streams
from coppice.testing.client import loopback_client
from coppice.testing.stages.simplestreams import StreamsByKey
from coppice.testing.stages.stage import NOW

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from coppice.subscription.model import Subscription, VerifiedImageList

pytestmark = pytest.mark.integration
INDEX = "streams/v1/index.sjson"


class Mirror(StreamsByKey):
    """A mirror, and a site that looks at it."""

    limits = DEFAULT_LIMITS

    def source(self) -> SimplestreamsSource:
        return SimplestreamsSource(
            SourceSupplies(client=loopback_client(), clock=FixedClock(NOW), limits=self.limits, anchors=AnchorShelf())
        )

    def with_options(self, **options: object) -> Subscription:
        chosen = {name: value for name, value in {**self.options, **options}.items() if value is not None}
        return replace(self.subscription(), source=SourceReference(driver="simplestreams", options=chosen))

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
        circumstances = Circumstances(last=floor, now=NOW, limits=self.limits, terms=DEFAULT_TERMS)
        found = self.message(**options) if message is None else message
        return self.source().verify(found, self.with_options(**options), circumstances)

    @property
    def products_path(self) -> str:
        return f"streams/v1/{self.products_name}"

    def read(self, path: str) -> bytes:
        return (self.server.root / "releases" / path).read_bytes()

    def requests(self) -> list[str]:
        log = self.server.directory / "access.log"
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Mirror]:
    with Mirror(tmp_path / "mirror") as found:
        found.publish(1)
        yield found


def mixed(mirror: Mirror, old: bytes, new: bytes, name: str) -> bytes:
    """Put a document of one message into another."""
    one = read_gathered(old, driver="simplestreams", limits=DEFAULT_LIMITS)
    two = read_gathered(new, driver="simplestreams", limits=DEFAULT_LIMITS)
    documents = tuple(one.document(name) if each.name == name else each for each in two.documents)
    gathered = Gathered(driver="simplestreams", gathered_at=two.gathered_at, documents=documents)
    return write_gathered(gathered, DEFAULT_LIMITS)


def test_a_list_is_dated_by_what_was_signed(mirror: Mirror):
    found = mirror.verified()
    assert found.content.version == f"{mirror.date(1):%Y%m%d%H%M%S}"
    assert found.content.validity.created == mirror.date(1)
    assert found.content.validity.expires == mirror.date(1) + timedelta(days=180)
    assert found.trusted_by.signer == mirror.key.fingerprint
    assert found.content.title == "com.ubuntu.cloud:released:download"
    assert {image.version for image in found.content.images} == {"20260101.1"}
    assert mirror.verified(valid_days=30).content.validity.expires == mirror.date(1) + timedelta(days=30)


def test_the_index_that_is_signed_anew_prolongs_what_it_names(mirror: Mirror):
    before = mirror.verified()
    contents = {mirror.content_id: streams.entry(mirror.products_path, {"products": {}}, updated=mirror.date(1))}
    index = streams.written(streams.index(contents, updated=NOW - timedelta(hours=1)))
    mirror.put(INDEX, mirror.gnupg.clear_sign(index, mirror.key))
    after = mirror.verified(last=before)
    assert after.content.version == before.content.version
    assert after.payload_checksum == before.payload_checksum
    assert after.content.validity.expires == NOW - timedelta(hours=1) + timedelta(days=180)


@pytest.mark.threat("T29")
def test_older_streams_are_refused_whatever_is_replayed(mirror: Mirror):
    old = mirror.message()
    mirror.publish(2)
    new = mirror.message()
    last = mirror.verified(new)
    with pytest.raises(OlderListError, match="verified before"):
        mirror.verified(old, last=last)
    # The products of one date with the index of another.
    with pytest.raises(OlderListError, match="older than their index"):
        mirror.verified(mixed(mirror, old, new, "products"), last=last)
    with pytest.raises(OlderListError, match="older than their index"):
        mirror.verified(mixed(mirror, old, new, "products"))
    # New products that the mirror's index does not name yet are no harm: they are what counts.
    early = mirror.verified(mixed(mirror, old, new, "index"), last=last)
    assert early.content.images == last.content.images


@pytest.mark.threat("T30")
def test_products_of_one_date_do_not_change(mirror: Mirror):
    last = mirror.verified()
    products = mirror.products({"x86_64": b"other", "aarch64": b"other"}, 1)
    mirror.put(mirror.products_path, mirror.sealed(streams.written(products), 2))
    with pytest.raises(ChangedListError):
        mirror.verified(last=last)


@pytest.mark.threat("T32")
def test_products_from_the_future_are_refused(mirror: Mirror):
    products = mirror.products({"x86_64": b"x"}, 1)
    products["updated"] = "Wed, 25 Nov 2099 10:00:00 +0000"
    mirror.put(mirror.products_path, mirror.sealed(streams.written(products), 1))
    with pytest.raises(FutureListError):
        mirror.verified()


@pytest.mark.threat("T5")
@pytest.mark.parametrize("path", [INDEX, "streams/v1/com.ubuntu.cloud:released:download.sjson"])
def test_what_was_changed_anywhere_is_refused(mirror: Mirror, path: str):
    signed = mirror.read(path)
    forgeries: list[tuple[bytes, type[CoppiceError]]] = [
        (signed.replace(b"image-downloads", b"image-downloadz"), TamperedListError),
        (signed + b'{"format": "index:1.0", "index": {}}\n', SignatureFormError),
        (signed + signed, SignatureFormError),
        (signed.replace(b"\n{", b"\n\x0c{", 1), SignatureFormError),
        (signed[: len(signed) // 2], SignatureFormError),
        (mirror.gnupg.sign_inline(b"{}", mirror.key, armour=True), UnsignedListError),
        (signed[signed.index(b"{") : signed.index(b"-----BEGIN PGP SIGNATURE")], UnsignedListError),
        (mirror.gnupg.clear_sign(b"{}", mirror.key), MalformedListError),
        (mirror.gnupg.clear_sign(b'{"format": "index:1.0", "format": "x"}', mirror.key), MalformedListError),
        (mirror.gnupg.clear_sign(b'{"format": ' + b"[\n" * 50_000, mirror.key), MalformedListError),
    ]
    for forged, error in forgeries:
        mirror.put(path, forged)
        with pytest.raises((error, UnsignedListError, MalformedListError)) as refused:
            mirror.verified()
        # An index must be read to learn where the products are, before anything is judged.
        assert isinstance(refused.value, error) or path == INDEX


@pytest.mark.threat("T13")
def test_a_key_that_is_not_pinned_signs_neither(mirror: Mirror):
    mallory = mirror.gnupg.make_key("Mallory", at=NOW - timedelta(days=9))
    for path in (INDEX, mirror.products_path):
        good = mirror.read(path)
        text = b"\n".join(good.split(b"\n")[3:]).partition(b"\n-----BEGIN")[0]
        mirror.put(path, mirror.gnupg.clear_sign(text, mallory))
        with pytest.raises(UntrustedSignerError):
            mirror.verified()
        mirror.put(path, good)
    mirror.keyring.write_bytes(mirror.gnupg.export(mirror.key, mallory))
    mirror.verified(signer=mirror.key.fingerprint)
    with pytest.raises(WrongSignerError):
        mirror.verified(signer=mallory.fingerprint)
    with pytest.raises(KeyringError, match="does not have the key"):
        mirror.source().trust_state(mirror.with_options(signer="A" * 40))


@pytest.mark.threat("T6")
def test_a_server_that_signs_nothing_is_believed_only_where_that_is_said(mirror: Mirror):
    (mirror.server.root / "releases" / INDEX).unlink()
    contents = {"images": streams.entry("streams/v1/images.json", {"products": {}}, updated=None)}
    mirror.put("streams/v1/index.json", streams.written(streams.index(contents, updated=None)))
    product = streams.lxd_product("Alpine", "3.22", "amd64", {"20260101_13:00": b"vm"})
    mirror.put("streams/v1/images.json", streams.written(streams.products("images", {"alpine": product}, updated=None)))
    with pytest.raises(HttpStatusError, match="no signed index") as refused:
        mirror.message()
    assert refused.value.resolution is not None
    assert "transport" in refused.value.resolution
    with pytest.raises(UnverifiedSourceError):
        mirror.message(keyring=None)
    believed = mirror.verified(keyring=None, trust="transport")
    assert believed.trusted_by.signer == mirror.server.url("").rstrip("/")
    message = mirror.message(keyring=None, trust="transport")
    for options in ({}, {"keyring": None}):
        with pytest.raises((UnsignedListError, UnverifiedSourceError, MalformedListError)):
            mirror.verified(message, **options)


def test_one_subscription_follows_one_stream(mirror: Mirror):
    products = {"products": {}}
    contents = {
        name: streams.entry(path, products, updated=mirror.date(1))
        for name, path in ((mirror.content_id, mirror.products_path), ("other", "streams/v1/other.sjson"))
    }
    mirror.put(INDEX, mirror.sealed(streams.written(streams.index(contents, updated=mirror.date(1))), 1))
    with pytest.raises(MalformedListError, match="2 streams") as refused:
        mirror.message()
    assert mirror.content_id in (refused.value.details or "")
    assert mirror.verified(content_id=mirror.content_id).content.images
    with pytest.raises(MalformedListError, match="no stream"):
        mirror.message(content_id="nothing")
    # An index that leads to the products of another stream.
    contents["other"] = contents[mirror.content_id]
    mirror.put(INDEX, mirror.sealed(streams.written(streams.index(contents, updated=mirror.date(1))), 1))
    with pytest.raises(MalformedListError, match="the index names the stream"):
        mirror.verified(content_id="other")


def test_subscriptions_that_take_other_images_of_one_stream_are_to_two_lists(mirror: Mirror):
    one, same, other = (
        mirror.verified(filters=filters).content
        for filters in (["arch=amd64", "ftype=disk1.img"], ["ftype=disk1.img", "arch = amd64"], ["arch~amd64"])
    )
    assert one.identifier == same.identifier
    assert len({one.identifier, other.identifier, mirror.verified(filters=None).content.identifier}) == 3
    assert not {each.identifier for each in one.images} & {each.identifier for each in other.images}


def test_products_can_be_named_without_an_index(mirror: Mirror):
    subscription = replace(mirror.with_options(), uri=mirror.server.url(f"/releases/{mirror.products_path}"))
    message = mirror.source().fetch(subscription, None).body
    assert message is not None
    circumstances = Circumstances(last=None, now=NOW, limits=DEFAULT_LIMITS, terms=DEFAULT_TERMS)
    found = mirror.source().verify(message, subscription, circumstances)
    assert found.content.identifier == mirror.verified().content.identifier


def test_products_that_did_not_change_are_not_sent_again(mirror: Mirror):
    first = mirror.source().fetch(mirror.with_options(), None)
    again = mirror.source().fetch(mirror.with_options(), first.validators)
    assert again.body is None
    assert " 304 " in mirror.requests()[-1]
    assert ".sjson" in mirror.requests()[-1]
    mirror.publish(2)
    changed = mirror.source().fetch(mirror.with_options(), again.validators)
    assert changed.body is not None
    for odd in ('"ss-x"', '"ss-' + "0" * 40 + "-" + "0" * 40 + '-!!"', '"ss-' + "0" * 40 + "-" + "0" * 40 + '-e30"'):
        assert mirror.source().fetch(mirror.with_options(), Validators(etag=odd)).body is not None


@pytest.mark.threat("T28")
def test_streams_larger_than_a_list_are_refused(mirror: Mirror):
    size = len(mirror.read(mirror.products_path))
    mirror.limits = replace(DEFAULT_LIMITS, size_bytes=size - 1)
    with pytest.raises(TransferTooLargeError):
        mirror.message()


def test_a_folder_of_this_machine_is_a_mirror(mirror: Mirror):
    folder = (mirror.server.root / "releases").as_uri()
    subscription = replace(mirror.with_options(), uri=folder)
    message = mirror.source().fetch(subscription, None).body
    assert message is not None
    circumstances = Circumstances(last=None, now=NOW, limits=DEFAULT_LIMITS, terms=DEFAULT_TERMS)
    found = mirror.source().verify(message, subscription, circumstances)
    assert all(image.uri.startswith(f"{folder}/server/") for image in found.content.images)


@pytest.mark.parametrize(
    "change",
    [
        lambda products: products.pop("updated"),
        lambda products: products.update(datatype="image-ids"),
        lambda products: products.update(format="index:1.0", index={}),
    ],
)
def test_products_that_are_none_are_refused(mirror: Mirror, change: Callable[[Any], object]):
    products: Any = mirror.products({"x86_64": b"x"}, 1)
    change(products)
    mirror.put(mirror.products_path, mirror.sealed(streams.written(products), 1))
    with pytest.raises(MalformedListError):
        mirror.verified()


@pytest.mark.threat("T18")
def test_a_list_stays_when_its_key_expires_and_no_new_one_comes(mirror: Mirror):
    mirror.key = mirror.gnupg.make_key("Short", at=NOW - timedelta(days=30), expires="20d")
    mirror.keyring.write_bytes(mirror.gnupg.export(mirror.key))
    made = NOW - timedelta(days=15)
    mirror.date = lambda number: made + timedelta(hours=number)  # type: ignore[method-assign]
    mirror.publish(1)
    message = mirror.message()
    with pytest.raises(SignerExpiredError):
        mirror.verified(message)
    circumstances = Circumstances(
        last=None, now=NOW, limits=DEFAULT_LIMITS, terms=DEFAULT_TERMS, first_verified_at=made + timedelta(days=1)
    )
    recalled = mirror.source().verify(message, mirror.with_options(), circumstances)
    assert [str(each) for each in recalled.warnings if "will be refused" in str(each)]
    late = replace(circumstances, now=NOW + timedelta(days=200))
    with pytest.raises(ExpiredListError):
        mirror.source().verify(message, mirror.with_options(), late)
