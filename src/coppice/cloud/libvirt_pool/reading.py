# SPDX-License-Identifier: Apache-2.0
"""What libvirt says of machines, files and pools in XML, read within bounds. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.cloud.libvirt_pool.document import parse
from coppice.cloud.libvirt_pool.record import CURRENT, IMAGE, NAMESPACE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.cloud.libvirt_pool.document import Element

_NAMES = ("file", "dev", "volume", "name", "dir")
"""Attributes of a disk's source that say which file or device it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A machine definition.

    Attributes:
        identifier: Its UUID.
        name: Its name.
        kind: `IMAGE`, `CURRENT`, or None: Coppice wrote nothing on it.
        text: What Coppice wrote.
        disks: Paths of its disks.
        lasting: Those of them to which a machine writes for good: without ``<transient>``.
        files: Paths and names of all that its disks are made of, what they are based on included.
    """

    identifier: str
    name: str
    kind: str | None
    text: str
    disks: frozenset[str]
    lasting: frozenset[str]
    files: frozenset[str]


def read_definition(xml: str) -> Definition:
    """Read what ``virDomainGetXMLDesc`` gives.

    Raises:
        CloudAnswerError: It is something else.
    """
    root = parse(xml, "a machine")
    disks: set[str] = set()
    lasting: set[str] = set()
    files: set[str] = set()
    for devices in root.all("devices"):
        for disk in devices.all("disk"):
            own = {path for source in disk.all("source") for path in _paths(source)}
            disks |= own
            if not any(disk.all("transient")):
                lasting |= own
            files |= set(_chain(disk))
    kind, text = _written(root)
    return Definition(
        identifier=root.text_of("uuid"),
        name=root.text_of("name"),
        kind=kind,
        text=text,
        disks=frozenset(disks),
        lasting=frozenset(lasting),
        files=frozenset(files),
    )


def read_backing(xml: str) -> frozenset[str]:
    """Return the paths that a file is based on, out of what ``virStorageVolGetXMLDesc`` gives.

    Raises:
        CloudAnswerError: It is something else.
    """
    root = parse(xml, "a volume")
    return frozenset(path.text for backing in root.all("backingStore") for path in backing.all("path") if path.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolFacts:
    """A storage pool.

    Attributes:
        kind: ``dir`` and others.
        path: Where its files are on the machine that has it.
    """

    kind: str
    path: str


def read_pool(xml: str) -> PoolFacts:
    """Read what ``virStoragePoolGetXMLDesc`` gives.

    Raises:
        CloudAnswerError: It is something else.
    """
    root = parse(xml, "a storage pool")
    paths = [path.text for target in root.all("target") for path in target.all("path")]
    return PoolFacts(kind=root.attributes.get("type", ""), path=paths[0] if paths else "")


def read_hypervisor(xml: str) -> str:
    """Return the kind of machine that ``virConnectGetDomainCapabilities`` describes: ``kvm``, ``qemu``.

    Raises:
        CloudAnswerError: It is something else.
    """
    return parse(xml, "a machine's capabilities").text_of("domain")


def _written(root: Element) -> tuple[str | None, str]:
    for metadata in root.all("metadata"):
        for kind in (IMAGE, CURRENT):
            for element in metadata.all(f"{NAMESPACE} {kind}"):
                return kind, element.text
    return None, ""


def _chain(element: Element) -> Iterator[str]:
    for child in element.children:
        if child.tag == "source":
            yield from _paths(child)
        elif child.tag in {"backingStore", "mirror"}:
            yield from _chain(child)


def _paths(source: Element) -> Iterator[str]:
    for name in _NAMES:
        path = source.attributes.get(name)
        if path:
            yield path
