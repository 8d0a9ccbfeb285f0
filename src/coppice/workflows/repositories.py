# SPDX-License-Identifier: Apache-2.0
"""Package repositories, read without building: their signed indices fetched, verified and understood.

An index counts only when its signature holds, it has not run out, and none that is newer was seen before. Whatever else
is at its address is an error, and what an error hides is unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.clock import to_rfc3339
from coppice.errors import CoppiceError, DocumentError, ExpiredListError, KeyringError, OlderListError
from coppice.factory.staleness import Repository
from coppice.formats.deb_version import DebVersion
from coppice.formats.debian_index import read_packages, read_release
from coppice.model.checksum import Checksum
from coppice.subscription.openpgp import Keyring
from coppice.workflows.index_places import Shelf, client_of_mirrors, place_at, vouched_bytes
from coppice.workflows.packed_index import SUFFIXES, unpacked

if TYPE_CHECKING:
    from coppice.clock import Clock
    from coppice.formats.debian_index import Release
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings
    from coppice.workflows.index_places import Place

INDEX = "InRelease"
_SOURCE = re.compile(r"deb (?:\[[^\]]*\] )?(\S+) ([a-z0-9][A-Za-z0-9+./-]*) (\S+(?: \S+)*)")
_KEYRINGS = {
    "debian": ("/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"),
    "ubuntu": ("/usr/share/keyrings/ubuntu-archive-keyring.gpg",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A line of ``sources.list``.

    Attributes:
        uri: Of the repository.
        suite: Which of its suites.
        components: Parts of the suite.
    """

    uri: str
    suite: str
    components: tuple[str, ...]

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.uri} {self.suite}"


def parse_source(line: str) -> Source:
    """Return what a line of ``sources.list`` says.

    Raises:
        DocumentError: It is none.
    """
    found = _SOURCE.fullmatch(line.strip())
    if found is None or ".." in found[2]:
        raise DocumentError(f"not a package source: {line[:200]!r}")
    return Source(uri=found[1].rstrip("/"), suite=found[2], components=tuple(found[3].split()))


class Repositories:
    """Reads repositories; each once in a run.

    Args:
        settings: Bounds on what is fetched, the keyring, and where verified indices are kept.
        clock: Tells whether an index has run out.
        monitor: Where progress is told.
    """

    def __init__(self, settings: Settings, *, clock: Clock, monitor: Monitor) -> None:
        self._settings = settings
        self._clock = clock
        self._monitor = monitor
        self._client = client_of_mirrors(settings, clock)
        self._known: dict[tuple[Source, str], Repository] = {}
        self._failed: dict[tuple[Source, str], CoppiceError] = {}

    def read(self, source: Source, *, architecture: str, distribution: str) -> Repository:
        """Return the repository of ``source``.

        Args:
            source: Where it is.
            architecture: Whose packages count, by Debian's name of it.
            distribution: Whose keys sign it where the settings name no keyring (``Debian``).

        Raises:
            TransferError: It could not be had.
            TrustError: Its index is not signed as it must be, has run out, or is older than one that was seen.
            DocumentError: It has not the form of one, or has no packages for the architecture.
            ChecksumMismatchError: A file is not what the index says.
            UnreadableFileError: A file of this machine cannot be read.
            ToolMissingError: ``gpgv`` is not installed.
        """
        key = (source, architecture)
        if key in self._failed:
            raise self._failed[key]
        if key not in self._known:
            try:
                with self._monitor.task(f"reading {source.name}"):
                    self._known[key] = self._read(source, architecture, self._keyring(distribution))
            except CoppiceError as problem:
                self._failed[key] = problem
                raise
        return self._known[key]

    def _keyring(self, distribution: str) -> Keyring:
        named = self._settings.factory.keyring
        if named is not None:
            return Keyring.load([Path(named).expanduser()])
        there = [Path(each) for each in _KEYRINGS.get(distribution.lower(), ()) if Path(each).is_file()]
        if not there:
            raise KeyringError(
                f"the keys of {distribution} are not on this machine",
                resolution=f"Install {distribution.lower()}-archive-keyring, or set `factory.keyring`.",
            )
        return Keyring.load(there[:1])

    def _read(self, source: Source, architecture: str, keyring: Keyring) -> Repository:
        shelf = Shelf(self._settings.state_directory, source.name, index=INDEX)
        place = place_at(f"{source.uri}/dists/{source.suite}", self._client, index=INDEX)
        document, validators = place.index(shelf)
        text, _ = keyring.verify_index(document, what=f"the index of {source.name}")
        release = read_release(text)
        _require_suite(source, release)
        self._check_dates(source, release, shelf)
        # What it vouches for may be damaged: still nothing older is believed from here on.
        shelf.note(date=to_rfc3339(release.date))
        versions: dict[str, str] = {}
        kept: set[str] = set()
        for component in source.components:
            for name, version in _packages(place, shelf, release, f"{component}/binary-{architecture}", kept).items():
                known = versions.get(name)
                if known is None or DebVersion(version) > DebVersion(known):
                    versions[name] = version
        shelf.keep(document, validators, kept, date=to_rfc3339(release.date))
        return Repository(name=source.name, is_security=release.is_security, made_at=release.date, versions=versions)

    def _check_dates(self, source: Source, release: Release, shelf: Shelf) -> None:
        until = release.valid_until
        if until is not None and until <= self._clock.now():
            raise ExpiredListError(
                f"the index of {source.name} counts until {to_rfc3339(until)} only",
                resolution="Its mirror is not kept up to date any more: name another, or set this machine's clock.",
            )
        seen = shelf.fact("date")
        if seen is not None and to_rfc3339(release.date) < seen:
            raise OlderListError(
                f"the index of {source.name} is of {to_rfc3339(release.date)}, and one of {seen} was seen before",
                resolution="Its mirror has gone back, or somebody answers in its name: name another.",
            )


def _require_suite(source: Source, release: Release) -> None:
    """See that an index is that of the suite which was asked for: the signature of another is as good.

    A mirror that gave the release's own index for that of its security updates would have all of them disappear.

    Raises:
        DocumentError: It is another's.
    """
    named = {name.lower() for name in (release.suite, release.codename) if name}
    if source.suite.lower() not in named:
        raise DocumentError(
            f"the index of {source.name} is that of {' or '.join(sorted(named)) or 'no suite'}",
            resolution="Its mirror gives one suite for another: name another mirror.",
        )


def _packages(place: Place, shelf: Shelf, release: Release, folder: str, kept: set[str]) -> dict[str, str]:
    path = next((f"{folder}/Packages{end}" for end in SUFFIXES if f"{folder}/Packages{end}" in release.files), None)
    if path is None:
        raise DocumentError(
            f"the index has no packages of {folder}", details=f"looked for: Packages, packed as {', '.join(SUFFIXES)}"
        )
    entry = release.files[path]
    # By its digest it can be had though a newer state is being written just now.
    where = f"{path.rpartition('/')[0]}/by-hash/SHA256/{entry.sha256}" if release.by_hash else path
    content = vouched_bytes(place, shelf, where, Checksum("sha256", entry.sha256), entry.size_bytes, what=path)
    kept.add(entry.sha256)
    return read_packages(unpacked(content, path))
