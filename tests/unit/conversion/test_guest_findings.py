# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from coppice.conversion.guest.boot import efi_architectures, starts_with_bios
from coppice.conversion.guest.findings import Findings
from coppice.conversion.guest.model import GuestFact, Kernel, OsRelease, UnknownFact
from coppice.conversion.guest.survey import Survey
from coppice.conversion.guest.tree import Node, NodeKind
from coppice.conversion.model import PartitionTable
from coppice.formats.partition_layout import BIOS_BOOT_KIND, Partition, PartitionLayout

pytestmark = pytest.mark.unit
DEBIAN = OsRelease(identifier="debian", pretty_name="Debian 12")
UBUNTU = OsRelease(identifier="ubuntu", pretty_name="Ubuntu 24.04")
NO_TABLE = PartitionLayout(table=None)


def facts_of(*surveys, hidden=(), efi=()):
    findings = Findings()
    for number, found in enumerate(surveys, 1):
        findings.add(f"partition {number}", found)
    for reason in hidden:
        findings.hidden(reason)
    findings.efi_architectures.update(dict.fromkeys(efi))
    return findings.facts(NO_TABLE, ())


def kernel(path="/boot/vmlinuz", architecture="x86_64"):
    return Kernel(path=path, architecture=architecture)


def root(release=DEBIAN, *, cloud_init=True, **others):
    return Survey(is_root=True, release=release, has_cloud_init=cloud_init, **others)


def test_nothing_found_and_nothing_hidden_is_nothing():
    facts = facts_of()
    assert (facts.unknown, facts.operating_system, facts.has_cloud_init) == ((), None, False)


def test_nothing_found_beside_what_is_hidden_is_not_known():
    facts = facts_of(hidden=["partition 2: lvm is not looked into"])
    assert {unknown.fact for unknown in facts.unknown} == {
        GuestFact.KERNELS,
        GuestFact.ARCHITECTURE,
        GuestFact.OPERATING_SYSTEM,
        GuestFact.CLOUD_INIT,
    }
    assert facts.has_cloud_init is None


def test_what_was_found_is_known_whatever_is_hidden_elsewhere():
    facts = facts_of(root(cloud_init=False, kernels=[kernel()]), hidden=["partition 2: luks is not looked into"])
    assert (facts.unknown, facts.operating_system, facts.has_cloud_init) == ((), DEBIAN, False)


def test_several_systems_are_not_one():
    facts = facts_of(root(), root(UBUNTU, cloud_init=False))
    assert facts.operating_system is None
    assert facts.unknown[0].reason == "there are several systems: Debian 12, Ubuntu 24.04"
    assert facts.has_cloud_init is True


def test_the_same_system_twice_is_one():
    assert facts_of(root(), root()).operating_system == DEBIAN


def test_kernels_for_several_processors_leave_the_architecture_unknown():
    facts = facts_of(root(kernels=[kernel("/b", "aarch64"), kernel("/a", "x86_64")]))
    assert [one.path for one in facts.kernels] == ["/a", "/b"]
    assert (facts.architecture, facts.is_known(GuestFact.ARCHITECTURE)) == (None, False)


def test_programs_for_another_processor_are_told():
    facts = facts_of(root(kernels=[kernel()], architecture="i686"), efi=["aarch64"])
    assert facts.architecture == "x86_64"
    assert facts.notes == (
        "the programs are for i686, and the system is for x86_64",
        "the boot programs for UEFI are for aarch64, and the system is for x86_64",
    )


def test_reasons_name_the_partition_and_come_in_the_order_of_facts():
    one = Survey(
        unknown=[UnknownFact(fact=GuestFact.CLOUD_INIT, reason="b"), UnknownFact(fact=GuestFact.KERNELS, reason="a")]
    )
    facts = facts_of(one)
    assert [unknown.reason for unknown in facts.unknown] == ["partition 1: a", "partition 1: b"]
    assert facts.has_cloud_init is None


def sector(code=b"", signature=b"\x55\xaa"):
    return code.ljust(510, b"\0") + signature


def partition(kind="0x83", *, active=False, inside=True):
    return Partition(number=1, start_bytes=512, size_bytes=512, kind=kind, is_active=active, is_inside=inside)


@pytest.mark.parametrize(
    ("disk", "part", "starts"),
    [
        pytest.param(sector(b"\xebGRUB \0"), partition(), True, id="GRUB"),
        pytest.param(sector(b"\xebGRUB \0", b"\0\0"), partition(), False, id="GRUB without the signature"),
        pytest.param(sector(), partition(active=True), False, id="no code"),
        pytest.param(sector(b"\xfa") + sector(), partition(active=True), True, id="an active partition"),
        pytest.param(
            sector(b"\xfa") + bytes(512), partition(active=True), False, id="an active partition without a boot sector"
        ),
        pytest.param(sector(b"\xfa") + sector(), partition(), False, id="no active partition"),
        pytest.param(
            sector(b"\xfa") + sector(), partition(active=True, inside=False), False, id="one outside of the disk"
        ),
        pytest.param(sector(b"\xfa"), partition(BIOS_BOOT_KIND), True, id="a partition for GRUB"),
    ],
)
def test_a_bios_starts_what_has_code_that_leads_somewhere(disk, part, starts):
    layout = PartitionLayout(table=PartitionTable.MBR, partitions=(part,), boot_code=disk[:440])
    assert starts_with_bios(layout, lambda start, length: disk[start : start + length]) is starts


class Folder:
    root = Node(identity="", kind=NodeKind.DIRECTORY)

    def __init__(self, *names) -> None:
        self._names = names

    def children(self, directory):
        after = {"": ("efi",), "/efi": ("boot",)}.get(directory.identity)
        if after is not None:
            return {name: Node(identity=f"{directory.identity}/{name}", kind=NodeKind.DIRECTORY) for name in after}
        return {name.rstrip("/"): Node(identity=name, kind=_kind(name)) for name in self._names}


def _kind(name):
    return NodeKind.DIRECTORY if name.endswith("/") else NodeKind.FILE


def test_uefi_starts_what_bears_the_name_for_its_processor():
    assert efi_architectures(Folder("bootx64.efi", "bootaa64.efi", "grubx64.efi")) == ("x86_64", "aarch64")
    assert efi_architectures(Folder("bootx64.efi/", "x")) == ()
