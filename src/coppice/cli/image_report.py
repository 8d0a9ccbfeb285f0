# SPDX-License-Identifier: Apache-2.0
"""What an image file is, told to people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cli.output import counted, format_size

if TYPE_CHECKING:
    from coppice.cli.output import Output
    from coppice.conversion.guest.model import GuestFacts, GuestPartition
    from coppice.conversion.model import Inspection
    from coppice.model.requirements import Requirements
    from coppice.workflows.image_file import FileReport


_KINDS = {
    "c12a7328-f81f-11d2-ba4b-00a0c93ec93b": "EFI system",
    "21686148-6449-6e6f-744e-656564454649": "BIOS boot",
    "bc13c2ff-59e6-4262-a352-b275fd6f7172": "Linux boot",
    "0fc63daf-8483-4772-8e79-3d69d8477de4": "Linux",
    "0657fd6d-a4ab-43c4-84e5-0933c84b4f4f": "Linux swap",
    "e6d6d379-f507-44c2-a23c-238f2a3df928": "Linux LVM",
    "a19d880f-05fc-4d3b-a006-743f0f84911e": "Linux RAID",
    "4f68bce3-e8cd-4db1-96e7-fbcaf984b709": "Linux root x86-64",
    "b921b045-1df0-41c3-af44-4c6f280d3fae": "Linux root arm64",
    "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7": "Windows data",
}
"""What a GPT's kinds are called; others are shown as they are."""


def show_report(report: FileReport, output: Output) -> None:
    """Print a report on an image file."""
    output.pairs({"file": report.path, **_file_pairs(report.inspection), **_manifest_pairs(report)})
    if report.guest is not None:
        _show_guest(report.guest, output)
    for note in report.inspection.disk.notes:
        output.line(f"note: {note}")


def _file_pairs(found: Inspection) -> dict[str, object]:
    disk, packaging = found.disk, found.packaging
    pairs: dict[str, object] = {"format": found.format, "size": format_size(found.size_bytes)}
    if packaging is not None:
        pairs["packed"] = _packed(found)
    pairs["disk"] = f"{disk.format} ({disk.variant})" if disk.variant else disk.format
    pairs["virtual size"] = format_size(found.virtual_size_bytes)
    if disk.allocated_bytes is not None:
        pairs["data"] = format_size(disk.allocated_bytes)
    if packaging is not None and packaging.hardware is not None:
        pairs["machine"] = _machine(packaging.hardware)
    pairs["usable as it is"] = _usable(found)
    return pairs


def _usable(found: Inspection) -> str:
    """Return whether a cloud can take the file itself, and if not, why."""
    if found.is_usable_as_it_is:
        return "yes"
    if found.disk.must_be_rewritten:
        return "no: it holds more than its disk, or is of a kind that clouds refuse; a conversion writes it anew"
    return "no: it is packed; a conversion takes the disk out"


def _manifest_pairs(report: FileReport) -> dict[str, object]:
    packaging = report.inspection.packaging
    if packaging is None or packaging.archive is None:
        return {}
    if not report.has_manifest:
        return {"manifest": "none"}
    return {"manifest": "its files agree with it" + (f"; signed by {report.signer}" if report.signer else "")}


def _packed(found: Inspection) -> str:
    """Return what the disk is wrapped in, from the outside to the inside."""
    packaging = found.packaging
    if packaging is None:
        return "no"
    parts = [] if packaging.archive is None else [str(packaging.archive)]
    if packaging.member is not None:
        parts.append(f"as {packaging.member}")
    if packaging.compression is not None:
        parts.append(f"compressed with {packaging.compression}")
    return ", ".join(parts)


def _machine(hardware: Requirements) -> str:
    told = [
        counted(hardware.minimum_cores, "core") if hardware.minimum_cores is not None else "",
        f"{hardware.minimum_ram_mib} MiB of memory" if hardware.minimum_ram_mib is not None else "",
        str(hardware.firmware or ""),
        f"disk on {hardware.disk_bus}" if hardware.disk_bus is not None else "",
    ]
    return ", ".join(each for each in told if each)


def _show_guest(guest: GuestFacts, output: Output) -> None:
    # What nobody knows is told as that, and not as something that is not there.
    unknown = {str(each.fact) for each in guest.unknown}
    system = guest.operating_system

    def told(value: object, fact: str) -> object:
        return "not known" if not value and fact in unknown else value

    output.line()
    output.pairs(
        {
            "partition table": told(guest.partition_table, "partitions"),
            "starts with": told(", ".join(guest.boot_ways), "boot-ways"),
            "architecture": told(guest.architecture, "architecture"),
            "operating system": told(
                system and (system.pretty_name or f"{system.name or system.identifier} {system.version_id}"),
                "operating-system",
            ),
            "kernels": told(", ".join(each.version or each.path for each in guest.kernels), "kernels"),
            "cloud-init": told(guest.has_cloud_init, "cloud-init"),
        }
    )
    if guest.partitions:
        output.line()
        columns = ["partition", "begins", "size", "kind", "label", "file system", "its label"]
        output.table(columns, [_row(each) for each in guest.partitions])
    for each in guest.unknown:
        output.line(f"not known: {each.fact}: {each.reason}")
    for note in guest.notes:
        output.line(f"note: {note}")


def _row(part: GuestPartition) -> list[object]:
    inside = part.file_system
    kind = _KINDS.get(part.kind, part.kind)
    return [
        part.number or "whole disk",
        format_size(part.start_bytes),
        format_size(part.size_bytes),
        f"{kind} (active)" if part.is_active else kind,
        part.label,
        None if inside is None else inside.kind,
        None if inside is None else inside.label,
    ]
