# SPDX-License-Identifier: Apache-2.0
"""The boot test: start an image under QEMU, log in by key, let cloud-init finish, look around, power off.

The image is never written to: the guest works on an overlay that is thrown away. It reaches no network.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BootTestError, InterruptedRunError, ToolFailedError, ToolTimeoutError
from coppice.factory.acceleration import Measurement, choose_acceleration, remember
from coppice.factory.files import qemu_format
from coppice.factory.guest_tests import run_guest_tests
from coppice.factory.login import Login, free_port
from coppice.factory.machine import Acceleration, Machine, UefiFirmware, find_uefi, running
from coppice.factory.model import Outcome, Verdict
from coppice.factory.seed import make_key, make_seed
from coppice.factory.workplace import workplace
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Firmware
from coppice.monitor import Unit
from coppice.process import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.clock import Clock
    from coppice.definition.model import GuestTest
    from coppice.factory.machine import RunningMachine
    from coppice.factory.model import BuiltImage
    from coppice.monitor import Monitor, Task

GROWTH_BYTES = 1024**3
_POLL_SECONDS = 1.0
_POWER_OFF_SECONDS = 90.0
_TOOL_SECONDS = 60.0

# Each line that it writes is a fact: name=value.
_LOOK_AROUND = r"""
set -u
cloud-init status --wait >/dev/null 2>&1
echo "cloud-init-exit=$?"
echo "cloud-init=$(cloud-init status 2>/dev/null | sed -n 's/^status: //p')"
echo "cloud-init-result=$(tr -d '\n' < /run/cloud-init/result.json)"
sshd -T | sed -n -E 's/^(passwordauthentication|kbdinteractiveauthentication|permitrootlogin) /sshd-\1=/p'
echo "host-keys=$(ls /etc/ssh/ssh_host_*_key 2>/dev/null | wc -l)"
echo "host-keys-older-than-boot=$(find /etc/ssh -name 'ssh_host_*' ! -newer /proc/1 | wc -l)"
echo "machine-id=$(cat /etc/machine-id)"
echo "root-password=$(getent shadow root | cut -d: -f2 | cut -c1)"
echo "root-bytes=$(df --output=size -B1 / | tail -n 1 | tr -d ' ')"
echo "firmware=$(if [ -d /sys/firmware/efi ]; then echo uefi; else echo bios; fi)"
echo "kernel=$(uname -r)"
echo "system=$(. /etc/os-release && echo "$PRETTY_NAME")"
echo "failed-units=$(systemctl --failed --plain --no-legend | cut -d' ' -f1 | tr '\n' ' ' | sed 's/ $//')"
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class BootSettings:
    """How boot tests run on this machine.

    Attributes:
        memory_mib: Memory of the guest in MiB.
        cores: Its processor cores.
        timeout_seconds: For one whole test.
        work_directory: Where it works; the system's temporary directory when None.
        acceleration_file: Where the measured acceleration is kept; None: it is measured each time.
    """

    memory_mib: int = 1024
    cores: int = 2
    timeout_seconds: float = 1500
    work_directory: Path | None = None
    acceleration_file: Path | None = None


def boot_gate(firmware: Firmware) -> str:
    """Return the name of the boot test's verdict under ``firmware``."""
    return f"boot-{firmware}"


def boot_test(
    image: BuiltImage,
    *,
    firmware: Firmware,
    user: str,
    settings: BootSettings,
    monitor: Monitor,
    clock: Clock,
    tests: tuple[GuestTest, ...] = (),
    stop: threading.Event | None = None,
) -> Verdict:
    """Start ``image`` and return the verdict that it passed.

    Args:
        image: What to start; its file is only read.
        firmware: What it starts by.
        user: The account that the image's cloud-init creates.
        settings: How.
        monitor: Where progress is told.
        clock: For the verdict's date.
        tests: The definition's own, run when all else is in order.
        stop: Set by another thread, it ends the test at once: an interrupt reaches the main thread only.

    Raises:
        InterruptedRunError: ``stop`` was set.
        BootTestError: It did not start, or is not as it should be; ``details`` ends with the serial console's tail.
        ToolMissingError: A program that the test needs is not installed.
        StorageError: The disk failed.
    """
    measured = choose_acceleration(settings.acceleration_file, work_directory=settings.work_directory)
    with monitor.task(
        f"booting {image.path.name} under {firmware.upper()}", total=int(settings.timeout_seconds), unit=Unit.SECONDS
    ) as task:
        try:
            return _Test(image, firmware, user, settings, measured.acceleration, clock, task, tests).run(stop)
        except BootTestError:
            if measured.acceleration is Acceleration.TCG:
                raise
            # The probe's little guest ran under KVM. Whether this failure is KVM's or the image's, emulation decides.
            task.note("failed under KVM; trying again under emulation")
            verdict = _Test(image, firmware, user, settings, Acceleration.TCG, clock, task, tests).run(stop)
        if settings.acceleration_file is not None:
            reason = "an image that boots under emulation does not boot under KVM"
            remember(settings.acceleration_file, Measurement(acceleration=Acceleration.TCG, reason=reason))
        return verdict


class _Test:
    def __init__(  # noqa: PLR0917 - private, called in one place
        self,
        image: BuiltImage,
        firmware: Firmware,
        user: str,
        settings: BootSettings,
        acceleration: Acceleration,
        clock: Clock,
        task: Task,
        tests: tuple[GuestTest, ...],
    ) -> None:
        self._tests = tests
        self._image = image
        self._firmware = firmware
        self._user = user
        self._settings = settings
        self._acceleration = acceleration
        self._clock = clock
        self._task = task
        self._started = time.monotonic()

    def run(self, stop: threading.Event | None) -> Verdict:
        with workplace(self._settings.work_directory) as work:
            key = make_key(work)
            public_key = key.with_suffix(".pub").read_text(encoding="ascii")
            digest = self._image.image.checksum
            seed = make_seed(work, public_key=public_key, instance=f"boot-test-{digest.hexdigest[:16]}")
            login = Login(port=free_port(), user=self._user, key=key, known_hosts=work / "known_hosts")
            machine = Machine(
                disk=self._overlay(work),
                disk_format=DiskFormat.QCOW2,
                acceleration=self._acceleration,
                memory_mib=self._settings.memory_mib,
                cores=self._settings.cores,
                seed=seed,
                uefi=_own_uefi(work) if self._firmware is Firmware.UEFI else None,
                ssh_port=login.port,
                serial_log=work / "serial.log",
            )
            with running(machine, work) as guest, _ended_by(stop, guest):
                facts = self._visit(guest, login)
        return Verdict(
            gate=boot_gate(self._firmware),
            image_digest=str(digest),
            outcome=Outcome.PASSED,
            decided_at=self._clock.now(),
            seconds=round(self._elapsed(), 1),
            facts=tuple(facts.items()),
        )

    def _visit(self, guest: RunningMachine, login: Login) -> dict[str, str]:
        self._wait_for_login(guest, login)
        facts = {"acceleration": self._acceleration.value, "login-seconds": f"{self._elapsed():.0f}"}
        self._task.note("logged in; waiting for cloud-init")
        try:
            said = login.run_script(_LOOK_AROUND, max(1.0, self._left())).text()
        except (ToolFailedError, ToolTimeoutError) as problem:
            raise self._failure(guest, f"looking around in it failed: {problem.message}", problem.details) from problem
        facts |= read_facts(said)
        facts["ssh-methods"] = login.offered_methods(max(1.0, self._left()))
        wrong = judge(facts, firmware=self._firmware, disk_bytes=self._image.image.virtual_size_bytes + GROWTH_BYTES)
        if wrong:
            raise self._failure(
                guest, wrong[0], "\n".join(wrong + [f"{name}: {value}" for name, value in facts.items()])
            )
        facts |= self._own_tests(guest, login)
        self._task.note("powering off")
        try:
            login.run_script("systemctl poweroff", _TOOL_SECONDS)
        except (ToolFailedError, ToolTimeoutError):
            # The connection may break before ssh hears of success; what counts is whether the machine ends.
            self._task.note("the connection ended")
        facts["powered-off"] = "yes" if guest.wait(_POWER_OFF_SECONDS) else "no"
        return facts

    def _own_tests(self, guest: RunningMachine, login: Login) -> dict[str, str]:
        runs = run_guest_tests(login, self._tests, left_seconds=self._left, note=self._task.note)
        failed = [each for each in runs if each.failure is not None]
        if failed:
            details = [f"{each.name} {each.failure}; it wrote:\n{each.output.rstrip()}" for each in failed]
            raise self._failure(guest, f"its test {failed[0].name} {failed[0].failure}", "\n".join(details))
        return {f"test-{each.name}": f"passed in {each.seconds:.0f} s" for each in runs}

    def _wait_for_login(self, guest: RunningMachine, login: Login) -> None:
        while not (login.answers() and login.works(max(1.0, min(120.0, self._left())))):
            if guest.has_ended():
                raise self._failure(guest, "the machine ended before anyone could log in", guest.complaints())
            if self._left() <= 0:
                raise self._failure(guest, f"no login by SSH within {self._settings.timeout_seconds:.0f} s", None)
            self._task.reach(int(self._elapsed()))
            lines = guest.serial_tail(1)
            self._task.note(printable(lines) or "starting")
            time.sleep(_POLL_SECONDS)

    def _overlay(self, work: Path) -> Path:
        # A larger disk than the image's, as a cloud would give: the root file system has to grow into it.
        overlay = work / "overlay.qcow2"
        source = self._image.path.resolve()
        argv: list[str | Path] = ["qemu-img", "create", "-q", "-f", "qcow2"]
        argv += ["-b", source, "-F", qemu_format(self._image.image.format), overlay]
        argv.append(str(self._image.image.virtual_size_bytes + GROWTH_BYTES))
        try:
            run(argv, timeout_seconds=_TOOL_SECONDS)
        except ToolFailedError as problem:
            raise BootTestError(f"{self._image.path} cannot be opened as a disk", details=problem.details) from problem
        return overlay

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _left(self) -> float:
        return self._settings.timeout_seconds - self._elapsed()

    def _failure(self, guest: RunningMachine, what: str, details: str | None) -> BootTestError:
        tail = "\n".join(printable(line) for line in guest.serial_tail().splitlines())
        return BootTestError(
            f"{self._image.path.name} failed its boot test under {self._firmware.upper()}: {what}",
            details="\n".join(part for part in (details, "The serial console ended with:", tail) if part),
            context={
                "gate": boot_gate(self._firmware),
                "image": str(self._image.path),
                "acceleration": self._acceleration.value,
            },
        )


@contextmanager
def _ended_by(stop: threading.Event | None, guest: RunningMachine) -> Iterator[None]:
    if stop is None:
        yield
        return
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if stop.wait(_POLL_SECONDS):
                guest.end()
                return

    watcher = threading.Thread(target=watch, name="boot-test-stop", daemon=True)
    watcher.start()
    try:
        yield
    except BootTestError as problem:
        if stop.is_set():
            raise InterruptedRunError("the boot test was stopped") from problem
        raise
    finally:
        over.set()
        watcher.join()


def read_facts(said: str) -> dict[str, str]:
    """Return the facts in what the guest said; cloud-init's own result is taken apart."""
    facts = {}
    for line in said.splitlines():
        name, separator, value = line.partition("=")
        if separator:
            facts[name] = printable(value)[:500]
    try:
        result = json.loads(facts.pop("cloud-init-result", ""))["v1"]
        facts["datasource"] = printable(str(result["datasource"]))
        facts["cloud-init-errors"] = printable("; ".join(str(error) for error in result["errors"]))
    except (ValueError, KeyError, TypeError):
        facts["cloud-init-errors"] = "its result could not be read"
    return facts


def judge(facts: dict[str, str], *, firmware: Firmware, disk_bytes: int) -> list[str]:
    """Return what is wrong with a booted appliance, by the facts about it; empty: nothing."""
    root_bytes = int(facts["root-bytes"]) if facts.get("root-bytes", "").isdigit() else 0
    wanted = (
        (facts.get("cloud-init") == "done", f"cloud-init says {facts.get('cloud-init', 'nothing')!r}, not 'done'"),
        (facts.get("cloud-init-errors") == "", f"cloud-init had errors: {facts.get('cloud-init-errors')}"),
        ("NoCloud" in facts.get("datasource", ""), f"cloud-init's data came from {facts.get('datasource')!r}"),
        (facts.get("sshd-passwordauthentication") == "no", "sshd lets people in by password"),
        (facts.get("sshd-kbdinteractiveauthentication") == "no", "sshd lets people in by keyboard-interactive"),
        (
            facts.get("sshd-permitrootlogin") in {"no", "without-password", "prohibit-password"},
            "root may log in by SSH",
        ),
        (facts.get("ssh-methods") == "publickey", f"SSH offers {facts.get('ssh-methods')!r}, not publickey alone"),
        (facts.get("host-keys", "0").isdigit() and facts.get("host-keys", "0") != "0", "there are no SSH host keys"),
        (facts.get("host-keys-older-than-boot") == "0", "SSH host keys are older than the machine"),
        (len(facts.get("machine-id", "")) == 32, "there is no machine-id"),  # noqa: PLR2004 - hexadecimal digits
        (facts.get("root-password") in {"*", "!"}, "root has a password"),
        (facts.get("failed-units") == "", f"units failed while it started: {facts.get('failed-units')}"),
        (facts.get("firmware") == firmware.value, f"it started by {facts.get('firmware')!r}"),
        # File systems keep a few percent for themselves.
        (root_bytes > disk_bytes * 0.85, f"the root file system did not grow: {root_bytes} of {disk_bytes} bytes"),
    )
    return [complaint for good, complaint in wanted if not good]


def printable(text: str) -> str:
    """Return ``text`` without what a terminal would obey: a guest's words are its own."""
    return "".join(character for character in text if character.isprintable())


def _own_uefi(work: Path) -> UefiFirmware:
    installed = find_uefi()
    own = work / "uefi-variables.fd"
    with storage_errors("writing", own):
        shutil.copyfile(installed.variables, own)
        own.chmod(0o600)
    return replace(installed, variables=own)
