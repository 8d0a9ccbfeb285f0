# SPDX-License-Identifier: Apache-2.0
"""`Promise`: what an appliance says of itself that a boot test holds it to; and how far a boot test goes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from coppice.definition.model import Access
from coppice.factory.bootstrap.overlay_firewall import opened
from coppice.factory.model import Outcome
from coppice.model.operating_system import Architecture

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.definition.model import Definition, GuestTest, OpenPort, Page
    from coppice.factory.model import Verdict

PROMISE = "promise"
LEVEL = "level"
# Raised when boot tests look at more: what passed an older one is tested again.
_EDITION = 3


class BootLevel(StrEnum):
    """How far a boot test goes."""

    STANDARD = "standard"
    """One start, in which everything is looked at."""
    THOROUGH = "thorough"
    """A second start of the same machine besides, every port, and a first start with each source of data that can be
    served here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What an appliance promises.

    Attributes:
        user: The account that its cloud-init creates.
        architecture: What it runs on.
        access: How people come in.
        has_firewall: Whether all is closed but for ``open_ports``.
        open_ports: What is let in to, that of ``access`` included.
        sources: Where its cloud-init looks for what the cloud says, in its order.
        has_script: Whether a script of its own runs at first boot.
        units: What systemd must have started.
        pages: That it serves.
        tests: Run in it.
        is_signed: Whether it starts where only what is signed may.
        minimum_ram_mib: Memory in MiB that it asks for at least; 0: it does not say.
    """

    user: str
    architecture: Architecture = Architecture.X86_64
    access: Access = field(default_factory=Access)
    has_firewall: bool = True
    open_ports: tuple[OpenPort, ...] = ()
    sources: tuple[str, ...] = ("NoCloud",)
    has_script: bool = False
    units: tuple[str, ...] = ()
    pages: tuple[Page, ...] = ()
    tests: tuple[GuestTest, ...] = ()
    is_signed: bool = False
    minimum_ram_mib: int = 0

    def digest(self) -> str:
        """Return a short digest of all of it; what passed for one promise has not passed for another."""
        said = json.dumps([_EDITION, asdict(self)], sort_keys=True, default=_told)
        return hashlib.sha256(said.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class BootSettings:
    """How boot tests run on this machine.

    Attributes:
        memory_mib: Memory of the guest in MiB; an appliance that asks for more gets that.
        cores: Its processor cores.
        timeout_seconds: For one whole test.
        work_directory: Where it works; the system's temporary directory when None.
        acceleration_file: Where the measured acceleration is kept; None: it is measured each time.
        failures_directory: Where the console's log and the last picture of a failed test are kept; None: nowhere.
        level: How far it goes.
        tries_sources: Whether a thorough test tries each source of data.
    """

    memory_mib: int = 1024
    cores: int = 2
    timeout_seconds: float = 1500
    work_directory: Path | None = None
    acceleration_file: Path | None = None
    failures_directory: Path | None = None
    level: BootLevel = BootLevel.STANDARD
    tries_sources: bool = True


def promise_of(definition: Definition) -> Promise:
    """Return what ``definition`` promises of its appliance."""
    script = definition.contextualisation.user_data
    return Promise(
        user=definition.user,
        architecture=Architecture(definition.operating_system.architecture),
        access=definition.access,
        has_firewall=definition.firewall.enabled,
        open_ports=opened(definition),
        sources=definition.contextualisation.sources,
        has_script=script is not None and script.startswith(b"#!"),
        units=definition.services.enabled,
        pages=definition.pages,
        tests=definition.tests,
        is_signed=definition.boot.secure_boot,
        minimum_ram_mib=definition.requirements.minimum_ram_mib or 0,
    )


def covers(verdict: Verdict, promise: Promise, level: BootLevel) -> bool:
    """Tell whether ``verdict`` says that ``promise`` is kept, by a test that went at least as far as ``level``."""
    facts = dict(verdict.facts)
    went = facts.get(LEVEL)
    return (
        verdict.outcome is Outcome.PASSED
        and facts.get(PROMISE) == promise.digest()
        and went in {level, BootLevel.THOROUGH}
    )


def _told(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)
