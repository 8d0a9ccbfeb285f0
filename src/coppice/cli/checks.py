# SPDX-License-Identifier: Apache-2.0
"""What ``coppice doctor`` looks at. Each check gives facts; it changes nothing and never waits for long."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from coppice.errors import CoppiceError, ToolMissingError
from coppice.process import TOOLS, find_tool
from coppice.settings.quantities import format_size

if TYPE_CHECKING:
    from coppice.cli.context import Context

FREE_SPACE_WANTED_BYTES = 10 * 1024**3
_EARLIEST_SANE_YEAR = 2026
_EMULATORS = {"qemu-aarch64-static", "qemu-x86_64-static"}
_BTRFS_TOOLS = {"btrfs", "mkfs.btrfs"}
_OPTIONAL_TOOLS = (
    {"openssl", "git", "gpgv", "bwrap", "mdir", "xfs_db", "dnf", "rpm", "rpmkeys"} | _EMULATORS | _BTRFS_TOOLS
)
_SITE_TOOLS = {"qemu-img"}
"""What a machine needs that subscribes and registers, and builds nothing."""


class Role(StrEnum):
    """What a machine is for."""

    ALL = "all"
    SITE = "site"
    """It subscribes and registers; it builds nothing."""


class Verdict(StrEnum):
    """What a check found."""

    OK = "ok"
    NOTE = "note"
    """Coppice can be used; something that may be wanted is not there."""
    MISSING = "missing"
    """Something that is needed is not there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        kind: ``tool``, ``state``, ``machine``, ``cloud``, ``subscription``.
        name: What.
        verdict: What was found.
        needed_for: What it is needed for.
        found: What is there.
        remedy: How to get it, when it is not there.
        error: The error, where one was met.
    """

    kind: str
    name: str
    verdict: Verdict
    needed_for: str
    found: str | None = None
    remedy: str | None = None
    error: CoppiceError | None = None


def all_checks(context: Context, role: Role = Role.ALL) -> tuple[Check, ...]:
    """Look at everything."""
    from coppice.cli.subscription_checks import check_subscriptions

    return (
        *check_tools(role),
        *check_machine(),
        check_cage(context),
        check_builds(role),
        *check_state(context),
        *check_subscriptions(context),
    )


def check_tools(role: Role) -> tuple[Check, ...]:
    """Look for every external program; what ``role`` does without is only noted when it is missing."""
    needed = TOOLS.keys() - _OPTIONAL_TOOLS if role is Role.ALL else _SITE_TOOLS
    tools = tuple(_check_tool(name, is_needed=name in needed) for name in TOOLS)
    return (*tools, _check_uefi(is_needed=role is Role.ALL))


def _check_uefi(*, is_needed: bool) -> Check:
    from coppice.factory.boot_firmware import find_uefi

    purpose = "boot tests under UEFI"
    try:
        found = find_uefi()
    except ToolMissingError as problem:
        return Check(
            kind="tool",
            name="UEFI firmware",
            verdict=Verdict.MISSING if is_needed else Verdict.NOTE,
            needed_for=purpose,
            remedy="apt-get install ovmf",
            error=problem,
        )
    return Check(kind="tool", name="UEFI firmware", verdict=Verdict.OK, needed_for=purpose, found=str(found.code))


def _check_tool(name: str, *, is_needed: bool) -> Check:
    tool = TOOLS[name]
    try:
        found = find_tool(name)
    except ToolMissingError as problem:
        return Check(
            kind="tool",
            name=name,
            verdict=Verdict.MISSING if is_needed else Verdict.NOTE,
            needed_for=tool.purpose,
            remedy=f"apt-get install {tool.package}",
            error=problem,
        )
    return Check(kind="tool", name=name, verdict=Verdict.OK, needed_for=tool.purpose, found=found)


def check_machine() -> tuple[Check, ...]:
    """Look at acceleration and the clock."""
    kvm = Path("/dev/kvm")
    usable = os.access(kvm, os.R_OK | os.W_OK)
    there = kvm.exists()
    now = datetime.now(UTC)
    sane = now.year >= _EARLIEST_SANE_YEAR
    return (
        Check(
            kind="machine",
            name="kvm",
            verdict=Verdict.OK if usable else Verdict.NOTE,
            needed_for="quick boot tests; without it they run, slowly, in software",
            found="/dev/kvm may be opened; whether it works is measured before the first boot test" if usable else None,
            remedy="give this user the right to open /dev/kvm (group kvm)"
            if there
            else "run on a machine that has KVM",
        ),
        Check(
            kind="machine",
            name="clock",
            verdict=Verdict.OK if sane else Verdict.MISSING,
            needed_for="dates in image lists and certificates",
            found=f"{now:%Y-%m-%dT%H:%M:%SZ}",
            remedy=None if sane else "set the machine's clock (systemd-timesyncd, chrony)",
        ),
    )


def check_cage(context: Context) -> Check:
    """Look at how far programs that read other people's images can be shut in."""
    from coppice.cage import Strength, find_means

    try:
        is_required = context.settings.conversion.require_cage
    except CoppiceError:
        # Told of where the settings are looked at.
        is_required = False
    means = find_means()
    verdict = Verdict.MISSING if is_required else Verdict.NOTE
    if means.strength is Strength.FULL:
        verdict = Verdict.OK
    lacking = "; ".join(means.lacking)
    return Check(
        kind="machine",
        name="cage",
        verdict=verdict,
        needed_for="shutting in the programs that read other people's images",
        found=f"{means.strength}: {means.told()}" + ("" if verdict is Verdict.OK else f" (not had: {lacking})"),
        remedy=None if verdict is Verdict.OK else "apt-get install bubblewrap, and let this user make user namespaces",
    )


def check_builds(role: Role) -> Check:
    """Look at whether this user can build appliances."""
    from coppice.factory.bootstrap.tree import can_make_trees

    try:
        can = can_make_trees()
    except ToolMissingError:
        # Told of among the tools.
        can = False
    who = "as root" if os.geteuid() == 0 else "in a user namespace"
    return Check(
        kind="machine",
        name="builds",
        verdict=Verdict.OK if can else Verdict.MISSING if role is Role.ALL else Verdict.NOTE,
        needed_for="building appliances",
        found=who if can else f"namespaces of its own cannot be had {who}",
        remedy=None
        if can
        else "build as root, or apt-get install uidmap and give this user a range in /etc/subuid and /etc/subgid",
    )


def check_state(context: Context) -> tuple[Check, ...]:
    """Look at the settings, the state directory, the database and the clouds."""
    try:
        settings = context.settings
    except CoppiceError as problem:
        return (_failed("state", "settings", "everything", problem),)
    directory = settings.state_directory
    return (
        Check(kind="state", name="settings", verdict=Verdict.OK, needed_for="everything", found="read"),
        _check_directory(directory),
        _check_space(directory),
        _check_database(context),
        *(_check_cloud(context, name) for name in settings.clouds),
    )


def _check_directory(directory: Path) -> Check:
    nearest = _nearest(directory)
    writable = nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)
    made = "" if nearest == directory else " (made when first needed)"
    return Check(
        kind="state",
        name="state directory",
        verdict=Verdict.OK if writable else Verdict.MISSING,
        needed_for="everything that Coppice keeps",
        found=f"{directory}{made}" if writable else None,
        remedy=None if writable else f"give this user the right to write {nearest}, or set state_directory elsewhere",
    )


def _check_space(directory: Path) -> Check:
    try:
        free = shutil.disk_usage(_nearest(directory)).free
    except OSError as problem:
        return Check(
            kind="state",
            name="free space",
            verdict=Verdict.NOTE,
            needed_for="images",
            remedy=f"could not be found out: {problem.strerror}",
        )
    enough = free >= FREE_SPACE_WANTED_BYTES
    return Check(
        kind="state",
        name="free space",
        verdict=Verdict.OK if enough else Verdict.NOTE,
        needed_for="images",
        found=format_size(free),
        remedy=None if enough else f"have {format_size(FREE_SPACE_WANTED_BYTES)} or more for builds and images",
    )


def _check_database(context: Context) -> Check:
    purpose = "catalogue, subscriptions and the journal"
    try:
        database = context.existing_database()
    except CoppiceError as problem:
        return _failed("state", "database", purpose, problem)
    found = "opens" if database is not None else "none yet (made when first needed)"
    return Check(kind="state", name="database", verdict=Verdict.OK, needed_for=purpose, found=found)


def _check_cloud(context: Context, name: str) -> Check:
    from coppice.cloud.clouds import open_cloud

    purpose = f"registering images at {name}"
    try:
        registered = open_cloud(context.settings.clouds[name]).describe()
    except CoppiceError as problem:
        return _failed("cloud", name, purpose, problem)
    return Check(
        kind="cloud",
        name=name,
        verdict=Verdict.OK,
        needed_for=purpose,
        found=f"answers; {len(registered)} images of this site",
    )


def _failed(kind: str, name: str, needed_for: str, problem: CoppiceError) -> Check:
    return Check(
        kind=kind,
        name=name,
        verdict=Verdict.MISSING,
        needed_for=needed_for,
        found=problem.message,
        remedy=problem.resolution,
        error=problem,
    )


def _nearest(path: Path) -> Path:
    while not path.exists() and path != path.parent:
        path = path.parent
    return path
