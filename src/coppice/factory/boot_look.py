# SPDX-License-Identifier: Apache-2.0
"""Looking at a started machine: inside, from outside, at its pages, its desktop and its web console."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.errors import ToolFailedError, ToolTimeoutError
from coppice.factory.boot_judge import judge, look_around, read_facts
from coppice.factory.boot_outside import LISTEN, look_from_outside, route_script
from coppice.factory.bootstrap.overlay_firewall import VNC_PORT, WEB_CONSOLE_PORT
from coppice.factory.guest_tests import run_guest_tests
from coppice.factory.probe_page import enter_web_console, fetch_page
from coppice.factory.probe_vnc import see_desktop

if TYPE_CHECKING:
    from collections.abc import Callable

    from coppice.factory.boot_guest import Guest
    from coppice.factory.boot_model import BootLevel, Promise
    from coppice.factory.boot_sources import Source
    from coppice.model.operating_system import Firmware

_TOOL_SECONDS = 120.0
_SERVICE_SECONDS = 180.0
_PROMPT_SECONDS = 60.0
_DESKTOP_PASSWORD = re.compile(rf"by VNC, port {VNC_PORT}, password: (\S{{1,64}})")
_WEB_CONSOLE_PASSWORD = re.compile(rf"Web console, port {WEB_CONSOLE_PORT}, account \S{{1,64}}, password: (\S{{1,64}})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a machine at its first start is held to.

    Attributes:
        promise: The appliance's.
        firmware: What it must have started by.
        source: Where cloud-init must have found what was handed over.
        instance: Its name.
        disk_bytes: That its root must have grown into.
        level: How far to look.
    """

    promise: Promise
    firmware: Firmware
    source: Source
    instance: str
    disk_bytes: int
    level: BootLevel


@dataclass(slots=True)
class Look:
    """What was seen.

    Attributes:
        left_seconds: How long there is for all that is still to be done.
        note: Told what is looked at.
        facts: By name.
        wrong: What is not as it should be.
    """

    left_seconds: Callable[[], float]
    note: Callable[[str], None]
    facts: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def inside(self, guest: Guest, promise: Promise) -> dict[str, str]:
        """Return the facts that the guest itself tells, once cloud-init has finished.

        Raises:
            ToolFailedError: It told none.
            ToolTimeoutError: It took too long.
        """
        self.note("waiting for cloud-init")
        facts = read_facts(guest.channel.run_script(look_around(promise), self._within(None)).text())
        if guest.login is not None:
            facts["ssh-methods"] = guest.login.offered_methods(self._within(_TOOL_SECONDS))
        return facts

    def first_start(self, guest: Guest, wanted: Wanted) -> None:
        """Look at all that a first start must show, but for the appliance's own tests.

        Raises:
            ToolFailedError: The guest could not be asked.
            ToolTimeoutError: It took too long.
        """
        promise = wanted.promise
        self.facts |= self.inside(guest, promise)
        self.judge(self.facts, wanted)
        self._from_outside(guest, promise, wanted.level)
        for page in promise.pages:
            self.note(f"asking for its page {page.name}")
            seconds = self._within(_SERVICE_SECONDS)
            self._tell(f"page-{page.name}", *fetch_page(page, guest.forward_to(page.port), seconds=seconds))
        if promise.access.vnc:
            self._desktop(guest)
        if promise.access.web_console:
            self._web_console(guest, promise)
        self._serial_console(guest, promise)

    def judge(self, facts: dict[str, str], wanted: Wanted) -> None:
        """Note what is wrong with the facts that a machine told at its first start."""
        self.wrong += judge(
            facts,
            wanted.promise,
            firmware=wanted.firmware,
            source=wanted.source,
            instance=wanted.instance,
            disk_bytes=wanted.disk_bytes,
        )

    def own_tests(self, guest: Guest, promise: Promise) -> str | None:
        """Run the appliance's own tests; return what those that failed wrote, None: none did.

        Raises:
            ToolFailedError: It is not there any more.
            ToolTimeoutError: It does not answer any more.
        """
        runs = run_guest_tests(guest.channel, promise.tests, left_seconds=self.left_seconds, note=self.note)
        failed = [each for each in runs if each.failure is not None]
        if not failed:
            # The ports of a machine that died of being asked are closed, too.
            guest.channel.run_script("true", self._within(_TOOL_SECONDS))
        self.wrong += [f"its test {each.name} {each.failure}" for each in failed]
        self.facts |= {f"test-{each.name}": f"passed in {each.seconds:.0f} s" for each in runs if each.failure is None}
        said = [f"{each.name} {each.failure}; it wrote:\n{each.output.rstrip()}" for each in failed]
        return "\n".join(said) or None

    def _from_outside(self, guest: Guest, promise: Promise, level: BootLevel) -> None:
        self.note("asking its ports from outside")
        if promise.has_firewall:
            try:
                guest.channel.run_script(LISTEN, self._within(_TOOL_SECONDS))
            except (ToolFailedError, ToolTimeoutError) as problem:
                self.wrong.append(f"nobody could be made to listen in it, to try its firewall: {problem.message}")
        try:
            guest.channel.run_script(route_script(guest.network), self._within(_TOOL_SECONDS))
            is_routed = True
        except (ToolFailedError, ToolTimeoutError):
            # A small system may lack the program for it; then only its own network asks.
            is_routed = False
        self.facts["asked-from-afar"] = "yes" if is_routed else "no"
        facts, wrong = look_from_outside(guest.wire, promise, guest.network, level=level, is_routed=is_routed)
        self.facts |= facts
        self.wrong += wrong

    def _desktop(self, guest: Guest) -> None:
        self.note("looking at its desktop")
        picture, wrong = see_desktop(
            guest.forward_to(VNC_PORT),
            lambda: guest.told_on_console(_DESKTOP_PASSWORD),
            seconds=self._within(_SERVICE_SECONDS),
        )
        seen = (
            "none" if picture is None else f"{picture.width}x{picture.height}, {picture.colours()} colours, by password"
        )
        self._tell("desktop", seen, wrong)

    def _web_console(self, guest: Guest, promise: Promise) -> None:
        self.note("logging in to its web console")
        password = guest.told_on_console(_WEB_CONSOLE_PASSWORD)
        if password is None:
            self._tell("web-console", "unknown", "its console does not tell the password of its web console")
            return
        port, seconds = guest.forward_to(WEB_CONSOLE_PORT), self._within(_SERVICE_SECONDS)
        self._tell("web-console", *enter_web_console(port, user=promise.user, password=password, seconds=seconds))

    def _serial_console(self, guest: Guest, promise: Promise) -> None:
        is_wanted = promise.access.serial_console
        has_prompt = guest.has_prompt(self._within(_PROMPT_SECONDS) if is_wanted else 0)
        self.facts["serial-console"] = "asks who logs in" if has_prompt else "asks nobody"
        if has_prompt != is_wanted:
            self.wrong.append(
                "its serial console does not ask who logs in"
                if is_wanted
                else "its serial console asks who logs in, and access.serial-console is false"
            )

    def _tell(self, name: str, seen: str, wrong: str | None) -> None:
        self.facts[name] = seen
        if wrong is not None:
            self.wrong.append(wrong)

    def _within(self, seconds: float | None) -> float:
        left = max(1.0, self.left_seconds())
        return left if seconds is None else min(seconds, left)
