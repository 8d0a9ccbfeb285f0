# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coppice.errors import CoppiceError, DocumentError, InputError
from coppice.formats.oci import (
    EMPTY_CONFIG,
    IMAGE_LIST_MEDIA_TYPE,
    MANIFEST_MEDIA_TYPE,
    OciDescriptor,
    OciManifest,
    digest_of,
    image_list_layer,
    image_list_manifest,
    matches_digest,
    parse_reference,
    read_manifest,
    write_manifest,
)

pytestmark = pytest.mark.unit
DIGEST = "sha256:" + "a" * 64


def test_a_manifest_survives_writing_and_reading():
    manifest = OciManifest(
        layers=(OciDescriptor.of(b"x", IMAGE_LIST_MEDIA_TYPE, {"a": "ü"}), OciDescriptor.of(b"y", "a/b")),
        artifact_type="application/vnd.example",
        annotations={"org.opencontainers.image.created": "2026-01-01T00:00:00Z"},
        subject=OciDescriptor(media_type=MANIFEST_MEDIA_TYPE, digest="sha512:" + "b" * 128, size_bytes=5),
    )
    assert read_manifest(write_manifest(manifest)) == manifest
    assert write_manifest(manifest) == write_manifest(read_manifest(write_manifest(manifest)))


def test_the_manifest_of_a_list_is_an_artifact_with_the_empty_config():
    said = json.loads(write_manifest(image_list_manifest(b"signed")))
    assert said["config"] == {
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a",
        "size": 2,
    }
    assert [layer["digest"] for layer in said["layers"]] == [digest_of(b"signed")]
    assert image_list_layer(read_manifest(json.dumps(said).encode())).size_bytes == 6


def changed(**changes):
    said = json.loads(write_manifest(image_list_manifest(b"signed")))
    for key, value in changes.items():
        if value is None:
            said.pop(key, None)
        else:
            said[key] = value
    return json.dumps(said).encode()


LAYER = {"mediaType": "a/b", "digest": DIGEST, "size": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {"schemaVersion": 1},
        {"schemaVersion": True},
        {"schemaVersion": "2"},
        {"schemaVersion": None},
        {"mediaType": "application/vnd.oci.image.index.v1+json"},
        {"mediaType": "application/vnd.docker.distribution.manifest.v2+json"},
        {"layers": None},
        {"layers": []},
        {"layers": {}},
        {"layers": [1]},
        {"layers": [LAYER] * 1001},
        {"layers": [{**LAYER, "digest": "md5:" + "a" * 32}]},
        {"layers": [{**LAYER, "digest": "sha256:" + "A" * 64}]},
        {"layers": [{**LAYER, "digest": "sha256:" + "a" * 63}]},
        {"layers": [{**LAYER, "digest": DIGEST + "\n"}]},
        {"layers": [{**LAYER, "size": -1}]},
        {"layers": [{**LAYER, "size": 1.0}]},
        {"layers": [{**LAYER, "size": True}]},
        {"layers": [{**LAYER, "size": 2**63}]},
        {"layers": [{**LAYER, "size": "1"}]},
        {"layers": [{**LAYER, "mediaType": "ab"}]},
        {"layers": [{**LAYER, "mediaType": None}]},
        {"layers": [{**LAYER, "annotations": {"a": 1}}]},
        {"layers": [{**LAYER, "annotations": []}]},
        {"config": None},
        {"config": []},
        {"artifactType": 1},
        {"annotations": {str(number): "" for number in range(1001)}},
        {"subject": {}},
    ],
)
def test_a_manifest_that_is_not_as_specified_is_refused(changes):
    with pytest.raises(DocumentError, match="OCI manifest"):
        read_manifest(changed(**changes))


def test_two_list_layers_or_several_of_other_types_are_no_list():
    typed = OciDescriptor.of(b"x", IMAGE_LIST_MEDIA_TYPE)
    other = OciDescriptor.of(b"y", "a/b")
    assert image_list_layer(OciManifest(layers=(other, typed))) == typed
    assert image_list_layer(OciManifest(layers=(other,))) == other
    for layers in ((typed, typed), (other, other)):
        with pytest.raises(DocumentError):
            image_list_layer(OciManifest(layers=layers))
    assert EMPTY_CONFIG.size_bytes == 2


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_fail_otherwise(payload):
    with pytest.raises(CoppiceError):
        read_manifest(payload)


def test_digests_are_verified_by_their_algorithm():
    assert matches_digest(b"", "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    assert not matches_digest(b"x", digest_of(b""))


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("oci://r.example.org/vo/list:1", ("https", "r.example.org", "vo/list", "1", None)),
        ("oci://R.example.org:5000/a:latest", ("https", "r.example.org:5000", "a", "latest", None)),
        (f"oci+http://127.0.0.1:5000/a@{DIGEST}", ("http", "127.0.0.1:5000", "a", None, DIGEST)),
        (f"oci://[::1]:5000/a_b/c__d/e-f.g:v1@{DIGEST}", ("https", "[::1]:5000", "a_b/c__d/e-f.g", "v1", DIGEST)),
    ],
)
def test_references_are_taken_apart(text, parts):
    found = parse_reference(text)
    assert (found.scheme, found.registry, found.repository, found.tag, found.digest) == parts
    assert parse_reference(str(found)) == found


@pytest.mark.parametrize(
    "text",
    [
        "oci://r/a",
        "oci://r/a:",
        "oci://r/a@",
        f"oci://r/a:@{DIGEST}",
        "oci://r/a:1@",
        "oci://r/A:1",
        "oci://r/../a:1",
        "oci://r/a//b:1",
        "oci://r/a/:1",
        "oci://r/a?x:1",
        "oci://r/a:1?x",
        "oci://r/a:.1",
        "oci://r/a:1/b",
        "oci://r/a:" + "1" * 129,
        "oci://r/" + "a" * 256 + ":1",
        "oci:///a:1",
        "oci://u:p@r/a:1",
        "oci://r\n/a:1",
        "oci://r/a:1\n",
        "https://r/a:1",
        "r/a:1",
        "oci://r/a@sha256:abc",
        f"oci://r/a@{DIGEST}@{DIGEST}",
        "",
    ],
)
def test_what_is_no_reference_is_refused(text):
    with pytest.raises(InputError):
        parse_reference(text)
