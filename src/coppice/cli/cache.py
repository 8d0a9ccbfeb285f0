# SPDX-License-Identifier: Apache-2.0
"""``coppice cache``: the verified files that this site holds, who needs them, and what hooks are handed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coppice.cli.cache_run import cache_data, describe_outcome
from coppice.cli.envelope import Result, Status
from coppice.cli.output import counted, format_size
from coppice.cli.words import examples, noun, pass_context
from coppice.errors import StateError

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.workflows.cached import CachedObject
    from coppice.workflows.fetch import FetchReport

command = noun("cache", "The verified files that this site holds.")


@command.command("list", epilog=examples("coppice cache list", "coppice cache list --json"))
@pass_context
def list_entries(context: Context) -> Result:
    """List the files that the cache holds and how many need each; their bytes are not read."""
    from coppice.workflows.cached import describe_cache

    found = describe_cache(context.settings, context.database, context.clock)
    total = sum(each.entry.size_bytes for each in found.objects)

    def render(output: Output) -> None:
        rows = [
            [each.entry.checksum.hexdigest[:24], format_size(each.entry.size_bytes), str(each.entry.held), _why(each)]
            for each in found.objects
        ]
        output.table(["sha512", "size", "holds", "needed by"], rows)

    return Result(
        command="cache list",
        data={
            "entries": [_as_data(each) for each in found.objects],
            "size_bytes": total,
            "foreign": found.foreign,
            "unknown": [name for name, _ in found.unknown],
        },
        messages=(
            f"{counted(len(found.objects), 'file')}, {format_size(total)}.",
            *(f"{path} was not made by Coppice, and is left alone." for path in found.foreign),
        ),
        show=render,
    )


@command.command(
    "show", epilog=examples("coppice cache show 1f40fc92da24", exits="0 shown, 12 there is no such file, or several")
)
@click.argument("digest")
@pass_context
def show(context: Context, digest: str) -> Result:
    """Show who needs the file whose checksum begins with DIGEST: by sha512, or by another that a list has."""
    from coppice.workflows.cached import describe_cache

    each = describe_cache(context.settings, context.database, context.clock).named(digest)

    def render(output: Output) -> None:
        output.heading(str(each.entry.checksum))
        output.line(
            f"{format_size(each.entry.size_bytes)}, {each.entry.held}, fetched {each.entry.fetched_at:%Y-%m-%d}"
        )
        output.line(f"from {each.entry.uri or 'nowhere that is known'}")
        for needer in each.needers:
            who = f"subscription {needer.subscription}" if needer.subscription else "handed out to hooks"
            output.line(f"needed by {who}: {needer.title or needer.image_identifier} {needer.version}")
        if not each.needers:
            output.line(f"needed by {_why(each)}")

    return Result(command="cache show", data=_as_data(each), show=render)


@command.command(
    "fetch",
    epilog=examples(
        "coppice cache fetch --dry-run",
        "coppice cache fetch --refresh",
        "coppice cache fetch --retry",
        exits="0 done, 1 some images failed, the failure's own code when nothing could be done for one reason, "
        "75 another run is at work",
    ),
)
@click.option("--refresh", "refresh_lists", is_flag=True, help="Fetch and verify the lists first.")
@click.option("--retry", is_flag=True, help="Try also images that were given up.")
@click.option("--dry-run", is_flag=True, help="Show what would be fetched, handed out and taken back.")
@click.option("--wait", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Wait for another run.")
@pass_context
def fetch_images(context: Context, *, refresh_lists: bool, retry: bool, dry_run: bool, wait: float) -> Result:
    """Bring here every selected image, take back what left, and tell hooks of both.

    For sites whose hooks register images. With `cache.fetch = "all"`, each sync does it.
    """
    from coppice.workflows.fetch import fetch

    report = fetch(
        settings=context.settings,
        database=context.database,
        clock=context.clock,
        monitor=context.monitor,
        client=context.client(),
        refresh_lists=refresh_lists,
        retry=retry,
        dry_run=dry_run,
        wait_seconds=wait,
    )
    errors = report.errors
    done = [each for each in report.images if each.error is None]
    said = (
        f"{counted(report.wanted, 'image')} wanted, {counted(len(done), 'change')} {'to make' if dry_run else 'made'}."
    )

    def render(output: Output) -> None:
        for each in report.images:
            output.line(describe_outcome(each, dry_run=dry_run))

    return Result(
        command="cache fetch",
        data=cache_data(report, dry_run=dry_run),
        status=Status.SUCCESS if not errors else Status.PARTIAL if done else Status.ERROR,
        errors=errors,
        messages=(said, *_unknown_messages(report)),
        show=render,
        exit_code=None if len(errors) == 1 else 1 if errors else 0,
    )


@command.command(
    "verify",
    epilog=examples(
        "coppice cache verify",
        "coppice cache verify --no-fetch",
        exits="0 all intact or here again, 7 some are corrupt and not here again",
    ),
)
@click.option("--no-fetch", is_flag=True, help="Move aside what is corrupt, and fetch nothing.")
@pass_context
def verify(context: Context, *, no_fetch: bool) -> Result:
    """Read every file again, move aside what is corrupt, and fetch it again where a list names it.

    `cache.verify_rate_bytes_per_second` bounds how fast files are read.
    """
    from coppice.workflows.verify_cache import verify_cache

    found = verify_cache(
        settings=context.settings,
        database=context.database,
        clock=context.clock,
        monitor=context.monitor,
        client=context.client(),
        fetch_again=not no_fetch,
    )
    said = (
        f"{counted(len(found.intact), 'file')} intact, {len(found.quarantined)} moved aside, "
        f"{len(found.fetched_again)} fetched again."
    )
    return Result(
        command="cache verify",
        data={
            "intact": found.intact,
            "quarantined": found.quarantined,
            "fetched_again": found.fetched_again,
            "busy": found.busy,
            "foreign": found.foreign,
        },
        status=Status.ERROR if found.errors else Status.SUCCESS,
        errors=found.errors,
        messages=(
            *(f"{each.path} was corrupt; it was moved aside and fetched again." for each in found.fetched_again),
            said,
            *(f"{each.path} is being worked on and was not read." for each in found.busy),
            *(f"{path} was not made by Coppice, and is left alone." for path in found.foreign),
        ),
    )


@command.command(
    "prune",
    epilog=examples(
        "coppice cache prune --dry-run",
        "coppice cache prune --now",
        exits="0 pruned, 12 a list is not known",
    ),
)
@click.option("--dry-run", is_flag=True, help="Show what would be removed.")
@click.option("--now", "at_once", is_flag=True, help="Remove what nothing needs however lately it was needed.")
@pass_context
def prune(context: Context, *, dry_run: bool, at_once: bool) -> Result:
    """Remove files that nothing has needed for `cache.keep_unneeded_days`.

    Every sync and every `cache fetch` does so as well. A file that Coppice did not make is never removed, nor one that
    a run is using.
    """
    from coppice.workflows.cached import prune_cache

    pruned, demand = prune_cache(context.settings, context.database, context.clock, at_once=at_once, dry_run=dry_run)
    if demand.unknown:
        raise StateError(
            f"what the subscription {demand.unknown[0][0]!r} needs is not known, so nothing is removed",
            details="\n".join(f"{name}: {problem.message}" for name, problem in demand.unknown),
            resolution="`coppice subscription refresh` fetches its list; or remove the subscription.",
        )
    freed = format_size(sum(each.size_bytes for each in pruned.removed))
    said = f"{counted(len(pruned.removed), 'file')} {'to remove' if dry_run else 'removed'}, {freed}."

    def render(output: Output) -> None:
        for each in pruned.removed:
            output.line(f"- {each.checksum.hexdigest[:24]} {format_size(each.size_bytes)} {each.held}")
        for path in pruned.files:
            output.line(f"- {path}")

    return Result(
        command="cache prune",
        data={"dry_run": dry_run, "removed": pruned.removed, "other_files": pruned.files},
        status=Status.ERROR if pruned.errors else Status.SUCCESS,
        errors=pruned.errors,
        messages=(said,),
        show=render,
    )


def _unknown_messages(report: FetchReport) -> tuple[str, ...]:
    return tuple(
        f"{name}: its list is not known today, so what is here of it stays ({problem.message})"
        for name, problem in report.unknown
    )


def _why(each: CachedObject) -> str:
    if each.needers:
        names = dict.fromkeys(needer.subscription or "hooks" for needer in each.needers)
        return ", ".join(names)
    if each.in_use:
        return "a run that is at work"
    return "nothing" if each.unneeded_since is None else f"nothing since {each.unneeded_since:%Y-%m-%d}"


def _as_data(each: CachedObject) -> dict[str, object]:
    entry = each.entry
    return {
        "checksum": entry.checksum,
        "size_bytes": entry.size_bytes,
        "path": entry.path,
        "fetched_at": entry.fetched_at,
        "uri": entry.uri,
        "held": entry.held,
        "also": entry.also,
        "answers": entry.answers,
        "in_use": each.in_use,
        "unneeded_since": each.unneeded_since,
        "needed_by": each.needers,
    }
