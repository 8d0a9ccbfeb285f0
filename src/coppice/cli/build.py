# SPDX-License-Identifier: Apache-2.0
"""``coppice build``: make appliances' images, and start machines from them to see that they work."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result, Status
from coppice.cli.output import counted, format_size
from coppice.cli.words import examples, pass_context, verb
from coppice.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.definition.model import Definition
    from coppice.execution.model import Ended
    from coppice.factory.model import BuildResult


@verb(
    "build",
    epilog=examples(
        "coppice build debian-12",
        "coppice build debian-12 --fresh",
        "coppice build debian-12 --no-boot-test",
        "coppice build debian-12 --thorough",
        "coppice build debian-12 debian-13 --at-once 2",
        "coppice build debian-12 debian-13 --on cluster",
        "coppice build debian-12 --verify",
        exits="0 built and tested, 1 some of several failed, 4 a tool is missing, 11 the build or a boot test failed, "
        "or a second build gave other bytes, "
        "12 no such definition",
    ),
)
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("--fresh", is_flag=True, help="Build anew although the same build is there (newer packages come in).")
@click.option("--boot-test/--no-boot-test", default=True, help="Start a machine from it under each firmware.")
@click.option(
    "--thorough",
    is_flag=True,
    help="Boot tests start it a second time, try every port, and each other source of data (`factory.boot_level`).",
)
@click.option(
    "--at-once",
    type=click.IntRange(min=1, max=64),
    metavar="N",
    help="Most builds at a time (default: `factory.builds_at_once`; on a cluster, as many as its workers declare).",
)
@click.option(
    "--on",
    type=click.Choice(["here", "cluster"]),
    help="Where: in this process, or on the workers of the Dask cluster of `[cluster]` (default: `factory.builds_on`).",
)
@click.option("--verify", is_flag=True, help="Build each a second time, and see that the same bytes come out.")
@pass_context
def command(
    context: Context,
    names: tuple[str, ...],
    *,
    fresh: bool,
    boot_test: bool,
    thorough: bool,
    at_once: int | None,
    on: str | None,
    verify: bool,
) -> Result:
    """Build the definitions NAME... and boot what was built.

    The same definition is built once: a second call finds the first build, and boot tests that the same bytes have
    passed are not run again. Parents are built first, once for all of their children; --fresh leaves them as they are.
    A build that fails stops only those that are built upon it. With --verify, each is then built a second time, from
    nothing but its parent; files that differ are named. With --on cluster, each is built and booted by a worker that
    declares what it needs; --verify builds here.
    """
    if thorough and not boot_test:
        raise UsageError("--thorough is about boot tests, and --no-boot-test leaves them out")
    find = definition_finder(context)
    wanted = [find(name) for name in dict.fromkeys(names)]
    ended = _build(context, wanted, find, fresh=fresh, boot=boot_test, thorough=thorough, at_once=at_once, on=on)
    context.tell_hooks()
    errors = tuple(each.error for each in ended if each.error is not None)
    if len(wanted) == 1 and errors:
        raise errors[0]
    done = [each.result for each in ended if each.result is not None]
    verified = [_verified(context, each, find) for each in done] if verify else []
    data: dict[str, object] = {"builds": [_as_data(each) for each in ended]}
    if len(wanted) == 1:
        # What one build gave stood at the top before there could be several.
        data |= _build_data(done[0])
    if verify:
        data["verified"] = [{"definition": name, "digests": digests} for name, digests in verified]
    named = done[0].definition.name if len(done) == 1 else "NAME"
    return Result(
        command="build",
        data=data,
        status=Status.SUCCESS if not errors else Status.PARTIAL if done else Status.ERROR,
        errors=errors,
        messages=(
            *(f"a second build of {name} gave the same bytes" for name, _ in verified),
            *((f"`coppice appliance add {named}` brings it into the catalogue",) if done else ()),
        ),
        show=lambda output: _render(output, ended),
    )


def _build(
    context: Context,
    wanted: Sequence[Definition],
    find: Callable[[str], Definition],
    *,
    fresh: bool,
    boot: bool,
    thorough: bool,
    at_once: int | None,
    on: str | None,
) -> tuple[Ended[BuildResult], ...]:
    from coppice.cli.board import shown_board
    from coppice.workflows.build import build_appliances
    from coppice.workflows.cluster_build import opened_place

    settings = context.settings
    if thorough:
        settings = replace(settings, factory=replace(settings.factory, boot_level="thorough"))
    with ExitStack() as stack:
        shown = shown_board(sys.stderr, context.monitor, silent=context.json or context.quiet, color=context.color)
        board = stack.enter_context(shown)
        opened = opened_place(on or settings.factory.builds_on, settings=settings, clock=context.clock)
        place = stack.enter_context(opened)
        return build_appliances(
            wanted,
            settings=settings,
            database=context.database,
            clock=context.clock,
            monitor=context.monitor,
            find=find,
            fresh={each.name for each in wanted} if fresh else (),
            boot=boot,
            at_once=at_once,
            place=place,
            board=board,
        )


def _verified(context: Context, result: BuildResult, find: Callable[[str], Definition]) -> tuple[str, dict[str, str]]:
    from coppice.workflows.verify_build import verify_appliance

    definition = result.definition
    found = verify_appliance(definition, settings=context.settings, monitor=context.monitor, find=find)
    return definition.name, {name: first for name, (first, _) in found.digests.items()}


def definition_finder(context: Context) -> Callable[[str], Definition]:
    """Return what finds the definition of a name, where this site has its definitions, those from git among them."""
    from coppice.definition.read import find_definition

    places, defaults = context.definition_places(), context.definition_defaults()
    return lambda name: find_definition(places, name, defaults=defaults)


def _as_data(ended: Ended[BuildResult]) -> dict[str, object]:
    if ended.result is not None:
        return _build_data(ended.result)
    error = None if ended.error is None else ended.error.as_dict()
    return {"definition": ended.name, "error": error, "kept_by": ended.kept_by}


def _build_data(result: BuildResult) -> dict[str, object]:
    return {
        "definition": result.definition.name,
        "key": result.key,
        "directory": result.directory,
        "reused": result.reused,
        "images": result.images,
        "packages": len(result.packages),
        "verdicts": [
            {"gate": each.gate, "outcome": each.outcome, "seconds": each.seconds, "facts": dict(each.facts)}
            for each in result.verdicts
        ],
        "provenance": result.provenance,
    }


def _render(output: Output, ended: Sequence[Ended[BuildResult]]) -> None:
    for each in ended:
        if each.result is not None:
            _render_one(output, each.result)
        elif each.kept_by is not None:
            output.line(f"{each.name}: not built, since {each.kept_by} failed")
        else:
            output.line(f"{each.name}: failed")
    if len(ended) > 1:
        output.line(f"{counted(sum(each.is_done for each in ended), 'build')} of {len(ended)} done")


def _render_one(output: Output, result: BuildResult) -> None:
    output.pairs(
        {
            "definition": result.definition.name,
            "build": f"{result.key[:16]}, {'found' if result.reused else f'made in {result.provenance.seconds:.0f} s'}",
            "packages": len(result.packages),
        }
    )
    output.table(
        ["image", "format", "size", "disk", "sha512"],
        [
            [
                built.path,
                built.image.format,
                format_size(built.image.size_bytes),
                format_size(built.image.virtual_size_bytes),
                f"{built.image.checksum.hexdigest[:16]}…",
            ]
            for built in result.images
        ],
    )
    output.table(
        ["test", "outcome", "took", "decided"],
        [
            [verdict.gate, verdict.outcome, f"{verdict.seconds:.0f} s", f"{verdict.decided_at:%Y-%m-%d %H:%M}Z"]
            for verdict in result.verdicts
        ],
    )
