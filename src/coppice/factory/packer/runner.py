# SPDX-License-Identifier: Apache-2.0
"""Run Packer: shut into namespaces that end with it, within a time limit, its words turned into progress."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.errors import BuildError, ProvisionError, ToolFailedError, ToolTimeoutError
from coppice.factory.packer.guest import FAILED
from coppice.factory.packer.messages import MessageReader
from coppice.process import find_tool, run

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.factory.build_log import BuildLog
    from coppice.factory.packer.messages import Message

PROGRAM = "packer"
_NAMESPACE_SECONDS = 60.0
_VERSION_SECONDS = 60.0
_TAIL_LINES = 30
_CONSOLE_LINES = 20
_CONSOLE_BYTES = 64 * 1024
_MOST_TAIL = 400
_FULL = "no space left on device"


@dataclass(slots=True)
class _Listener:
    """Takes what Packer says: into the log, which tells people, and the reason of a failure."""

    log: BuildLog
    reader: MessageReader = field(default_factory=MessageReader)
    tail: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    reason: str = ""

    def take(self, piece: str) -> None:
        for message in self.reader.take(piece):
            self._hear(message)

    def _hear(self, message: Message) -> None:
        text = message.text
        if not text.strip():
            return
        self.log.write(f"{text.rstrip()}\n")
        for line in text.splitlines():
            plain = "".join(character for character in line if character.isprintable())
            self.tail.append(plain[:_MOST_TAIL])
            _, found, why = plain.partition(FAILED)
            if found:
                self.reason = why.strip()
            if message.is_error and plain.strip():
                self.errors.append(plain.strip())
        del self.tail[: -_TAIL_LINES * 4]


@dataclass(frozen=True, slots=True, kw_only=True)
class PackerRun:
    """One run of Packer.

    Attributes:
        template: What it is run with.
        variables: File of who logs in, and by which key.
        work: Where it works; everything that it leaves is there.
        cache: Where it keeps media that it fetched.
        serial_log: What the guest's serial port said.
        provisioners: Names of the definition's, by which a failure is told.
    """

    template: Path
    variables: Path
    work: Path
    cache: Path
    serial_log: Path
    provisioners: tuple[str, ...]

    def build(self, *, timeout_seconds: float, log: BuildLog) -> None:
        """Have it build.

        Raises:
            BuildError: It failed; the details end with what it said last, and with the guest's console.
            ProvisionError: A provisioner failed.
            ToolMissingError: It is not installed.
            InterruptedRunError: The run was stopped.
        """
        listener = _Listener(log=log)
        words: list[str | Path] = [*own_namespaces(), find_tool(PROGRAM), "build", "-machine-readable", "-color=false"]
        words += [f"-var-file={self.variables}", str(self.template)]
        try:
            run(
                words,
                timeout_seconds=max(1.0, timeout_seconds),
                cwd=self.work,
                env=self.environment(),
                on_output=listener.take,
                linger_seconds=5.0,
            )
        except ToolTimeoutError as problem:
            raise self._failure(f"Packer did not end within {timeout_seconds:.0f} s", listener) from problem
        except ToolFailedError as problem:
            raise self._failed(listener, problem) from problem

    def validate(self) -> None:
        """Have it look at the template.

        Raises:
            BuildError: It does not take it.
            ToolMissingError: It is not installed.
        """
        words = [find_tool(PROGRAM), "validate", f"-var-file={self.variables}", str(self.template)]
        try:
            run(words, timeout_seconds=_NAMESPACE_SECONDS * 2, cwd=self.work, env=self.environment())
        except (ToolFailedError, ToolTimeoutError) as problem:
            raise BuildError("Packer does not take the template", details=problem.details) from problem

    def environment(self) -> dict[str, str]:
        """Return what it finds in its environment: nothing of this user's own settings of Packer."""
        passed_on = {name: os.environ[name] for name in ("OS_CLIENT_CONFIG_FILE",) if name in os.environ}
        return {
            **passed_on,
            "HOME": str(self.work),
            # Where it works. Its parts talk by sockets there, and those of a whole path might not fit into 108 bytes.
            "TMPDIR": ".",
            "PACKER_CACHE_DIR": str(self.cache),
            "PACKER_CONFIG": str(self.work / "packerconfig"),
            "PACKER_CONFIG_DIR": str(self.work),
            "PACKER_NO_COLOR": "1",
            # It would tell its makers what is built here.
            "CHECKPOINT_DISABLE": "1",
        }

    def _failed(self, listener: _Listener, problem: ToolFailedError) -> BuildError:
        if listener.reason:
            named = any(f"the provisioner {name} " in f"{listener.reason} " for name in self.provisioners)
            return self._failure(listener.reason, listener, ProvisionError if named else BuildError)
        why = listener.errors[-1].lstrip("->= ").removeprefix("qemu: ") if listener.errors else problem.message
        return self._failure(f"Packer failed: {why}", listener)

    def _failure(self, message: str, listener: _Listener, kind: type[BuildError] = BuildError) -> BuildError:
        lines = [*listener.errors[-3:], "Its log ends with:", *listener.tail[-_TAIL_LINES:]]
        console = _end_of(self.serial_log)
        if console:
            lines += ["The machine's console ends with:", *console]
        full = any(_FULL in line.lower() for line in (*listener.tail, *listener.errors))
        advice = "Free some GiB there, or set another work directory, then run again." if full else _ADVICE
        return kind(message, details="\n".join(lines), resolution=advice)


_ADVICE = "The lines above say why: a medium that cannot be fetched, an installer that waits, a script that fails …"


def own_namespaces() -> tuple[str, ...]:
    """Return what is put before a command so that all that it starts ends with it, and it with this process.

    Raises:
        BuildError: This user cannot have such namespaces.
        ToolMissingError: ``unshare`` is not installed.
    """
    words: tuple[str, ...] = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
    if os.geteuid() != 0:
        words = (*words, "--user", "--map-root-user")
    problem: ToolFailedError | None = None
    # In a chroot, the root directory is no mount point, and its propagation cannot be set.
    for propagation in ("private", "unchanged"):
        full = (*words, f"--propagation={propagation}")
        try:
            run([*full, "true"], timeout_seconds=_NAMESPACE_SECONDS)
        except ToolFailedError as failure:
            problem = failure
        else:
            return full
    raise BuildError(
        "this user cannot have namespaces of its own, in which Packer and its machines are ended for certain",
        details=None if problem is None else problem.details,
        resolution="See `coppice doctor`, or build as root.",
    )


def version_of_packer() -> str:
    """Return Packer's version.

    Raises:
        BuildError: What is installed is another program of that name.
        ToolMissingError: It is not installed.
    """
    # cracklib has a program of the same name: it waits for words to be read.
    environment = {"CHECKPOINT_DISABLE": "1"}
    try:
        said = run([find_tool(PROGRAM), "version"], timeout_seconds=_VERSION_SECONDS, env=environment).text()
    except (ToolFailedError, ToolTimeoutError) as problem:
        raise BuildError(f"Packer does not say its version: {problem.message}", details=problem.details) from problem
    first = said.splitlines()[0] if said else ""
    name, _, version = first.partition(" v")
    if name != "Packer" or not version[:1].isdigit():
        raise BuildError(
            "the program packer that is found first is not HashiCorp's",
            details=first[:200],
            resolution="Put the folder of the right one first in PATH.",
        )
    return version.strip()


def _end_of(path: Path) -> list[str]:
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - _CONSOLE_BYTES))
            text = stream.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = ["".join(each for each in line if each.isprintable())[:_MOST_TAIL] for line in text.splitlines()]
    return [line for line in lines if line.strip()][-_CONSOLE_LINES:]
