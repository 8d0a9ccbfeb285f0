# SPDX-License-Identifier: Apache-2.0
"""``coppice convert``: another file made of an image file, by hand."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result
from coppice.cli.output import format_size
from coppice.cli.words import examples, pass_context, verb

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.model.requirements import Requirements

FORMATS = ("raw", "qcow2", "vmdk", "vdi", "vhd", "vhdx", "ova", "iso")
COMPRESSIONS = ("zstd", "zlib", "none")
_MIB = 1024 * 1024


@verb(
    "convert",
    epilog=examples(
        "coppice convert debian.ova --to qcow2",
        "coppice convert debian.raw.xz --to vmdk --output /srv/images/debian.vmdk",
        "coppice convert debian.qcow2 --to qcow2 --compression none --output fast.qcow2",
        "coppice convert debian.qcow2 --to ova --name debian-12 --cores 2 --memory 2GiB",
        exits="0 it was made, 7 the image is refused or cannot be converted, 12 the new file is there already",
    ),
)
@click.argument("file", type=click.Path(path_type=Path, readable=False))
@click.option("--to", "wanted", required=True, type=click.Choice(FORMATS), help="The format that is wanted.")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="The new file; otherwise it lies beside FILE and has the ending of its format.",
)
@click.option("--overwrite", is_flag=True, help="Replace what has the new file's name.")
@click.option(
    "--compression",
    type=click.Choice(COMPRESSIONS),
    help="Of qcow2; otherwise what the settings say (conversion.qcow2_compression). Who names it has a qcow2 image "
    "written anew.",
)
@click.option("--name", help="Of an OVA, as its descriptor has it; otherwise the new file's.")
@click.option("--cores", type=click.IntRange(1, 4096), help="Of an OVA: the processor cores that it asks for.")
@click.option("--memory", metavar="SIZE", help="Of an OVA: the memory that it asks for, such as 2GiB.")
@click.option("--firmware", type=click.Choice(["bios", "uefi"]), help="Of an OVA: how it starts.")
@click.option("--bus", type=click.Choice(["virtio", "scsi", "sata", "ide"]), help="Of an OVA: what its disk hangs on.")
@pass_context
def command(
    context: Context,
    *,
    file: Path,
    wanted: str,
    output: Path | None,
    overwrite: bool,
    compression: str | None,
    name: str | None,
    cores: int | None,
    memory: str | None,
    firmware: str | None,
    bus: str | None,
) -> Result:
    """Make an image file of another format out of FILE: a disk image, also packed, also inside of an archive.

    FILE stays as it is. Its content says what it is, and its name nothing; what is dangerous is refused before any tool
    opens it. The new file comes into being in one step, when it is whole.
    """
    from coppice.conversion.options import Qcow2Compression
    from coppice.model.image import DiskFormat
    from coppice.workflows.image_file import Wish, convert_file, default_destination

    _check_options(
        wanted, compression, {"name": name, "cores": cores, "memory": memory, "firmware": firmware, "bus": bus}
    )
    kind = DiskFormat(wanted)
    wish = Wish(
        format=kind,
        destination=(output or default_destination(file, kind)).absolute(),
        overwrite=overwrite,
        compression=None if compression is None else Qcow2Compression(compression),
        name=name,
        requirements=_requirements(cores, memory, firmware, bus),
    )
    made = convert_file(file, wish, context.settings, context.monitor)
    found = made.inspection

    def render(output: Output) -> None:
        output.pairs(
            {
                "file": made.path,
                "format": f"{found.format} ({found.disk.variant})" if found.disk.variant else found.format,
                "size": format_size(found.size_bytes),
                "virtual size": format_size(found.virtual_size_bytes),
                "made from": f"{made.source.format}, {format_size(made.source.size_bytes)}",
            }
        )

    data = {
        "source": {"path": file, "inspection": made.source},
        "path": made.path,
        "inspection": found,
        "converted": made.is_converted,
    }
    told = [] if made.is_converted else [f"The disk is {found.format} already: its bytes were taken as they are."]
    notes = dict.fromkeys((*made.source.disk.notes, *found.disk.notes))
    return Result(command="convert", data=data, messages=(*told, *notes), show=render)


def _check_options(wanted: str, compression: str | None, of_ova: dict[str, object]) -> None:
    if compression is not None and wanted != "qcow2":
        raise click.UsageError("--compression is about qcow2 only; write --to qcow2, or leave it out.")
    given = [f"--{name}" for name, value in of_ova.items() if value is not None]
    if given and wanted != "ova":
        raise click.UsageError(f"{', '.join(given)}: about an OVA only; write --to ova, or leave it out.")


def _requirements(cores: int | None, memory: str | None, firmware: str | None, bus: str | None) -> Requirements | None:
    from coppice.model.operating_system import Firmware
    from coppice.model.requirements import DiskBus, Requirements

    if cores is None and memory is None and firmware is None and bus is None:
        return None
    return Requirements(
        minimum_cores=cores,
        minimum_ram_mib=None if memory is None else _memory_mib(memory),
        firmware=None if firmware is None else Firmware(firmware),
        disk_bus=None if bus is None else DiskBus(bus),
    )


def _memory_mib(text: str) -> int:
    from coppice.settings.quantities import parse_size

    try:
        size = parse_size(text)
    except ValueError as problem:
        raise click.UsageError(f"--memory: {problem}") from problem
    if size < _MIB or size % _MIB:
        raise click.UsageError(f"--memory: {text} is no whole number of MiB; write it such as 2GiB or 512MiB.")
    return size // _MIB
