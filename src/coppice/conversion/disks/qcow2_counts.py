# SPDX-License-Identifier: Apache-2.0
"""The reference counts of qcow2: "Host cluster management" of QEMU's ``docs/interop/qcow2.txt``.

A reader of the disk does not ask them. A guest that writes to the disk does, through its hypervisor: what is used and
counted as free is given out a second time, and the disk is destroyed. What is counted and not used is lost room only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.conversion.disks.bounds import read_exactly
from coppice.conversion.disks.tables import big_endian
from coppice.conversion.refusal import refusal
from coppice.errors import CorruptImageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coppice.conversion.disks.qcow2_header import Qcow2Header
    from coppice.conversion.disks.qcow2_tables import HostClusters
    from coppice.conversion.window import Window

_CODES = {3: "B", 4: "H", 5: "I", 6: "Q"}
"""Of `array`, by the logarithm of the bits of a count."""


def refuse_uncounted(
    window: Window, header: Qcow2Header, hosts: HostClusters, name: str, blocks: Sequence[int]
) -> None:
    """See to it that each cluster that is used is counted; all tables were looked at.

    Args:
        window: The file.
        header: Of the image.
        hosts: What its clusters are used for.
        name: Of the file, for the refusal.
        blocks: Where the blocks of reference counts are, 0 for those that are not there.

    Raises:
        CorruptImageError: One is counted as free.
    """
    in_block = header.cluster_bytes * 8 >> header.refcount_order
    for number, first in enumerate(range(0, -(-window.size_bytes // header.cluster_bytes), in_block)):
        uses = hosts.used(first, in_block)
        if uses.count(0) == len(uses):
            continue
        content = bytes(header.cluster_bytes)
        if number < len(blocks) and blocks[number]:
            content = read_exactly(window, blocks[number], len(content), name=name, what="a block of reference counts")
        counts = _counts(content, header.refcount_order, len(uses))
        if 0 not in counts:
            continue
        for cluster, (use, count) in enumerate(zip(uses, counts, strict=True), first):
            if use and not count:
                raise refusal(
                    CorruptImageError,
                    name,
                    f"its cluster {cluster} is used, and counted as free",
                    offset=cluster * header.cluster_bytes,
                    why="what a guest writes to the disk would be put over it",
                )


def _counts(content: bytes, order: int, wanted: int) -> Sequence[int]:
    content = content[: -(-(wanted << order) // 8)]
    if order in _CODES:
        return big_endian(_CODES[order], content)
    # Of counts of less than a byte, the first is in the lowest bits.
    bits = 1 << order
    mask = (1 << bits) - 1
    return bytes(byte >> shift & mask for byte in content for shift in range(0, 8, bits))[:wanted]
