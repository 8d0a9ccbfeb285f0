# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import io
import json
from dataclasses import replace

import pytest

from coppice.cli.envelope import Result, envelope
from coppice.cli.image_comparison import comparison_messages, show_comparison
from coppice.cli.output import Output
from coppice.conversion.claim import Verdict
from coppice.conversion.guest.model import GuestFact, GuestFacts, OsRelease, UnknownFact
from coppice.conversion.model import Archive, Detection, Inspection, Packaging
from coppice.imagelist.model import ListedImage
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Firmware, OperatingSystem
from coppice.model.requirements import Requirements
from coppice.workflows.image_comparison import Comparison, claims_of

pytestmark = pytest.mark.unit

CONTENT = b"disk"
SIZE = len(CONTENT)
SAID = ListedImage(
    identifier="8a1f2f60-0000-4000-8000-000000000001",
    version="3",
    title="Debian",
    description="",
    uri="https://h.example/debian.qcow2",
    size_bytes=SIZE,
    checksum=Checksum.of(CONTENT),
    declared_format="qcow2",
    operating_system=OperatingSystem(kind="Linux", distribution="Debian", version="12", architecture="amd64"),
    hypervisor="KVM",
    comments="",
    expires=None,
    requirements=Requirements(firmware=Firmware.UEFI),
    groups=(),
    mpuri=None,
    base_mpuri=None,
)
GUEST = GuestFacts(
    boot_ways=(Firmware.BIOS, Firmware.UEFI),
    architecture="x86_64",
    operating_system=OsRelease(identifier="debian", version_id="12", pretty_name="Debian GNU/Linux 12 (bookworm)"),
)


def file(disk=DiskFormat.QCOW2, *, size=SIZE, archive=None):
    return Inspection(
        format=DiskFormat.OVA if archive is Archive.OVA else disk,
        size_bytes=size,
        virtual_size_bytes=1024,
        disk=Detection(format=disk, virtual_size_bytes=1024),
        packaging=None if archive is None else Packaging(archive=archive),
    )


def compared(said=SAID, found=None, checksum=None, guest=GUEST):
    claims = claims_of(said, found or file(), checksum or Checksum.of(CONTENT), guest, "a.img")
    return {each.name: each for each in claims}


def verdicts(**what):
    return {name: str(each.verdict) for name, each in compared(**what).items()}


def comparison(**what):
    return Comparison(
        subscription="lab",
        list_identifier="list",
        image_identifier=SAID.identifier,
        title="Deb\x1b[2Jian",
        image_version="3",
        claims=tuple(compared(**what).values()),
    )


def test_a_file_that_is_what_its_list_says_is_the_same_in_everything():
    assert verdicts() == dict.fromkeys(
        ("size", "checksum", "format", "architecture", "distribution", "version", "firmware"), "same"
    )
    assert comparison().differing == ()
    assert comparison_messages(comparison()) == ()


def test_other_bytes_have_another_size_and_checksum():
    found = compared(found=file(size=9), checksum=Checksum.of(b"something"))
    assert found["size"].difference == "the list says 4 bytes, and the file has 9"
    assert (found["checksum"].verdict, found["checksum"].found) == (Verdict.DIFFERS, str(Checksum.of(b"something")))
    assert found["format"].verdict is Verdict.SAME


def test_a_checksum_of_another_algorithm_is_held_against_that():
    said = replace(SAID, checksum=Checksum.of(CONTENT, "sha256"))
    assert verdicts(said=said, checksum=Checksum.of(CONTENT, "sha256"))["checksum"] == "same"


@pytest.mark.parametrize("declared", ["raw", "vmdk", "docker"])
def test_another_format_is_told_and_never_refused_also_where_the_list_says_raw(declared):
    found = compared(said=replace(SAID, declared_format=declared))["format"]
    assert found.difference == f"image a.img is qcow2, and its list says '{declared}'"
    assert (found.says, found.found, found.verdict) == (declared, "qcow2", Verdict.DIFFERS)


def test_what_lies_in_an_archive_may_be_called_either():
    for declared in ("ova", "vmdk"):
        found = compared(
            said=replace(SAID, declared_format=declared), found=file(DiskFormat.VMDK, archive=Archive.OVA)
        )["format"]
        assert (found.verdict, found.found) == (Verdict.SAME, "ova (vmdk)")


def test_what_the_list_does_not_say_is_not_compared():
    silent = OperatingSystem(kind="", distribution=" ", version="", architecture="")
    said = replace(SAID, declared_format=" ", operating_system=silent, requirements=Requirements())
    assert verdicts(said=said) == {"size": "same", "checksum": "same"}
    assert set(verdicts(said=replace(said, declared_format=None))) == {"size", "checksum"}


def test_another_guest_differs():
    system = OperatingSystem(kind="Linux", distribution="Ubuntu", version="24.04", architecture="aarch64")
    guest = replace(GUEST, boot_ways=(Firmware.BIOS,))
    found = compared(said=replace(SAID, operating_system=system), guest=guest)
    assert {name for name, each in found.items() if each.verdict is Verdict.DIFFERS} == {
        "architecture", "distribution", "version", "firmware",
    }  # fmt: skip
    assert found["distribution"].found == "Debian GNU/Linux 12 (bookworm)"
    assert found["firmware"].found == "bios"


@pytest.mark.parametrize(
    "guest",
    [
        None,
        GuestFacts(unknown=tuple(UnknownFact(fact=fact, reason="no tool") for fact in GuestFact)),
    ],
)
def test_what_nobody_found_out_is_neither_the_same_nor_different(guest):
    found = compared(guest=guest)
    for name in ("architecture", "distribution", "version", "firmware"):
        assert (found[name].verdict, found[name].found) == (Verdict.NOT_KNOWN, None)
    assert comparison(guest=guest).differing == ()


def test_firmware_that_was_found_counts_though_there_may_be_more():
    unknown = (UnknownFact(fact=GuestFact.BOOT_WAYS, reason="damaged"),)
    assert verdicts(guest=replace(GUEST, unknown=unknown))["firmware"] == "same"
    assert verdicts(guest=replace(GUEST, boot_ways=(Firmware.BIOS,), unknown=unknown))["firmware"] == "not-known"
    assert verdicts(guest=replace(GUEST, boot_ways=()))["firmware"] == "differs"


@pytest.mark.parametrize(
    ("said", "found", "verdict"),
    [
        ("12", "12", "same"),
        ("12.5", "12", "same"),
        ("22.04 LTS", "22.04", "same"),
        ("9-stream", "9", "same"),
        ("rolling", "rolling", "same"),
        ("11", "12", "differs"),
        ("22.10", "22.04", "differs"),
        ("bookworm", "12", "not-known"),
        ("12", "", "not-known"),
    ],
)
def test_versions_are_compared_as_far_as_both_go(said, found, verdict):
    system = replace(SAID.operating_system, version=said)
    guest = replace(GUEST, operating_system=OsRelease(identifier="debian", version_id=found))
    assert verdicts(said=replace(SAID, operating_system=system), guest=guest)["version"] == verdict


def test_a_distribution_without_letters_that_are_compared_is_not_called_the_same():
    system = replace(SAID.operating_system, distribution="麒麟")
    assert verdicts(said=replace(SAID, operating_system=system))["distribution"] == "not-known"


def test_a_section_tells_people_what_is_said_and_found():
    stream = io.StringIO()
    made = comparison(found=file(DiskFormat.RAW), guest=replace(GUEST, architecture=None))
    show_comparison(made, Output(stdout=stream, stderr=stream))
    text = stream.getvalue()
    rows = {line.split()[0]: line.split() for line in text.splitlines() if line.strip()}
    assert "compared with the list\n" in text
    assert rows["subscription"] == ["subscription", "lab"]
    assert rows["size"] == ["size", "4", "bytes", "4", "bytes", "same"]
    assert rows["format"] == ["format", "qcow2", "raw", "differs"]
    assert rows["architecture"] == ["architecture", "amd64", "-", "not", "known"]
    assert rows["checksum"][1].startswith("sha512:" + Checksum.of(CONTENT).hexdigest[:24])
    assert "\x1b" not in text
    assert comparison_messages(made) == (
        "The file is not what the list of lab says: image a.img is raw, and its list says 'qcow2'.",
    )


def test_machines_get_the_same_with_whole_checksums():
    data = json.loads(envelope(Result(command="x", data={"comparison": comparison(guest=None)})))["data"]["comparison"]
    assert (data["subscription"], data["image_identifier"], data["image_version"]) == ("lab", SAID.identifier, "3")
    claims = {each["name"]: each for each in data["claims"]}
    assert claims["size"] == {"name": "size", "says": 4, "found": 4, "verdict": "same", "difference": None}
    assert claims["checksum"]["says"] == str(Checksum.of(CONTENT))
    assert claims["version"]["verdict"] == "not-known"
