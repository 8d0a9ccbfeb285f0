# SPDX-License-Identifier: Apache-2.0
"""The boot test: start an image under QEMU, look at it from inside and from outside, run its tests, power off.

The image is never written to: the guest works on an overlay that is thrown away. It reaches no network but one of its
own, on which its only neighbour is the boot test.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from coppice.errors import BootTestError, BuildError, InterruptedRunError, ToolFailedError, ToolTimeoutError
from coppice.factory.acceleration import Measurement, choose_acceleration, remember
from coppice.factory.boot_channel import handed_script
from coppice.factory.boot_evidence import keep_failure
from coppice.factory.boot_firmware import own_uefi
from coppice.factory.boot_guest import started
from coppice.factory.boot_judge import judge_restart, printable
from coppice.factory.boot_look import Look, Wanted
from coppice.factory.boot_model import LEVEL, PROMISE, BootLevel, BootSettings, Promise
from coppice.factory.boot_sources import Handed, Source, serve, served_sources
from coppice.factory.caged import run_caged
from coppice.factory.files import qemu_format
from coppice.factory.machine import Acceleration, Machine
from coppice.factory.model import Outcome, Verdict
from coppice.factory.seed import make_key
from coppice.factory.workplace import workplace
from coppice.model.checksum import Checksum
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Architecture, Firmware
from coppice.monitor import Unit
from coppice.process import run

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.clock import Clock
    from coppice.factory.boot_guest import Guest
    from coppice.factory.boot_sources import Served
    from coppice.factory.machine import RunningMachine
    from coppice.factory.model import BuiltImage
    from coppice.monitor import Monitor, Task

__all__ = ["GROWTH_BYTES", "BootLevel", "BootSettings", "Promise", "boot_gate", "boot_test", "failure_folder"]

GROWTH_BYTES = 1024**3
_POLL_SECONDS = 1.0
# systemd gives a service that does not stop 90 seconds.
_POWER_OFF_SECONDS = 180.0
_TOOL_SECONDS = 60.0
# What is asked last has limits of its own; a guest that answers byte by byte would outlast them all.
_GRACE_SECONDS = 300.0


def boot_gate(firmware: Firmware) -> str:
    """Return the name of the boot test's verdict under ``firmware``."""
    return f"boot-{firmware}"


def failure_folder(root: Path, image_digest: str, gate: str) -> Path:
    """Return where what is kept of a failed test of that image (``sha512:…``) lies below ``root``."""
    return root / Checksum.parse(image_digest).hexdigest[:32] / gate


def boot_test(
    image: BuiltImage,
    *,
    firmware: Firmware,
    promise: Promise,
    settings: BootSettings,
    monitor: Monitor,
    clock: Clock,
    stop: threading.Event | None = None,
) -> Verdict:
    """Start ``image`` and return the verdict that it passed.

    Args:
        image: What to start; its file is only read.
        firmware: What it starts by.
        promise: What it is held to.
        settings: How.
        monitor: Where progress is told.
        clock: For the verdict's date.
        stop: Set by another thread, it ends the test at once: an interrupt reaches the main thread only.

    Raises:
        InterruptedRunError: ``stop`` was set.
        BootTestError: It did not start, or is not as it should be; ``details`` ends with the serial console's tail.
        ToolMissingError: A program that the test needs is not installed.
        StorageError: The disk failed.
    """
    acceleration = Acceleration.TCG
    if promise.architecture is Architecture.X86_64:
        # A processor of another kind is emulated, whatever this machine can.
        measured = choose_acceleration(settings.acceleration_file, work_directory=settings.work_directory)
        acceleration = measured.acceleration
    with monitor.task(
        f"booting {image.path.name} under {firmware.upper()}", total=int(settings.timeout_seconds), unit=Unit.SECONDS
    ) as task:
        try:
            return _Test(image, firmware, promise, settings, acceleration, task).run(clock, stop)
        except BootTestError:
            if acceleration is Acceleration.TCG:
                raise
            # The probe's little guest ran under KVM. Whether this failure is KVM's or the image's, emulation decides.
            task.note("failed under KVM; trying again under emulation")
            verdict = _Test(image, firmware, promise, settings, Acceleration.TCG, task).run(clock, stop)
        if settings.acceleration_file is not None:
            reason = "an image that boots under emulation does not boot under KVM"
            remember(settings.acceleration_file, Measurement(acceleration=Acceleration.TCG, reason=reason))
        return verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where a test works, what logs in, and what ends it."""

    work: Path
    key: Path
    stop: threading.Event | None


class _Test:
    def __init__(  # noqa: PLR0917 - private, called in one place
        self,
        image: BuiltImage,
        firmware: Firmware,
        promise: Promise,
        settings: BootSettings,
        acceleration: Acceleration,
        task: Task,
    ) -> None:
        self._image = image
        self._firmware = firmware
        self._promise = promise
        self._settings = settings
        self._acceleration = acceleration
        self._task = task
        self._began = self._started = time.monotonic()

    def run(self, clock: Clock, stop: threading.Event | None) -> Verdict:
        is_thorough = self._settings.level is BootLevel.THOROUGH
        facts = {
            PROMISE: self._promise.digest(),
            LEVEL: self._settings.level.value,
            "acceleration": self._acceleration.value,
        }
        main, *others = self._sources()
        with workplace(self._settings.work_directory) as work:
            place = _Place(work=work, key=make_key(work), stop=stop)
            facts |= self._from_first_start(main, place, restarts=is_thorough)
            for source in others if is_thorough and self._settings.tries_sources else ():
                facts[f"source-{source}"] = self._other_source(source, place)
        return Verdict(
            gate=boot_gate(self._firmware),
            image_digest=str(self._image.image.checksum),
            outcome=Outcome.PASSED,
            decided_at=clock.now(),
            seconds=round(time.monotonic() - self._began, 1),
            facts=tuple(facts.items()),
        )

    def _sources(self) -> tuple[Source, ...]:
        sources = served_sources(self._promise.sources)
        if not sources:
            raise BootTestError(
                f"{self._image.path.name} cannot be boot-tested: none of its sources of data can be served here",
                details=f"It looks in {', '.join(self._promise.sources)}; served are {', '.join(Source)}.",
                resolution="Add one of them to contextualisation.sources, or build with --no-boot-test.",
            )
        return sources

    def _from_first_start(self, source: Source, place: _Place, *, restarts: bool) -> dict[str, str]:
        folder, wanted, served = self._prepare(source, place)
        machine = self._machine(folder)
        with self._start(machine, served, folder, place) as guest:
            look = Look(left_seconds=self._left, note=self._task.note)
            look.facts["login-seconds" if guest.login else "report-seconds"] = f"{self._elapsed():.0f}"
            with self._asking(guest):
                look.first_start(guest, wanted)
            self._hold(guest, look, _listed(look.facts))
            with self._asking(guest):
                said = look.own_tests(guest, self._promise)
            self._hold(guest, look, said)
            look.facts["powered-off"] = self._end(guest, "reboot" if restarts else "poweroff")
        if not restarts:
            return look.facts
        return look.facts | {"restart": self._second_start(machine, served, place, look.facts)}

    def _second_start(self, machine: Machine, served: Served, place: _Place, before: dict[str, str]) -> str:
        self._task.note("starting it a second time")
        self._started = time.monotonic()
        folder = place.work / "second"
        folder.mkdir()
        with self._start(machine, served, folder, place) as guest:
            look = Look(left_seconds=self._left, note=self._task.note)
            with self._asking(guest):
                facts = look.inside(guest, self._promise)
            look.wrong += judge_restart(facts, before, self._promise, self._firmware)
            self._hold(guest, look, _listed(facts))
            self._end(guest, "poweroff")
        return f"the same machine, in {self._elapsed():.0f} s"

    def _other_source(self, source: Source, place: _Place) -> str:
        self._task.note(f"starting another machine, with its data from {source}")
        self._started = time.monotonic()
        folder, wanted, served = self._prepare(source, place)
        with self._start(self._machine(folder), served, folder, place) as guest:
            look = Look(left_seconds=self._left, note=self._task.note)
            with self._asking(guest):
                facts = look.inside(guest, self._promise)
            look.judge(facts, wanted)
            self._hold(guest, look, _listed(facts))
            self._end(guest, "poweroff")
        return f"cloud-init done, in {self._elapsed():.0f} s"

    def _prepare(self, source: Source, place: _Place) -> tuple[Path, Wanted, Served]:
        folder = place.work / f"by-{source}".lower()
        folder.mkdir()
        instance = f"boot-test-{self._image.image.checksum.hexdigest[:16]}-{source}".lower()
        handed = Handed(
            instance=instance,
            public_key=place.key.with_suffix(".pub").read_text(encoding="ascii"),
            script=handed_script(instance, is_reached_by_port=not self._promise.access.ssh),
        )
        wanted = Wanted(
            promise=self._promise,
            firmware=self._firmware,
            source=source,
            instance=instance,
            disk_bytes=self._image.image.virtual_size_bytes + GROWTH_BYTES,
            level=self._settings.level,
        )
        return folder, wanted, serve(source, handed, folder)

    def _machine(self, folder: Path) -> Machine:
        promise = self._promise
        is_uefi = self._firmware is Firmware.UEFI
        return Machine(
            disk=self._overlay(folder),
            disk_format=DiskFormat.QCOW2,
            acceleration=self._acceleration,
            architecture=promise.architecture,
            memory_mib=max(self._settings.memory_mib, promise.minimum_ram_mib),
            cores=self._settings.cores,
            uefi=own_uefi(folder, architecture=promise.architecture, is_secure=promise.is_signed) if is_uefi else None,
        )

    def _overlay(self, folder: Path) -> Path:
        # A larger disk than the image's, as a cloud would give: the root file system has to grow into it.
        overlay = folder / "overlay.qcow2"
        source = self._image.path.resolve()
        image_format = qemu_format(self._image.image.format)
        # "-u": the image is not opened for that. Whether it can be is seen before, shut in.
        argv: list[str | Path] = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", source, "-F", image_format]
        size = str(self._image.image.virtual_size_bytes + GROWTH_BYTES)
        try:
            run_caged(
                lambda inside: ["qemu-img", "info", "-f", image_format, "--", inside(source)],
                reads=[source],
                timeout_seconds=_TOOL_SECONDS,
            )
            run([*argv, overlay, size], timeout_seconds=_TOOL_SECONDS)
        except (ToolFailedError, BuildError) as problem:
            raise BootTestError(f"{self._image.path} cannot be opened as a disk", details=problem.details) from problem
        return overlay

    @contextmanager
    def _start(self, machine: Machine, served: Served, folder: Path, place: _Place) -> Iterator[Guest]:
        with (
            started(machine, served, self._promise, folder, key=place.key) as guest,
            ended_by(place.stop, guest.running, seconds=max(0.0, self._left()) + _GRACE_SECONDS),
        ):
            self._wait_until_reached(guest)
            yield guest

    def _wait_until_reached(self, guest: Guest) -> None:
        while not guest.is_reached(self._left):
            if guest.running.has_ended():
                way = "log in" if guest.login else "reach it"
                raise self._failure(guest, f"the machine ended before anyone could {way}", guest.running.complaints())
            self._bear(guest)
            if self._left() <= 0:
                way = "login by SSH" if guest.login else "answer at its port"
                raise self._failure(guest, f"no {way} within {self._settings.timeout_seconds:.0f} s", None)
            self._task.reach(int(self._elapsed()))
            self._task.note(printable(guest.running.serial_tail(1)) or "starting")
            time.sleep(_POLL_SECONDS)

    @contextmanager
    def _asking(self, guest: Guest) -> Iterator[None]:
        try:
            yield
        except (ToolFailedError, ToolTimeoutError) as problem:
            raise self._failure(guest, f"looking around in it failed: {problem.message}", problem.details) from problem

    def _bear(self, guest: Guest) -> None:
        if guest.floods_console():
            raise self._failure(guest, "it writes more to its serial console than anyone would read", None)

    def _hold(self, guest: Guest, look: Look, said: str | None) -> None:
        self._bear(guest)
        if look.wrong:
            raise self._failure(guest, look.wrong[0], "\n".join([*look.wrong, *([said] if said else [])]))

    def _end(self, guest: Guest, how: str) -> str:
        self._task.note("powering off")
        try:
            guest.channel.run_script(f"systemctl {how}", _TOOL_SECONDS)
        except (ToolFailedError, ToolTimeoutError):
            # The connection may break before anyone hears of success; what counts is whether the machine ends.
            self._task.note("the connection ended")
        return "yes" if guest.running.wait(_POWER_OFF_SECONDS) else "no"

    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _left(self) -> float:
        return self._settings.timeout_seconds - self._elapsed()

    def _failure(self, guest: Guest, what: str, details: str | None) -> BootTestError:
        tail = "\n".join(printable(line) for line in guest.running.serial_tail().splitlines())
        kept = self._keep(guest)
        return BootTestError(
            f"{self._image.path.name} failed its boot test under {self._firmware.upper()}: {what}",
            details="\n".join(part for part in (details, "The serial console ended with:", tail) if part),
            resolution=f"See {' and '.join(str(path) for path in kept)}." if kept else None,
            context={
                "gate": boot_gate(self._firmware),
                "image": str(self._image.path),
                "acceleration": self._acceleration.value,
            },
        )

    def _keep(self, guest: Guest) -> tuple[Path, ...]:
        root = self._settings.failures_directory
        if root is None:
            return ()
        folder = failure_folder(root, str(self._image.image.checksum), boot_gate(self._firmware))
        control = None if guest.running.has_ended() else guest.control
        return keep_failure(folder, serial_log=guest.console, control=control)


@contextmanager
def ended_by(stop: threading.Event | None, guest: RunningMachine, *, seconds: float) -> Iterator[None]:
    """End ``guest`` when ``stop`` is set, and when ``seconds`` are over, whatever it is being asked then.

    Raises:
        InterruptedRunError: ``stop`` was set, and the test failed.
    """
    over, deadline = threading.Event(), time.monotonic() + seconds

    def watch() -> None:
        while not over.is_set():
            left = max(0.0, deadline - time.monotonic())
            is_stopped = (over if stop is None else stop).wait(min(left, _POLL_SECONDS))
            if not over.is_set() and (is_stopped or left == 0):
                guest.end()
                return

    watcher = threading.Thread(target=watch, name="boot-test-stop", daemon=True)
    watcher.start()
    try:
        yield
    except BootTestError as problem:
        if stop is not None and stop.is_set():
            raise InterruptedRunError("the boot test was stopped") from problem
        raise
    finally:
        over.set()
        watcher.join()


def _listed(facts: dict[str, str]) -> str:
    return "\n".join(f"{name}: {value}" for name, value in facts.items())
