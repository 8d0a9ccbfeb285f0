# SPDX-License-Identifier: Apache-2.0
"""``coppice config``: the settings, and where each comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from coppice.cli.envelope import Result
from coppice.cli.words import examples, noun, pass_context
from coppice.log import redact_value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from coppice.cli.context import Context
    from coppice.cli.output import Output
    from coppice.settings.clouds import CloudSettings
    from coppice.settings.model import Settings

command = noun("config", "The settings, and where each comes from.")


@command.command(
    "show",
    epilog=examples(
        "coppice config show", "coppice config show --origin", "COPPICE_PLAN__GRACE_DAYS='14 d' coppice config show"
    ),
)
@click.option("--origin", is_flag=True, help="Show where each value comes from.")
@pass_context
def show(context: Context, origin: bool) -> Result:
    """Show every setting with its value."""
    from coppice.settings.describe import kinds, written

    known = kinds()
    entries = [
        {
            "name": name,
            "value": redact_value(name.rpartition(".")[2], value),
            "origin": context.settings.origins.get(name, "default"),
            "written": written(_kind(known, name), redact_value(name.rpartition(".")[2], value)),
        }
        for name, value in _values(context.settings)
    ]

    def render(output: Output) -> None:
        columns = ["setting", "value", "origin"] if origin else ["setting", "value"]
        keys = ["name", "written", "origin"] if origin else ["name", "written"]
        output.table(columns, [[entry[key] for key in keys] for entry in entries])

    data = [{key: value for key, value in entry.items() if key != "written"} for entry in entries]
    return Result(command="config show", data={"settings": data}, show=render)


@command.command("path", epilog=examples("coppice config path", "coppice --config site.toml config path"))
@pass_context
def path(context: Context) -> Result:
    """Show which files are read, the weakest first."""
    from coppice.settings.places import settings_files

    files = [{"path": str(each), "exists": each.is_file()} for each in settings_files(context.environ, context.config)]

    def render(output: Output) -> None:
        output.table(["file", "exists"], [[each["path"], each["exists"]] for each in files])

    return Result(command="config path", data={"files": files}, show=render)


def _values(settings: Settings) -> Iterator[tuple[str, object]]:
    for name in ("state_directory", "database_url", "definitions_directory"):
        value = getattr(settings, name)
        yield name, None if value is None else str(value)
    for section in ("factory", "transfer", "conversion", "plan"):
        values = getattr(settings, section)
        for name in values.__dataclass_fields__:
            yield f"{section}.{name}", getattr(values, name)
    for name, cloud in settings.clouds.items():
        yield f"clouds.{name}.driver", cloud.driver
        yield f"clouds.{name}.site", cloud.site
        yield f"clouds.{name}.formats", list(cloud.formats)
        yield from ((f"clouds.{name}.{key}", value) for key, value in _mapping(cloud))
        yield from ((f"clouds.{name}.{key}", value) for key, value in cloud.options.items())
    for name, publisher in settings.publishers.items():
        yield f"publishers.{name}.driver", publisher.driver
        yield from ((f"publishers.{name}.{key}", value) for key, value in publisher.options.items())


def _mapping(cloud: CloudSettings) -> Iterator[tuple[str, object]]:
    """Yield what a cloud takes, shows and keeps: its own settings, then those of VOs and images."""
    own = ("image_name", "include", "exclude", "only_vos", "visibility", "grace_days", "keep_versions")
    yield from ((key, _plain(getattr(cloud, key))) for key in own)
    yield from ((f"properties.{key}", value) for key, value in cloud.properties.items())
    for section in ("vos", "images"):
        for name, said in getattr(cloud, section).items():
            for key in said.__dataclass_fields__:
                value = getattr(said, key)
                if key == "properties":
                    yield from ((f"{section}.{name}.properties.{each}", text) for each, text in value.items())
                elif value not in {None, ()}:
                    yield f"{section}.{name}.{key}", _plain(value)


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def _kind(known: dict[str, str], name: str) -> str:
    section, _, rest = name.partition(".")
    generic = f"{section}.NAME.{rest.rpartition('.')[2]}" if section in {"clouds", "publishers"} else name
    return known.get(generic, "text")
