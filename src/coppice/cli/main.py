# SPDX-License-Identifier: Apache-2.0
"""``coppice``: the root command, and the only place where exceptions become exit codes.

Sub-commands are imported when they are called, so that ``coppice --help`` is quick. To add one: a module in
``coppice/cli`` with a click command named ``command``, and a line in `COMMANDS`.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coppice import __version__
from coppice.cli.context import Context
from coppice.cli.envelope import Result, Status, envelope
from coppice.cli.output import Output
from coppice.cli.words import Group
from coppice.errors import (
    CoppiceError,
    InterruptedRunError,
    MachineError,
    NoSpaceError,
    StorageError,
    UsageError,
)
from coppice.log import LogFormat, configure, redact

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import FrameType

COMMANDS: dict[str, tuple[str, str]] = {
    "definition": ("coppice.cli.definition", "What appliances are built from."),
    "build": ("coppice.cli.build", "Make an appliance's images and boot them."),
    "rebuild": ("coppice.cli.rebuild", "Build anew what is stale, and publish it."),
    "appliance": ("coppice.cli.appliance", "The catalogue's appliances and their versions."),
    "set": ("coppice.cli.appliance_set", "Appliances that are published and expired together."),
    "endorser": ("coppice.cli.endorser", "Who can sign image lists here."),
    "imagelist": ("coppice.cli.imagelist", "The image lists that are published from here."),
    "subscription": ("coppice.cli.subscription", "The image lists that this site follows."),
    "image": ("coppice.cli.image", "The images that subscribed lists name, and what image files are."),
    "convert": ("coppice.cli.convert", "Make an image file of another format."),
    "cache": ("coppice.cli.cache", "The verified files that this site holds."),
    "bundle": ("coppice.cli.bundle", "Lists and images in one file, for sites without a network."),
    "cloud": ("coppice.cli.cloud", "The clouds that images are registered in."),
    "plan": ("coppice.cli.plan", "Show what sync would do."),
    "apply": ("coppice.cli.apply", "Carry out a plan that was written to a file."),
    "sync": ("coppice.cli.sync", "Fetch lists and bring every cloud up to date."),
    "retire": ("coppice.cli.retire", "Expire and remove what has had its time."),
    "run": ("coppice.cli.service", "Do all of it again and again, without a hand."),
    "event": ("coppice.cli.event", "What happened, and who is told of it."),
    "status": ("coppice.cli.status", "What is set up here, and how fresh it is."),
    "doctor": ("coppice.cli.doctor", "What this machine has, lacks, and how to get it."),
    "config": ("coppice.cli.config", "The settings, and where each comes from."),
    "demo": ("coppice.cli.demo", "One appliance lives its whole life, here, now."),
}
"""Name → (module that has it as ``command``, what ``coppice --help`` says)."""

EXIT_USAGE = 2
EXIT_TERMINATED = 143
EXIT_BROKEN_PIPE = 141


class Terminated(KeyboardInterrupt):
    """A termination signal came; what cleans up after Ctrl-C cleans up after it."""


class LazyGroup(Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order of an appliance's life."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        found = importlib.import_module(COMMANDS[cmd_name][0]).command
        if not isinstance(found, click.Command):
            message = f"{COMMANDS[cmd_name][0]}.command is no click command"
            raise TypeError(message)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; an unknown one is answered with the nearest."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            ctx.fail(f"no command {args[0]!r}." + (f" Did you mean {near[0]!r}?" if near else ""))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    "coppice",
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="\b\nExamples:\n  coppice doctor\n  coppice status\n  coppice sync --dry-run\n  coppice --json status",
)
@click.option(
    "--config", type=click.Path(path_type=Path), metavar="FILE", help="A settings file that overrides the others."
)
@click.option("--quiet", "-q", is_flag=True, help="Print no notes and no progress.")
@click.option("--verbose", "-v", is_flag=True, help="Print what is done, and tracebacks.")
@click.option(
    "--log-format",
    type=click.Choice([str(each) for each in LogFormat]),
    default="human",
    show_default=True,
    help="How log lines are written.",
)
@click.option("--no-color", is_flag=True, help="Print no colour (NO_COLOR does the same).")
@click.version_option(__version__, prog_name="coppice")
@click.pass_context
def root(
    ctx: click.Context, *, config: Path | None, quiet: bool, verbose: bool, log_format: str, no_color: bool
) -> None:
    """Keep a cloud's virtual appliances fresh, from definition to retirement."""
    known = ctx.ensure_object(Context)
    known.config, known.quiet, known.verbose = config, quiet, verbose
    known.color = not no_color and not os.environ.get("NO_COLOR")
    configure("DEBUG" if verbose else "ERROR" if quiet else "WARNING", log_format)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if "_COPPICE_COMPLETE" in os.environ:
        from click.shell_completion import shell_complete

        return shell_complete(root, {}, "coppice", "_COPPICE_COMPLETE", os.environ["_COPPICE_COMPLETE"])
    # What cannot be parsed must be answered in the form that was asked for, so the form is read before parsing.
    known = Context(json="--json" in arguments[: arguments.index("--") if "--" in arguments else None])
    before = _on_termination(_terminate)
    try:
        code = _run(arguments, known)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader went away (`coppice … | head`); nothing more can be said, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    else:
        return code
    finally:
        if before is not None:
            _on_termination(before)
        known.close()


def _run(arguments: list[str], known: Context) -> int:
    try:
        return _show(_invoke(arguments, known), known)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except BrokenPipeError:
        raise
    except click.exceptions.NoArgsIsHelpError as problem:
        return _no_arguments(problem, known)
    except KeyboardInterrupt as problem:
        return _fail(_interrupted(problem), known, exit_code=EXIT_TERMINATED if _is_terminated(problem) else None)
    except UnicodeEncodeError as problem:
        # A name of a file may be any bytes; what is kept and shown is text, and an argument may be neither.
        odd = [each for each in arguments if not _is_text(each)]
        shown = UsageError(f"the argument {odd[0][:80]!r} is not text in UTF-8") if odd else _defect(problem, known)
        return _fail(shown, known)
    except Exception as problem:  # noqa: BLE001 - the one place where what nobody foresaw becomes an exit code
        return _fail(_as_error(problem, known), known)


def _is_text(argument: str) -> bool:
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def _invoke(arguments: list[str], known: Context) -> Result:
    with root.make_context("coppice", arguments, obj=known) as ctx:
        result = root.invoke(ctx)
    if not isinstance(result, Result):
        message = f"the command gave back {type(result).__name__}, no Result"
        raise TypeError(message)
    return result


def _as_error(problem: Exception, known: Context) -> CoppiceError:
    if isinstance(problem, CoppiceError):
        return problem
    if isinstance(problem, click.UsageError):
        return _usage(problem, known)
    if isinstance(problem, click.ClickException):
        return UsageError(problem.format_message())
    if isinstance(problem, click.Abort):
        return _interrupted(problem)
    return _exhausted(problem) or _defect(problem, known)


def _exhausted(problem: Exception) -> CoppiceError | None:
    """Return what the machine lacks, where a library met that (a module that cannot be opened); else None."""
    found = problem.errno if isinstance(problem, OSError) else None
    if found in {errno.EMFILE, errno.ENFILE, errno.ENOMEM}:
        return MachineError(
            f"this machine lacks what the run needs: {os.strerror(found or 0)}",
            details=str(problem),
            resolution="Raise the limit (`ulimit -n` for open files), or end what uses it up; then run again.",
        )
    if found in {errno.ENOSPC, errno.EDQUOT}:
        return NoSpaceError(
            "no space left",
            details=str(problem),
            resolution="Free space on that file system, then run again.",
        )
    if found in {errno.EIO, errno.EROFS}:
        return StorageError(
            f"the disk failed: {os.strerror(found or 0)}",
            details=str(problem),
            resolution="Look at the system's log; run again when the disk is well.",
        )
    return None


def _is_terminated(problem: BaseException) -> bool:
    return isinstance(problem, Terminated)


def _interrupted(problem: BaseException) -> InterruptedRunError:
    return InterruptedRunError(
        "ended by a termination signal" if _is_terminated(problem) else "interrupted",
        resolution="Nothing is half-made; run the same command again to go on.",
    )


def _show(result: Result, known: Context) -> int:
    if known.json:
        sys.stdout.write(envelope(result) + "\n")
        return result.exit_status()
    output = known.output
    if result.show is not None:
        result.show(output)
    sys.stdout.flush()
    for message in result.messages:
        output.note(message)
    for error in result.errors:
        output.error(error)
    return result.exit_status()


def _fail(error: CoppiceError, known: Context, *, exit_code: int | None = None) -> int:
    code = error.exit_code if exit_code is None else exit_code
    if known.verbose and error.__traceback__ is not None:
        sys.stderr.write(redact("".join(traceback.format_exception(error))))
    if known.json:
        result = Result(command=known.command, status=Status.ERROR, errors=(error,), exit_code=code)
        sys.stdout.write(envelope(result) + "\n")
    else:
        Output(quiet=known.quiet, color=known.color).error(error)
    return code


def _usage(problem: click.UsageError, known: Context) -> UsageError:
    ctx = problem.ctx
    if ctx is not None:
        known.command = ctx.command_path.removeprefix("coppice").strip()
    path = ctx.command_path if ctx is not None else "coppice"
    # Where click lists what may be chosen, it breaks the line before each.
    message = " ".join(problem.format_message().split())
    return UsageError(message, resolution=f"`{path} --help` shows how it is used.")


def _no_arguments(problem: click.exceptions.NoArgsIsHelpError, known: Context) -> int:
    if known.json:
        return _fail(UsageError("a command is missing", resolution="`coppice --help` lists them."), known)
    sys.stderr.write(f"{problem.format_message()}\n")
    return EXIT_USAGE


def _defect(problem: Exception, known: Context) -> CoppiceError:
    text = redact("".join(traceback.format_exception(problem)))
    where = None if known.verbose else _keep_traceback(text, known)
    if known.verbose:
        sys.stderr.write(text)
        hint = "The traceback stands above."
    elif where is not None:
        hint = f"The traceback is in {where}."
    else:
        hint = "Run again with --verbose before the command to see the traceback."
    return CoppiceError(
        f"a defect of Coppice: {type(problem).__name__}: {str(problem)[:500]}",
        resolution=f"{hint} Please report it with what you did.",
        context={"traceback": None if where is None else str(where)},
    )


def _keep_traceback(text: str, known: Context) -> Path | None:
    from coppice import atomic

    try:
        state = known.settings.state_directory
        if not state.is_dir():
            return None
        now = known.clock.now()
        path = state / "log" / f"defect-{now:%Y%m%dT%H%M%SZ}-{os.getpid()}.txt"
        atomic.write_text(path, text, mode=0o600)
    except (CoppiceError, OSError):
        return None
    return path


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


def _on_termination(handler: object) -> object | None:
    try:
        return signal.signal(signal.SIGTERM, handler)  # type: ignore[arg-type]
    except ValueError:
        return None  # not the main thread: signals are its affair


if __name__ == "__main__":
    sys.exit(main())
