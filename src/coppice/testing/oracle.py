# SPDX-License-Identifier: Apache-2.0
"""What must hold at a site after any fault, whatever was struck: looked up in its files, not asked of Coppice.

Right after a fault: every whole object of the cache has the bytes of its name (I5); what is registered has the bytes of
a published image (I1); what is somebody else's is untouched (I3); the versions that were trusted have not gone down
(I6); what was startable still is, in one version or another (I7); no secret is written anywhere (I10); the database
opens. After a run without a fault, too: nothing is registered twice (I2), all is as an undisturbed run leaves it (I4),
nothing half-made is left (I5), and no lock was in the way (I9). That a run that fails says so (I8) its caller sees.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from coppice.atomic import PARTIAL_PREFIX
from coppice.model.version import Version

if TYPE_CHECKING:
    from pathlib import Path

_NOTE_BYTES = 16 * 1024
FOREIGN = b"somebody else's"
SECRET = "cAnArY-31337"  # noqa: S105 - a canary that is looked for
_FACTS = (
    "SELECT name, uri, list_identifier FROM subscription ORDER BY name",
    (
        "SELECT current_list.subscription, version, payload_sha512 FROM current_list "
        "JOIN archived_list ON archived_list.number = current_list.archived ORDER BY current_list.subscription"
    ),
    "SELECT list_identifier, version, payload_sha512 FROM trusted_version ORDER BY list_identifier",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """An image in the folders of a directory cloud.

    Attributes:
        image: Its identifier.
        version: Its version.
        state: As its marker says.
        disk: SHA-512 of its disk; None: there is none.
        is_current: Whether the name that people start leads to it.
    """

    image: str
    version: str
    state: str
    disk: str | None
    is_current: bool


@dataclass(slots=True)
class Oracle:
    """Knows what a site must keep to.

    Attributes:
        state: Its state directory.
        cloud: Its directory cloud.
        disks: SHA-512 of all that may ever be registered.
        foreign: Files that somebody else put there.
    """

    state: Path
    cloud: Path
    disks: frozenset[str] = frozenset()
    foreign: tuple[Path, ...] = ()
    _startable: frozenset[str] = frozenset()
    _trusted: dict[str, str] = field(default_factory=dict)

    def plant(self) -> None:
        """Put somebody else's files into the directories; note what is startable and trusted now."""
        places = [
            self.cloud / "debian-of-somebody-else" / "disk.qcow2",
            self.cloud / "notes.txt",
            self.state / "cache" / "notes.txt",
            self.state / "cache" / "handed-out" / "notes.txt",
        ]
        for path in places:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(FOREIGN)
        self.foreign = tuple(places)
        self.note()

    def note(self) -> None:
        """Note what is startable and trusted now."""
        self._startable = frozenset(each.image for each in self.registered() if each.is_current)
        self._trusted = self.trusted()

    def registered(self) -> tuple[Registered, ...]:
        """Return what is registered in the cloud, whole or not."""
        current = {path.resolve() for path in (self.cloud / "current").glob("*")}
        found: list[Registered] = []
        for path in sorted(self.cloud.glob("*/image.json")):
            if path.parent.name.startswith("."):
                # Not registered yet: its folder has no name of its own.
                continue
            said = json.loads(path.read_bytes())["properties"]
            disks = sorted(path.parent.glob("disk.*"))
            found.append(
                Registered(
                    image=said["coppice_image"],
                    version=said["coppice_version"],
                    state=said["coppice_state"],
                    disk=_sha512(disks[0]) if disks else None,
                    is_current=path.parent.resolve() in current,
                )
            )
        return tuple(found)

    def trusted(self) -> dict[str, str]:
        """Return the highest version that was verified of each list."""
        return {row[0]: row[1] for row in self.rows(_FACTS[2])}

    def rows(self, question: str) -> list[tuple[Any, ...]]:
        """Ask the database, without changing it."""
        path = self.state / "coppice.sqlite"
        if not path.exists():
            return []
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return database.execute(question).fetchall()

    def essence(self) -> dict[str, object]:
        """Return what two runs that end in the same state have in common."""
        objects = {path.name for path in self._objects()}
        handed = {path.name: _sha512(path) for path in (self.state / "cache" / "handed-out").glob("*")}
        return {
            "cloud": set(self.registered()),
            "cache": objects,
            "handed out": handed,
            "facts": [self.rows(each) for each in _FACTS],
        }

    def check_after_fault(self) -> None:
        """Check what holds at any moment.

        Raises:
            AssertionError: It does not.
        """
        for path in self.foreign:
            assert path.read_bytes() == FOREIGN, f"I3: {path} was somebody else's"
        found = self.registered()
        for each in found:
            assert each.disk is None or each.disk in self.disks, f"I1: {each} has bytes that no list named"
            assert each.disk is not None or each.state != "available", f"I1: {each} has no disk"
        for path in self._objects():
            if path.with_name(f"{path.name}.json").exists():
                assert _sha512(path) == path.name, f"I5: {path} has other bytes than its name says"
        startable = {each.image for each in found if each.is_current}
        assert startable >= self._startable, f"I7: {self._startable - startable} can be started no more"
        self._check_database()
        self.check_secrets()

    def check_after_rerun(self, expected: dict[str, object]) -> None:
        """Check what holds after a run that nothing struck.

        Args:
            expected: `essence` of an undisturbed run.

        Raises:
            AssertionError: It does not.
        """
        self.check_after_fault()
        found = self.registered()
        active = [(each.image, each.version) for each in found if each.state == "available"]
        assert len(set(active)) == len(active), f"I2: registered twice: {active}"
        assert self.essence() == expected, "I4: the run does not end where an undisturbed one does"
        left = [path for root in (self.state, self.cloud) for path in root.rglob("*.partial") if not _is_note(path)]
        assert not left, f"I5: half-made: {left}"
        for path in self._objects():
            assert path.with_name(f"{path.name}.json").exists(), f"I5: {path} is unknown"

    def check_secrets(self) -> None:
        """Check that no file below the state directory or the cloud holds the canary."""
        for root in (self.state, self.cloud):
            for path in root.rglob("*"):
                if path.is_file() and not path.is_symlink():
                    assert SECRET.encode() not in path.read_bytes(), f"I10: {path}"

    def _check_database(self) -> None:
        if not (self.state / "coppice.sqlite").exists():
            return
        assert self.rows("PRAGMA integrity_check") == [("ok",)], "the database is damaged"
        now = self.trusted()
        for identifier, version in self._trusted.items():
            assert Version(now[identifier]) >= Version(version), f"I6: {identifier} went back from {version}"

    def _objects(self) -> list[Path]:
        return sorted(path for path in (self.state / "cache" / "objects").glob("*/*") if len(path.name) == 128)  # noqa: PLR2004 - a sha512


def _is_note(path: Path) -> bool:
    """Tell whether this is what was to become a description or record: the next one of it sweeps it, when it is old."""
    return path.name.startswith(PARTIAL_PREFIX) and path.is_file() and path.stat().st_size < _NOTE_BYTES


def _sha512(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha512").hexdigest()
