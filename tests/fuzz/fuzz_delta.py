# SPDX-License-Identifier: Apache-2.0
"""A fuzz target: index, pack and patch of a delta are read, or refused with the declared error."""

from __future__ import annotations

import io
import sys
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["coppice"]):
    from coppice.errors import DeltaError
    from coppice.formats.delta import (
        Extent,
        IndexWriter,
        PackLayout,
        PackWriter,
        PatchWriter,
        apply_patch,
        block_hash,
        read_index,
        read_pack_layout,
        read_pack_table,
        read_patch,
        unpack_frame,
    )
    from coppice.model.checksum import Checksum

LAYOUT = PackLayout(blocks=10, frame_blocks=4, table_bytes=20)
MOST_BYTES = 1 << 20


def one(data: bytes) -> None:
    """Read ``data`` as each kind of file."""
    with suppress(DeltaError):
        index = read_index(data)
        assert sum(run.count for run in index.runs()) == index.blocks
    with suppress(DeltaError):
        stream, made = io.BytesIO(data), 0
        patch = read_patch(stream, size_bytes=len(data))
        for piece in apply_patch(patch, stream, lambda _, length: bytes(length)):
            made += piece if isinstance(piece, int) else len(piece)
            if made > MOST_BYTES:
                break
        else:
            assert made == patch.target_size_bytes
    with suppress(DeltaError):
        read_pack_layout(data[-22:])
    with suppress(DeltaError):
        read_pack_table(data, LAYOUT, pack_bytes=len(data) + 30)
    with suppress(DeltaError):
        assert len(unpack_frame(data, LAYOUT, 1)) == 4 * 4096


def seeds() -> tuple[bytes, bytes, bytes]:
    """Return a small file of each kind."""
    checksum, block = Checksum.of(b""), b"block..." * 512
    index = IndexWriter([LAYOUT])
    index.zeros(2)
    index.block(block_hash(block), pack=0, number=3)
    pack = io.BytesIO()
    packer = PackWriter(pack, frame_blocks=4)
    for _ in range(10):
        packer.add(block)
    packer.finish()
    segments = io.BytesIO()
    patch = PatchWriter(segments)
    patch.zeros()
    patch.copy(1, 2)
    patch.literal()
    patch.segment(block, bytes(4096), [Extent(0, 1)])
    sizes = {"target_size_bytes": 4 * 4096, "origin_size_bytes": 4 * 4096}
    head = patch.finish(**sizes, target_checksum=checksum, origin_checksum=checksum)
    return (
        index.finish(guest_size_bytes=3 * 4096, guest_checksum=checksum),
        pack.getvalue(),
        head + segments.getvalue(),
    )


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
