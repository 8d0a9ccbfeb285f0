# SPDX-License-Identifier: Apache-2.0
"""Build a definition once: the result is kept under a key made from all that decides its content.

``root/builds/<key>/`` appears whole, by rename, or not at all; two builds of the same key take turns.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from coppice.atomic import partial_path, replacing_directory, storage_errors, sweep_partials, write_bytes
from coppice.errors import BuildError, CoppiceError, NotFoundError, StorageError
from coppice.factory.audit import audit
from coppice.factory.audit_model import EDITION
from coppice.factory.build_log import LOG_NAME
from coppice.factory.builders import load_builder
from coppice.factory.caged import cage_required
from coppice.factory.evidence.contents import FILE_NAME as CONTENTS_NAME
from coppice.factory.evidence.contents import read_contents
from coppice.factory.evidence.keeping import write_evidence
from coppice.factory.files import keys_of, sha512_of
from coppice.factory.lock import locked
from coppice.factory.model import Ancestor, BuildResult, BuiltImage, Provenance
from coppice.factory.record import FILE_NAME, read_record, write_record
from coppice.factory.verdicts import keep_verdict
from coppice.factory.workplace import sweep_interrupted, workplace

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.clock import Clock
    from coppice.definition.model import Definition
    from coppice.factory.audit import AuditReport
    from coppice.factory.model import Builder, BuilderOutput, BuildOptions
    from coppice.monitor import Monitor

_ABANDONED_AFTER_SECONDS = 24 * 3600.0


def build_key(definition: Definition, builder: Builder, options: BuildOptions) -> str:
    """Return the sha256 of all that decides what a build makes, but for the day's package versions.

    Raises:
        StorageError: The site's keyring cannot be read.
    """
    said = {
        "definition": definition.digest(),
        "builder": [builder.name, builder.version],
        "mirror": options.mirror,
        # Keys that were taken back vouch for no build that is kept; and what an older audit let pass is looked at anew.
        "keys": keys_of(options.keyring),
        "audit": EDITION,
        # The parent's bytes, and by its key those of all that it is built upon.
        "parent": [[parent.key, str(parent.images[0].image.checksum)] for parent in options.ancestors[:1]],
    }
    if definition.start is not None and options.starts is not None and not options.ancestors:
        said["start"] = options.starts.identity(definition.start)
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def build(
    definition: Definition,
    *,
    root: Path,
    options: BuildOptions,
    clock: Clock,
    monitor: Monitor,
    fresh: bool = False,
    rehash: bool = False,
) -> BuildResult:
    """Return the build of ``definition``: the one that is kept, or one made now.

    Args:
        definition: What to build.
        root: The factory's directory; builds, kept trees and verdicts lie in it.
        options: What the site decides.
        clock: For dates and durations.
        monitor: Where progress is told.
        fresh: Build even when a build of the same key is kept, with today's package versions; it replaces that one.
        rehash: Read a kept build's images in full to see that they are unchanged; their length is always looked at.

    Raises:
        BuildError: It could not be built, or failed its audit.
        CageError: A full cage is required and cannot be had, or one could not be set up.
        NotFoundError: There is no such builder.
        ToolMissingError: A program that the builder needs is not installed.
        NoSpaceError: The disk is full.
        StorageError: The disk failed otherwise.
    """
    builder = load_builder(definition.builder)
    key = build_key(definition, builder, options)
    directory = root / "builds" / key
    if options.cache_directory is None:
        options = replace(options, cache_directory=root / "parents")
    with locked(
        root / "builds" / f"{key}.lock",
        on_wait=lambda: monitor.message(f"Another run is building {definition.name}; waiting for it."),
    ):
        kept = None if fresh else _kept(definition, directory, rehash=rehash)
        if kept is not None:
            return kept
        sweep_interrupted(directory)
        sweep_partials(directory.parent, older_than_seconds=_ABANDONED_AFTER_SECONDS)
        with cage_required(is_required=options.require_cage):
            return _make(definition, builder, key, directory, root=root, options=options, clock=clock, monitor=monitor)


def find_kept(definition: Definition, *, root: Path, options: BuildOptions) -> BuildResult | None:
    """Return the kept build of ``definition`` as it is now; None: there is none.

    Raises:
        NotFoundError: There is no such builder.
        StorageError: The build's record cannot be read.
    """
    key = build_key(definition, load_builder(definition.builder), options)
    return _kept(definition, root / "builds" / key, rehash=False)


def load_build_result(directory: Path) -> BuildResult:
    """Return the build that is kept in ``directory``.

    Raises:
        NotFoundError: There is none.
        StorageError: Its record cannot be read.
    """
    return read_record(directory)


def is_intact(result: BuildResult, *, rehash: bool) -> bool:
    """Tell whether a build's tree is there, and its images with their lengths; their digests, where ``rehash`` asks."""
    for built in result.images:
        try:
            if built.path.stat().st_size != built.image.size_bytes:
                return False
        except FileNotFoundError:
            return False
        if rehash and not sha512_of(built.path).matches(built.image.checksum):
            return False
    return bool(result.images) and (result.tree is None or result.tree.exists())


def _kept(definition: Definition, directory: Path, *, rehash: bool) -> BuildResult | None:
    try:
        kept = read_record(directory)
    except NotFoundError:
        return None
    # The key covers what the definition says, not where its file lies.
    return replace(kept, definition=definition) if is_intact(kept, rehash=rehash) else None


def _make(
    definition: Definition,
    builder: Builder,
    key: str,
    directory: Path,
    *,
    root: Path,
    options: BuildOptions,
    clock: Clock,
    monitor: Monitor,
) -> BuildResult:
    started_at, started = clock.now(), clock.monotonic()
    trash = partial_path(directory)
    with replacing_directory(directory) as into:
        with workplace(options.work_directory) as scratch:
            disks = scratch / "disk"
            disks.mkdir()
            with _log_kept(into, failed_log(root, key)):
                output = builder.build(definition, into, replace(options, disk_directory=disks), monitor)
            _check(output, definition, into)
            if output.disk is not None and (output.disk.parent != disks or not output.disk.is_file()):
                raise BuildError(f"the builder named a disk that it did not make there: {output.disk}")
            report = _audited(output, definition, options=options, clock=clock, monitor=monitor)
        result = BuildResult(
            definition=definition,
            key=key,
            directory=directory,
            images=tuple(BuiltImage(path=directory / built.path.name, image=built.image) for built in output.images),
            packages=output.packages,
            provenance=Provenance(
                definition_digest=definition.digest(),
                builder=f"{builder.name} {builder.version}",
                tools=output.tools,
                started_at=started_at,
                seconds=round(clock.monotonic() - started, 1),
                inputs=output.inputs,
                lineage=lineage_of(options.ancestors),
            ),
            verdicts=(report.verdict,),
            reused=False,
            tree=None if output.tree is None else directory / output.tree.name,
        )
        write_record(into / FILE_NAME, result)
        write_evidence(into, result, report.inventory)
        report.contents.write(into / CONTENTS_NAME)
        # Until the new one is renamed in, a kill leaves no build of this key, never half of one.
        with storage_errors("setting aside", directory):
            if directory.exists():
                directory.rename(trash)
    shutil.rmtree(trash, ignore_errors=True)
    failed_log(root, key).unlink(missing_ok=True)
    keep_verdict(root, report.verdict)
    return result


def _audited(
    output: BuilderOutput, definition: Definition, *, options: BuildOptions, clock: Clock, monitor: Monitor
) -> AuditReport:
    with monitor.task(f"auditing {definition.name}"):
        report = audit(
            output.images[0],
            definition,
            work_directory=options.work_directory,
            clock=clock,
            disk=output.disk,
            contents=read_contents(options.ancestors[0].directory) if options.ancestors else None,
        )
    for unused in report.unused:
        monitor.message(f"{definition.name}: the audit exception {unused.check} {unused.path} covers nothing")
    return report


def lineage_of(ancestors: tuple[BuildResult, ...]) -> tuple[Ancestor, ...]:
    """Return what a build says of those that it is built upon, the nearest first."""
    return tuple(
        Ancestor(
            definition=each.definition.name,
            key=each.key,
            image_digest=str(each.images[0].image.checksum),
        )
        for each in ancestors
    )


def failed_log(root: Path, key: str) -> Path:
    """Return where the log of a build that failed is kept, until one of the same key does not."""
    return root / "builds" / f"{key}.log"


@contextmanager
def _log_kept(into: Path, place: Path) -> Iterator[None]:
    """Have the log of a build outlive its directory when it fails, and its error say where it is."""
    try:
        yield
    except CoppiceError as problem:
        log = into / LOG_NAME
        with contextlib.suppress(OSError, StorageError):
            if log.stat().st_size:
                write_bytes(place, log.read_bytes())
                problem.details = "\n".join(filter(None, (problem.details, f"The whole log: {place}")))
        raise


def _check(output: BuilderOutput, definition: Definition, into: Path) -> None:
    formats = tuple(built.image.format for built in output.images)
    if formats != definition.formats:
        raise BuildError(f"the builder made {', '.join(formats) or 'nothing'}, not {', '.join(definition.formats)}")
    for built in output.images:
        if built.path.parent != into or not built.path.is_file():
            raise BuildError(f"the builder named an image that it did not make there: {built.path}")
        if built.path.stat().st_size != built.image.size_bytes:
            raise StorageError(f"{built.path} changed after it was made")
    for beside in (output.tree, output.log):
        if beside is not None and (beside.parent != into or not beside.exists()):
            raise BuildError(f"the builder named a file that it did not make there: {beside}")
