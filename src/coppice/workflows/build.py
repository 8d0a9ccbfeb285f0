# SPDX-License-Identifier: Apache-2.0
"""From a definition to a tested build: definition → factory → boot tests, each gate once for the same bytes."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from coppice.errors import NotFoundError
from coppice.events.journal import Journal
from coppice.events.model import EventKind
from coppice.factory.boot import BootSettings, boot_gate, boot_test
from coppice.factory.build import build, find_kept
from coppice.factory.model import BuildOptions
from coppice.factory.verdicts import has_passed, keep_verdict

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.definition.model import Definition
    from coppice.factory.model import BuildResult, BuiltImage, Verdict
    from coppice.model.operating_system import Firmware
    from coppice.monitor import Monitor
    from coppice.settings.model import Settings


def build_appliance(
    definition: Definition,
    *,
    settings: Settings,
    database: Database,
    clock: Clock,
    monitor: Monitor,
    fresh: bool = False,
    boot: bool = True,
) -> BuildResult:
    """Build ``definition``, or find its build, and have it pass its boot tests.

    Args:
        definition: What to build.
        settings: Where and how.
        database: Where the journal is.
        clock: For dates.
        monitor: Where progress is told.
        fresh: Build anew although the same build is there.
        boot: Run the boot tests that have not passed yet.

    Raises:
        BuildError: It could not be built.
        BootTestError: It did not pass a boot test.
        ToolMissingError: A program is not installed.
    """
    result = build(
        definition,
        root=factory_root(settings),
        options=_options(settings),
        clock=clock,
        monitor=monitor,
        fresh=fresh,
    )
    if boot:
        verdicts = boot_everywhere(
            result.images[0],
            firmware=definition.firmware,
            user=definition.user,
            settings=settings,
            clock=clock,
            monitor=monitor,
        )
        result = replace(result, verdicts=(*_others(result.verdicts, verdicts), *verdicts))
    if not result.reused:
        facts: dict[str, object] = {"key": result.key, "digest": str(result.images[0].image.checksum)}
        Journal(database).record(EventKind.APPLIANCE_BUILT, subject=definition.name, facts=facts, at=clock.now())
    return result


def find_build(definition: Definition, *, settings: Settings) -> BuildResult:
    """Return the kept build of ``definition`` with the verdicts that its bytes have; nothing is built.

    Raises:
        NotFoundError: It was not built, or not since it was changed.
    """
    root = factory_root(settings)
    result = find_kept(definition, root=root, options=_options(settings))
    if result is None:
        raise NotFoundError(
            f"there is no build of {definition.name} as its definition is now",
            resolution=f"Run `coppice build {definition.name}` first.",
        )
    digest = str(result.images[0].image.checksum)
    known = (has_passed(root, digest, boot_gate(kind)) for kind in definition.firmware)
    verdicts = tuple(verdict for verdict in known if verdict is not None)
    return replace(result, verdicts=(*_others(result.verdicts, verdicts), *verdicts))


def boot_everywhere(
    image: BuiltImage,
    *,
    firmware: tuple[Firmware, ...],
    user: str,
    settings: Settings,
    clock: Clock,
    monitor: Monitor,
) -> tuple[Verdict, ...]:
    """Boot ``image`` under each firmware, side by side; a gate that the same bytes passed before is not run again.

    Raises:
        BootTestError: It did not pass under one of them.
    """
    root = factory_root(settings)
    boot_settings = BootSettings(
        timeout_seconds=settings.factory.boot_timeout_seconds, acceleration_file=root / "acceleration.json"
    )

    def pass_gate(kind: Firmware) -> Verdict:
        known = has_passed(root, str(image.image.checksum), boot_gate(kind))
        if known is not None:
            return known
        verdict = boot_test(
            image, firmware=kind, user=user, settings=boot_settings, monitor=monitor, clock=clock, stop=stop
        )
        keep_verdict(root, verdict)
        return verdict

    stop = threading.Event()
    with ThreadPoolExecutor(max_workers=max(1, len(firmware))) as pool:
        try:
            return tuple(pool.map(pass_gate, firmware))
        except BaseException:
            # One failed, or Ctrl-C: the pool would wait for the others to the end of their time.
            stop.set()
            raise


def factory_root(settings: Settings) -> Path:
    """Return where builds, verdicts and what builders keep lie."""
    return settings.state_directory / "factory"


def _options(settings: Settings) -> BuildOptions:
    return BuildOptions(
        mirror=settings.factory.mirror,
        cache_directory=factory_root(settings) / "parents",
        timeout_seconds=settings.factory.build_timeout_seconds,
    )


def _others(before: tuple[Verdict, ...], now: tuple[Verdict, ...]) -> tuple[Verdict, ...]:
    gates = {verdict.gate for verdict in now}
    return tuple(verdict for verdict in before if verdict.gate not in gates)
