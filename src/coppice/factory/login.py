# SPDX-License-Identifier: Apache-2.0
"""Logging in to a booted appliance over the host's loopback, by a throw-away key."""

from __future__ import annotations

import shlex
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.errors import ToolFailedError, ToolTimeoutError
from coppice.process import run

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.process import Completed

_BANNER_SECONDS = 5.0
# ssh's own failures end with this status; anything else is the remote command's.
_SSH_FAILED = 255
_CONNECT_SECONDS = 60
# Not below /run or /tmp: programs may be forbidden to start there.
_PROGRAM = """\
program=$(mktemp -p /root) && cat >"$program" && chmod 700 "$program" || exit 126
"$program" </dev/null
status=$?
rm -f "$program"
exit $status
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How to log in.

    Attributes:
        port: TCP port on loopback.
        user: The account.
        key: The private key.
        known_hosts: File for the guest's host key.
    """

    port: int
    user: str
    key: Path
    known_hosts: Path

    def command(self, *remote: str, by_key: bool = True) -> list[str]:
        """Return the ssh command that runs ``remote``; without the key it can only be refused."""
        options = {
            "BatchMode": "yes",
            "ConnectTimeout": str(_CONNECT_SECONDS),
            "GlobalKnownHostsFile": "/dev/null",
            # The same machine is behind another port when it has started again.
            "HostKeyAlias": "boot-test",
            "IdentitiesOnly": "yes",
            "IdentityAgent": "none",
            "LogLevel": "ERROR",
            "PreferredAuthentications": "publickey" if by_key else "none",
            "StrictHostKeyChecking": "accept-new",
            # A list, to ssh: spaces part it, and what is behind a percent sign is put in.
            "UserKnownHostsFile": '"{}"'.format(str(self.known_hosts).replace("%", "%%")),
        }
        words = ["ssh", "-F", "none", "-p", str(self.port)]
        words += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        words += ["-i", str(self.key)] if by_key else []
        return [*words, "--", f"{self.user}@127.0.0.1", *remote]

    def answers(self) -> bool:
        """Tell whether an SSH server greets."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=_BANNER_SECONDS) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def works(self, timeout_seconds: float) -> bool:
        """Tell whether logging in by key works now."""
        try:
            run(self.command("true"), timeout_seconds=timeout_seconds)
        except (ToolFailedError, ToolTimeoutError):
            return False
        return True

    def run_script(self, script: str, timeout_seconds: float) -> Completed:
        """Run a shell script as root there.

        Raises:
            ToolFailedError: It failed, or the connection broke.
            ToolTimeoutError: It took too long.
        """
        command = self.command("sudo", "-n", "sh", "-s")
        return run(command, timeout_seconds=timeout_seconds, input_bytes=script.encode())

    def run_program(self, content: bytes, timeout_seconds: float) -> Completed:
        """Run a program as root there, by the interpreter that its first line names; a shell's, where it names none.

        Raises:
            ToolFailedError: It failed, or the connection broke.
            ToolTimeoutError: It took too long.
        """
        command = self.command("sudo", "-n", "sh", "-c", shlex.quote(_PROGRAM))
        return run(command, timeout_seconds=timeout_seconds, input_bytes=content)

    def offered_methods(self, timeout_seconds: float) -> str:
        """Return the ways of logging in that the server offers, such as ``publickey``; empty: it did not say."""
        try:
            refused = run(self.command("true", by_key=False), timeout_seconds=timeout_seconds, ok=(_SSH_FAILED,))
        except (ToolFailedError, ToolTimeoutError):
            return ""
        _, found, rest = refused.combined.partition("Permission denied (")
        return rest.partition(")")[0] if found else ""
