# SPDX-License-Identifier: Apache-2.0
"""``coppice imagelist create`` and ``template``: a new list, from options or from a file that was filled in."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coppice.cli.envelope import Result
from coppice.cli.files import unreadable
from coppice.cli.key_options import key_options, read_changes
from coppice.cli.selection import describe_selection, render_selection
from coppice.cli.words import Command, examples, pass_context
from coppice.errors import InputError, UsageError

if TYPE_CHECKING:
    from coppice.cli.context import Context
    from coppice.cli.output import Output

_HELP = {"help_option_names": ["-h", "--help"]}
_MAX_FILE_BYTES = 1024 * 1024
_OPTIONS = ("title", "description", "source", "vo", "endorser", "publisher", "lifetime", "identifier")
_TEMPLATE = """\
# An image list, to be made by `coppice imagelist create NAME --from FILE`. Fill in what has no value.

title = ""          # for people, one line
endorser = ""       # who signs it (`coppice endorser list`)
publisher = ""      # where it goes: a section [publishers.NAME] of the settings
lifetime = 28       # days from signing to expiry

# description = ""  # for people, a paragraph
# source = ""       # where the list comes from (default: its address)
# vo = ""           # virtual organisation
# identifier = ""   # a UUID, for a list that had its life elsewhere

# [keys]            # further keys, written into the list as they are
# "ad:swid" = "1234"
"""


@click.command(
    "create",
    cls=Command,
    context_settings=_HELP,
    epilog=examples(
        "coppice imagelist create general --endorser jane --publisher web --title 'General images'",
        "coppice imagelist create general --from general.toml --set vo=vo.example.org",
        exits="0 created, 3 something does not hold of it, 12 it exists, or there is no such endorser",
    ),
)
@click.argument("name")
@click.option(
    "--from", "source_file", type=click.Path(path_type=Path), help="A file as `coppice imagelist template` prints it."
)
@click.option("--endorser", help="Who vouches for it (`coppice endorser list`).")
@click.option("--publisher", help="Where it goes: a section [publishers.NAME] of the settings.")
@click.option("--title", help="For people, one line.")
@click.option("--description", help="For people, a paragraph.")
@click.option("--source", help="Where the list comes from, a URL (default: the publisher's).")
@click.option("--vo", help="Virtual organisation.")
@click.option("--lifetime", type=int, help="Days from signing to expiry (default: 28).")
@click.option("--identifier", metavar="UUID", help="Of a list that had its life elsewhere (default: a new one).")
@key_options
@pass_context
def create(
    context: Context,
    /,
    *,
    name: str,
    source_file: Path | None,
    texts: tuple[str, ...],
    json_texts: tuple[str, ...],
    files: tuple[str, ...],
    removed: tuple[str, ...],
    **options: Any,
) -> Result:
    """Make the image list NAME, which carries nothing yet."""
    from coppice.catalogue.selections import Selections
    from coppice.workflows.prepare import open_publisher

    if removed:
        raise UsageError("a list that is new has nothing to --unset")
    written, keys = _read(source_file) if source_file is not None else ({}, {})
    wanted: dict[str, Any] = {key: options[key] if options[key] is not None else written.get(key) for key in _OPTIONS}
    keys |= read_changes(texts, json_texts, files, ()).values
    for key in ("title", "description", "source", "vo", "endorser", "publisher", "lifetime"):
        wanted[key] = keys.pop(key, wanted[key])
    missing = [f"--{key}" for key in ("title", "endorser", "publisher") if not wanted[key]]
    if missing:
        raise UsageError(f"a list needs {', '.join(missing)}", resolution="Give the option, or a file with --from.")
    place = open_publisher(context.settings, str(wanted["publisher"]))
    created = Selections(context.database, context.clock).create(
        name,
        title=wanted["title"],
        description=wanted["description"] or wanted["title"],
        source=wanted["source"] or place.list_uri(name),
        endorser=wanted["endorser"],
        publisher=wanted["publisher"],
        vo=wanted["vo"] or None,
        lifetime_days=wanted["lifetime"] if wanted["lifetime"] is not None else 28,
        identifier=wanted["identifier"] or None,
        keys=keys,
    )
    return Result(
        command="imagelist create",
        data=describe_selection(created),
        messages=(f"`coppice imagelist add {name} APPLIANCE` has it carry an appliance",),
        show=lambda output: render_selection(output, created, context.clock.now()),
    )


@click.command(
    "template",
    cls=Command,
    context_settings=_HELP,
    epilog=examples("coppice imagelist template > general.toml", "coppice imagelist template --format json"),
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["toml", "json"]),
    default="toml",
    show_default=True,
    help="What the file is written in.",
)
@pass_context
def template(_context: Context, form: str) -> Result:
    """Print a file to fill in, for `coppice imagelist create NAME --from FILE`."""
    data = dict.fromkeys(_OPTIONS, "") | {"lifetime": 28, "keys": {}}
    text = _TEMPLATE if form == "toml" else json.dumps(data, indent=2) + "\n"

    def render(output: Output) -> None:
        for line in text.splitlines():
            output.line(line)

    return Result(command="imagelist template", data=data, show=render)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a filled-in file says: the options by name, and further keys."""
    try:
        with path.open("rb") as stream:
            data = stream.read(_MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as problem:
        raise unreadable(path, problem) from problem
    if len(data) > _MAX_FILE_BYTES:
        raise InputError(f"{path} is longer than {_MAX_FILE_BYTES} bytes")
    said = _parse(path, data)
    keys = said.pop("keys", {})
    unknown = sorted(set(said) - set(_OPTIONS))
    if unknown:
        raise InputError(
            f"{path} has the unknown key {unknown[0][:80]!r}",
            details=f"known: {', '.join(_OPTIONS)}, keys",
            resolution="Further keys of the list stand under [keys].",
        )
    if not isinstance(keys, dict):
        raise InputError(f"`keys` in {path} is no table")
    lifetime = said.get("lifetime")
    if lifetime is not None and (isinstance(lifetime, bool) or not isinstance(lifetime, int)):
        raise InputError(f"`lifetime` in {path} is no whole number of days")
    wrong = [key for key, value in said.items() if key != "lifetime" and not isinstance(value, str)]
    if wrong:
        raise InputError(f"`{wrong[0]}` in {path} is no text")
    return said, keys


def _parse(path: Path, data: bytes) -> dict[str, Any]:
    if data.lstrip()[:1] == b"{":
        from coppice.formats.strict_json import read_json

        return dict(read_json(data, what=f"file {path}"))
    try:
        return tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as problem:
        raise InputError(f"{path} is neither TOML nor JSON: {problem}", context={"path": str(path)}) from problem
