# SPDX-License-Identifier: Apache-2.0
"""``coppice demo``: one appliance lives its whole life, here, now."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result
from coppice.cli.output import format_duration, format_size
from coppice.cli.words import examples, pass_context, verb

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.workflows.demonstration import Step

_LEAF, _PLAIN_LEAF = "🌱", "*"


@verb(
    "demo",
    epilog=examples(
        "coppice demo",
        "coppice demo --directory /var/tmp/coppice-demo",
        "coppice demo --definition debian-13",
        exits="0 every step showed what it should, 4 a tool is missing, otherwise the code of what failed",
    ),
)
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".demo"),
    show_default=True,
    help="Where all of it lies; an empty, a new, or an earlier demonstration's directory.",
)
@click.option("--definition", "name", default="debian-12", show_default=True, help="What is built.")
@click.option("--boot/--no-boot", default=True, help="Start machines from the images (minutes without KVM).")
@pass_context
def command(context: Context, directory: Path, name: str, boot: bool) -> Result:
    """Have one appliance live its whole life: a publisher, a site and a cloud of one machine, in one directory.

    It is built, tested, signed, published, subscribed to, verified, cached, converted, registered, replaced by a newer
    version, attacked, expired and removed. Builds are kept: the second run takes seconds where the first took minutes.
    """
    from coppice.cli.build import definition_finder
    from coppice.workflows.demonstration import Demonstration

    find = definition_finder(context)
    demonstration = Demonstration(directory, find(name), monitor=context.monitor, boot=boot, find=find)
    started = time.monotonic()
    steps: list[Step] = []
    for step in demonstration.run():
        steps.append(step)
        if not context.json:
            _tell(context.output, len(steps), step)
    seconds = time.monotonic() - started
    data = {"directory": directory.resolve(), "seconds": round(seconds, 1), "steps": steps}
    return Result(command="demo", data=data, show=lambda output: _render(output, steps, seconds, directory))


def _tell(output: Output, number: int, step: Step) -> None:
    leaf = _LEAF if output.is_terminal and (sys.stdout.encoding or "").lower().startswith("utf") else _PLAIN_LEAF
    output.heading(f"{leaf} {number:2}. {step.title}")
    for line in step.said:
        output.line(f"      {line}")
    output.line(f"      {_duration(step.seconds)}")
    output.line()
    output.stdout.flush()


def _render(output: Output, steps: list[Step], seconds: float, directory: Path) -> None:
    output.table(
        ["step", "what happened", "when (its clock)", "took", "bytes"],
        [
            [
                number,
                step.title,
                f"{step.at:%Y-%m-%d %H:%M:%S}",
                _duration(step.seconds),
                format_size(step.bytes_moved) if step.bytes_moved else None,
            ]
            for number, step in enumerate(steps, start=1)
        ],
        title=f"One appliance's life, in {_duration(seconds)}",
    )
    output.line()
    output.heading("Look at what is there:")
    program = "coppice" if shutil.which("coppice") else os.path.relpath(sys.argv[0])
    site = directory / "site.toml"
    for line in (
        f"{program} --config {site} status",
        f"{program} --config {site} cloud images",
        f"{program} --config {site} subscription show demo",
        f"{program} --config {directory / 'publisher.toml'} appliance list",
        f"openssl cms -verify -in {directory}/web/demo.list -CAfile {directory}/trust/ca.pem -purpose any",
        f"ls {directory}/cloud",
    ):
        output.line(f"  {line}")


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else format_duration(seconds)  # noqa: PLR2004 - below, tenths tell something
