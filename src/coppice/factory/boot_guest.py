# SPDX-License-Identifier: Apache-2.0
"""A machine under test, with every way to it: SSH or the port, the wire, the forwards, the console, the monitor."""

from __future__ import annotations

import re
import socket
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coppice.factory.boot_channel import PortChannel
from coppice.factory.boot_evidence import Control
from coppice.factory.boot_judge import printable
from coppice.factory.bootstrap.overlay_firewall import SSH_PORT, VNC_PORT, WEB_CONSOLE_PORT
from coppice.factory.login import Login
from coppice.factory.machine import Machine, running
from coppice.factory.ports import free_ports
from coppice.factory.probe_wire import Wire

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from coppice.factory.boot_channel import Channel
    from coppice.factory.boot_model import Promise
    from coppice.factory.boot_sources import Served
    from coppice.factory.machine import Network, RunningMachine

CONSOLE_LOG = "serial.log"
CONSOLE_LIMIT_BYTES = 64 * 1024 * 1024
"""Most that a machine may write to its serial console; the whole boot of a talkative one is a hundredth of it."""
_POLL_SECONDS = 1.0
_LOGIN_SECONDS = 120.0
_PROMPT = re.compile(rb"login: ?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A started machine.

    Attributes:
        running: The machine.
        network: Its network.
        login: By SSH; None: nobody can.
        port: By the machine's own port; None: there is none, since there is SSH.
        wire: A neighbour on its network.
        control: QEMU's monitor.
        console: The file that its serial console is written to.
    """

    running: RunningMachine
    network: Network
    login: Login | None
    port: PortChannel | None
    wire: Wire
    control: Control
    console: Path

    @property
    def channel(self) -> Channel:
        """The way to have something run in it."""
        way: Channel | None = self.login if self.login is not None else self.port
        assert way is not None  # noqa: S101 - `started` gives one of both
        return way

    def forward_to(self, port: int) -> int:
        """Return the host's port that leads to one of the guest's."""
        return next(host for host, guest in self.network.forwards if guest == port)

    def is_reached(self, left_seconds: Callable[[], float]) -> bool:
        """Tell whether something can be run in it now; it may take a while to tell."""
        if self.login is not None:
            return self.login.answers() and self.login.works(max(1.0, min(_LOGIN_SECONDS, left_seconds())))
        return self.port is not None and self.port.answers(_POLL_SECONDS)

    def floods_console(self) -> bool:
        """Tell whether it wrote more to its serial console than it may."""
        return self.console.exists() and self.console.stat().st_size > CONSOLE_LIMIT_BYTES

    def told_on_console(self, pattern: re.Pattern[str]) -> str | None:
        """Return the last that the console told in the pattern's first group; None: it did not."""
        text = self._console_bytes().decode("utf-8", errors="replace")
        found = pattern.findall("\n".join(printable(line) for line in text.splitlines()))
        return str(found[-1]) if found else None

    def has_prompt(self, seconds: float) -> bool:
        """Tell whether the serial console asks who logs in, waiting for it at most ``seconds``."""
        deadline = time.monotonic() + seconds
        while not (found := _PROMPT.search(self._console_bytes()) is not None) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return found

    def _console_bytes(self) -> bytes:
        try:
            with self.console.open("rb") as log:
                return log.read(CONSOLE_LIMIT_BYTES)
        except FileNotFoundError:
            return b""


@contextmanager
def started(machine: Machine, served: Served, promise: Promise, work: Path, *, key: Path) -> Iterator[Guest]:
    """Start ``machine`` with every way to it that ``promise`` asks for; end it when the block is left.

    Args:
        machine: Without what this adds: network, seed, port, monitor, console.
        served: How it finds what is handed over.
        promise: Whose account and ports.
        work: A folder of its own.
        key: That logs in.

    Raises:
        ToolMissingError: QEMU is not installed.
        BootTestError: It could not be started.
    """
    wanted = sorted(_connected_to(promise))
    ssh, *others = free_ports(1 + len(wanted))
    with ExitStack() as stack:
        pairs = [socket.socketpair() for _ in range(3)]
        for pair in pairs:
            for end in pair:
                stack.callback(end.close)
        (wire, wire_end), (report, report_end), (monitor, monitor_end) = pairs
        network = replace(served.network, forwards=tuple(zip(others, wanted, strict=True)), wire=wire_end.fileno())
        has_ssh = promise.access.ssh
        whole = replace(
            machine,
            seed=served.seed,
            identity=served.identity,
            network=network,
            ssh_port=ssh if has_ssh else None,
            report=None if has_ssh else report_end.fileno(),
            monitor=monitor_end.fileno(),
            has_screen=True,
            serial_log=work / CONSOLE_LOG,
        )
        guest = stack.enter_context(running(whole, work))
        for _, end in pairs:
            # QEMU's alone, so that its end is the end of what is read here.
            end.close()
        neighbour = Wire(wire)
        stack.callback(neighbour.close)
        # Beside its disk: the same machine has the same host keys when it starts again, and another one has others.
        known_hosts = machine.disk.with_name("known_hosts")
        yield Guest(
            running=guest,
            network=network,
            login=Login(port=ssh, user=promise.user, key=key, known_hosts=known_hosts) if has_ssh else None,
            port=None if has_ssh else PortChannel(report),
            wire=neighbour,
            control=Control(monitor),
            console=work / CONSOLE_LOG,
        )


def _connected_to(promise: Promise) -> set[int]:
    access = promise.access
    ports = {page.port for page in promise.pages}
    ports |= {port for is_open, port in ((access.vnc, VNC_PORT), (access.web_console, WEB_CONSOLE_PORT)) if is_open}
    return ports - {SSH_PORT}
