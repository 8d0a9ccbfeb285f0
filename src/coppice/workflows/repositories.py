# SPDX-License-Identifier: Apache-2.0
"""Package repositories, read without building: their signed indices fetched, verified and understood.

An index counts only when its signature holds, it has not run out, and none that is newer was seen before. Whatever else
is at its address is an error, and what an error hides is unknown.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from coppice import atomic
from coppice.clock import to_rfc3339
from coppice.errors import (
    ChecksumMismatchError,
    CoppiceError,
    DocumentError,
    ExpiredListError,
    KeyringError,
    OlderListError,
    StorageError,
    UnreadableFileError,
)
from coppice.factory.staleness import Repository
from coppice.formats.deb_version import DebVersion
from coppice.formats.debian_index import RELEASE_LIMIT_BYTES, read_packages, read_release
from coppice.http import Client, Validators
from coppice.subscription.openpgp import Keyring
from coppice.workflows.packed_index import PACKED_LIMIT_BYTES, SUFFIXES, unpacked

if TYPE_CHECKING:
    from coppice.clock import Clock
    from coppice.formats.debian_index import IndexedFile, Release
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings

FETCH_SECONDS = 600.0
_SOURCE = re.compile(r"deb (?:\[[^\]]*\] )?(\S+) ([a-z0-9][A-Za-z0-9+./-]*) (\S+(?: \S+)*)")
_LOCAL = re.compile(r"(?:file|copy):(?://(?=/))?(/.*)")
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
        # Its address comes from the settings or the distribution, and from nobody else: it may be on a private network,
        # as it may be for the package manager of a build. What comes from there is believed for its signature alone.
        bounds = replace(
            settings.transfer,
            total_timeout_seconds=min(FETCH_SECONDS, settings.transfer.total_timeout_seconds),
            allow_private_addresses=True,
        )
        self._client = Client(bounds, clock=clock)
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
        shelf = _Shelf(self._settings.state_directory / "factory" / "indices", source)
        place = self._place(source)
        document, validators = place.index(shelf)
        text, _ = keyring.verify_index(document, what=f"the index of {source.name}")
        release = read_release(text)
        _require_suite(source, release)
        self._check_dates(source, release, shelf)
        versions: dict[str, str] = {}
        kept: set[str] = set()
        for component in source.components:
            for name, version in _packages(place, shelf, release, f"{component}/binary-{architecture}", kept).items():
                known = versions.get(name)
                if known is None or DebVersion(version) > DebVersion(known):
                    versions[name] = version
        shelf.keep(document, release, validators, kept)
        return Repository(name=source.name, is_security=release.is_security, made_at=release.date, versions=versions)

    def _place(self, source: Source) -> _Place:
        local = _LOCAL.fullmatch(source.uri)
        if local is not None:
            return _Folder(Path(local[1]) / "dists" / source.suite)
        return _Web(self._client, f"{source.uri}/dists/{source.suite}")

    def _check_dates(self, source: Source, release: Release, shelf: _Shelf) -> None:
        until = release.valid_until
        if until is not None and until <= self._clock.now():
            raise ExpiredListError(
                f"the index of {source.name} counts until {to_rfc3339(until)} only",
                resolution="Its mirror is not kept up to date any more: name another, or set this machine's clock.",
            )
        seen = shelf.seen_date()
        if seen is not None and to_rfc3339(release.date) < seen:
            raise OlderListError(
                f"the index of {source.name} is of {to_rfc3339(release.date)}, and one of {seen} was seen before",
                resolution="Its mirror has gone back, or somebody answers in its name: name another.",
            )


class _Place(Protocol):
    """Where the files of a suite are."""

    def index(self, shelf: _Shelf) -> tuple[bytes, Validators]:
        """Return ``InRelease``, not yet verified."""
        ...

    def file(self, path: str, size_bytes: int) -> bytes:
        """Return the file at ``path``, not yet verified."""
        ...


class _Web:
    def __init__(self, client: Client, base: str) -> None:
        self._client, self._base = client, base

    def index(self, shelf: _Shelf) -> tuple[bytes, Validators]:
        kept = shelf.document()
        fetched = self._client.get_if_changed(
            f"{self._base}/InRelease",
            limit_bytes=RELEASE_LIMIT_BYTES,
            validators=shelf.validators() if kept is not None else None,
        )
        return (kept if fetched.body is None and kept is not None else fetched.body or b""), fetched.validators

    def file(self, path: str, size_bytes: int) -> bytes:
        return self._client.get_bytes(f"{self._base}/{path}", limit_bytes=size_bytes)


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def index(self, shelf: _Shelf) -> tuple[bytes, Validators]:
        return self.file("InRelease", RELEASE_LIMIT_BYTES), Validators()

    def file(self, path: str, size_bytes: int) -> bytes:
        try:
            with (self._path / path).open("rb") as stream:
                return stream.read(size_bytes + 1)
        except OSError as problem:
            raise UnreadableFileError(
                f"cannot read {self._path / path}: {problem.strerror}",
                resolution="Set `factory.mirror` to where the packages are.",
                context={"path": str(self._path / path)},
            ) from problem


class _Shelf:
    """What is kept of a suite between runs: the index that was verified last, and what it vouches for."""

    def __init__(self, root: Path, source: Source) -> None:
        self._folder = root / hashlib.sha256(source.name.encode()).hexdigest()[:32]

    def document(self) -> bytes | None:
        return self._bytes("InRelease", RELEASE_LIMIT_BYTES)

    def validators(self) -> Validators:
        facts = self._facts()
        return Validators(etag=facts.get("etag"), last_modified=facts.get("last_modified"))

    def seen_date(self) -> str | None:
        return self._facts().get("date")

    def packed(self, digest: str) -> bytes | None:
        return self._bytes(digest, PACKED_LIMIT_BYTES)

    def put(self, digest: str, content: bytes) -> None:
        atomic.write_bytes(self._folder / digest, content)

    def keep(self, document: bytes, release: Release, validators: Validators, digests: set[str]) -> None:
        atomic.write_bytes(self._folder / "InRelease", document)
        facts = {
            "date": to_rfc3339(release.date),
            "etag": validators.etag,
            "last_modified": validators.last_modified,
        }
        atomic.write_text(self._folder / "facts.json", json.dumps(facts) + "\n")
        for path in self._folder.iterdir():
            if path.name not in {"InRelease", "facts.json", *digests} and not path.name.startswith("."):
                with atomic.storage_errors("removing", path):
                    path.unlink(missing_ok=True)

    def _facts(self) -> dict[str, str]:
        content = self._bytes("facts.json", RELEASE_LIMIT_BYTES)
        try:
            found = json.loads(content or b"{}")
        except ValueError:
            return {}
        return {key: each for key, each in found.items() if isinstance(each, str)} if isinstance(found, dict) else {}

    def _bytes(self, name: str, limit_bytes: int) -> bytes | None:
        path = self._folder / name
        try:
            with atomic.storage_errors("reading", path), path.open("rb") as stream:
                return stream.read(limit_bytes + 1)
        except StorageError as problem:
            if isinstance(problem.__cause__, FileNotFoundError):
                return None
            raise


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


def _packages(place: _Place, shelf: _Shelf, release: Release, folder: str, kept: set[str]) -> dict[str, str]:
    path = next((f"{folder}/Packages{end}" for end in SUFFIXES if f"{folder}/Packages{end}" in release.files), None)
    if path is None:
        raise DocumentError(
            f"the index has no packages of {folder}", details=f"looked for: Packages, packed as {', '.join(SUFFIXES)}"
        )
    entry = release.files[path]
    content = shelf.packed(entry.sha256)
    if content is None or not _is(content, entry):
        content = _fetch(place, release, path, entry)
        shelf.put(entry.sha256, content)
    kept.add(entry.sha256)
    return read_packages(unpacked(content, path))


def _fetch(place: _Place, release: Release, path: str, entry: IndexedFile) -> bytes:
    if entry.size_bytes > PACKED_LIMIT_BYTES:
        raise DocumentError(f"{path} has {entry.size_bytes} bytes, and {PACKED_LIMIT_BYTES} are read at most")
    # By its digest it can be had though a newer state is being written just now.
    where = f"{path.rpartition('/')[0]}/by-hash/SHA256/{entry.sha256}" if release.by_hash else path
    content = place.file(where, entry.size_bytes)
    if not _is(content, entry):
        raise ChecksumMismatchError(
            f"{path} is not what the index vouches for",
            details=f"vouched for: {entry.size_bytes} bytes, sha256 {entry.sha256}\n"
            f"found:       {len(content)} bytes, sha256 {hashlib.sha256(content).hexdigest()}",
            resolution="The mirror is being written, or is damaged: try again later.",
        )
    return content


def _is(content: bytes, entry: IndexedFile) -> bool:
    return len(content) == entry.size_bytes and hashlib.sha256(content).hexdigest() == entry.sha256
