# SPDX-License-Identifier: Apache-2.0
"""Which package each file belongs to, as the image's own package database says."""

from __future__ import annotations

import re
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.factory.evidence.rpm_database import KEYS, find_record, read_headers, read_record

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from coppice.factory.evidence.tree import GuestTree
    from coppice.formats.rpm_header import RpmHeader

INFO = "/var/lib/dpkg/info"
_DIVERSIONS = "/var/lib/dpkg/diversions"
_SUM = re.compile(r"([0-9a-f]{32})  (\S.*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedFile:
    """A file as its package delivered it.

    Attributes:
        package: Its package.
        path: Where the package wanted it.
        true_path: Where it is: links among directories followed, diversions taken.
        md5: Of its content; empty: the package has the other one.
        sha256: Of its content; empty likewise.
    """

    package: str
    path: str
    true_path: str
    md5: str = ""
    sha256: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """What the package database knows of files.

    Attributes:
        packages: By true path, the package that a file belongs to.
        delivered: Files whose content packages vouch for; configuration is not among them.
        unsigned: Packages whose signature is not recorded where it should be.
    """

    packages: Mapping[str, str] = field(default_factory=dict)
    delivered: tuple[PackagedFile, ...] = ()
    unsigned: tuple[str, ...] = ()


def ownership_of(tree: GuestTree) -> Ownership:
    """Return what the package database in ``tree`` knows of files: dpkg's, RPM's; nothing where there is none.

    Raises:
        BuildError: It is RPM's, and cannot be read.
    """
    of_dpkg = _of_dpkg(tree)
    record = find_record(tree, must_be_read=not of_dpkg.packages)
    if record is None:
        return of_dpkg
    found = of_rpm(read_headers(read_record(tree, record)), tree)
    # A system of Debian can have packages of RPM beside its own.
    return Ownership(
        packages={**found.packages, **of_dpkg.packages},
        delivered=(*of_dpkg.delivered, *found.delivered),
        unsigned=found.unsigned,
    )


def of_rpm(headers: Sequence[RpmHeader], tree: GuestTree) -> Ownership:
    """Return what the packages of RPM's record know of files."""
    packages: dict[str, str] = {}
    delivered: list[PackagedFile] = []
    for header in headers:
        for file in header.files:
            true = tree.true_path(file.path)
            packages[true] = header.name
            is_vouched = file.is_vouched and not file.is_configuration and stat.S_ISREG(file.mode)
            if is_vouched and file.digest and file.algorithm:
                digest = {file.algorithm: file.digest}
                delivered.append(PackagedFile(package=header.name, path=file.path, true_path=true, **digest))
    return Ownership(
        packages=packages,
        delivered=tuple(delivered),
        # A key is recorded as a package that brings nothing.
        unsigned=tuple(each.name for each in headers if not each.is_signed and (each.name != KEYS or each.files)),
    )


def _of_dpkg(tree: GuestTree) -> Ownership:
    diverted = dict(_diversions(tree.text(_DIVERSIONS) or ""))
    packages: dict[str, str] = {}
    delivered: list[PackagedFile] = []

    def place(package: str, path: str) -> str:
        to, by = diverted.get(path, (path, package))
        return tree.true_path(path if by == package else to)

    for node in tree.inside(INFO):
        stem, dot, kind = node.name.rpartition(".")
        package = stem.partition(":")[0]
        if not dot or not node.is_file:
            continue
        if kind == "list":
            packages |= {place(package, path): package for path in tree.text_of(node).splitlines() if path != "/."}
        elif kind == "md5sums":
            for line in tree.text_of(node).splitlines():
                match = _SUM.fullmatch(line)
                if match is not None:
                    path = f"/{match[2].removeprefix('./')}"
                    true = place(package, path)
                    delivered.append(PackagedFile(package=package, path=path, true_path=true, md5=match[1]))
    return Ownership(packages=packages, delivered=tuple(delivered))


def _diversions(text: str) -> Iterator[tuple[str, tuple[str, str]]]:
    # Three lines each: from where, to where, by whom (":": by the administrator).
    lines = text.splitlines()
    for number in range(0, len(lines) - 2, 3):
        source, target, package = lines[number : number + 3]
        yield source, (target, package)
