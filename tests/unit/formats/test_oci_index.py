# SPDX-License-Identifier: Apache-2.0
"""Indexes, lists of tags and repositories, and which layer of a manifest is the disk."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.errors import DocumentError
from coppice.formats.oci import OciDescriptor, OciManifest
from coppice.formats.oci_image import (
    GLANCE,
    OCI,
    annotations_of,
    declared_format,
    disk_layer,
    is_attachment_tag,
    split_staying_tag,
)
from coppice.formats.oci_index import (
    INDEX_MEDIA_TYPE,
    IndexEntry,
    OciIndex,
    is_index,
    read_catalog,
    read_harbor_repositories,
    read_index,
    read_tags,
    write_index,
)

pytestmark = pytest.mark.unit
MANIFEST = OciDescriptor.of(b"m", "application/vnd.oci.image.manifest.v1+json")
LIMIT = 10_000


def layer(media_type, title=None, **annotations):
    said = {f"{OCI}title": title} if title else {}
    return OciDescriptor.of(b"x" + media_type.encode(), media_type, {**said, **annotations})


def test_an_index_is_read_as_it_was_written():
    index = OciIndex(
        entries=(
            IndexEntry(descriptor=MANIFEST, architecture="arm64", system="linux"),
            IndexEntry(descriptor=MANIFEST, artifact_type="application/vnd.cyclonedx+json"),
        ),
        annotations={"a": "b"},
    )
    payload = write_index(index)
    assert read_index(payload) == index
    assert is_index(payload)
    assert not is_index(b'{"schemaVersion": 2, "layers": []}')


@pytest.mark.parametrize(
    "said",
    [
        {"schemaVersion": 1, "manifests": []},
        {"schemaVersion": 2},
        {"schemaVersion": 2, "manifests": {}},
        {"schemaVersion": 2, "manifests": ["x"]},
        {"schemaVersion": 2, "manifests": [], "layers": []},
        {"schemaVersion": 2, "mediaType": "application/json", "manifests": []},
        {"schemaVersion": 2, "manifests": [{"mediaType": "a/b", "digest": "md5:0", "size": 1}]},
        {
            "schemaVersion": 2,
            "manifests": [
                {"mediaType": "a/b", "digest": MANIFEST.digest, "size": 1, "platform": {"architecture": "x" * 65}}
            ],
        },
        {
            "schemaVersion": 2,
            "manifests": [{"mediaType": "a/b", "digest": MANIFEST.digest, "size": 1, "platform": "amd64"}],
        },
        {"schemaVersion": 2, "manifests": [{"mediaType": "a/b", "digest": MANIFEST.digest, "size": 1}] * 1001},
    ],
)
def test_what_is_no_index_is_refused(said):
    with pytest.raises(DocumentError):
        read_index(json.dumps(said).encode())


def test_what_could_be_read_as_an_index_and_as_a_manifest_is_neither():
    with pytest.raises(DocumentError, match="is it an index or a manifest"):
        is_index(
            json.dumps({"schemaVersion": 2, "mediaType": INDEX_MEDIA_TYPE, "manifests": [], "layers": []}).encode()
        )


def test_tags_and_repositories_are_read():
    assert read_tags(b'{"name": "a", "tags": ["1", "b.c_d-e"]}', max_bytes=LIMIT) == ("1", "b.c_d-e")
    assert read_tags(b'{"tags": null}', max_bytes=LIMIT) == ()
    assert read_catalog(b'{"repositories": ["vo/a"]}', max_bytes=LIMIT) == ("vo/a",)
    assert read_harbor_repositories(b'[{"name": "vo/a", "id": 1}]', max_bytes=LIMIT) == ("vo/a",)


@pytest.mark.parametrize("data", [b"{}", b'{"tags": "1"}', b'{"tags": ["../x"]}', b'{"tags": [1]}', b"[]", b"\0"])
def test_what_is_no_list_of_tags_is_refused_and_never_an_empty_one(data):
    with pytest.raises(DocumentError):
        read_tags(data, max_bytes=LIMIT)


@pytest.mark.parametrize("data", [b"{}", b'{"repositories": null}', b'{"repositories": ["../x"]}', b"[]"])
def test_what_is_no_catalog_is_refused_and_never_an_empty_one(data):
    with pytest.raises(DocumentError):
        read_catalog(data, max_bytes=LIMIT)


@pytest.mark.parametrize("data", [b"{}", b"", b"[1]", b"[{}]", b'[{"name": "A"}]', b'[], "a": []', b'[]}, {"a": 1'])
def test_what_harbor_does_not_write_is_refused_and_never_an_empty_list(data):
    with pytest.raises(DocumentError):
        read_harbor_repositories(data, max_bytes=LIMIT)


@given(st.binary(max_size=100))
def test_no_bytes_make_anything_but_a_document_error(data):
    for read in (read_index, is_index):
        try:
            read(data)
        except DocumentError:
            continue
        assert data.strip().startswith(b"{")


@pytest.mark.parametrize(
    ("layers", "found"),
    [
        ([layer("application/x-qemu-disk")], 0),
        ([layer("application/json", "sbom.json"), layer("application/x-qemu-disk", "a.qcow2")], 1),
        ([layer("application/octet-stream", "a.qcow2"), layer("text/plain", "README")], 0),
        ([layer("application/vnd.oci.image.layer.v1.tar", "a.raw")], 0),
        ([layer("application/vnd.oci.image.layer.v1.tar+gzip")], None),
        ([layer("application/octet-stream", "a.tgz")], None),
    ],
)
def test_the_disk_is_found_among_the_layers(layers, found):
    expected = None if found is None else layers[found]
    assert disk_layer(OciManifest(layers=tuple(layers))) == expected


def test_two_layers_that_could_be_the_disk_are_refused():
    manifest = OciManifest(layers=(layer("application/x-qemu-disk"), layer("application/x-vmdk")))
    with pytest.raises(DocumentError, match="2 of 2 layers"):
        disk_layer(manifest)


def test_the_layers_annotations_count_more_and_foreign_ones_not_at_all():
    disk = layer("application/x-qemu-disk", **{f"{GLANCE}os_distro": "debian", "x": "y"})
    manifest = OciManifest(layers=(disk,), annotations={f"{GLANCE}os_distro": "ubuntu", f"{GLANCE}os_type": "linux"})
    assert annotations_of(manifest, disk) == {f"{GLANCE}os_distro": "debian", f"{GLANCE}os_type": "linux"}


@pytest.mark.parametrize(
    ("disk", "said", "expected"),
    [
        (layer("application/x-qemu-disk"), {f"{GLANCE}disk_format": "raw"}, "raw"),
        (layer("application/x-qemu-disk"), {}, "qcow2"),
        (layer("application/octet-stream", "a.vmdk"), {}, "vmdk"),
        (layer("application/octet-stream", "a.img"), {}, None),
    ],
)
def test_the_declared_format_is_the_annotations_the_media_types_or_the_names(disk, said, expected):
    assert declared_format(disk, said) == expected


def test_tags_that_stay_and_tags_of_attachments_are_told_from_those_that_move():
    assert split_staying_tag("24.04-2025-09-04-4d7122d6") == ("24.04", "2025-09-04-4d7122d6")
    assert split_staying_tag("24.04") is None
    assert split_staying_tag("2025-09-04-4d7122d6") is None
    assert is_attachment_tag(f"sha256-{'a' * 64}.sig")
    assert is_attachment_tag(f"sha256-{'a' * 64}")
    assert not is_attachment_tag("24.04")
