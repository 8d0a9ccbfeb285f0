# SPDX-License-Identifier: Apache-2.0
"""``coppice cache``: the verified files that this site holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cli.envelope import Result, Status
from coppice.cli.output import format_size
from coppice.cli.words import examples, noun, pass_context
from coppice.errors import ChecksumMismatchError, StateError

if TYPE_CHECKING:
    from coppice.cache.store import ImageCache
    from coppice.cli.context import Context
    from coppice.cli.output import Output

command = noun("cache", "The verified files that this site holds.")


@command.command("list", epilog=examples("coppice cache list"))
@pass_context
def list_entries(context: Context) -> Result:
    """List the files that the cache holds; their bytes are not read."""
    entries = _cache(context).entries()

    def render(output: Output) -> None:
        output.table(
            ["checksum", "size"], [[str(each.checksum)[:24], format_size(each.size_bytes)] for each in entries]
        )

    total = sum(each.size_bytes for each in entries)
    return Result(
        command="cache list",
        data={"entries": entries, "size_bytes": total},
        messages=(f"{len(entries)} files, {format_size(total)}.",),
        show=render,
    )


@command.command("verify", epilog=examples("coppice cache verify", exits="0 all intact, 7 some were not"))
@pass_context
def verify(context: Context) -> Result:
    """Read every file again; what is not what its name says is moved aside and fetched anew when needed."""
    found = _cache(context).verify(context.monitor)
    errors = tuple(
        ChecksumMismatchError(
            f"{each.path} is not what its name says; it was moved aside",
            resolution="Check the disk. The next sync fetches the image again when it needs it.",
            context={"path": str(each.path)},
        )
        for each in found.quarantined
    )
    return Result(
        command="cache verify",
        data={"intact": found.intact, "quarantined": found.quarantined},
        status=Status.ERROR if errors else Status.SUCCESS,
        errors=errors,
        messages=(f"{len(found.intact)} files intact, {len(found.quarantined)} moved aside.",),
    )


@command.command("prune", epilog=examples("coppice cache prune", exits="0 pruned, 12 a list is not known"))
@pass_context
def prune(context: Context) -> Result:
    """Remove files that no subscribed list names any more."""
    from coppice.subscription.store import SubscriptionStore
    from coppice.workflows.listed import listed_images

    known, unknown = listed_images(SubscriptionStore(context.database), context.clock, context.settings.lists)
    if unknown:
        raise StateError(
            f"what the subscription {unknown[0][0]!r} needs is not known, so nothing is removed",
            details="\n".join(f"{name}: {problem.message}" for name, problem in unknown),
            resolution="`coppice subscription refresh` fetches its list; or remove the subscription.",
        )
    removed = _cache(context).prune({image.checksum for _, image in known})
    freed = format_size(sum(each.size_bytes for each in removed))
    return Result(
        command="cache prune",
        data={"removed": removed},
        messages=(f"{len(removed)} files removed, {freed} freed.",),
    )


def _cache(context: Context) -> ImageCache:
    from coppice.cache.store import ImageCache

    return ImageCache(context.settings.state_directory / "cache", client=context.client(), clock=context.clock)
