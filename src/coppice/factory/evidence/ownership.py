# SPDX-License-Identifier: Apache-2.0
"""Which package each file belongs to, as the image's own package database says."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from coppice.factory.evidence.tree import GuestTree

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
        md5: Of its content.
    """

    package: str
    path: str
    true_path: str
    md5: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ownership:
    """What the package database knows of files.

    Attributes:
        packages: By true path, the package that a file belongs to.
        delivered: Files whose content packages vouch for; configuration is not among them.
    """

    packages: Mapping[str, str] = field(default_factory=dict)
    delivered: tuple[PackagedFile, ...] = ()


def ownership_of(tree: GuestTree) -> Ownership:
    """Return what dpkg's database in ``tree`` knows of files; nothing where there is none."""
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
