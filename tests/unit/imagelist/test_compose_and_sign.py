# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from coppice.catalogue.model import ApplianceVersion, EndorserIdentity, Selection
from coppice.errors import (
    EndorserMismatchError,
    InputError,
    SignerExpiredError,
    SignerUsageError,
)
from coppice.formats.cms import open_message
from coppice.formats.hepix import read_list, write_list
from coppice.imagelist.compose import compose, next_version
from coppice.imagelist.keys import SigningIdentity, load_identity
from coppice.imagelist.sign import sign_list
from coppice.model.appliance import Appliance
from coppice.model.checksum import Checksum
from coppice.model.endorser import DistinguishedName
from coppice.model.identifiers import ImageIdentifier, ListIdentifier
from coppice.model.image import DiskFormat, Image
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements
from coppice.testing import consumers

if TYPE_CHECKING:
    from coppice.imagelist.model import ImageList
    from coppice.testing.authority import Authority, Identity

pytestmark = pytest.mark.unit
NOW = datetime.now(UTC)
DAY = timedelta(days=1)
APPLIANCE = Appliance(
    name="debian-12",
    identifier=ImageIdentifier("8a1f2f60-0f0c-4c49-8b43-2f4a9be7c1d2"),
    title="Debian 12",
    description="minimal",
    groups=("General",),
    operating_system=OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="x86_64"),
    requirements=Requirements(minimum_cores=1, minimum_ram_mib=512),
)
SELECTION = Selection(
    name="demo",
    identifier=ListIdentifier("2f1c0d3e-6f4a-4a39-9b0e-4d1a7c0b9f11"),
    title="Demo",
    description="Test images",
    source="https://lists.example.org/",
    vo="vo.example.org",
    endorser="jane",
    publisher="here",
    lifetime_days=28,
    last_version=None,
    versions=(
        ApplianceVersion(
            appliance=APPLIANCE,
            version="2026.11.22",
            path=Path("/images/x.qcow2"),
            image=Image(
                format=DiskFormat.QCOW2, size_bytes=4, virtual_size_bytes=8, checksum=Checksum.of(b"disk", "sha512")
            ),
            created=NOW,
            expires=None,
            provenance=None,
        ),
    ),
)


def stored(identity: Identity, directory: Path, passphrase: bytes | None = None) -> EndorserIdentity:
    certificate, key = identity.write_to(directory, "jane", passphrase=passphrase)
    return EndorserIdentity(
        name="jane",
        certificate=certificate,
        key=key,
        passphrase_file=None,
        creator="Jane Doe",
        email="jane@example.org",
    )


def composed(identity: SigningIdentity, selection: Selection = SELECTION) -> ImageList:
    return compose(
        selection,
        version="1",
        now=NOW,
        endorser=identity.endorser,
        image_uris={"debian-12": "https://lists.example.org/images/x.qcow2"},
        list_uri="https://lists.example.org/demo.list",
    ).content


@pytest.mark.parametrize(
    ("last", "following"),
    [(None, "1"), ("1", "2"), ("9", "10"), ("0.0.9", "0.0.10"), ("2026-01", "2026-02"), ("a", "a.1")],
)
def test_the_next_version_bumps_the_last_number(last: str | None, following: str) -> None:
    assert next_version(last) == following


def test_what_is_composed_says_what_is_selected(jane: Identity, tmp_path: Path) -> None:
    content = composed(load_identity(stored(jane, tmp_path)))
    [image] = content.images
    assert (image.identifier, image.version, image.size_bytes) == (APPLIANCE.identifier, "2026.11.22", 4)
    assert content.validity.expires - content.validity.created == 28 * DAY
    assert image.expires == content.validity.expires
    assert content.vo == "vo.example.org"
    with pytest.raises(InputError, match="debian-12"):
        compose(SELECTION, version="1", now=NOW, endorser=content.endorsers[0], image_uris={}, list_uri="https://x/")


@pytest.mark.threat("T27")
def test_todays_readers_find_every_key_that_they_need(jane: Identity, tmp_path: Path) -> None:
    [version] = SELECTION.versions
    bare = replace(SELECTION, versions=(replace(version, appliance=replace(APPLIANCE, groups=())),))
    for selection in (SELECTION, bare):
        payload = write_list(composed(load_identity(stored(jane, tmp_path)), selection))
        assert consumers.atrope_complaints(payload) == []
        assert consumers.cloudkeeper_complaints(payload) == []


def test_a_signed_list_opens_and_reads_the_same(jane: Identity, tmp_path: Path) -> None:
    identity = load_identity(stored(jane, tmp_path))
    signed = sign_list(composed(identity), identity, NOW)
    opened = open_message(signed.message)
    assert read_list(opened.payload) == signed.content
    assert Checksum.of(opened.payload).matches(signed.payload_checksum)
    assert signed.signer == jane.subject
    assert "PRIVATE" not in repr(identity)


def test_only_the_endorser_signs_and_only_with_a_valid_certificate_for_it(authority: Authority, tmp_path: Path) -> None:
    identity = load_identity(stored(authority.issue("Jane Doe"), tmp_path))
    content = composed(identity)
    with pytest.raises(SignerExpiredError):
        sign_list(content, identity, NOW + 400 * DAY)
    with pytest.raises(EndorserMismatchError):
        sign_list(content, load_identity(stored(authority.issue("Other"), tmp_path)), NOW)
    for unfit in (authority.wrong_usage(), authority.issue_authority("Sub CA").identity):
        wrong = load_identity(stored(unfit, tmp_path))
        with pytest.raises(SignerUsageError):
            sign_list(composed(wrong), wrong, NOW)


@pytest.mark.threat("T16")
def test_a_name_that_imitates_another_is_written_so_that_it_reads_as_itself(
    authority: Authority, tmp_path: Path
) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Jane/CN=Admin")])
    identity = load_identity(stored(authority.issue("", subject=name), tmp_path))
    signed = sign_list(composed(identity), identity, NOW)
    [endorser] = read_list(open_message(signed.message).payload).endorsers
    assert endorser.subject == identity.endorser.subject != DistinguishedName.of(("cn", "Jane"), ("cn", "Admin"))


def test_a_name_of_several_attributes_at_once_reads_as_itself(authority: Authority, tmp_path: Path) -> None:
    two_in_one = x509.RelativeDistinguishedName(
        [x509.NameAttribute(NameOID.COMMON_NAME, "Jane"), x509.NameAttribute(NameOID.USER_ID, "jane")]
    )
    identity = load_identity(stored(authority.issue("", subject=x509.Name([two_in_one])), tmp_path))
    content = composed(identity)
    assert read_list(open_message(sign_list(content, identity, NOW).message).payload) == content
