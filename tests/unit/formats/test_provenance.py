# SPDX-License-Identifier: Apache-2.0
"""Statements on where a build comes from, and the envelopes that they are signed in."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from coppice.definition.model import Definition
from coppice.errors import (
    CoppiceError,
    DocumentError,
    SignatureFormError,
    SignerCountError,
    TamperedListError,
    WeakSignatureError,
)
from coppice.factory.model import Ancestor, BuildInput, BuildResult, BuiltImage, Provenance
from coppice.formats.cms_sign import SoftwareKey
from coppice.formats.dsse import seal, unseal
from coppice.formats.intoto import MEDIA_TYPE, read_statement, write_statement
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat, Image
from coppice.model.operating_system import Firmware, OperatingSystem
from coppice.model.requirements import Requirements
from coppice.testing.authority import Authority, KeyType

pytestmark = pytest.mark.unit

CHECKSUM = Checksum.of(b"disk")
RESULT = BuildResult(
    definition=Definition(
        name="web",
        path=Path("/definitions/web/appliance.toml"),
        title="Web",
        description="",
        groups=(),
        operating_system=OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="x86_64"),
        suite="bookworm",
        builder="bootstrap",
        packages=(),
        disk_size_bytes=1,
        firmware=(Firmware.BIOS,),
        formats=(DiskFormat.QCOW2,),
        user="debian",
        requirements=Requirements(),
        variant="small",
        snapshot="20261101T000000Z",
    ),
    key="ab" * 32,
    directory=Path("/builds/ab"),
    images=(
        BuiltImage(
            path=Path("/builds/ab/web.qcow2"),
            image=Image(format=DiskFormat.QCOW2, size_bytes=4, virtual_size_bytes=8, checksum=CHECKSUM),
        ),
    ),
    packages=(),
    provenance=Provenance(
        definition_digest="cd" * 32,
        builder="bootstrap 2",
        tools=(("mmdebstrap", "1.3"),),
        started_at=datetime(2026, 11, 26, 23, 59, 30, tzinfo=UTC),
        seconds=60.4,
        definition_source="git+https://git.example/x@0123",
        inputs=(BuildInput(name="index bookworm", uri="http://jane:secret@deb.example/", digest=f"sha256:{'1' * 64}"),),
        lineage=(Ancestor(definition="base", key="ef" * 32, image_digest=f"sha512:{'2' * 128}"),),
    ),
    verdicts=(),
    reused=False,
)
STATEMENT = write_statement(RESULT, [("sbom.cdx.json", Checksum.of(b"sbom", "sha256"))])


def test_a_statement_says_where_a_build_comes_from_in_the_words_of_its_form() -> None:
    said = json.loads(STATEMENT)
    assert said["subject"] == [{"name": "web.qcow2", "digest": {"sha512": CHECKSUM.hexdigest}}]
    build, run = said["predicate"]["buildDefinition"], said["predicate"]["runDetails"]
    assert build["externalParameters"]["definition"] == {
        "name": "web",
        "digest": {"sha256": "cd" * 32},
        "source": "git+https://git.example/x@0123",
        "variant": "small",
    }
    assert build["resolvedDependencies"] == [
        {"name": "index bookworm", "uri": "http://deb.example/", "digest": {"sha256": "1" * 64}},
        {"name": "ancestor base", "digest": {"sha512": "2" * 128}},
    ]
    assert run["builder"]["version"]["bootstrap"] == "2"
    assert run["builder"]["version"]["mmdebstrap"] == "1.3"
    assert run["metadata"]["finishedOn"] == "2026-11-27T00:00:30Z"
    assert run["byproducts"] == [
        {"name": "sbom.cdx.json", "digest": {"sha256": Checksum.of(b"sbom", "sha256").hexdigest}}
    ]


def test_an_ancestor_that_is_an_input_already_is_told_once() -> None:
    parent = BuildInput(name="parent base", uri="", digest=f"sha512:{'2' * 128}")
    said = json.loads(write_statement(replace(RESULT, provenance=replace(RESULT.provenance, inputs=(parent,)))))
    told = said["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert told == [{"name": "parent base", "digest": {"sha512": "2" * 128}}]


def test_a_statement_reads_as_it_was_meant_and_always_has_the_same_bytes() -> None:
    read = read_statement(STATEMENT)
    assert read.speaks_of(CHECKSUM)
    assert not read.speaks_of(Checksum.of(b"another"))
    assert (read.definition, read.definition_digest) == ("web", "cd" * 32)
    assert read.definition_source == "git+https://git.example/x@0123"
    assert read.inputs == ("index bookworm", "ancestor base")
    assert write_statement(RESULT, [("sbom.cdx.json", Checksum.of(b"sbom", "sha256"))]) == STATEMENT
    plain = replace(RESULT, provenance=replace(RESULT.provenance, definition_source="", inputs=(), lineage=()))
    assert read_statement(write_statement(plain)).definition_source == ""


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("_type",), "https://in-toto.io/Statement/v0.1"),
        (("predicateType",), "https://slsa.dev/provenance/v0.2"),
        (("subject",), []),
        (("subject",), "all"),
        (("subject",), [{"name": "x", "digest": {"sha512": "1"}}]),
        (("subject", 0, "digest"), {"md5": "1" * 32}),
        (("subject", 0, "digest"), {"sha512": "1"}),
        (("subject", 0, "name"), None),
        (("predicate",), None),
        (("predicate", "buildDefinition", "externalParameters", "definition"), []),
        (("predicate", "buildDefinition", "resolvedDependencies"), 7),
        (("predicate", "runDetails", "builder"), None),
    ],
)
def test_what_is_no_statement_on_a_build_is_refused_with_the_place(place: tuple[Any, ...], value: object) -> None:
    document = inner = json.loads(STATEMENT)
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    with pytest.raises(DocumentError, match="provenance is malformed at"):
        read_statement(json.dumps(document).encode())


AUTHORITY = Authority.create("Example CA")


def sealed(key_type: KeyType = KeyType.P256, payload: bytes = STATEMENT) -> dict[str, Any]:
    jane = AUTHORITY.issue("Jane", key_type=key_type)
    chain = (AUTHORITY.identity.certificate,)
    data = seal(payload, MEDIA_TYPE, certificate=jane.certificate, chain=chain, key=SoftwareKey(jane.key))
    said: dict[str, Any] = json.loads(data)
    return said


def opened(document: object) -> bytes:
    return unseal(json.dumps(document).encode(), MEDIA_TYPE).payload


@pytest.mark.parametrize("key_type", [KeyType.P256, KeyType.P384, KeyType.RSA_2048])
def test_what_is_sealed_is_opened_with_its_certificates(key_type: KeyType) -> None:
    envelope = unseal(json.dumps(sealed(key_type)).encode(), MEDIA_TYPE)
    assert envelope.payload == STATEMENT
    assert envelope.certificate.issuer == AUTHORITY.identity.certificate.subject
    assert envelope.others == (AUTHORITY.identity.certificate,)


def test_nothing_is_sealed_with_a_weak_key() -> None:
    with pytest.raises(WeakSignatureError):
        sealed(KeyType.RSA_1024)


WHOLE = sealed()
[SIGNATURE] = WHOLE["signatures"]
OTHER = sealed()["signatures"][0]


@pytest.mark.parametrize(
    ("document", "error"),
    [
        ({**WHOLE, "payload": base64.b64encode(STATEMENT + b" ").decode()}, TamperedListError),
        ({**WHOLE, "signatures": [{**SIGNATURE, "certificate": OTHER["certificate"]}]}, TamperedListError),
        ({**WHOLE, "signatures": [{**SIGNATURE, "sig": OTHER["sig"]}]}, TamperedListError),
        ({**WHOLE, "signatures": [{**SIGNATURE, "sig": ""}]}, TamperedListError),
        ({**WHOLE, "signatures": [SIGNATURE, OTHER]}, SignerCountError),
        ({**WHOLE, "signatures": []}, SignerCountError),
        ({**WHOLE, "signatures": [{**SIGNATURE, "certificate": "-----BEGIN CERTIFICATE-----"}]}, SignatureFormError),
        ({**WHOLE, "signatures": [{**SIGNATURE, "intermediates": [7]}]}, SignatureFormError),
        ({**WHOLE, "signatures": [{**SIGNATURE, "intermediates": [OTHER["certificate"]] * 17}]}, DocumentError),
        ({**WHOLE, "signatures": [7]}, DocumentError),
        ({**WHOLE, "signatures": {}}, DocumentError),
        ({**WHOLE, "payloadType": "application/json"}, DocumentError),
        ({**WHOLE, "payload": "§"}, DocumentError),
        ({key: value for key, value in WHOLE.items() if key != "payload"}, DocumentError),
        ([], DocumentError),
    ],
)  # fmt: skip
def test_an_envelope_that_is_not_what_was_signed_is_refused(document: object, error: type[CoppiceError]) -> None:
    with pytest.raises(error):
        opened(document)


def test_a_signature_over_the_same_bytes_as_something_else_does_not_count() -> None:
    jane = AUTHORITY.issue("Jane")
    data = seal(STATEMENT, "text/plain", certificate=jane.certificate, chain=(), key=SoftwareKey(jane.key))
    with pytest.raises(TamperedListError):
        opened({**json.loads(data), "payloadType": MEDIA_TYPE})
