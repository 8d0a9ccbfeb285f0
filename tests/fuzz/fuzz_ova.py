# SPDX-License-Identifier: Apache-2.0
"""A fuzz target: archive, descriptor, manifest and signature are read, or refused with the declared error."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["coppice"]):
    from coppice.conversion.model import ConversionLimits
    from coppice.conversion.ova import ova_layout, verify_manifest
    from coppice.conversion.window import BytesWindow
    from coppice.errors import ImageRefusedError
    from coppice.formats.ovf import read_ovf
    from coppice.formats.ovf_manifest import check_signature, read_manifest
    from coppice.formats.tar import is_tar, read_members
    from coppice.monitor import SILENT_TASK
    from coppice.testing.archives import archive, extended, manifest, member, ova, ovf

LIMITS = ConversionLimits()
BLOCK = 512
MANIFEST = b"SHA256(vm.ovf)= " + b"0" * 64 + b"\n"


def one(data: bytes) -> None:
    """Read ``data`` as each of them, and as an archive whose checksums are right."""
    with suppress(ImageRefusedError):
        assert read_ovf(data, name="fuzz").disk.href
    with suppress(ImageRefusedError):
        read_manifest(data, name="fuzz")
    with suppress(ImageRefusedError):
        check_signature(data, MANIFEST, "vm.mf", name="fuzz")
    with suppress(ImageRefusedError):
        _layout(data)
    with suppress(ImageRefusedError):
        # What is deeper than the first checksum would be found by chance only.
        _layout(_with_checksums(data))
    with suppress(ImageRefusedError):
        _layout(ova(data))
    with suppress(ImageRefusedError):
        _layout(ova(more=member("vm.mf", data)))


def _layout(data: bytes) -> None:
    is_tar(data)
    members = read_members(lambda at, length: data[at : at + length], len(data), maximum_members=100, name="fuzz")
    ends = [0]
    for found in members:
        assert found.header_offset >= ends[-1]
        ends.append(found.offset + found.size_bytes)
    assert ends[-1] <= len(data)
    window = BytesWindow(data)
    layout = ova_layout(window, LIMITS, "fuzz")
    assert layout.member in {found.name for found in members}
    verify_manifest(layout, window, SILENT_TASK)


def _with_checksums(data: bytes) -> bytes:
    """Return the bytes with a right checksum in every block that bears the mark of a header."""
    blocks = bytearray(data)
    for place in range(0, len(blocks) - BLOCK + 1, BLOCK):
        if blocks[place + 257 : place + 262] == b"ustar":
            blocks[place + 148 : place + 156] = b" " * 8
            blocks[place + 148 : place + 156] = b"%06o\0 " % sum(blocks[place : place + BLOCK])
    return bytes(blocks)


def seeds() -> list[bytes]:
    """Return small files of each kind."""
    disk = b"disk" * 100
    text = ovf()
    listed = manifest([("vm.ovf", text.encode()), ("disk.raw", disk)])
    long_name = member("././@LongLink", b"d" * 120 + b"\0", kind="L", mark=b"ustar  \0")
    return [
        ova(text, disk=disk, more=member("vm.mf", listed)),
        archive(extended("g", comment="x"), extended(path="é.raw", mtime="1.5"), member("x.raw", disk)),
        archive(long_name, member("d" * 100, disk, mark=b"ustar  \0")),
        text.encode(),
        ovf(
            sections='<DeploymentOptionSection><Configuration ovf:id="a"/></DeploymentOptionSection>',
            machine='<vbox:Machine><Hardware><Firmware type="EFI"/></Hardware></vbox:Machine>',
        ).encode(),
        listed,
        MANIFEST + b"-----BEGIN CERTIFICATE-----\nMIIBAAAA\n-----END CERTIFICATE-----\n",
    ]


def main() -> None:
    """Run libFuzzer; it ends the process itself."""
    corpora = [argument for argument in sys.argv[1:] if not argument.startswith("-")]
    for corpus in map(Path, corpora[:1]):
        corpus.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds()):
            (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], "-print_final_stats=1", "-max_len=8192", *sys.argv[1:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
