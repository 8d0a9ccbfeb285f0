# SPDX-License-Identifier: Apache-2.0
"""The building blocks of commands: click's own, with ``--json`` on each, before or after the sub-command."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import click

from coppice.cli.context import Context

if TYPE_CHECKING:
    from collections.abc import Callable

pass_context = click.make_pass_decorator(Context)
"""Hands the `Context` to a command as its first argument."""


_MAX_SENTENCE = 300
_HELP_WIDTH = 76


class Command(click.Command):
    """A command that takes ``--json``; its callback returns a `coppice.cli.envelope.Result`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(_json_option())

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; errors of the run are told under its name."""
        known = ctx.find_object(Context)
        if known is not None:
            known.command = ctx.command_path.removeprefix("coppice").strip()
        return super().invoke(ctx)


class Group(click.Group):
    """A noun: a group of commands; it takes ``--json`` as well."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.append(_json_option())

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands, each with all of its first sentence: cut short, it says too little."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(
                [(name, each.get_short_help_str(_MAX_SENTENCE)) for name, each in found if each and not each.hidden]
            )

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the epilog; without one, say where the examples are."""
        if self.epilog:
            super().format_epilog(ctx, formatter)
            return
        formatter.write_paragraph()
        formatter.write_text(f"`{ctx.command_path} COMMAND --help` shows a command's options, with examples.")


def noun(name: str, help_text: str) -> Group:
    """Return an empty group for a noun; add verbs with ``@group.command("verb", epilog=examples(...))``."""
    return Group(name=name, help=help_text, context_settings={"help_option_names": ["-h", "--help"]})


def verb(name: str, **settings: Any) -> Callable[[Callable[..., Any]], Command]:
    """Return the decorator that makes a command without a noun (``coppice status``)."""
    settings.setdefault("context_settings", {"help_option_names": ["-h", "--help"]})
    return click.command(name, cls=Command, **settings)


def examples(*lines: str, exits: str = "") -> str:
    """Return the epilog of a command: examples, and exit codes where they need saying."""
    text = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
    if not exits:
        return text
    # Click indents it by two, and breaks no line after its mark.
    folded = textwrap.fill(exits, _HELP_WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
    return f"{text}\n\n\b\nExit codes:\n{folded}"


def _json_option() -> click.Option:
    return click.Option(
        ["--json"], is_flag=True, expose_value=False, callback=_set_json, is_eager=True, help="Print one JSON object."
    )


def _set_json(context: click.Context, _parameter: click.Parameter, value: bool) -> None:
    known = context.find_object(Context)
    if value and known is not None:
        known.json = True
