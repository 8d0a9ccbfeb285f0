# SPDX-License-Identifier: Apache-2.0
"""``coppice cloud``: the clouds that images are registered in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result, Status
from coppice.cli.output import moment
from coppice.cli.words import examples, noun, pass_context

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.cloud.model import RegisteredImage
    from coppice.errors import CoppiceError

command = noun("cloud", "The clouds that images are registered in.")


@command.command("list", epilog=examples("coppice cloud list"))
@pass_context
def list_clouds(context: Context) -> Result:
    """List the clouds of the settings; none is asked anything."""
    clouds = [
        {"name": name, "driver": each.driver, "site": each.site, "formats": list(each.formats)}
        for name, each in context.settings.clouds.items()
    ]

    def render(output: Output) -> None:
        rows = [[each["name"], each["driver"], each["site"], ", ".join(each["formats"])] for each in clouds]
        output.table(["cloud", "driver", "site", "formats"], rows)

    return Result(
        command="cloud list",
        data={"clouds": clouds},
        messages=() if clouds else ("No cloud is set up.",),
        show=render,
    )


@command.command("images", epilog=examples("coppice cloud images", "coppice cloud images main --json"))
@click.argument("names", nargs=-1, metavar="[NAME]...")
@pass_context
def images(context: Context, names: tuple[str, ...]) -> Result:
    """List the images of this site that are registered."""
    from coppice.cli.clouds import open_clouds
    from coppice.errors import CoppiceError

    found: list[RegisteredImage] = []
    errors: list[CoppiceError] = []
    asked = open_clouds(context, names)
    for cloud in asked.values():
        try:
            found += cloud.describe()
        except CoppiceError as problem:
            errors.append(problem)
    now = context.clock.now()

    def render(output: Output) -> None:
        rows = [
            [
                each.cloud,
                each.name,
                each.marker.version,
                each.marker.state,
                moment(each.marker.state_since, now),
                each.ready,
            ]
            for each in found
        ]
        output.table(["cloud", "name", "version", "state", "since", "ready"], rows)

    status = Status.SUCCESS if not errors else Status.ERROR if len(errors) == len(asked) else Status.PARTIAL
    return Result(command="cloud images", data={"images": found}, status=status, errors=tuple(errors), show=render)


@command.command("check", epilog=examples("coppice cloud check main", exits="0 every cloud answers, 8 one does not"))
@click.argument("names", nargs=-1, metavar="[NAME]...")
@pass_context
def check(context: Context, names: tuple[str, ...]) -> Result:
    """Ask each cloud whether it can be used; nothing is changed."""
    from coppice.cli.clouds import open_clouds
    from coppice.errors import CoppiceError

    answers: list[dict[str, object]] = []
    errors: list[CoppiceError] = []
    for name, cloud in open_clouds(context, names).items():
        try:
            registered = cloud.describe()
        except CoppiceError as problem:
            errors.append(problem)
            answers.append({"name": name, "answers": False, "images": None})
        else:
            answers.append({"name": name, "answers": True, "images": len(registered)})

    def render(output: Output) -> None:
        output.table(["cloud", "answers", "images"], [list(each.values()) for each in answers])

    return Result(
        command="cloud check",
        data={"clouds": answers},
        status=Status.ERROR if errors else Status.SUCCESS,
        errors=tuple(errors),
        show=render,
    )
