# SPDX-License-Identifier: Apache-2.0
"""Images in an OCI registry: what is gathered, what becomes of it, and who vouches; the registry is in memory."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from coppice.clock import FixedClock
from coppice.errors import (
    ChangedListError,
    ExpiredListError,
    InputError,
    KeyringError,
    MalformedListError,
    OlderListError,
    SignatureFormError,
    TamperedListError,
    TransferError,
    UnsignedListError,
    UntrustedSignerError,
    UnverifiedSourceError,
)
from coppice.formats.cosign import BUNDLE_MEDIA_TYPE, signature_tag
from coppice.formats.limits import DEFAULT_LIMITS
from coppice.formats.oci import MANIFEST_MEDIA_TYPE as MANIFEST
from coppice.formats.oci import OciDescriptor, OciManifest, digest_of, write_manifest
from coppice.formats.oci_image import GLANCE, OCI
from coppice.formats.oci_index import IndexEntry, OciIndex
from coppice.imagelist.model import Profile
from coppice.model.checksum import Checksum
from coppice.subscription.anchors import AnchorShelf
from coppice.subscription.list_warnings import DEFAULT_TERMS
from coppice.subscription.model import SourceReference, Subscription, TrustBasis, TrustedVersion, TrustPolicy
from coppice.subscription.source.gathered import Document, Gathered, write_gathered
from coppice.subscription.source.oci import OciSource
from coppice.subscription.source.oci_gather import Gatherer
from coppice.subscription.source.oci_named import NamedDigests, read_note
from coppice.subscription.source.oci_options import read_address, read_options
from coppice.subscription.source.oci_read import read_message
from coppice.subscription.source.oci_table import NAME, TagRow, read_table, write_table
from coppice.subscription.source.protocol import Circumstances, SourceSupplies
from coppice.testing.cosign import CosignSigner, signatures_manifest
from coppice.testing.oci import DISK_MEDIA_TYPE, SBOM_MEDIA_TYPE, MemoryRegistry, disk_manifest, egi_annotations

pytestmark = pytest.mark.unit
NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
REPOSITORY = "vo/ubuntu"
URI = "oci://registry.example.org/vo"
BY_TRANSPORT = {"trust": "transport"}
SOURCE = OciSource(SourceSupplies(client=None, clock=FixedClock(NOW), limits=DEFAULT_LIMITS, anchors=AnchorShelf()))


def subscribed(options, uri=URI, **changed):
    trust = TrustPolicy(endorsers=(), anchors=None, profile=Profile.LENIENT)
    made = Subscription(
        name="egi",
        uri=uri,
        list_identifier=None,
        trust=trust,
        added_at=NOW,
        source=SourceReference(driver="oci", options=options),
    )
    return replace(made, **changed)


def gathered(registry, options=BY_TRANSPORT, at=NOW, uri=URI):
    address = read_address(uri)
    gatherer = Gatherer(registry, address, read_options(options), DEFAULT_LIMITS)
    table = write_table(gatherer.gather())
    return Gathered(
        driver="oci",
        gathered_at=at,
        documents=(Document(name=NAME, uri=uri, data=table), *gatherer.documents),
    )


def verified(registry, options=BY_TRANSPORT, *, at=NOW, now=None, last=None, uri=URI):
    message = write_gathered(gathered(registry, options, at, uri), DEFAULT_LIMITS)
    circumstances = Circumstances(last=last, now=now or at, limits=DEFAULT_LIMITS, terms=DEFAULT_TERMS)
    return SOURCE.verify(message, subscribed(options, uri), circumstances)


def egi(disk=b"disk", build="2025-09-04-4d7122d6", **changed):
    """Return a registry with one image in the form that EGI publishes."""
    registry = MemoryRegistry()
    registry.put(REPOSITORY, disk_manifest(disk, egi_annotations(build, **changed)), "24.04", f"24.04-{build}")
    return registry


def floor(found):
    return TrustedVersion(
        version=found.content.version,
        payload_checksum=found.payload_checksum,
        created=found.content.validity.created,
    )


def test_an_image_in_the_form_of_egi_is_listed_with_all_that_is_said_of_it():
    registry = egi()
    digest = digest_of(registry.named[REPOSITORY]["24.04"])
    registry.referring[digest] = [
        IndexEntry(descriptor=OciDescriptor.of(b"sbom", "a/b"), artifact_type=SBOM_MEDIA_TYPE)
    ]
    found = verified(registry)
    (image,) = found.content.images
    disk = digest_of(b"disk")
    assert image.uri == f"oci://registry.example.org/{REPOSITORY}@{disk}"
    assert (image.size_bytes, image.checksum) == (4, Checksum.of(b"disk", "sha256"))
    assert (image.version, image.declared_format) == ("2025-09-04-4d7122d6", "qcow2")
    system = image.operating_system
    assert (system.kind, system.distribution, system.version) == ("Linux", "ubuntu", "24.04")
    assert system.architecture == "x86_64"
    assert (image.description, image.mpuri) == ("EGI Ubuntu 24.04 image", "vo/ubuntu:24.04")
    assert image.extra[f"{GLANCE}os_admin_user"] == "ubuntu"
    assert image.extra[f"{OCI}revision"] == "4d7122d6"
    assert image.extra["oci:manifest"] == digest
    assert image.extra["oci:attached"] == [{"artifact_type": SBOM_MEDIA_TYPE, "digest": digest_of(b"sbom")}]
    assert (found.trusted_by.basis, found.trusted_by.signer) == (TrustBasis.TRANSPORT, "registry.example.org")
    assert found.content.validity.expires == NOW + timedelta(days=180)
    assert found.content.unreadable == ()


def test_a_moved_tag_is_the_same_image_in_a_new_version():
    before = verified(egi())
    after = verified(egi(b"newer", "2025-10-01-aaaa1111"), at=NOW + timedelta(days=1), last=floor(before))
    (old,), (new,) = before.content.images, after.content.images
    assert old.identifier == new.identifier
    assert (old.version, new.version) == ("2025-09-04-4d7122d6", "2025-10-01-aaaa1111")
    assert before.content.identifier == after.content.identifier
    assert after.content.version > before.content.version


def test_what_did_not_change_keeps_its_version_and_lives_longer():
    before = verified(egi())
    after = verified(egi(), at=NOW + timedelta(days=30), last=floor(before))
    assert after.content.version == before.content.version
    assert after.payload_checksum == before.payload_checksum
    assert after.content.validity.expires == before.content.validity.expires + timedelta(days=30)


@pytest.mark.parametrize(
    ("annotations", "tags", "version"),
    [
        (egi_annotations(None), ("24.04", "24.04-2025-01-02-beef"), "2025-01-02-beef"),
        (egi_annotations(None), ("24.04", "24.04-2025-01-02-beef", "24.04-2025-03-02-beef"), "2025-03-02-beef"),
        (egi_annotations(None), ("24.04", "22.04-2025-01-02-beef"), None),
        (egi_annotations("24.04"), ("24.04", "24.04-2025-01-02-beef"), "2025-01-02-beef"),
        ({**egi_annotations(None), f"{OCI}created": "2025-01-02T03:04:05Z"}, ("24.04",), "20250102030405"),
        ({**egi_annotations(None), f"{OCI}version": "1.2"}, ("24.04",), "1.2"),
    ],
)
def test_the_version_is_the_build_that_a_staying_tag_names_or_else_differs_with_the_content(annotations, tags, version):
    registry = MemoryRegistry()
    digest = registry.put(REPOSITORY, disk_manifest(b"disk", annotations), *tags)
    (image,) = verified(registry).content.images
    own = f"x{digest[7:23]}"
    if version is None:
        assert image.version == own
    elif "-" in version:
        assert image.version == version
    else:
        assert image.version == f"{version}-{own}"


def test_a_tag_that_stays_and_names_another_build_does_not_give_the_version():
    registry = MemoryRegistry()
    registry.put(REPOSITORY, disk_manifest(b"other", egi_annotations(None)), "24.04-2025-01-02-beef")
    digest = registry.put(REPOSITORY, disk_manifest(b"disk", egi_annotations(None)), "24.04")
    assert verified(registry).content.images[0].version == f"x{digest[7:23]}"


def test_an_index_gives_an_image_for_each_architecture():
    registry = MemoryRegistry()
    entries = []
    for word in ("amd64", "arm64"):
        annotations = egi_annotations(architecture="")
        manifest = disk_manifest(word.encode(), annotations)
        registry.put(REPOSITORY, manifest)
        described = OciDescriptor.of(write_manifest(manifest), "application/vnd.oci.image.manifest.v1+json")
        entries.append(IndexEntry(descriptor=described, architecture=word, system="linux"))
    entries.append(replace(entries[0], architecture="unknown", system="unknown"))
    registry.put(REPOSITORY, OciIndex(entries=tuple(entries)), "24.04")
    both = verified(registry).content.images
    assert {image.operating_system.architecture for image in both} == {"x86_64", "aarch64"}
    assert len({image.identifier for image in both}) == 2
    (one,) = verified(registry, {**BY_TRANSPORT, "architectures": "aarch64"}).content.images
    assert one.checksum == Checksum.of(b"arm64", "sha256")


def test_an_index_with_two_images_of_one_architecture_is_unknown():
    registry = MemoryRegistry()
    entries = []
    for disk in (b"1", b"2"):
        manifest = disk_manifest(disk)
        registry.put(REPOSITORY, manifest)
        described = OciDescriptor.of(write_manifest(manifest), "application/vnd.oci.image.manifest.v1+json")
        entries.append(IndexEntry(descriptor=described, architecture="amd64", system="linux"))
    registry.put(REPOSITORY, OciIndex(entries=tuple(entries)), "24.04")
    content = verified(registry).content
    assert content.images == ()
    assert "two images of one architecture" in content.unreadable[0].problem


def test_a_container_or_a_chart_is_no_image_and_nothing_unknown():
    registry = egi()
    config = OciDescriptor.of(b"{}", "application/vnd.oci.image.config.v1+json")
    layer = OciDescriptor.of(b"x", "application/vnd.oci.image.layer.v1.tar+gzip")
    registry.put("vo/web", OciManifest(layers=(layer,), config=config), "1")
    content = verified(registry).content
    assert (len(content.images), content.unreadable) == (1, ())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda registry: registry.named[REPOSITORY].update({"24.04": b"{}"}),
        lambda registry: registry.named[REPOSITORY].update({"24.04": b"\0"}),
        lambda registry: registry.put(
            REPOSITORY,
            OciManifest(
                layers=(OciDescriptor.of(b"1", DISK_MEDIA_TYPE), OciDescriptor.of(b"2", DISK_MEDIA_TYPE)),
                annotations=egi_annotations(),
            ),
            "24.04",
        ),
        lambda registry: registry.put(REPOSITORY, disk_manifest(b"d", egi_annotations(architecture="")), "24.04"),
        lambda registry: registry.put(REPOSITORY, disk_manifest(b"d", egi_annotations(architecture="a b")), "24.04"),
        lambda registry: registry.put(REPOSITORY, disk_manifest(b""), "24.04"),
        lambda registry: registry.put(REPOSITORY, disk_manifest(b"d", egi_annotations(os_distro="a\x1b[31m")), "24.04"),
    ],
    ids=["no-manifest", "no-json", "ambiguous", "no-architecture", "odd-architecture", "empty-disk", "control"],
)
def test_what_cannot_be_read_is_unknown_by_the_identifier_that_it_has_when_it_can(spoil):
    registry = egi()
    identifier = verified(registry).content.images[0].identifier
    registry.put("vo/debian", disk_manifest(b"another"), "12")
    spoil(registry)
    content = verified(registry).content
    assert [image.extra["oci:repository"] for image in content.images] == ["vo/debian"]
    assert identifier in {entry.identifier for entry in content.unreadable}


def test_a_tag_that_is_gone_between_listing_and_reading_is_unknown():
    registry = egi()
    identifier = verified(registry).content.images[0].identifier
    listed = registry.tags(REPOSITORY)
    registry.tags = lambda _: listed
    registry.named[REPOSITORY] = {}
    content = verified(registry).content
    assert content.images == ()
    assert identifier in {entry.identifier for entry in content.unreadable}
    assert "not there any more" in content.unreadable[0].problem


def test_a_manifest_that_an_index_names_and_that_is_gone_makes_the_image_unknown():
    registry = MemoryRegistry()
    missing = OciDescriptor.of(b"gone", "application/vnd.oci.image.manifest.v1+json")
    registry.put(REPOSITORY, OciIndex(entries=(IndexEntry(descriptor=missing, architecture="amd64"),)), "24.04")
    content = verified(registry).content
    assert content.images == ()
    assert missing.digest in content.unreadable[0].problem


@pytest.mark.parametrize("name", ["architecture", "architectures"])
def test_an_option_says_the_architecture_of_what_does_not(name):
    registry = MemoryRegistry()
    registry.put(REPOSITORY, disk_manifest(b"d", egi_annotations(architecture="")), "24.04")
    content = verified(registry, {**BY_TRANSPORT, name: "ppc64le"}).content
    words = {image.operating_system.architecture for image in content.images}
    assert words == ({"ppc64le"} if name == "architecture" else set())


def test_patterns_choose_the_tags():
    registry = egi()
    registry.put(REPOSITORY, disk_manifest(b"b"), "latest", "edge")

    def tags(**options):
        images = verified(registry, {**BY_TRANSPORT, **options}).content.images
        return {image.extra["oci:tag"] for image in images}

    assert tags() == {"24.04", "latest", "edge"}
    assert tags(not_tags="latest,e*") == {"24.04"}
    assert tags(tags="24.04*") == {"24.04", "24.04-2025-09-04-4d7122d6"}


def test_what_chooses_the_content_makes_the_list_and_its_date_does_not():
    one = verified(egi()).content.identifier
    assert one == verified(egi(b"newer"), at=NOW + timedelta(days=1)).content.identifier
    assert one == verified(egi(), uri=f"{URI}/").content.identifier
    assert one != verified(egi(), {**BY_TRANSPORT, "tags": "24*"}).content.identifier


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"trust": "local"},
        {"trust": "transport", "cosign_key": "/k"},
        {"trust": "transport", "surprise": 1},
        {"trust": "transport", "api": "docker"},
        {"trust": "transport", "tags": "[a"},
        {"trust": "transport", "repositories": "../x"},
        {"trust": "transport", "architectures": "x y"},
        {"trust": "transport", "valid_days": 0},
        {"cosign_key": "relative.pub"},
    ],
)
def test_options_that_are_wrong_or_trust_nobody_are_refused(options):
    with pytest.raises(InputError):
        OciSource.check_options(options)


@pytest.mark.parametrize(
    "uri", ["oci://", "oci://registry/vo:tag", "oci://registry/vo@sha256:00", "https://registry/vo", "oci://r/VO"]
)
def test_an_address_of_something_else_is_refused(uri):
    with pytest.raises(InputError):
        read_address(uri)


def test_nobody_trusted_is_an_error_of_its_own():
    message = write_gathered(gathered(egi(), {}), DEFAULT_LIMITS)
    circumstances = Circumstances(last=None, now=NOW, limits=DEFAULT_LIMITS, terms=DEFAULT_TERMS)
    with pytest.raises(UnverifiedSourceError):
        SOURCE.verify(message, subscribed({}), circumstances)


@pytest.mark.threat("T29")
@pytest.mark.threat("T34")
def test_the_rules_of_all_lists_hold():
    first = verified(egi())
    with pytest.raises(ExpiredListError):
        verified(egi(), now=NOW + timedelta(days=181))
    with pytest.raises(OlderListError):
        verified(egi(b"older"), at=NOW - timedelta(days=1), last=floor(first))
    other = TrustedVersion(version=first.content.version, payload_checksum=Checksum.of(b"x"), created=NOW)
    with pytest.raises(ChangedListError):
        verified(egi(), last=other)


def test_a_message_lacking_or_changing_what_its_table_names_is_refused():
    whole = gathered(egi())
    table, manifest = whole.documents
    for documents in ((table,), (table, replace(manifest, data=manifest.data + b" ")), (manifest,)):
        message = write_gathered(replace(whole, documents=documents), DEFAULT_LIMITS)
        circumstances = Circumstances(last=None, now=NOW, limits=DEFAULT_LIMITS, terms=DEFAULT_TERMS)
        with pytest.raises(MalformedListError):
            SOURCE.verify(message, subscribed(BY_TRANSPORT), circumstances)


def test_more_than_a_list_may_be_is_an_error_and_not_cut():
    registry = egi()
    registry.put("vo/debian", disk_manifest(b"another"), "12")
    address, options = read_address(URI), read_options(BY_TRANSPORT)
    for limits in (replace(DEFAULT_LIMITS, images=1), replace(DEFAULT_LIMITS, size_bytes=1000)):
        with pytest.raises(TransferError):
            Gatherer(registry, address, options, limits).gather()


def test_a_table_is_read_as_it_was_written_and_no_tag_stands_there_twice():
    rows = (TagRow(repository="a", tag="1", problem="p"), TagRow(repository="a", tag="2", digest=digest_of(b"")))
    assert read_table(write_table(rows), DEFAULT_LIMITS) == rows


class Signed:
    """A registry whose image is signed, with the key's file."""

    def __init__(self, directory, kind="p256") -> None:
        self.signer = CosignSigner.new(kind)
        self.path = directory / "cosign.pub"
        self.path.write_bytes(self.signer.public_pem)
        self.options = {"cosign_key": str(self.path)}
        self.registry = egi()
        self.digest = digest_of(self.registry.named[REPOSITORY]["24.04"])

    def sign(self, signer=None, digest=None, place=None, repository=REPOSITORY, **more):
        payload, layer = (signer or self.signer).layer(digest or self.digest, **more)
        self.registry.put_blob(payload)
        self.registry.put(repository, signatures_manifest(layer), signature_tag(place or self.digest))

    def attach(self, bundle):
        manifest = OciManifest(layers=(OciDescriptor.of(bundle, BUNDLE_MEDIA_TYPE),), artifact_type=BUNDLE_MEDIA_TYPE)
        digest = self.registry.put(REPOSITORY, manifest)
        self.registry.put_blob(bundle)
        entry = IndexEntry(
            descriptor=OciDescriptor(
                media_type="application/vnd.oci.image.manifest.v1+json", digest=digest, size_bytes=1
            ),
            artifact_type=BUNDLE_MEDIA_TYPE,
        )
        self.registry.referring.setdefault(self.digest, []).append(entry)

    def verify(self, **more):
        return verified(self.registry, {**self.options, **more})


@pytest.fixture
def signed(tmp_path):
    return Signed(tmp_path)


@pytest.mark.parametrize("kind", ["p256", "ed25519", "rsa"])
def test_an_image_that_a_pinned_key_signed_is_listed(tmp_path, kind):
    made = Signed(tmp_path, kind)
    made.sign()
    found = made.verify()
    assert len(found.content.images) == 1
    assert found.trusted_by.basis is TrustBasis.COSIGN
    assert str(found.trusted_by.fingerprint) == found.trusted_by.signer
    assert found.anchors_state == SOURCE.trust_state(subscribed(made.options)) != ""


def test_a_bundle_by_a_pinned_key_vouches_too(signed):
    signed.attach(signed.signer.bundle(signed.digest))
    assert len(signed.verify().content.images) == 1


def test_an_attestation_is_no_signature(signed):
    signed.attach(signed.signer.bundle(signed.digest, "https://slsa.dev/provenance/v1"))
    with pytest.raises(UnsignedListError):
        signed.verify()


@pytest.mark.threat("T6")
def test_nothing_signed_at_all_refuses_the_list(signed):
    with pytest.raises(UnsignedListError):
        signed.verify()


def test_an_empty_registry_is_vouched_for_by_nobody(signed):
    signed.registry.named = {REPOSITORY: {}}
    with pytest.raises(UnsignedListError):
        signed.verify()


def test_an_unsigned_tag_beside_signed_ones_is_unknown_and_not_gone(signed):
    signed.sign()
    identifier = signed.verify().content.images[0].identifier
    del signed.registry.named[REPOSITORY][signature_tag(signed.digest)]
    other = signed.registry.put("vo/debian", disk_manifest(b"another"), "12")
    signed.sign(digest=other, place=other, repository="vo/debian")
    content = signed.verify().content
    assert [image.extra["oci:repository"] for image in content.images] == ["vo/debian"]
    assert identifier in {entry.identifier for entry in content.unreadable}
    assert "nobody signed it" in content.unreadable[0].problem


@pytest.mark.threat("T13")
def test_another_key_refuses_the_list(signed):
    signed.sign(CosignSigner.new())
    with pytest.raises(UntrustedSignerError):
        signed.verify()


@pytest.mark.threat("T5")
def test_a_genuine_signature_of_another_image_refuses_the_list(signed):
    signed.sign(digest=f"sha256:{'0' * 64}")
    with pytest.raises(TamperedListError, match="of something else"):
        signed.verify()
    signed.attach(signed.signer.bundle(f"sha256:{'0' * 64}"))
    with pytest.raises(TamperedListError):
        signed.verify()


def test_others_may_sign_as_well(signed):
    mine, own = signed.signer.layer(signed.digest)
    theirs, foreign = CosignSigner.new().layer(signed.digest)
    for each in (mine, theirs):
        signed.registry.put_blob(each)
    signed.registry.put(REPOSITORY, signatures_manifest(foreign, own), signature_tag(signed.digest))
    assert len(signed.verify().content.images) == 1


def test_a_signature_that_is_none_refuses_the_list(signed):
    payload, layer = signed.signer.layer(signed.digest)
    signed.registry.put_blob(payload)
    broken = replace(layer, annotations={})
    signed.registry.put(REPOSITORY, signatures_manifest(broken), signature_tag(signed.digest))
    with pytest.raises(SignatureFormError):
        signed.verify()
    signed.registry.named[REPOSITORY][signature_tag(signed.digest)] = b"junk"
    with pytest.raises(SignatureFormError):
        signed.verify()


def test_a_signature_for_another_repository_counts_unless_it_must_name_this_one(signed):
    signed.sign(reference="elsewhere.example.org/vo/ubuntu:24.04")
    assert signed.verify().content.images
    with pytest.raises(TamperedListError, match="for another repository"):
        signed.verify(check_reference="yes")
    for reference in ("", ":24.04", f"@{signed.digest}"):
        signed.sign(reference=f"registry.example.org/{REPOSITORY}{reference}")
        assert signed.verify(check_reference="yes").content.images


def test_while_a_key_is_rotated_both_count_and_afterwards_only_the_new_one(signed, tmp_path):
    signed.sign()
    new = CosignSigner.new()
    path = tmp_path / "new.pub"
    path.write_bytes(new.public_pem)
    both = {"cosign_key": f"{signed.path},{path}"}
    assert verified(signed.registry, both).trusted_by.fingerprint is not None
    other = signed.registry.put("vo/debian", disk_manifest(b"another"), "12")
    signed.sign(new, digest=other, place=other, repository="vo/debian")
    assert len(verified(signed.registry, both).content.images) == 2
    with pytest.raises(UntrustedSignerError):
        verified(signed.registry, {"cosign_key": str(path)})


def test_a_key_that_cannot_be_read_is_an_error_of_its_own(signed):
    signed.sign()
    state = SOURCE.trust_state(subscribed(signed.options))
    signed.path.write_bytes(CosignSigner.new().public_pem)
    assert SOURCE.trust_state(subscribed(signed.options)) != state
    for spoil in (lambda: signed.path.write_bytes(b"junk"), signed.path.unlink, signed.path.mkdir):
        spoil()
        with pytest.raises(KeyringError):
            signed.verify()


@pytest.mark.threat("T29")
def test_a_tag_that_was_moved_back_to_an_older_image_that_was_signed_is_refused(signed):
    signed.sign()
    before = write_gathered(gathered(signed.registry, signed.options), DEFAULT_LIMITS)

    def again(build, previous=lambda: before):
        digest = signed.registry.put(REPOSITORY, disk_manifest(b"other", egi_annotations(build)), "24.04")
        signed.sign(digest=digest, place=digest)
        message = write_gathered(gathered(signed.registry, signed.options), DEFAULT_LIMITS)
        circumstances = Circumstances(last=None, now=NOW, limits=DEFAULT_LIMITS, terms=DEFAULT_TERMS, previous=previous)
        return SOURCE.verify(message, subscribed(signed.options), circumstances).content.images

    with pytest.raises(OlderListError, match="was moved back"):
        again("2025-09-03-4d7122d6")
    assert again("2025-09-04-aaaaaaaa")
    assert again("2026-01-01-00000000")
    assert again("2025-09-03-4d7122d6", lambda: None)


@pytest.mark.threat("T29")
def test_a_tag_that_was_hidden_first_cannot_be_moved_back_either(signed):
    signed.sign()
    new = write_gathered(gathered(signed.registry, signed.options), DEFAULT_LIMITS)
    # Hidden in between, while another tag goes on.
    other = signed.registry.put(REPOSITORY, disk_manifest(b"x", egi_annotations("2025-01-01-00000000")), "22.04")
    signed.sign(digest=other, place=other)
    del signed.registry.named[REPOSITORY]["24.04"]
    hidden = write_gathered(gathered(signed.registry, signed.options), DEFAULT_LIMITS)

    def judged(build, earlier, **annotations):
        made = {**egi_annotations(build), **annotations}
        digest = signed.registry.put(REPOSITORY, disk_manifest(b"other", made), "24.04")
        signed.sign(digest=digest, place=digest)
        message = write_gathered(gathered(signed.registry, signed.options), DEFAULT_LIMITS)
        circumstances = Circumstances(
            last=None,
            now=NOW,
            limits=DEFAULT_LIMITS,
            terms=DEFAULT_TERMS,
            previous=lambda: hidden,
            earlier=lambda: iter(earlier),
        )
        return SOURCE.verify(message, subscribed(signed.options), circumstances).content.images

    with pytest.raises(OlderListError, match="was moved back"):
        judged("2025-09-03-4d7122d6", [new, hidden])
    with pytest.raises(OlderListError, match="was moved back"):
        judged("", [new, hidden], **{"org.opencontainers.image.created": ""})
    assert len(judged("2025-09-05-00000000", [new, hidden])) == 2
    # What an administrator took back is not among what was known.
    assert len(judged("2025-09-03-4d7122d6", [hidden])) == 2


def test_what_nobody_signed_does_not_say_which_image_is_the_newest(signed):
    signed.sign()
    other = signed.registry.put(REPOSITORY, disk_manifest(b"x", egi_annotations("2099-01-01-00000000")), "22.04")
    unsigned = write_gathered(gathered(signed.registry, signed.options), DEFAULT_LIMITS)
    assert len(verified(signed.registry, signed.options).content.images) == 1
    other = signed.registry.put(REPOSITORY, disk_manifest(b"x", egi_annotations("2025-01-01-00000000")), "22.04")
    signed.sign(digest=other, place=other)
    message = write_gathered(gathered(signed.registry, signed.options), DEFAULT_LIMITS)
    circumstances = Circumstances(
        last=None, now=NOW, limits=DEFAULT_LIMITS, terms=DEFAULT_TERMS, previous=lambda: unsigned
    )
    assert len(SOURCE.verify(message, subscribed(signed.options), circumstances).content.images) == 2


def test_a_repository_and_what_lies_below_it_are_two_lists():
    def choice(**options):
        return read_options({**BY_TRANSPORT, **options}).choice

    assert choice(api="repository") != choice() == choice(api="harbor")
    assert choice(api="repository", repositories="a") == choice(repositories="a")


def test_a_kept_message_is_read_without_its_dates(signed):
    signed.sign()
    message = write_gathered(gathered(signed.registry, signed.options), DEFAULT_LIMITS)
    assert len(SOURCE.read(message, subscribed(signed.options), DEFAULT_LIMITS).images) == 1
    signed.path.write_bytes(CosignSigner.new().public_pem)
    with pytest.raises(UntrustedSignerError):
        SOURCE.read(message, subscribed(signed.options), DEFAULT_LIMITS)


# --- trusted by a list that names digests


def named(**changed):
    """Return what a list names: the disk of `egi`, with its size."""
    disk = digest_of(b"disk")
    made = NamedDigests(
        subscription="signed",
        ends={disk: None},
        sizes={disk: {4}},
        repositories={REPOSITORY: {disk}},
        expires=NOW + DAY,
    )
    return replace(made, **changed)


def read_by(digests, registry=None):
    options = {"list": "signed"}
    registry = registry or egi()
    return read_message(
        gathered(registry, options), subscribed(options), read_options(options), (), DEFAULT_LIMITS, named=digests
    )


def test_what_is_named_by_its_disk_by_its_manifest_or_by_the_index_above_is_listed():
    registry = egi()
    manifest = digest_of(registry.named[REPOSITORY]["24.04"])
    by_disk = read_by(named())
    by_manifest = read_by(named(ends={manifest: NOW}, sizes={manifest: {7}}))
    assert [len(each.content.images) for each in (by_disk, by_manifest)] == [1, 1]
    assert by_manifest.content.images[0].expires == NOW
    assert by_disk.content.validity.expires == NOW + DAY
    assert (by_disk.named, by_manifest.named) == ({digest_of(b"disk")}, {manifest})
    index = OciIndex(entries=(IndexEntry(descriptor=OciDescriptor.of(registry.named[REPOSITORY]["24.04"], MANIFEST)),))
    registry.put(REPOSITORY, index, "both")
    above = digest_of(registry.named[REPOSITORY]["both"])
    by_index = read_by(named(ends={above: None}, sizes={above: {1}}), registry)
    assert [each.extra["oci:tag"] for each in by_index.content.images] == ["both"]


def test_two_versions_with_other_named_digests_are_not_one():
    registry = egi()
    registry.put(REPOSITORY, disk_manifest(b"other", egi_annotations("2025-09-05-4d7122d6")), "22.04")
    one = read_by(named(), registry)
    other = digest_of(b"other")
    both = named(ends={digest_of(b"disk"): None, other: None}, sizes={digest_of(b"disk"): {4}, other: {5}})
    two = read_by(both, registry)
    assert (len(one.content.images), len(two.content.images)) == (1, 2)
    assert one.payload != two.payload


@pytest.mark.parametrize(
    ("changed", "unknown"),
    [
        ({}, 0),
        ({"is_whole": False}, 1),
        ({"repositories": {REPOSITORY: {digest_of(b"disk"), digest_of(b"gone")}}}, 1),
        ({"repositories": {"vo/another": {digest_of(b"gone")}}}, 0),
    ],
)
def test_what_is_not_named_is_gone_unless_the_list_could_mean_it(changed, unknown):
    registry = egi()
    registry.put(REPOSITORY, disk_manifest(b"other", egi_annotations("2025-09-05-4d7122d6")), "22.04")
    content = read_by(named(**changed), registry).content
    assert [each.extra["oci:tag"] for each in content.images] == ["24.04"]
    assert len(content.unreadable) == unknown


def test_a_list_that_names_nothing_of_what_is_there_is_no_list_of_nothing():
    for digests in (named(ends={}), named(sizes={digest_of(b"disk"): {5}}), named(ends={}, is_whole=False)):
        with pytest.raises(MalformedListError, match="the list of 'signed' names"):
            read_by(digests)


def test_only_one_may_vouch():
    for options in (
        {"list": "signed", "trust": "transport"},
        {"list": "signed", "cosign_key": "/key"},
        {"trust": "transport", "cosign_key": "/key"},
    ):
        with pytest.raises(InputError, match="which of them"):
            read_options(options)
    OciSource.check_options({"list": "signed"})


@pytest.mark.parametrize(
    "note", [b"", b"[]", b"{}", b'{"identifier":"a","named":[]}', b'{"identifier":"a","named":["md5:1"]}', b"\xff"]
)
def test_a_note_that_is_none_is_refused(note):
    with pytest.raises(MalformedListError):
        read_note(note, DEFAULT_LIMITS)
