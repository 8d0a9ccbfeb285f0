# SPDX-License-Identifier: Apache-2.0
"""What a repository of RPM packages says of its updates (``updateinfo.xml``): which of them close security holes. Pure.

Nothing here verifies anything, as in `coppice.formats.rpm_index`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.errors import DocumentError
from coppice.formats.rpm_index import checked_architecture, checked_name, written_version
from coppice.formats.xml_stream import read_xml

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SEVERITIES = ("low", "moderate", "important", "critical")
"""The least first."""
MAX_FIXES = 2_000_000
_WHAT = "updateinfo.xml"
_SECURITY = "security"
_SOURCES = frozenset({"src", "nosrc"})


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityFix:
    """A package that closes a security hole.

    Attributes:
        name: Its name.
        version: The first version without the hole.
        architecture: Its architecture.
        severity: One of `SEVERITIES`; empty: it is not said, or in other words.
    """

    name: str
    version: str
    architecture: str
    severity: str


def worst(severities: Iterable[str]) -> str:
    """Return the gravest of ``severities``; empty: none is said."""
    return max(severities, key=lambda each: SEVERITIES.index(each) if each in SEVERITIES else -1, default="")


def read_advisories(pieces: Iterable[bytes]) -> dict[str, tuple[SecurityFix, ...]]:
    """Return the packages of an ``updateinfo.xml`` that close security holes, by name.

    Args:
        pieces: Its bytes, in order.

    Raises:
        DocumentError: It is no such file.
    """
    reader = _Advisories()
    read_xml(pieces, reader, what=_WHAT)
    return {name: tuple(fixes) for name, fixes in reader.fixes.items()}


@dataclass(slots=True)
class _Advisories:
    root: str = "updates"
    texts: frozenset[str] = frozenset({"severity"})
    fixes: dict[str, list[SecurityFix]] = field(default_factory=dict)
    _left: int = MAX_FIXES
    _is_security: bool = False
    _severity: str = ""
    _packages: list[tuple[str, str, str]] = field(default_factory=list)

    def start(self, depth: int, name: str, attributes: Mapping[str, str]) -> None:
        if depth == 2:  # noqa: PLR2004 - below the root
            self._is_security = name == "update" and attributes.get("type", "") == _SECURITY
            self._severity, self._packages = "", []
        # Below updates, update, pkglist, collection.
        elif depth == 5 and name == "package" and self._is_security:  # noqa: PLR2004
            self._take(attributes)

    def end(self, depth: int, name: str, text: str) -> None:
        if depth == 3 and name == "severity":  # noqa: PLR2004 - updates, update
            self._severity = text.lower() if text.lower() in SEVERITIES else ""
        elif depth == 2:  # noqa: PLR2004 - below the root
            for package, version, architecture in self._packages:
                self.fixes.setdefault(package, []).append(
                    SecurityFix(name=package, version=version, architecture=architecture, severity=self._severity)
                )

    def _take(self, attributes: Mapping[str, str]) -> None:
        self._left -= 1
        if self._left < 0:
            raise DocumentError(f"{_WHAT} names more than {MAX_FIXES} packages")
        name = checked_name(attributes.get("name", ""), _WHAT)
        architecture = checked_architecture(attributes.get("arch", ""), _WHAT)
        version = written_version(attributes, epoch="epoch", version="version", release="release", what=_WHAT)
        if architecture not in _SOURCES:
            self._packages.append((name, version, architecture))
