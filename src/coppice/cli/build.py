# SPDX-License-Identifier: Apache-2.0
"""``coppice build``: make an appliance's images, and start machines from them to see that they work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result
from coppice.cli.output import format_size
from coppice.cli.words import examples, pass_context, verb

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.factory.model import BuildResult


@verb(
    "build",
    epilog=examples(
        "coppice build debian-12",
        "coppice build debian-12 --fresh",
        "coppice build debian-12 --no-boot-test",
        exits="0 built and tested, 4 a tool is missing, 11 the build or a boot test failed, 12 no such definition",
    ),
)
@click.argument("name")
@click.option("--fresh", is_flag=True, help="Build anew although the same build is there (newer packages come in).")
@click.option("--boot-test/--no-boot-test", default=True, help="Start a machine from it under each firmware.")
@pass_context
def command(context: Context, name: str, fresh: bool, boot_test: bool) -> Result:
    """Build the definition NAME and boot what was built.

    The same definition is built once: a second call finds the first build, and boot tests that the same bytes have
    passed are not run again.
    """
    from coppice.definition.read import find_definition
    from coppice.workflows.build import build_appliance

    result = build_appliance(
        find_definition(context.definitions_directory(), name),
        settings=context.settings,
        database=context.database,
        clock=context.clock,
        monitor=context.monitor,
        fresh=fresh,
        boot=boot_test,
    )
    context.tell_hooks()
    data = {
        "definition": name,
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
    return Result(
        command="build",
        data=data,
        messages=(f"`coppice appliance add {name}` brings it into the catalogue",),
        show=lambda output: _render(output, result),
    )


def _render(output: Output, result: BuildResult) -> None:
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
