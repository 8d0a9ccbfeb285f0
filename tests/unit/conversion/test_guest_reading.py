# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import gzip
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coppice.conversion.guest.claims import differences
from coppice.conversion.guest.kernels import kernel_of, program_architecture
from coppice.conversion.guest.model import GuestFact, GuestFacts, OsRelease, UnknownFact
from coppice.conversion.guest.os_release import MOST_BYTES, read_os_release
from coppice.model.operating_system import Firmware, OperatingSystem
from coppice.model.requirements import Requirements

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            'ID=debian\nVERSION_ID="12"\nNAME="Debian GNU/Linux"',
            OsRelease(identifier="debian", version_id="12", name="Debian GNU/Linux"),
        ),
        ("# comment\n\nID='ol'\r\nID_LIKE=\"fedora rhel\"\n", OsRelease(identifier="ol", like=("fedora", "rhel"))),
        ('PRETTY_NAME="a \\"b\\" \\$c \\\\"', OsRelease(pretty_name='a "b" $c \\')),
        ("ID=one\nID=two", OsRelease(identifier="two")),
        ("HOME_URL=x\nid=lower\n export ID=no", OsRelease()),
        ("", OsRelease()),
    ],
)
def test_os_release_is_read_by_its_rules(text, expected):
    assert read_os_release(text.encode()) == (expected, ())


@pytest.mark.parametrize(
    "line",
    [
        "ID=$(reboot)",
        "ID=`id`",
        'ID="$HOME"',
        'ID="unterminated',
        "ID='a'b",
        'ID="a" # b',
        "ID=Two Words",
        "ID=../x",
        "ID=" + "a" * 300,
        'PRETTY_NAME="a\x1b[2Jb"',
        'PRETTY_NAME="a\u202eb"',
        'PRETTY_NAME="\udcff"',
        'VERSION_ID="1;2"',
        'ID_LIKE="fedora ../x"',
    ],
)
def test_a_malformed_value_is_left_out_and_told(line):
    name = line.split("=", 1)[0]
    release, notes = read_os_release(f"{name}=good\n{line}\n".encode(errors="surrogateescape"))
    assert release == OsRelease()
    assert notes == (f"{name} of os-release is malformed",)


def test_an_endless_os_release_is_cut_and_told():
    release, notes = read_os_release(b"ID=debian\n" + b"#" * MOST_BYTES + b"\nNAME=late\n")
    assert release == OsRelease(identifier="debian")
    assert "longer" in notes[0]


@given(st.binary(max_size=2000))
@settings(max_examples=100, deadline=None)
def test_no_bytes_make_reading_os_release_raise(content):
    read_os_release(content)
    read_os_release(b"ID=" + content)


def elf(machine, order="<"):
    return b"\x7fELF\x02" + (b"\x01" if order == "<" else b"\x02") + bytes(12) + struct.pack(f"{order}H", machine)


def pe(machine, at=128):
    return (b"MZ".ljust(60, b"\0") + struct.pack("<I", at)).ljust(at, b"\0") + b"PE\0\0" + struct.pack("<H", machine)


def arm64_image():
    return bytes(56) + b"ARM\x64"


@pytest.mark.parametrize(
    ("head", "architecture"),
    [
        pytest.param(elf(62), "x86_64", id="ELF"),
        pytest.param(elf(21), "ppc64le", id="POWER, little"),
        pytest.param(elf(21, ">"), "ppc64", id="POWER, big"),
        pytest.param(elf(22, ">"), "s390x", id="mainframe"),
        pytest.param(pe(0xAA64), "aarch64", id="PE"),
        pytest.param(pe(0x8664), "x86_64", id="PE for PCs"),
        pytest.param(arm64_image(), "aarch64", id="Image"),
        pytest.param(gzip.compress(arm64_image() + bytes(10**7)), "aarch64", id="Image in gzip"),
        pytest.param(gzip.compress(elf(62) + bytes(10**6))[:400], "x86_64", id="gzip that is cut"),
    ],
)
def test_a_kernel_is_for_the_processor_that_its_header_names(head, architecture):
    assert kernel_of("/boot/vmlinuz", head).architecture == architecture


@pytest.mark.parametrize(
    "head",
    [b"", b"MZ", b"\x7fELF", b"\x1f\x8b\x08", elf(9999), pe(1), b"MZ".ljust(60, b"\0") + b"\xff" * 4, b"x" * 4096],
)
def test_what_is_no_kernel_is_none(head):
    assert kernel_of("/boot/vmlinuz", head) is None


@given(
    st.sampled_from([b"", b"\x7fELF", b"MZ", b"\x1f\x8b\x08", bytes(0x1FE) + b"\x55\xaa\xeb\x00HdrS"]),
    st.binary(max_size=1500),
)
@settings(max_examples=200, deadline=None)
def test_no_bytes_make_reading_a_kernel_raise(start, rest):
    kernel_of("/boot/vmlinuz", start + rest)
    program_architecture(start + rest)


DEBIAN = OsRelease(
    identifier="debian", version_id="12", name="Debian GNU/Linux", pretty_name="Debian GNU/Linux 12 (bookworm)"
)


def system(distribution="Debian", version="12", architecture="x86_64"):
    return OperatingSystem(kind="Linux", distribution=distribution, version=version, architecture=architecture)


@pytest.mark.parametrize(
    ("release", "said"),
    [
        (DEBIAN, system()),
        (DEBIAN, system(version="12.5", architecture="amd64")),
        (DEBIAN, system("debian gnu/linux", "")),
        (OsRelease(identifier="rhel", version_id="9.3"), system("Red Hat Enterprise Linux", "9")),
        (OsRelease(identifier="almalinux", version_id="9.4", name="AlmaLinux"), system("AlmaLinux", "9.4")),
        (OsRelease(), system("Anything", "1")),
        (None, system("Anything", "1")),
    ],
)
def test_what_the_list_says_in_other_words_is_no_difference(release, said):
    assert differences(GuestFacts(operating_system=release, architecture="x86_64"), said) == ()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (system("Ubuntu"), "the list says Ubuntu, and the disk has Debian GNU/Linux 12 (bookworm)"),
        (system(version="11"), "the list says version 11, and the disk has 12"),
        (system(version="1"), "the list says version 1, and the disk has 12"),
        (system(architecture="aarch64"), "the list says aarch64, and the disk is for x86_64"),
    ],
)
def test_a_difference_is_told(said, words):
    assert differences(GuestFacts(operating_system=DEBIAN, architecture="x86_64"), said) == (words,)


def test_firmware_differs_only_where_it_is_known():
    wanted = Requirements(firmware=Firmware.UEFI)
    facts = GuestFacts(boot_ways=(Firmware.BIOS,))
    assert differences(facts, system(), wanted) == (
        "the list says that it starts with uefi, and the disk starts with bios",
    )
    unknown = (UnknownFact(fact=GuestFact.BOOT_WAYS, reason="x"),)
    assert differences(GuestFacts(boot_ways=(Firmware.BIOS,), unknown=unknown), system(), wanted) == ()
