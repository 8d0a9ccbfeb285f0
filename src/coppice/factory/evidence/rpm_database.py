# SPDX-License-Identifier: Apache-2.0
"""What RPM's record of an image says is installed: read by own code, as the record may be anybody's.

The record is an SQLite database with one header a package. It is read from a copy, without its schema being trusted,
and within limits.
"""

from __future__ import annotations

import re
import sqlite3
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.errors import BuildError, DocumentError
from coppice.factory.model import Package
from coppice.formats.rpm_header import read_rpm_header

if TYPE_CHECKING:
    from collections.abc import Sequence

    from coppice.factory.evidence.tree import GuestTree, Node
    from coppice.formats.rpm_header import RpmHeader

RECORDS = ("/usr/lib/sysimage/rpm/rpmdb.sqlite", "/var/lib/rpm/rpmdb.sqlite")
OTHER_RECORDS = tuple(
    f"{folder}/{name}" for folder in ("/usr/lib/sysimage/rpm", "/var/lib/rpm") for name in ("Packages", "Packages.db")
)
"""Of older versions and other distributions."""
KEYS = "gpg-pubkey"
"""What keys are called among the packages."""
_MOST_BYTES = 512 * 1024**2
_MOST_PACKAGES = 100_000
_MOST_PATHS = 256 * 1024**2
_MOST_STEPS = 50_000_000
_STEPS_AT_ONCE = 100_000
_SOURCE = re.compile(r"(.+)-([^-]+-[^-]+)\.(?:no)?src\.rpm")


def find_record(tree: GuestTree, *, must_be_read: bool = True) -> Node | None:
    """Return RPM's record of the image; None: it has none.

    Args:
        tree: The image's.
        must_be_read: Whether nothing else says what is installed.

    Raises:
        BuildError: It has one of a kind that is not read.
    """
    for path in RECORDS:
        node = tree.find(path)
        if node is not None and node.is_file:
            return node
    for path in OTHER_RECORDS:
        if must_be_read and tree.find(path) is not None:
            raise BuildError(
                f"the image has its record of packages at {path}, in a form that is not read here",
                resolution="What is read is RPM's record in SQLite: RHEL 9 and later, Fedora 33 and later.",
            )
    return None


def read_record(tree: GuestTree, node: Node) -> bytes:
    """Return the bytes of RPM's record, which `find_record` found.

    Raises:
        BuildError: It is too long to be one; a file of holes costs whoever made it nothing.
    """
    if node.size_bytes > _MOST_BYTES:
        raise _too_long(node.size_bytes)
    return tree.content(node)


def read_headers(record: bytes) -> tuple[RpmHeader, ...]:
    """Return every package of a record in SQLite, keys among them, in the order in which they were installed.

    Raises:
        BuildError: It is no such record, or damaged.
    """
    if len(record) > _MOST_BYTES:
        raise _too_long(len(record))
    with tempfile.TemporaryDirectory(prefix="coppice-rpm-") as folder:
        copy = Path(folder) / "record"
        copy.write_bytes(_unjournalled(record))
        try:
            return _read_all(_blobs(copy, len(record)))
        except (sqlite3.Error, DocumentError) as problem:
            raise BuildError("RPM's record of packages cannot be read", details=str(problem)) from problem


def _too_long(size_bytes: int) -> BuildError:
    return BuildError(f"RPM's record of packages has {size_bytes} bytes, too many for what it should be")


def _read_all(blobs: Sequence[bytes]) -> tuple[RpmHeader, ...]:
    found: list[RpmHeader] = []
    left = _MOST_PATHS
    for blob in blobs:
        header = read_rpm_header(blob)
        left -= sum(len(file.path) for file in header.files)
        if left < 0:
            raise DocumentError("its packages have more paths than any system")
        found.append(header)
    return tuple(found)


def packages_of(headers: Sequence[RpmHeader]) -> tuple[Package, ...]:
    """Return the packages of a record, without keys, by name.

    Raises:
        BuildError: There is none.
    """
    found = [_package(header) for header in headers if header.name != KEYS]
    if not found:
        raise BuildError("RPM's record has no package")
    return tuple(sorted(found, key=lambda package: (package.name, package.architecture, package.version)))


def _package(header: RpmHeader) -> Package:
    match = _SOURCE.fullmatch(header.source)
    source, version = (match[1], match[2]) if match else ("", "")
    # The name of a source package does not tell its epoch, which is its packages'.
    epoch, colon, _ = header.version.rpartition(":")
    version = f"{epoch}{colon}{version}" if version else ""
    return Package(
        name=header.name,
        version=header.version,
        architecture=header.architecture,
        source="" if source == header.name else source,
        source_version="" if version == header.version else version,
        manager="rpm",
        licence=header.licence,
    )


def _unjournalled(record: bytes) -> bytes:
    # A record says of itself that it has a journal beside it, which SQLite would want to make; in an image there is
    # none. Bytes 18 and 19 of an SQLite file: 2 for such, 1 for others.
    return record[:18] + b"\1\1" + record[20:] if record[18:20] == b"\2\2" else record


def _blobs(path: Path, most_bytes: int) -> list[bytes]:
    database = sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += _STEPS_AT_ONCE
        return steps > _MOST_STEPS

    try:
        database.set_progress_handler(count, _STEPS_AT_ONCE)
        database.execute("PRAGMA trusted_schema = OFF")
        kind = database.execute("SELECT type FROM sqlite_master WHERE name = 'Packages'").fetchone()
        if kind != ("table",):
            message = "it has no table of packages"
            raise sqlite3.DatabaseError(message)
        found: list[bytes] = []
        for (blob,) in database.execute("SELECT blob FROM Packages ORDER BY hnum"):
            # In a damaged record, many rows can have the same pages: what they hold is then more than there is.
            most_bytes -= len(blob) if isinstance(blob, bytes) else most_bytes + 1
            if most_bytes < 0 or len(found) >= _MOST_PACKAGES:
                message = "its table of packages is not one of RPM"
                raise sqlite3.DatabaseError(message)
            found.append(blob)
    finally:
        database.close()
    return found
