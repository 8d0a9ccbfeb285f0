# SPDX-License-Identifier: Apache-2.0
"""``coppice cloud``: the clouds that images are registered in."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import click

from coppice.cli.cloud_adopt import adopt, tidy
from coppice.cli.envelope import Result, Status
from coppice.cli.output import format_duration, moment
from coppice.cli.words import examples, noun, pass_context

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.cloud.driver import Cloud
    from coppice.cloud.model import RegisteredImage
    from coppice.errors import CoppiceError
    from coppice.settings.clouds import CloudSettings

_DAY_SECONDS = 86400

command = noun("cloud", "The clouds that images are registered in.")
for _verb in (adopt, tidy):
    command.add_command(_verb)


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
        messages=()
        if clouds
        else ("No cloud is set up: write [clouds.NAME] into a file that `coppice config path` shows.",),
        show=render,
    )


@command.command("images", epilog=examples("coppice cloud images", "coppice cloud images main --json"))
@click.argument("names", nargs=-1, metavar="[NAME]...")
@pass_context
def images(context: Context, names: tuple[str, ...]) -> Result:
    """List the images of this site that are registered, each with its state and what is wrong with it."""
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
                _trouble(each),
            ]
            for each in found
        ]
        output.table(["cloud", "name", "version", "state", "since", "trouble"], rows)

    status = Status.SUCCESS if not errors else Status.ERROR if len(errors) == len(asked) else Status.PARTIAL
    return Result(command="cloud images", data={"images": found}, status=status, errors=tuple(errors), show=render)


def _trouble(image: RegisteredImage) -> str | None:
    if not image.ready:
        return f"not whole: {image.problem or 'its registration did not end'}"
    return image.drift or image.problem or image.marker.reason


@command.command("show", epilog=examples("coppice cloud show main", "coppice cloud show main --json"))
@click.argument("name")
@pass_context
def show(context: Context, name: str) -> Result:
    """Show how a cloud is set up, and what is registered there."""
    from coppice.cli.clouds import open_clouds
    from coppice.errors import CoppiceError

    cloud, settings = open_clouds(context, (name,))[name], context.settings.clouds[name]
    found: tuple[RegisteredImage, ...] | None = None
    errors: tuple[CoppiceError, ...] = ()
    try:
        found = cloud.describe()
    except CoppiceError as problem:
        errors = (problem,)
    plan = context.settings.plan
    grace = plan.grace_days if settings.grace_days is None else settings.grace_days
    keep = plan.keep_versions if settings.keep_versions is None else settings.keep_versions
    data = {**_as_data(cloud, settings, found), "grace_days": grace, "keep_versions": keep}

    def render(output: Output) -> None:
        output.pairs(
            {
                "cloud": name,
                "driver": settings.driver,
                "site": settings.site,
                "formats": ", ".join(str(each) for each in cloud.formats),
                "answers": found is not None,
                "images": "not known" if found is None else _counted(found),
                "not whole": "not known" if found is None else data["not_whole"],
                "not as they should be": "not known" if found is None else data["drifted"],
                "name of images": settings.image_name,
                "only VOs": ", ".join(settings.only_vos),
                "include": settings.include,
                "exclude": settings.exclude,
                "grace period": format_duration(grace * _DAY_SECONDS) if grace else "none",
                "versions kept": keep,
                "VOs with settings": ", ".join(sorted(settings.vos)),
                "images with settings": ", ".join(sorted(settings.images)),
            }
        )

    status = Status.ERROR if errors else Status.SUCCESS
    return Result(command="cloud show", data=data, status=status, errors=errors, show=render)


def _as_data(cloud: Cloud, settings: CloudSettings, found: tuple[RegisteredImage, ...] | None) -> dict[str, object]:
    from coppice.cloud.apply.adoption import adopting, tidying

    return {
        "name": settings.name,
        "driver": settings.driver,
        "site": settings.site,
        "formats": [str(each) for each in cloud.formats],
        "answers": found is not None,
        "images": None if found is None else len(found),
        "states": None if found is None else _states(found),
        "not_whole": None if found is None else sum(1 for each in found if not each.ready),
        "drifted": None if found is None else sum(1 for each in found if each.drift is not None),
        "adopts": adopting(cloud) is not None,
        "tidies": tidying(cloud) is not None,
        "mapping": {
            "include": settings.include,
            "exclude": settings.exclude,
            "only_vos": list(settings.only_vos),
            "image_name": settings.image_name,
            "visibility": settings.visibility,
            "properties": settings.properties,
            "vos": settings.vos,
            "images": settings.images,
        },
    }


def _states(found: tuple[RegisteredImage, ...]) -> dict[str, int]:
    states = Counter(str(each.marker.state) for each in found)
    return dict(sorted(states.items()))


def _counted(found: tuple[RegisteredImage, ...]) -> str:
    return ", ".join(f"{count} {state}" for state, count in _states(found).items()) or "none"


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
