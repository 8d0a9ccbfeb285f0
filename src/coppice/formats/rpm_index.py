# SPDX-License-Identifier: Apache-2.0
"""What a repository of RPM packages says of itself: ``repomd.xml`` and ``primary.xml``. Pure.

Nothing here verifies anything. Whoever reads ``primary.xml`` has compared its bytes with what ``repomd.xml`` says of
them; that one comes from where it can be believed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from coppice.errors import DocumentError
from coppice.formats.rpm_version import RpmVersion
from coppice.formats.xml_stream import read_xml
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

INDEX_LIMIT_BYTES = 4 * 1024 * 1024
MAX_PACKAGES = 500_000
MAX_OBSOLETES = 1_000_000
PRIMARY, UPDATEINFO = "primary", "updateinfo"
"""The kinds of files that are read: which packages there are, and what their updates are for."""
_REPO, _COMMON, _RPM = (f"http://linux.duke.edu/metadata/{name} " for name in ("repo", "common", "rpm"))
_DIGESTS = frozenset({"sha256", "sha384", "sha512"})
_PLACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~^-]*(?:/[A-Za-z0-9][A-Za-z0-9._+~^-]*){0,8}", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)
_INSTANT = re.compile(r"([0-9]{1,11})(?:\.[0-9]{1,9})?", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+~-]{0,254}", re.ASCII)
_ARCHITECTURE = re.compile(r"[a-z][a-z0-9_]{0,31}", re.ASCII)
_OF_MODULE = re.compile(r"\.module[+_]", re.ASCII)
_SOURCES = frozenset({"src", "nosrc"})
_FLAGS = frozenset({"", "LT", "LE", "EQ", "GE", "GT"})
_ODD = "?"
_UNSAID = frozenset({"", "(none)"})


@dataclass(frozen=True, slots=True, kw_only=True)
class VouchedFile:
    """A file that ``repomd.xml`` vouches for.

    Attributes:
        path: Relative to the repository.
        checksum: Of its bytes.
        size_bytes: Its length; None: it is not said.
    """

    path: str
    checksum: Checksum
    size_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryIndex:
    """A ``repomd.xml``.

    Attributes:
        made_at: When the newest of the files that are read was made.
        files: Those that are read, by kind.
    """

    made_at: datetime
    files: Mapping[str, VouchedFile]


@dataclass(frozen=True, slots=True, kw_only=True)
class Obsoleted:
    """Packages whose place another takes.

    Attributes:
        name: Of them.
        flag: ``LT``, ``LE``, ``EQ``, ``GE`` or ``GT``: of the version; empty: all versions; ``?``: nobody can tell.
        version: The version; empty: all, or nobody can tell.
    """

    name: str
    flag: str
    version: str

    @property
    def is_odd(self) -> bool:
        """Whether it is said in a way that tells nobody which versions are meant."""
        return self.flag == _ODD

    def has(self, version: RpmVersion) -> bool:
        """Tell whether a package of that name and ``version`` is one of them, for all that can be told."""
        if not self.flag or self.is_odd:
            return not self.flag
        bound = RpmVersion(self.version)
        # Where one of both says no release, RPM lets it go.
        if not (bound.has_release and version.has_release):
            bound, version = bound.without_release, version.without_release
        if version == bound:
            return self.flag in {"LE", "EQ", "GE"}
        return self.flag in ({"LT", "LE"} if version < bound else {"GT", "GE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RpmOffer:
    """A package that a repository has.

    Attributes:
        name: Its name.
        version: ``epoch:version-release``, without an epoch where that is 0.
        architecture: ``x86_64``, ``noarch`` …
        obsoletes: Whose place it takes.
    """

    name: str
    version: str
    architecture: str
    obsoletes: tuple[Obsoleted, ...] = ()

    @property
    def is_modular(self) -> bool:
        """Whether it belongs to a stream of a module."""
        return is_modular(self.version)


def is_modular(version: str) -> bool:
    """Tell whether a package of that version belongs to a stream of a module: its release says so."""
    return _OF_MODULE.search(version) is not None


def read_index(document: bytes) -> RepositoryIndex:
    """Return what a ``repomd.xml`` says.

    Raises:
        DocumentError: It is none.
    """
    if len(document) > INDEX_LIMIT_BYTES:
        raise DocumentError(f"repomd.xml is longer than {INDEX_LIMIT_BYTES} bytes")
    reader = _Index()
    read_xml([document], reader, what="repomd.xml")
    if not reader.instants:
        raise DocumentError("repomd.xml does not say when it was made")
    return RepositoryIndex(made_at=datetime.fromtimestamp(max(reader.instants), UTC), files=reader.files)


def read_primary(pieces: Iterable[bytes]) -> dict[str, tuple[RpmOffer, ...]]:
    """Return the packages of a ``primary.xml`` by name: of each, the highest of an architecture.

    Packages of modules stand beside those that are of none. Sources are left out.

    Args:
        pieces: Its bytes, in order.

    Raises:
        DocumentError: It is no such file.
    """
    reader = _Primary()
    read_xml(pieces, reader, what="primary.xml")
    found: dict[str, list[RpmOffer]] = {}
    for offer in reader.offers.values():
        found.setdefault(offer.name, []).append(offer)
    return {name: tuple(offers) for name, offers in found.items()}


def written_version(said: Mapping[str, str], *, epoch: str, version: str, release: str, what: str) -> str:
    """Return ``epoch:version-release`` from the attributes that are named so.

    Raises:
        DocumentError: It is no version of a package.
    """
    first, second, third = (said.get(key, "") for key in (epoch, version, release))
    text = second if third in _UNSAID else f"{second}-{third}"
    text = text if first in _UNSAID or first == "0" else f"{first}:{text}"
    try:
        RpmVersion(text)
    except ValueError as problem:
        raise DocumentError(f"{what} has {problem}") from problem
    return text


def checked_name(name: str, what: str) -> str:
    """Return the name of a package.

    Raises:
        DocumentError: It is none.
    """
    if not _NAME.fullmatch(name):
        raise DocumentError(f"{what} has a package whose name is none: {name[:80]!r}")
    return name


def checked_architecture(name: str, what: str) -> str:
    """Return the name of an architecture.

    Raises:
        DocumentError: It is none.
    """
    if not _ARCHITECTURE.fullmatch(name):
        raise DocumentError(f"{what} has a package whose architecture is none: {name[:80]!r}")
    return name


@dataclass(slots=True)
class _Index:
    root: str = f"{_REPO}repomd"
    texts: frozenset[str] = frozenset({f"{_REPO}checksum", f"{_REPO}size", f"{_REPO}timestamp"})
    files: dict[str, VouchedFile] = field(default_factory=dict)
    instants: list[int] = field(default_factory=list)
    _kind: str = ""
    _said: dict[str, str] = field(default_factory=dict)

    def start(self, depth: int, name: str, attributes: Mapping[str, str]) -> None:
        if depth == 2 and name == f"{_REPO}data":  # noqa: PLR2004 - below the root
            self._kind, self._said = attributes.get("type", ""), {}
        elif name == f"{_REPO}location":
            # With a base of its own, it lies elsewhere.
            self._said["path"] = attributes.get("href", "") if len(attributes) == 1 else ""
        elif name == f"{_REPO}checksum":
            self._said["algorithm"] = attributes.get("type", "")

    def end(self, depth: int, name: str, text: str) -> None:
        if depth == 2 and name == f"{_REPO}data":  # noqa: PLR2004 - below the root
            self._add()
        elif depth == 3 and name in self.texts:  # noqa: PLR2004 - of a file
            self._said[name.removeprefix(_REPO)] = text

    def _add(self) -> None:
        said, kind = self._said, self._kind
        if kind not in {PRIMARY, UPDATEINFO}:
            return
        instant = _INSTANT.fullmatch(said.get("timestamp", ""))
        if instant is not None:
            self.instants.append(int(instant[1]))
        if kind in self.files:
            raise DocumentError(f"repomd.xml says two things of {kind}")
        path = said.get("path", "")
        if not _PLACE.fullmatch(path):
            raise DocumentError(f"repomd.xml has {kind} in no place of its own repository: {path[:120]!r}")
        size = said.get("size", "")
        if size and not _NUMBER.fullmatch(size):
            raise DocumentError(f"repomd.xml has a size that is none: {size[:80]!r}")
        self.files[kind] = VouchedFile(
            path=path, checksum=_checksum(said, kind), size_bytes=int(size) if size else None
        )


def _checksum(said: Mapping[str, str], kind: str) -> Checksum:
    algorithm = said.get("algorithm", "")
    if algorithm not in _DIGESTS:
        raise DocumentError(
            f"repomd.xml vouches for {kind} by {algorithm[:40]!r}, which is not accepted",
            resolution="Whoever makes the repository must use SHA-256 or better.",
        )
    try:
        return Checksum(algorithm, said.get("checksum", "").lower())
    except ValueError as problem:
        raise DocumentError(f"repomd.xml has a checksum of {kind} that is none: {problem}") from problem


@dataclass(slots=True)
class _Primary:
    root: str = f"{_COMMON}metadata"
    texts: frozenset[str] = frozenset({f"{_COMMON}name", f"{_COMMON}arch"})
    offers: dict[tuple[str, str, bool], RpmOffer] = field(default_factory=dict)
    _said: dict[str, Any] = field(default_factory=dict)
    _obsoletes: list[Obsoleted] = field(default_factory=list)
    _left: int = MAX_OBSOLETES
    _is_within: bool = False

    def start(self, depth: int, name: str, attributes: Mapping[str, str]) -> None:
        if self._is_within:
            self._obsolete(attributes)
        elif depth == 4 and name == f"{_RPM}obsoletes":  # noqa: PLR2004 - metadata, package, format
            self._is_within = True
        elif depth == 3 and name == f"{_COMMON}version":  # noqa: PLR2004 - metadata, package
            if "version" in self._said:
                raise DocumentError("primary.xml has a package with two versions")
            self._said["version"] = written_version(
                attributes, epoch="epoch", version="ver", release="rel", what="primary.xml"
            )
        elif depth == 2:  # noqa: PLR2004 - below the root
            self._said, self._obsoletes = {}, []

    def end(self, depth: int, name: str, text: str) -> None:
        if depth == 3 and name in self.texts:  # noqa: PLR2004 - metadata, package
            if self._said.setdefault(name, text) != text:
                raise DocumentError(f"primary.xml says two things of the package {text[:80]!r}")
        elif depth == 4:  # noqa: PLR2004 - metadata, package, format
            self._is_within = False
        elif depth == 2 and name == f"{_COMMON}package":  # noqa: PLR2004 - below the root
            self._add()

    def _obsolete(self, attributes: Mapping[str, str]) -> None:
        self._left -= 1
        if self._left < 0:
            raise DocumentError(f"primary.xml obsoletes more than {MAX_OBSOLETES} packages")
        name, flag, version = attributes.get("name", ""), attributes.get("flags", ""), ""
        # RPM goes by names of packages only; what is called otherwise takes the place of none.
        if not _NAME.fullmatch(name):
            return
        if flag not in _FLAGS:
            flag = _ODD
        elif flag:
            try:
                version = written_version(attributes, epoch="epoch", version="ver", release="rel", what="primary.xml")
            except DocumentError:
                flag = _ODD
        self._obsoletes.append(Obsoleted(name=name, flag=flag, version=version))

    def _add(self) -> None:
        name = checked_name(self._said.get(f"{_COMMON}name", ""), "primary.xml")
        architecture = checked_architecture(self._said.get(f"{_COMMON}arch", ""), "primary.xml")
        version = self._said.get("version")
        if version is None:
            raise DocumentError(f"primary.xml has the package {name} without a version")
        if architecture in _SOURCES:
            return
        key = (name, architecture, is_modular(version))
        known = self.offers.get(key)
        if known is None and len(self.offers) >= MAX_PACKAGES:
            raise DocumentError(f"primary.xml names more than {MAX_PACKAGES} packages")
        if known is None or RpmVersion(version) > RpmVersion(known.version):
            self.offers[key] = RpmOffer(
                name=name, version=version, architecture=architecture, obsoletes=tuple(self._obsoletes)
            )
