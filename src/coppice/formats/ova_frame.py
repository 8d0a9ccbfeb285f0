# SPDX-License-Identifier: Apache-2.0
"""`OvaFrame`: what an OVA has beside the bytes of its disk, which come last and stay as they are.

The descriptor, the manifest (SHA-256) and the disk, in this order; the same facts give the same bytes.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from coppice.formats.ovf_manifest import manifest_text
from coppice.formats.ovf_write import USUAL_ADAPTER, OvfDisk, file_stem, write_ovf
from coppice.formats.tar_header import ARCHIVE_END, padding, ustar_header

if TYPE_CHECKING:
    from coppice.model.requirements import Requirements

ROOM_BYTES = 4096
"""What comes before the disk is a multiple of it, so that a file system can push the disk back by whole blocks."""


class OvaFrame:
    """What comes before the disk, and behind it: its length is known before the digest of the disk is."""

    def __init__(
        self,
        *,
        disk_bytes: int,
        virtual_size_bytes: int,
        requirements: Requirements,
        name: str,
        is_linux: bool = False,
        adapter: str = USUAL_ADAPTER,
    ) -> None:
        """Describe a machine.

        Args:
            disk_bytes: Length of its disk's file, a VMDK of the kind streamOptimized.
            virtual_size_bytes: Length of the disk that a guest sees.
            requirements: What the machine needs.
            name: Of the appliance.
            is_linux: Whether Linux runs on it.
            adapter: Its network adapter, as VMware calls it.
        """
        self._stem, self._disk_bytes = file_stem(name), disk_bytes
        self._descriptor = write_ovf(
            OvfDisk(file=f"{self._stem}-disk1.vmdk", file_bytes=disk_bytes, virtual_size_bytes=virtual_size_bytes),
            requirements=requirements,
            name=name,
            is_linux=is_linux,
            adapter=adapter,
        )
        # White space behind the root means nothing in XML.
        self._descriptor += b"\n" * (-len(self.before("0" * 64)) % ROOM_BYTES)

    def before(self, disk_digest: str) -> bytes:
        """Return what comes before the disk, whose SHA-256 is ``disk_digest``."""
        disk, descriptor = f"{self._stem}-disk1.vmdk", f"{self._stem}.ovf"
        digests = {descriptor: hashlib.sha256(self._descriptor).hexdigest(), disk: disk_digest}
        manifest = manifest_text(digests)
        return b"".join(
            (
                ustar_header(descriptor, len(self._descriptor)),
                self._descriptor,
                padding(len(self._descriptor)),
                ustar_header(f"{self._stem}.mf", len(manifest)),
                manifest,
                padding(len(manifest)),
                ustar_header(disk, self._disk_bytes),
            )
        )

    @property
    def behind(self) -> bytes:
        """What comes behind the disk."""
        return padding(self._disk_bytes) + ARCHIVE_END
