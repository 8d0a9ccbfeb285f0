# SPDX-License-Identifier: Apache-2.0
"""Repositories of RPM packages, read without building: their indices fetched, verified and understood.

``repomd.xml`` vouches for the other files by their digests. Where it is signed by a key that the release pins, that is
verified, and demanded from then on; where it is not, it is believed for where it comes from: by TLS, or from this
machine. It is never believed when it is older than one that was seen.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.clock import to_rfc3339
from coppice.errors import (
    BuildError,
    CoppiceError,
    DocumentError,
    FutureListError,
    OlderListError,
    StateError,
    UnsignedListError,
    UntrustedSignerError,
)
from coppice.factory.bootstrap.rpm_keys import find_keys
from coppice.factory.bootstrap.rpm_releases import find_release, is_built_release
from coppice.factory.bootstrap.rpm_repositories import repositories
from coppice.factory.rpm_staleness import RpmRepository, cover_rpms, find_rpm_updates
from coppice.formats.openpgp import read_keyring
from coppice.formats.rpm_advisories import read_advisories
from coppice.formats.rpm_index import PRIMARY, UPDATEINFO, read_index, read_primary
from coppice.subscription.openpgp import Keyring
from coppice.workflows.index_places import Shelf, client_of_mirrors, place_at, shelf_name, vouched_bytes
from coppice.workflows.packed_index import unpacked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from coppice.clock import Clock
    from coppice.definition.model import Definition
    from coppice.factory.bootstrap.rpm_releases import RpmRelease
    from coppice.factory.model import Package
    from coppice.factory.rpm_staleness import RpmFindings
    from coppice.factory.staleness import PackageUpdate
    from coppice.formats.rpm_index import RepositoryIndex
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings
    from coppice.workflows.index_places import Place

INDEX = "repodata/repomd.xml"
SIGNATURE = f"{INDEX}.asc"
_KEPT_INDEX = "repomd.xml"
_SIGNATURE_LIMIT_BYTES = 64 * 1024
_SECURITY = "security"
_MOST_SHOWN = 5
_MOST_AHEAD = timedelta(days=1)
"""Of this machine's clock: what was made later is not believed, or nothing would be newer for a long time."""


class RpmRepositories:
    """Reads repositories of RPM packages; each once in a run.

    Args:
        settings: Bounds on what is fetched, the mirror, the keyring, and where indices are kept.
        clock: For the client, and for what is said to be made later than now.
        monitor: Where progress is told.
    """

    def __init__(self, settings: Settings, *, clock: Clock, monitor: Monitor) -> None:
        self._settings = settings
        self._clock, self._monitor = clock, monitor
        self._client = client_of_mirrors(settings, clock)
        self._known: dict[str, RpmRepository] = {}
        self._failed: dict[str, CoppiceError] = {}

    def updates(
        self, packages: Iterable[Package], definition: Definition
    ) -> tuple[tuple[PackageUpdate, ...] | None, tuple[CoppiceError, ...]]:
        """Return the packages that have updates where ``definition`` is built from, and what hid them.

        None: nothing is known. Where it is only known in part, what is known is told beside the errors.
        """
        errors: list[CoppiceError] = []
        known: list[RpmRepository] = []
        try:
            release = _release(definition)
            places = repositories(release, self._settings.factory.mirror, definition.snapshot)
        except CoppiceError as problem:
            return None, (problem,)
        for name, address in places:
            try:
                known.append(self.read(release, name, address))
            except CoppiceError as problem:
                errors.append(problem)
        installed = tuple(packages)
        if not errors and not cover_rpms(installed, known):
            errors.append(
                StateError(
                    f"the repositories of {definition.name} do not have most of its packages",
                    resolution="Look at `factory.mirror`: it is that of another release or distribution.",
                )
            )
        if not known:
            return None, tuple(errors)
        findings = find_rpm_updates(installed, known, definition.operating_system.architecture)
        return findings.updates, (*errors, *_undecided(findings, definition))

    def read(self, release: RpmRelease, name: str, address: str) -> RpmRepository:
        """Return the repository ``name`` of ``release``, which is at ``address``.

        Raises:
            TransferError: It could not be had.
            TrustError: Its index is not signed as it must be, is older than one that was seen, or of the future.
            DocumentError: It has not the form of one.
            ChecksumMismatchError: A file is not what the index says.
            UnreadableFileError: A file of this machine cannot be read.
            BuildError: Its index must be signed, and the keys are not on this machine.
            ToolMissingError: ``gpgv`` is not installed.
        """
        if address in self._failed:
            raise self._failed[address]
        if address not in self._known:
            # An address may hold a password.
            what = f"{release.distribution} {name}"
            try:
                with self._monitor.task(f"reading {what}"):
                    self._known[address] = self._read(release, name, address, what)
            except CoppiceError as problem:
                self._failed[address] = problem
                raise
        return self._known[address]

    def _read(self, release: RpmRelease, name: str, address: str, what: str) -> RpmRepository:
        shelf = Shelf(self._settings.state_directory, shelf_name(address), index=_KEPT_INDEX)
        place = place_at(address, self._client, index=INDEX)
        document, validators = place.index(shelf)
        is_signed = self._is_signed(release, place, shelf, document, what)
        index = read_index(document)
        self._require_date(index, shelf, what)
        facts = {"date": to_rfc3339(index.made_at), **({"signed": "yes"} if is_signed else {})}
        # What it vouches for may be damaged: still nothing older is believed from here on, and nothing unsigned.
        shelf.note(**facts)
        files = _Files(place=place, shelf=shelf, index=index, what=what)
        packages = files.pieces(PRIMARY)
        if packages is None:
            raise DocumentError(f"the index of {what} names no packages")
        offers = read_primary(packages)
        advisories = files.pieces(UPDATEINFO)
        fixes = {} if advisories is None else read_advisories(advisories)
        shelf.keep(document, validators, files.kept, **facts)
        return RpmRepository(
            name=what,
            is_security=name == _SECURITY or name.endswith(f"-{_SECURITY}"),
            tells_security=advisories is not None,
            made_at=index.made_at,
            offers=offers,
            fixes=fixes,
        )

    def _is_signed(self, release: RpmRelease, place: Place, shelf: Shelf, document: bytes, what: str) -> bool:
        """Tell whether a key that the release pins signed the index.

        Raises:
            TrustError: Its signature does not hold; or it has none, and must have one.
            BuildError: It must have one, and the keys are not on this machine.
        """
        must = release.signs_indices or shelf.fact("signed") is not None
        signature = place.optional_file(SIGNATURE, _SIGNATURE_LIMIT_BYTES)
        if signature is None:
            if not must:
                return False
            raise UnsignedListError(
                f"the index of {what} is not signed, as it must be, or was before",
                resolution="Its mirror leaves the signature out, or somebody answers in its name: name another mirror.",
            )
        try:
            self._keyring(release).verify_detached(document, signature, what=f"the index of {what}")
        except (BuildError, UntrustedSignerError):
            # What somebody else signed, or nobody here can judge, is as good as not signed.
            if must:
                raise
            return False
        return True

    def _require_date(self, index: RepositoryIndex, shelf: Shelf, what: str) -> None:
        made_at, seen = to_rfc3339(index.made_at), shelf.fact("date")
        if index.made_at > self._clock.now() + _MOST_AHEAD:
            raise FutureListError(
                f"the index of {what} says that it is of {made_at}, which is more than a day ahead",
                resolution="Look at this machine's clock; if it is right, name another mirror.",
            )
        if seen is not None and made_at < seen:
            raise OlderListError(
                f"the index of {what} is of {made_at}, and one of {seen} was seen before",
                resolution="Its mirror has gone back, or somebody answers in its name: name another. If you know that "
                f"what was seen was false, remove {shelf.facts_path}.",
            )

    def _keyring(self, release: RpmRelease) -> Keyring:
        named = self._settings.factory.keyring
        keys = find_keys(release, None if named is None else Path(named).expanduser())
        return Keyring(*read_keyring(keys.encode("ascii")), f"the keys of {release.distribution}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    """The files that an index vouches for."""

    place: Place
    shelf: Shelf
    index: RepositoryIndex
    what: str
    kept: set[str] = field(default_factory=set)

    def pieces(self, kind: str) -> Iterator[bytes] | None:
        """Return the file of a kind, unpacked; None: there is none of that kind."""
        entry = self.index.files.get(kind)
        if entry is None:
            return None
        what = f"{kind} of {self.what}"
        content = vouched_bytes(self.place, self.shelf, entry.path, entry.checksum, entry.size_bytes, what=what)
        self.kept.add(entry.checksum.hexdigest)
        return unpacked(content, entry.path)


def _release(definition: Definition) -> RpmRelease:
    system = definition.operating_system
    if is_built_release(definition.suite):
        release = find_release(definition.suite)
        if release.processor.architecture == system.architecture:
            return release
    raise StateError(
        f"whether packages of {definition.name} have updates is not known: where those of {definition.suite} for "
        f"{system.architecture} are is not known here",
        resolution="Build it anew by a timer of your own: coppice build NAME --fresh.",
    )


def _undecided(findings: RpmFindings, definition: Definition) -> Iterator[StateError]:
    if findings.undecided:
        yield StateError(
            f"whether packages of modules have updates is not known, as there are several streams: "
            f"{_shown(findings.undecided)}",
            resolution=f"Build it anew by a timer of your own: coppice build {definition.name} --fresh.",
        )
    if findings.unreadable:
        yield StateError(
            f"whether packages have updates is not known, as the versions that are installed are none: "
            f"{_shown(findings.unreadable)}"
        )
    if findings.odd:
        yield StateError(
            f"whether other packages take the place of some is not known, as their repository says it in an odd way: "
            f"{_shown(findings.odd)}",
            resolution=f"Build it anew by a timer of your own: coppice build {definition.name} --fresh.",
        )


def _shown(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return ", ".join(names[:_MOST_SHOWN]) + more
