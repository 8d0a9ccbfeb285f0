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
    pairs["usable as it is"] = found.is_usable_as_it_is
    return pairs


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
    return [
        part.number or "whole disk",
        format_size(part.start_bytes),
        format_size(part.size_bytes),
        f"{part.kind} (active)" if part.is_active else part.kind,
        part.label,
        None if inside is None else inside.kind,
        None if inside is None else inside.label,
    ]
