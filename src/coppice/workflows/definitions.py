# SPDX-License-Identifier: Apache-2.0
"""Definitions from git: pinned to a commit, fetched when they are needed, moved to another only when one says so."""

from __future__ import annotations

import difflib
import shutil
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from coppice import atomic
from coppice.definition.git_difference import FileChange, ValueChange, changed_files, changed_values
from coppice.definition.git_lock import PinnedSource, read_sources, write_sources
from coppice.definition.git_signature import MAX_KEY_BYTES, PinnedKey
from coppice.definition.git_tree import digest_of, lay_down, names_of, read_laid
from coppice.definition.places import folders
from coppice.definition.read import find_definition
from coppice.definition.resolve import Resolver
from coppice.errors import DefinitionError, DefinitionSourceError, ExistsError, NotFoundError, UnreadableFileError
from coppice.model.identifiers import is_name
from coppice.schedule.lock import run_lock
from coppice.workflows.definition_fetch import CommitFacts, FetchedSource, fetch_pinned, fetch_source

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from coppice.clock import Clock
    from coppice.definition.git_address import GitAddress
    from coppice.definition.git_program import Network
    from coppice.definition.model import Definition
    from coppice.monitor import Monitor

DIRECTORY: Final = "definitions"
LOCK: Final = "locks/definitions.lock"
WAIT_SECONDS: Final = 60.0
_TREES = "trees"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where repositories of definitions are kept, and beside what.

    Attributes:
        state_directory: Of this machine's files.
        own: The site's definitions, or those that Coppice brings.
        network: The way to servers.
        clock: Tells the time.
        monitor: Is told of what is fetched.
        defaults: What counts where a definition says nothing.
    """

    state_directory: Path
    own: Path
    network: Network
    clock: Clock
    monitor: Monitor
    defaults: Mapping[str, object] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        """Where they are."""
        return self.state_directory / DIRECTORY

    def place(self, source: PinnedSource) -> Path:
        """Return the folder that holds the definitions of ``source``."""
        return self.directory / _TREES / source.name / source.folder

    def lock(self) -> AbstractContextManager[None]:
        """Return what holds the lock on all of them."""
        return run_lock(self.state_directory / LOCK, WAIT_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceUpdate:
    """What became of one source's ref.

    Attributes:
        source: As it is pinned now.
        pinned: The commit that it was pinned to.
        found: The commit that its ref is today; None: the same.
        signed_by: Who signed that; empty: nobody was asked.
        files: What files differ.
        values: What values of its definitions differ.
        notes: What whoever decides should know.
        is_accepted: Whether it is pinned to that now.
    """

    source: PinnedSource
    pinned: str
    found: CommitFacts | None = None
    signed_by: str = ""
    files: tuple[FileChange, ...] = ()
    values: tuple[ValueChange, ...] = ()
    notes: tuple[str, ...] = ()
    is_accepted: bool = False


def list_sources(sources: Sources) -> tuple[PinnedSource, ...]:
    """Return the pinned sources, by name.

    Raises:
        DefinitionSourceError: The file that names them cannot be used.
    """
    return tuple(source for _, source in sorted(read_sources(sources.directory).items()))


def definition_places(sources: Sources) -> tuple[Path, ...]:
    """Return every place that has definitions; what is pinned and not here yet is fetched.

    Raises:
        DefinitionSourceError: What is pinned cannot be had, or is not what it was.
        StorageError: It cannot be kept.
    """
    known = list_sources(sources)
    if all(sources.place(source).is_dir() for source in known):
        for source in known:
            _bring(sources, source)
    else:
        with sources.lock():
            for source in known:
                _bring(sources, source)
    return (sources.own, *(sources.place(source) for source in known))


def add_source(sources: Sources, address: GitAddress, *, name: str | None, key_file: Path | None) -> PinnedSource:
    """Follow definitions from git, pinned to the commit that their ref is today.

    Args:
        sources: Where they are kept.
        address: Where they come from.
        name: What commands call the source; None: as its folder.
        key_file: Whose signatures alone are accepted; None: nobody's are asked for.

    Raises:
        ExistsError: There is a source, or a definition, of that name.
        DefinitionSourceError: It cannot be had, is nothing to take definitions from, or is not signed by the key.
        DefinitionError: One of its definitions is wrong.
    """
    called = address.suggested_name() if name is None else name
    if called is None or not is_name(called):
        raise DefinitionSourceError(
            f"{(called or address.folder)[:80]!r} cannot be the name of a source",
            resolution="Name it with --name: letters a-z, digits, . _ and -.",
        )
    key = None if key_file is None else PinnedKey.read(_read_key(key_file), str(key_file))
    with sources.lock():
        _sweep(sources)
        known = read_sources(sources.directory)
        if called in known:
            raise ExistsError(
                f"there is a source named {called!r} already: {known[called].address}",
                resolution="Move it with `coppice definition update`, remove it, or give this one another --name.",
            )
        fetched = fetch_source(address, key, sources.directory, sources.network, sources.monitor)
        source = _pin(sources, called, address, key, fetched)
        lay_down(fetched.files, sources.place(source))
        try:
            _check_all(sources, source, known)
            write_sources(sources.directory, {**known, called: source})
        except BaseException:
            shutil.rmtree(sources.place(source).parent, ignore_errors=True)
            raise
    return source


def update_sources(sources: Sources, names: Sequence[str] = (), *, accept: bool = False) -> tuple[SourceUpdate, ...]:
    """Look what the refs of sources are today, and what that would change.

    Args:
        sources: Where they are kept.
        names: Of which; none: of all.
        accept: Whether they are pinned to what was found.

    Raises:
        NotFoundError: There is no source of that name.
        DefinitionSourceError: One cannot be had, or what its ref is today is not signed by the pinned key.
        DefinitionError: One of the new definitions is wrong; the pin stays where it is.
    """
    with sources.lock():
        _sweep(sources)
        known = read_sources(sources.directory)
        wanted = [_known(known, name) for name in dict.fromkeys(names)] if names else list(known.values())
        return tuple(_update(sources, known, source, accept=accept) for source in wanted)


def remove_source(sources: Sources, name: str) -> PinnedSource:
    """Follow a source no more; what was built from it stays.

    Raises:
        NotFoundError: There is none of that name.
    """
    with sources.lock():
        _sweep(sources)
        known = read_sources(sources.directory)
        gone = _known(known, name)
        write_sources(sources.directory, {each: source for each, source in known.items() if each != name})
        shutil.rmtree(sources.directory / _TREES / name, ignore_errors=True)
    return gone


def _update(sources: Sources, known: dict[str, PinnedSource], source: PinnedSource, *, accept: bool) -> SourceUpdate:
    unchanged = SourceUpdate(source=source, pinned=source.commit)
    if source.address.is_commit:
        return replace(unchanged, notes=("it is pinned to a commit by name, which cannot move",))
    fetched = fetch_source(source.address, source.key, sources.directory, sources.network, sources.monitor)
    if fetched.commit.identifier == source.commit:
        return unchanged
    _bring(sources, source)
    before = read_laid(sources.place(source))
    moved = _pin(sources, source.name, source.address, source.key, fetched)
    others = {each: other for each, other in known.items() if each != source.name}
    old = _resolved(sources, source, others)
    lay_down(fetched.files, sources.place(moved))
    is_kept = moved.folder == source.folder
    try:
        new = _check_all(sources, moved, others)
        if accept:
            known[source.name] = moved
            write_sources(sources.directory, known)
            is_kept = True
    finally:
        if not is_kept:
            shutil.rmtree(sources.place(moved), ignore_errors=True)
    if accept and moved.folder != source.folder:
        shutil.rmtree(sources.place(source), ignore_errors=True)
    return SourceUpdate(
        source=moved if accept else source,
        pinned=source.commit,
        found=fetched.commit,
        signed_by=fetched.signed_by,
        files=changed_files(before, fetched.files),
        values=changed_values(old, new),
        notes=_notes(source, fetched),
        is_accepted=accept,
    )


def _notes(source: PinnedSource, fetched: FetchedSource) -> tuple[str, ...]:
    notes: list[str] = []
    if fetched.tip.kind == "tag":
        notes.append(f"the tag {source.address.ref} was moved: tags are made to stay; ask why")
    if fetched.commit.at < source.committed_at:
        notes.append("it is older than the commit that is pinned: its branch was put back, or its history rewritten")
    return tuple(notes)


def _pin(
    sources: Sources, name: str, address: GitAddress, key: PinnedKey | None, fetched: FetchedSource
) -> PinnedSource:
    return PinnedSource(
        name=name,
        address=address,
        commit=fetched.commit.identifier,
        committed_at=fetched.commit.at,
        digest=digest_of(fetched.files),
        definitions=names_of(fetched.files),
        key=key,
        signed_by=fetched.signed_by,
        pinned_at=sources.clock.now().replace(microsecond=0),
    )


def _bring(sources: Sources, source: PinnedSource) -> None:
    """See to it that the files of a pin are here, and are what they were."""
    place = sources.place(source)
    if place.is_dir():
        if digest_of(read_laid(place)) != source.digest:
            raise DefinitionSourceError(
                f"the files of the source {source.name!r} in {place} are not those that were pinned",
                resolution="Remove that folder: they are fetched again. To change definitions, export them first.",
                context={"source": source.name, "path": str(place)},
            )
        return
    files = fetch_pinned(source, sources.directory, sources.network, sources.monitor)
    if digest_of(files) != source.digest:
        raise DefinitionSourceError(
            f"{source.address} gives other files for the commit {source.commit} than when it was pinned",
            resolution="Do not use it before you know why: two contents have the same identifier.",
            context={"source": source.name, "commit": source.commit},
        )
    lay_down(files, place)


def _check_all(sources: Sources, source: PinnedSource, others: Mapping[str, PinnedSource]) -> dict[str, Definition]:
    """Return the definitions of ``source`` and their variants, each of them right and of a name of its own."""
    for other in others.values():
        _bring(sources, other)
    places = (sources.own, *(sources.place(other) for other in others.values()), sources.place(source))
    folders(places)
    resolver = Resolver(places)
    references = [
        f"{name}@{variant}" if variant else name
        for name in source.definitions
        for variant in ("", *resolver.variants(sources.place(source) / name))
    ]
    return {each: find_definition(places, each, defaults=sources.defaults) for each in references}


def _resolved(sources: Sources, source: PinnedSource, others: Mapping[str, PinnedSource]) -> dict[str, Definition]:
    try:
        return _check_all(sources, source, others)
    except DefinitionError:
        # What is wrong with what is pinned need not hinder anybody from leaving it.
        return {}


def _sweep(sources: Sources) -> None:
    """Remove what a killed run left; nobody else works here, the lock is held."""
    known = read_sources(sources.directory)
    atomic.sweep_partials(sources.directory, older_than_seconds=0)
    wanted = {sources.place(source) for source in known.values()}
    for place in (sources.directory / _TREES).glob("*/*"):
        if place not in wanted:
            shutil.rmtree(place, ignore_errors=True)


def _known(known: Mapping[str, PinnedSource], name: str) -> PinnedSource:
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    raise NotFoundError(
        f"no source of definitions is named {name[:80]!r}",
        resolution=f"Did you mean {near[0]!r}?" if near else "`coppice definition sources` lists them.",
        context={"name": name[:80], "known": list(known)},
    )


def _read_key(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(MAX_KEY_BYTES + 1)
    except OSError as problem:
        raise UnreadableFileError(
            f"cannot read the key {path}: {problem.strerror}", context={"path": str(path)}
        ) from problem
