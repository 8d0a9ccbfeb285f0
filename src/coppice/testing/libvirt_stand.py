# SPDX-License-Identifier: Apache-2.0
"""libvirt for the contract suite: the driver over a libvirtd of the tests' own, and what users see of it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coppice.cloud.image_folder import identity
from coppice.cloud.libvirt_pool import naming
from coppice.cloud.libvirt_pool.driver import LibvirtCloud
from coppice.cloud.libvirt_pool.options import Placing
from coppice.cloud.libvirt_pool.reading import Definition, read_definition
from coppice.cloud.libvirt_pool.record import CurrentRecord
from coppice.cloud.libvirt_pool.session import Session
from coppice.testing.contracts.stand import CloudStand, DriftStand, TidyStand, UseStand
from coppice.testing.desired import SITE, content_of, converted_image
from coppice.testing.libvirtd import POOL, library
from coppice.testing.qcow2 import CLUSTER, DATA, TinyQcow2

if TYPE_CHECKING:
    from coppice.cloud.model import DesiredImage, Presentation, RegisteredImage
    from coppice.conversion.model import ConvertedImage
    from coppice.testing.libvirtd import Libvirtd

SAID = b"booted"
"""What a machine says on its console that is started from one of `bootable`'s disks."""
DISK_BYTES = 1024 * 1024
"""Length of that disk: firmware starts from none that has not a whole cylinder."""
# A boot sector: it writes the text at 0x7c40 to the first serial port, and stops.
_SECTOR = bytes.fromhex("31c0 8ed8 be407c baf803 fc ac 84c0 7403 ee ebf8 f4 ebfd")
_TEXT_AT = 0x40
_NO_MACHINE = 42
"""``VIR_ERR_NO_DOMAIN``."""


def bootable(note: bytes) -> bytes:
    """Return a tiny qcow2 whose disk boots and says `SAID`; with another ``note``, it has other bytes."""
    sector = bytearray(512)
    sector[: len(_SECTOR)] = _SECTOR
    sector[_TEXT_AT : _TEXT_AT + len(SAID) + 3] = SAID + b"\r\n\0"
    sector[510:] = b"\x55\xaa"
    kept = note[: CLUSTER - len(sector)]
    return TinyQcow2(
        clusters=1,
        virtual_size_bytes=DISK_BYTES,
        patches={DATA: bytes(sector) + kept.ljust(CLUSTER - len(sector), b"\0")},
    ).content()


class LibvirtStand(CloudStand, DriftStand, UseStand, TidyStand):
    """The images of a site in a pool that is empty at the start.

    Args:
        libvirtd: Where.
        starts: Whether `can_start` starts a machine, which takes seconds; else it looks at what libvirt would look at.
    """

    def __init__(self, libvirtd: Libvirtd, *, starts: bool = False) -> None:
        self.libvirtd = libvirtd
        self.starts = starts
        self.pool = libvirtd.pool
        self.connection: Any = library().open(libvirtd.uri)
        self.foreign: dict[str, str] = {}
        self.cloud = self.tidy = self.of_site(SITE)

    def close(self) -> None:
        """Let go of the libvirtd."""
        self.connection.close()

    def convert(self, desired: DesiredImage, directory: Path) -> ConvertedImage:
        """Return a disk that boots."""
        content = bootable(content_of(str(desired.key), desired.listed.version))
        converted = converted_image(desired, directory, content)
        return replace(converted, image=replace(converted.image, virtual_size_bytes=DISK_BYTES))

    def of_site(self, site: str, **changes: Any) -> LibvirtCloud:
        """Return the driver of a site."""
        placing = {"pool": POOL, "pools": (POOL,), "hypervisor": "qemu", "network": "none"} | changes
        seconds = placing.pop("call_seconds", 60.0)
        uri = placing.pop("uri", self.libvirtd.uri)
        return LibvirtCloud("test", site, session=Session("test", uri, seconds), placing=Placing(**placing))

    def machine(self, image: RegisteredImage) -> Any:
        """Return the handle of an image's own machine definition."""
        return self.connection.lookupByUUIDString(image.cloud_identifier)

    def current(self, image: RegisteredImage) -> Any | None:
        """Return the handle of what leads to the current version of an image."""
        marker = image.marker
        try:
            return self.connection.lookupByUUIDString(naming.current_uuid(marker.site, str(marker.key)))
        except library().libvirtError as problem:
            if problem.get_error_code() != _NO_MACHINE:
                raise
            return None

    def path(self, image: RegisteredImage) -> Path:
        """Return where an image's file is."""
        (path,) = self.pool.glob(f"coppice-*-{identity(image.marker)}.qcow2")
        return path

    def add_foreign(self, name: str) -> None:
        """Define a machine, and make a file, of somebody else's: under that name if libvirt lets it have it."""
        for title in dict.fromkeys((name, "theirs")):
            volume = title.replace("/", "-")
            with suppress(library().libvirtError):
                self._pool().createXML(
                    f"<volume><name>{volume}</name><capacity>1</capacity></volume>",
                    0,
                )
            machine = self.connection.defineXML(
                f"<domain type='qemu'><name>{volume}</name><memory>65536</memory><os><type>hvm</type></os>"
                f"<devices><disk type='file'><source file='{self.pool}/{volume}'/><target dev='vda'/></disk></devices>"
                "</domain>"
            )
            self.foreign[machine.UUIDString()] = machine.XMLDesc(0)

    def foreign_is_whole(self) -> bool:
        """Tell whether what `add_foreign` made is as it was."""
        files = {volume.name() for volume in self._pool().listAllVolumes(0)}
        return all(
            self.connection.lookupByUUIDString(identifier).XMLDesc(0) == xml
            and files >= {Path(path).name for path in read_definition(xml).disks}
            for identifier, xml in self.foreign.items()
        )

    def break_off(self, image: RegisteredImage) -> None:
        """Leave what a run does that was killed while it sent the file: half of it, and a definition that says so."""
        machine = self.machine(image)
        xml = machine.XMLDesc(library().VIR_DOMAIN_XML_INACTIVE)
        path = self.path(image)
        xml = xml.replace('"whole": true', '"whole": false').replace(f"{path}'", f"{path}.not-startable-registering'")
        self.connection.defineXML(xml)
        os.truncate(path, path.stat().st_size // 2)
        current = self.current(image)
        if current is not None and str(path) in self.inactive(current).disks:
            current.undefine()

    def damage_marker(self, image: RegisteredImage) -> None:
        """Write a state that is none."""
        xml = self.machine(image).XMLDesc(library().VIR_DOMAIN_XML_INACTIVE)
        changed = xml.replace(f'"coppice_state": "{image.marker.state}"', '"coppice_state": "ripe"')
        assert changed != xml
        self.connection.defineXML(changed)

    def delete_behind(self, image: RegisteredImage) -> None:
        """Undefine the machine, as an administrator does that leaves its file (``virsh undefine``)."""
        self.machine(image).undefine()

    def can_start(self, image: RegisteredImage) -> bool:
        """Start the image's own machine, without letting it run; or look at whether it has a disk that is there."""
        machine = self.machine(image)
        if not self.starts:
            disks = self.inactive(machine).disks
            return disks == {str(path) for path in self.pool.glob("coppice-*") if str(path) in disks} != set()
        try:
            machine.createWithFlags(library().VIR_DOMAIN_START_PAUSED)
        except library().libvirtError:
            return False
        has_disk = image.marker.key is not None and self.path(image).name in "".join(
            read_definition(machine.XMLDesc(0)).files
        )
        machine.destroy()
        return has_disk

    def is_listed(self, image: RegisteredImage) -> bool:
        """Tell whether what leads to the current version leads to this one."""
        current = self.current(image)
        return current is not None and str(self.path(image)) in self.inactive(current).disks

    def check_shown(self, image: RegisteredImage, presentation: Presentation) -> None:
        """Look at title and description, as ``virsh desc`` shows them."""
        shown = " ".join(presentation.name.split())[:250]
        for machine in (self.machine(image), self.current(image)):
            assert machine is not None
            assert machine.metadata(library().VIR_DOMAIN_METADATA_TITLE, None) == shown
            description = machine.metadata(library().VIR_DOMAIN_METADATA_DESCRIPTION, None)
            for key, value in presentation.facts.items():
                assert f"{key}: {value}" in description.splitlines()

    def list_by_hand(self, image: RegisteredImage) -> None:
        """Let what leads to the current version lead here; it is made if there is none."""
        xml = self._as_if(image, "x")
        identifier = naming.current_uuid(image.marker.site, str(image.marker.key))
        current = self.current(image)
        name = naming.current_name(image.marker, "by hand") if current is None else current.name()
        marker = image.marker
        text = CurrentRecord(site=marker.site, key=str(marker.key), leads_to=image.cloud_identifier).as_text()
        start, end = xml.index("<metadata>"), xml.index("</metadata>")
        written = f"<metadata><c:current xmlns:c='urn:coppice:libvirt'>{text}</c:current>"
        xml = xml[:start] + written + xml[end:]
        xml = xml.replace(image.cloud_identifier, identifier, 1).replace(f"<name>{image.name}<", f"<name>{name}<")
        self.connection.defineXML(xml)

    def unlist_by_hand(self, image: RegisteredImage) -> None:
        """Undefine what leads to the current version."""
        current = self.current(image)
        assert current is not None
        current.undefine()

    def enable_by_hand(self, image: RegisteredImage) -> None:
        """Give the image's own machine its disk back."""
        self.connection.defineXML(self._as_if(image, str(image.marker.state)))

    def disable_by_hand(self, image: RegisteredImage) -> None:
        """Give the image's own machine a disk that is not there."""
        path = str(self.path(image))
        xml = self.machine(image).XMLDesc(library().VIR_DOMAIN_XML_INACTIVE)
        self.connection.defineXML(xml.replace(f"{path}'", f"{path}.gone'"))

    def use(self, image: RegisteredImage) -> None:
        """Start the image's own machine."""
        self.machine(image).createWithFlags(library().VIR_DOMAIN_START_PAUSED)

    def end_use(self, image: RegisteredImage) -> None:
        """End it."""
        self.machine(image).destroy()

    def leave_behind(self) -> None:
        """Make a file under a name of this site's that no definition has."""
        name = f"{naming.volume_prefix(SITE)}debian-1-0123456789ab.qcow2"
        self._pool().createXML(f"<volume><name>{name}</name><capacity>1</capacity></volume>", 0)

    def _as_if(self, image: RegisteredImage, state: str) -> str:
        path = str(self.path(image))
        xml: str = self.machine(image).XMLDesc(library().VIR_DOMAIN_XML_INACTIVE)
        return xml.replace(f"{path}.not-startable-{state}'", f"{path}'")

    def inactive(self, machine: Any) -> Definition:
        """Return what a machine has from its next start on."""
        return read_definition(machine.XMLDesc(library().VIR_DOMAIN_XML_INACTIVE))

    def _pool(self) -> Any:
        return self.connection.storagePoolLookupByName(POOL)
