# SPDX-License-Identifier: Apache-2.0
"""Images in registries: Debian's docker-registry, its logins, and registries that lie."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import bcrypt
import pytest

from coppice.clock import FixedClock
from coppice.errors import (
    AddressRefusedError,
    CoppiceError,
    HttpStatusError,
    MalformedListError,
    TransferError,
    TransferStalledError,
    TransferTooLargeError,
)
from coppice.formats.limits import DEFAULT_LIMITS
from coppice.formats.oci import MANIFEST_MEDIA_TYPE, OciDescriptor, OciManifest, digest_of, write_manifest
from coppice.formats.oci_index import IndexEntry, OciIndex, write_index
from coppice.model.credential import CredentialKind, CredentialReference
from coppice.subscription.anchors import AnchorShelf
from coppice.subscription.list_warnings import DEFAULT_TERMS
from coppice.subscription.model import SourceReference, Subscription
from coppice.subscription.source.gathered import read_gathered
from coppice.subscription.source.oci import OciSource
from coppice.subscription.source.protocol import Circumstances, SourceSupplies
from coppice.testing.client import loopback_client
from coppice.testing.oci import SBOM_MEDIA_TYPE, disk_manifest
from coppice.testing.server import LoopbackServer, in_turn, raw, redirect, serve, status
from coppice.testing.stages.oci import OciByKey, OciByTransport
from coppice.testing.stages.stage import NO_TRUST

pytestmark = pytest.mark.integration
NOW = datetime(2026, 3, 1, tzinfo=UTC)
REPOSITORY = "vo/debian-x86_64"
BY_TRANSPORT = {"trust": "transport"}


def source_at(now=NOW, limits=DEFAULT_LIMITS, **changed):
    return OciSource(
        SourceSupplies(
            client=loopback_client(attempts=1, **changed),
            clock=FixedClock(now),
            limits=limits,
            anchors=AnchorShelf(),
        )
    )


def subscribed(uri, **options):
    return Subscription(
        name="demo",
        uri=uri,
        list_identifier=None,
        trust=NO_TRUST,
        added_at=NOW,
        source=SourceReference(driver="oci", options={**BY_TRANSPORT, **options}),
    )


def verified(subscription, message=None, now=NOW):
    source = source_at(now)
    message = message or source.fetch(subscription, None).body
    circumstances = Circumstances(last=None, now=now, limits=DEFAULT_LIMITS, terms=DEFAULT_TERMS)
    return source.verify(message, subscription, circumstances).content


@pytest.fixture
def stage(tmp_path):
    with OciByTransport(tmp_path / "stage") as made:
        made.publish(1)
        yield made


def test_what_oras_wrote_as_egi_does_is_listed_by_catalog_by_name_and_as_one_repository(stage):
    uri = stage.subscription().uri
    all_of_it = verified(subscribed(uri)).images
    assert {image.extra["oci:repository"] for image in all_of_it} == {REPOSITORY, "vo/debian-aarch64"}
    assert {image.version for image in all_of_it} == {"2025-09-01-4d7122d6"}
    named = verified(subscribed(uri, repositories="debian-x86_64")).images
    single = verified(subscribed(f"{uri}/debian-x86_64", api="repository")).images
    (image,) = [each for each in all_of_it if each.extra["oci:repository"] == REPOSITORY]
    assert [replace(each, identifier="") for each in (*named, *single)] == [replace(image, identifier="")] * 2


def test_an_sbom_that_is_attached_is_noted_where_the_registry_lists_no_referrers(stage):
    digest = stage.digest(REPOSITORY, "12")
    pusher = stage.pusher(REPOSITORY)
    pusher.blob(b"{}sbom")
    sbom = OciManifest(
        layers=(OciDescriptor.of(b"{}sbom", SBOM_MEDIA_TYPE),),
        artifact_type=SBOM_MEDIA_TYPE,
        subject=OciDescriptor(media_type=MANIFEST_MEDIA_TYPE, digest=digest, size_bytes=1),
    )
    attached = pusher.put(sbom)
    descriptor = OciDescriptor.of(write_manifest(sbom), MANIFEST_MEDIA_TYPE)
    pusher.refer(digest, IndexEntry(descriptor=descriptor, artifact_type=SBOM_MEDIA_TYPE))
    images = {image.extra["oci:repository"]: image for image in verified(subscribed(stage.subscription().uri)).images}
    noted = [{"artifact_type": SBOM_MEDIA_TYPE, "digest": attached}]
    assert images[REPOSITORY].extra["oci:attached"] == noted
    assert "oci:attached" not in images["vo/debian-aarch64"].extra


def test_it_is_gathered_anew_when_it_changed_or_half_its_life_is_over(stage):
    subscription = stage.subscription()
    first = source_at().fetch(subscription, None)
    later = NOW + timedelta(days=89)
    assert source_at(later).fetch(subscription, first.validators).body is None
    assert source_at(NOW + timedelta(days=91)).fetch(subscription, first.validators).body is not None
    assert source_at(NOW - timedelta(days=1)).fetch(subscription, first.validators).body is not None
    stage.publish(2)
    assert source_at(later).fetch(subscription, first.validators).body is not None


def test_a_tag_that_moved_and_one_that_was_deleted_are_told_apart(stage):
    subscription = stage.subscription()
    before = verified(subscription)
    stage.publish(2)
    after = verified(subscription)
    assert {each.identifier for each in after.images} == {each.identifier for each in before.images}
    assert {each.version for each in after.images} == {"2025-09-02-4d7122d6"}
    stage.pusher(REPOSITORY).delete(stage.digest(REPOSITORY, "12"))
    assert [each.extra["oci:repository"] for each in verified(subscription).images] == ["vo/debian-aarch64"]


def test_a_repository_that_is_named_and_not_there_is_an_error(stage):
    with pytest.raises(HttpStatusError, match="404"):
        source_at().fetch(subscribed(stage.subscription().uri, repositories="debian-x86_64,nothing"), None)
    with pytest.raises(TransferError, match="no repository below"):
        source_at().fetch(subscribed(f"oci+http://{stage.host}/other"), None)


def test_a_message_is_verified_by_each_digest_and_signature_with_no_registry(tmp_path):
    with OciByKey(tmp_path / "stage") as signed:
        signed.publish(1)
        subscription = signed.subscription()
        message = source_at().fetch(subscription, None).body
    assert len(verified(subscription, message).images) == 2
    names = [each.name for each in read_gathered(message, driver="oci", limits=DEFAULT_LIMITS).documents]
    assert names[0] == "tags"
    assert sum(name.startswith("blob ") for name in names) == 2


@pytest.mark.threat("T54")
def test_a_password_is_shown_to_a_registry_that_asks_for_it(tmp_path):
    users = tmp_path / "users"
    users.write_bytes(b"robot$reader:" + bcrypt.hashpw(b"cAnArY-31337", bcrypt.gensalt(4)) + b"\n")
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)
    secret.write_text("cAnArY-31337\n")

    class Guarded(OciByTransport):
        def publish(self, number):
            """Publish before the registry is guarded."""
            found = super().publish(number)
            self.server.stop()
            self.server.extra = f"auth:\n  htpasswd:\n    realm: vo\n    path: {users}\n"
            self.server.start()
            return found

    with Guarded(tmp_path / "stage") as stage:
        stage.publish(1)
        with pytest.raises(HttpStatusError, match="401"):
            source_at().fetch(stage.subscription(), None)
        credential = CredentialReference(kind=CredentialKind.BASIC, username="robot$reader", secret_file=secret)
        message = source_at().fetch(replace(stage.subscription(), credential=credential), None).body
        assert b"cAnArY" not in message
        assert len(verified(stage.subscription(), message).images) == 2


class Liar:
    """A registry that says what it is told, with one image in ``vo/a``."""

    def __init__(self) -> None:
        self.server = LoopbackServer().start()
        self.uri = f"oci+http://127.0.0.1:{self.server.port}/vo"
        self.manifest = write_manifest(disk_manifest(b"disk"))
        self.digest = digest_of(self.manifest)
        self.set("_catalog", serve(b'{"repositories": ["vo/a", "elsewhere/b"]}'))
        self.set("vo/a/tags/list", serve(b'{"name": "vo/a", "tags": ["1"]}'))
        self.set("vo/a/manifests/1", serve(self.manifest))

    def set(self, path, behaviour):
        self.server.set(f"/v2/{path}", behaviour)

    def fetch(self, limits=DEFAULT_LIMITS, **options):
        return source_at(limits=limits).fetch(subscribed(self.uri, **options), None).body

    def images(self, **options):
        return verified(subscribed(self.uri, **options), self.fetch(**options))


@pytest.fixture
def liar():
    made = Liar()
    yield made
    made.server.stop()


def pages(liar, path, following, body):
    """Serve ``body`` with a Link header."""
    answer = (
        f'HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nLink: <{following}>; rel="next"\r\n'
        "Connection: close\r\n\r\n"
    ).encode() + body
    liar.set(path, raw(answer))


def test_what_the_fake_registry_says_is_otherwise_fine(liar):
    (image,) = liar.images().images
    assert image.extra["oci:manifest"] == liar.digest


@pytest.mark.parametrize("path", ["_catalog", "vo/a/tags/list"])
def test_pages_are_followed_and_never_in_a_circle_for_ever_or_to_another_server(liar, path):
    body = b'{"repositories": ["vo/a"]}' if path == "_catalog" else b'{"tags": ["1"]}'
    last = path.partition("?")[0]
    pages(liar, path, f"/v2/{last}", body)
    with pytest.raises(TransferError, match="never end"):
        liar.fetch()
    pages(liar, path, f"/v2/{last}?n=100", body)
    with pytest.raises(TransferError, match="never end"):
        liar.fetch()
    pages(liar, path, f"http://127.0.0.1:1/v2/{last}", body)
    with pytest.raises(AddressRefusedError, match="at another server"):
        liar.fetch()
    pages(liar, path, "/v2/more", body)
    liar.server.set("/v2/more", serve(body))
    assert len(liar.images().images) == 1


def test_pages_that_go_on_and_on_end_with_an_error(liar):
    def page(number):
        body = json.dumps({"tags": [str(number)]}).encode()
        return raw(
            (
                f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nLink: </v2/vo/a/tags/list?last={number}>; "
                'rel="next"\r\nConnection: close\r\n\r\n'
            ).encode()
            + body
        )

    liar.set("vo/a/tags/list", in_turn(*map(page, range(300))))
    with pytest.raises(TransferError, match="never end"):
        liar.fetch()


@pytest.mark.threat("T52")
def test_a_registry_that_makes_many_slow_requests_necessary_is_given_up_in_time(liar):
    def slowly(talk):
        talk.pause(0.1)
        serve(json.dumps({"tags": []}).encode())(talk)

    liar.set("_catalog", serve(json.dumps({"repositories": [f"vo/r{number}" for number in range(500)]}).encode()))
    for number in range(500):
        liar.set(f"vo/r{number}/tags/list", slowly)
    begun = time.monotonic()
    with pytest.raises(TransferStalledError, match="took too long in all"):
        source_at(total_timeout_seconds=1.0).fetch(subscribed(liar.uri), None)
    assert time.monotonic() - begun < 10


def test_a_catalog_that_is_not_allowed_names_the_way_out(liar):
    liar.set("_catalog", status(401))
    with pytest.raises(HttpStatusError) as caught:
        liar.fetch()
    assert "`repositories`" in caught.value.resolution
    assert len(liar.images(repositories="a").images) == 1


def test_harbor_is_asked_page_by_page_until_one_is_empty(liar):
    path = "/api/v2.0/projects/vo/repositories"
    liar.server.set(path, in_turn(serve(b'[{"name": "vo/a"}]'), serve(b"[]")))
    assert len(liar.images(api="harbor").images) == 1
    asked = [each.path for each in liar.server.requests if each.path.startswith(path)]
    assert asked == [f"{path}?page_size=100&page={number}" for number in (1, 2)]
    liar.server.set(path, serve(b'[{"name": "vo/a"}]'))
    with pytest.raises(TransferError, match="never end"):
        liar.fetch(api="harbor")
    for bad in (b"{}", b"<html>", b'[{"name": "../x"}]'):
        liar.server.set(path, serve(bad))
        with pytest.raises(MalformedListError):
            liar.fetch(api="harbor")


@pytest.mark.threat("T48")
def test_a_huge_manifest_makes_its_tag_unknown_and_the_rest_goes_on(liar):
    liar.set("vo/a/tags/list", serve(b'{"tags": ["1", "2"]}'))
    liar.set("vo/a/manifests/2", serve(b" " * (4 * 1024 * 1024 + 1)))
    content = liar.images()
    assert len(content.images) == 1
    assert all("vo/a:2" in each.problem for each in content.unreadable)
    assert content.unreadable


def test_a_manifest_that_is_not_what_the_registry_says_ends_it(liar):
    other = digest_of(b"other")
    answer = (
        f"HTTP/1.1 200 OK\r\nContent-Length: {len(liar.manifest)}\r\nDocker-Content-Digest: {other}\r\n"
        "Connection: close\r\n\r\n"
    ).encode()
    liar.set("vo/a/manifests/1", raw(answer + liar.manifest))
    with pytest.raises(TransferError, match="is not the content"):
        liar.fetch()
    descriptor = OciDescriptor.of(liar.manifest, MANIFEST_MEDIA_TYPE)
    index = OciIndex(entries=(IndexEntry(descriptor=descriptor, architecture="amd64", system="linux"),))
    liar.set("vo/a/manifests/1", serve(write_index(index)))
    liar.set(f"vo/a/manifests/{liar.digest}", serve(liar.manifest + b" "))
    with pytest.raises(TransferError, match="is not the content"):
        liar.fetch()
    liar.set(f"vo/a/manifests/{liar.digest}", serve(liar.manifest))
    assert len(liar.images().images) == 1


def test_a_registry_that_lists_referrers_is_asked_for_them(liar):
    entry = IndexEntry(descriptor=OciDescriptor.of(b"s", "a/b"), artifact_type=SBOM_MEDIA_TYPE)
    liar.set(f"vo/a/referrers/{liar.digest}", serve(write_index(OciIndex(entries=(entry,)))))
    assert liar.images().images[0].extra["oci:attached"]
    liar.set(f"vo/a/referrers/{liar.digest}", serve(b"junk"))
    assert "oci:attached" not in liar.images().images[0].extra
    liar.set(f"vo/a/referrers/{liar.digest}", status(500))
    with pytest.raises(TransferError):
        liar.fetch()


@pytest.mark.parametrize("path", ["_catalog", "vo/a/tags/list", "vo/a/manifests/1"])
@pytest.mark.parametrize("code", [403, 429, 500, 503])
def test_a_server_that_fails_never_means_that_there_is_none(liar, path, code):
    liar.set(path, status(code))
    with pytest.raises(TransferError):
        liar.fetch()


@pytest.mark.parametrize("body", [b"", b"null", b"{}", b'{"tags": {}}', b'{"repositories": 1}', b"\xff" * 10])
@pytest.mark.parametrize("path", ["_catalog", "vo/a/tags/list"])
def test_a_list_that_is_none_never_means_that_there_is_none(liar, path, body):
    liar.set(path, serve(body))
    with pytest.raises(CoppiceError):
        liar.fetch()


@pytest.mark.threat("T53")
def test_a_redirect_to_where_none_may_lead_is_refused(liar):
    liar.set("vo/a/tags/list", redirect("file:///etc/passwd"))
    with pytest.raises(TransferError):
        liar.fetch()


def test_everything_together_is_bounded(liar):
    with pytest.raises(TransferError, match="more than 100 bytes"):
        liar.fetch(limits=replace(DEFAULT_LIMITS, size_bytes=100))
    liar.set("_catalog", serve(b" " * (2 * 1024 * 1024 + 1)))
    with pytest.raises(TransferTooLargeError):
        liar.fetch()
