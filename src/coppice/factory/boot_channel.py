# SPDX-License-Identifier: Apache-2.0
"""How a boot test has things run in its guest: over SSH, or, where nobody can log in, over a port of the machine.

What answers at that port is a small script that the boot test hands over as user data, as any cloud can. It is in the
throw-away copy of the image alone. It does what it is told as root; the port is the machine's, and nobody else's.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import shlex
import time
from typing import TYPE_CHECKING, Protocol

from coppice.errors import ToolFailedError, ToolTimeoutError
from coppice.factory.machine import REPORT_PORT
from coppice.process import Completed

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

ANSWER_LIMIT_BYTES = 1024 * 1024
_GRACE_SECONDS = 15.0
_TIMED_OUT = frozenset({124, 137})
_AGENT = "/root/.coppice-boot-test"
MARK = "/run/coppice-boot-test"
_MARK_SCRIPT = """\
#!/bin/sh
# Handed over by the boot test, as a cloud hands over what its users want to be run.
set -u
echo %(instance)s > %(mark)s
"""
_AGENT_SCRIPT = f"""\
cat > {_AGENT} << 'END-OF-AGENT'
exec 3<> /dev/virtio-ports/{REPORT_PORT}
echo ready >&3
while read -r word token seconds program <&3; do
  [ "$word" = run ] || continue
  folder=$(mktemp -d /root/.coppice-boot-test.XXXXXX)
  printf %s "$program" | base64 -d > "$folder/program"
  chmod 700 "$folder/program"
  timeout -k 5 "$seconds" "$folder/program" < /dev/null > "$folder/said" 2>&1 3>&-
  status=$?
  {{
    echo "begin $token $status"
    head -c {ANSWER_LIMIT_BYTES} "$folder/said" | base64
    echo "end $token"
  }} >&3
  rm -rf "$folder"
done
END-OF-AGENT
cat > /etc/systemd/system/coppice-boot-test.service << 'END-OF-UNIT'
[Unit]
Description=Boot test

[Service]
ExecStart=/bin/sh {_AGENT}
Restart=on-failure

[Install]
WantedBy=multi-user.target
END-OF-UNIT
systemctl daemon-reload
systemctl enable --now --no-block coppice-boot-test.service
"""


class Channel(Protocol):
    """A way to have something run in the guest, as root."""

    def run_script(self, script: str, timeout_seconds: float) -> Completed:
        """Run a shell script.

        Raises:
            ToolFailedError: It failed, or the guest is gone.
            ToolTimeoutError: It took too long.
        """
        ...

    def run_program(self, content: bytes, timeout_seconds: float) -> Completed:
        """Run a program by the interpreter that its first line names; a shell's, where it names none.

        Raises:
            ToolFailedError: It failed, or the guest is gone.
            ToolTimeoutError: It took too long.
        """
        ...


def handed_script(instance: str, *, is_reached_by_port: bool) -> str:
    """Return the user data of a boot test: a script that leaves a mark, and answers at the port where it must.

    Args:
        instance: What the mark says. Not every source tells the guest a name of its own for each machine.
        is_reached_by_port: Whether nobody can log in.
    """
    mark = _MARK_SCRIPT % {"instance": shlex.quote(instance), "mark": MARK}
    return mark + (_AGENT_SCRIPT if is_reached_by_port else "")


class PortChannel:
    """The host's end of the port."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._buffer = b""
        self._is_ready = False

    def answers(self, seconds: float) -> bool:
        """Tell whether the guest's end is there, waiting for it at most ``seconds``; a machine that ended has none."""
        deadline = time.monotonic() + seconds
        while not self._is_ready:
            line = self._line(deadline)
            if line is None:
                return False
            self._is_ready = line == b"ready"
        return True

    def run_script(self, script: str, timeout_seconds: float) -> Completed:
        """Run a shell script as root there.

        Raises:
            ToolFailedError: It failed, or the guest is gone.
            ToolTimeoutError: It took too long.
        """
        return self.run_program(b"#!/bin/sh\n" + script.encode(), timeout_seconds)

    def run_program(self, content: bytes, timeout_seconds: float) -> Completed:
        """Run a program as root there, by the interpreter that its first line names; a shell's, where it names none.

        Raises:
            ToolFailedError: It failed, or the guest is gone.
            ToolTimeoutError: It took too long.
        """
        if not content.startswith(b"#!"):
            content = b"#!/bin/sh\n" + content
        token, started = secrets.token_hex(8), time.monotonic()
        deadline = started + timeout_seconds + _GRACE_SECONDS
        program = base64.b64encode(content).decode("ascii")
        try:
            self._end.settimeout(timeout_seconds)
            self._end.sendall(f"run {token} {max(1, round(timeout_seconds))} {program}\n".encode())
        except OSError as problem:
            raise ToolFailedError(f"the guest cannot be told what to run: {problem}") from problem
        status, said = self._answer(token, deadline)
        completed = Completed(
            argv=("boot-test",),
            returncode=status,
            stdout=said,
            stderr=b"",
            combined=said.decode("utf-8", errors="replace"),
            seconds=time.monotonic() - started,
        )
        if status in _TIMED_OUT:
            raise ToolTimeoutError(f"a program did not end within {timeout_seconds:.0f} s", details=completed.combined)
        if status != 0:
            raise ToolFailedError(
                f"a program ended with {status}", details=completed.combined, context={"returncode": status}
            )
        return completed

    def _answer(self, token: str, deadline: float) -> tuple[int, bytes]:
        status: int | None = None
        lines: list[bytes] = []
        left_bytes = 2 * ANSWER_LIMIT_BYTES
        while (line := self._line(deadline)) is not None:
            match line.split():
                case [b"begin", told, number] if told == token.encode() and number.isdigit():
                    status, lines = int(number), []
                case [b"end", told] if told == token.encode() and status is not None:
                    return status, _decoded(lines)
                case _:
                    left_bytes -= len(line) + 1
                    if left_bytes < 0:
                        raise ToolFailedError("the guest says more than it was asked")
                    lines.append(line)
        raise ToolTimeoutError("the guest did not say what became of a program")

    def _line(self, deadline: float) -> bytes | None:
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or len(self._buffer) > 2 * ANSWER_LIMIT_BYTES:
                return None
            self._end.settimeout(left)
            try:
                got = self._end.recv(65536)
            except OSError:
                return None
            if not got:
                return None
            self._buffer += got
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.strip()


def _decoded(lines: Sequence[bytes]) -> bytes:
    try:
        return base64.b64decode(b"".join(lines), validate=True)
    except binascii.Error:
        return b""
