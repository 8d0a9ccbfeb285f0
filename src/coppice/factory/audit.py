# SPDX-License-Identifier: Apache-2.0
"""The gate ``audit-identity``: look into a finished image, without mounting or booting it, for what nobody may bake in.

It reads the bytes that will be published, whichever builder made them: host keys, a machine-id, passwords, logs,
leases and seeds must not be there, and sshd must not accept passwords.
"""

from __future__ import annotations

import json
import re
import stat
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from coppice.atomic import storage_errors
from coppice.errors import BuildError, ToolFailedError
from coppice.factory.files import qemu_format
from coppice.factory.model import Outcome, Verdict
from coppice.factory.workplace import workplace
from coppice.process import run

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.clock import Clock
    from coppice.factory.model import BuiltImage

GATE = "audit-identity"
_TOOL_SECONDS = 300.0
_SECTOR_BYTES = 512
_EXT_MAGIC_AT = 1080
_EXT_MAGIC = b"\x53\xef"
_ENTRY = re.compile(r"^/(\d+)/(\d{6})/(\d+)/(\d+)/(.*)/(\d*)/$")
_SSHD_WANTED = {
    "passwordauthentication": {"no"},
    "kbdinteractiveauthentication": {"no"},
    "permitrootlogin": {"no", "prohibit-password", "without-password"},
    "permitemptypasswords": {"no"},
}
# What OpenSSH does when nothing is written.
_SSHD_DEFAULTS = {
    "passwordauthentication": "yes",
    "kbdinteractiveauthentication": "yes",
    "permitrootlogin": "prohibit-password",
    "permitemptypasswords": "no",
}
_EMPTY_FOLDERS = ("/var/lib/apt/lists", "/var/lib/dhcp", "/root/.ssh", "/var/lib/cloud")
_ABSENT = ("/var/lib/dbus/machine-id", "/var/lib/systemd/random-seed", "/root/.bash_history")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What a directory holds.

    Attributes:
        name: Its name there.
        mode: Kind and permissions, as `os.stat` has them.
        size_bytes: Length of its content.
    """

    name: str
    mode: int
    size_bytes: int


class FileSystem:
    """An ext4 file system inside a raw disk, read by debugfs."""

    def __init__(self, place: str) -> None:
        self._place = place

    def entries(self, folder: str) -> tuple[Entry, ...]:
        """Return what ``folder`` holds; empty where it is not there."""
        listed = self._ask(f'ls -p "{folder}"')
        found = []
        for line in listed.splitlines():
            match = _ENTRY.match(line)
            if match and match[5] not in {".", "..", "lost+found"} and match[1] != "0":
                found.append(Entry(name=match[5], mode=int(match[2], 8), size_bytes=int(match[6] or 0)))
        return tuple(found)

    def exists(self, path: str) -> bool:
        """Tell whether there is something at ``path``."""
        folder, _, name = path.rpartition("/")
        return any(entry.name == name for entry in self.entries(folder or "/"))

    def content(self, path: str) -> str | None:
        """Return the content of the file at ``path``; None where there is none."""
        return self._ask(f'cat "{path}"', may_be_missing=False) if self.exists(path) else None

    def _ask(self, command: str, *, may_be_missing: bool = True) -> str:
        try:
            completed = run(["debugfs", "-R", command, self._place], timeout_seconds=_TOOL_SECONDS)
        except ToolFailedError as problem:
            raise BuildError(f"looking into the image failed: {problem.message}", details=problem.details) from problem
        complaints = [
            line
            for line in completed.stderr.decode("utf-8", errors="replace").splitlines()
            if not line.startswith("debugfs ") and not (may_be_missing and "File not found by ext2_lookup" in line)
        ]
        if complaints:
            # Not to be taken for "nothing there".
            raise BuildError("looking into the image failed", details="\n".join(complaints))
        return completed.text()


def audit_identity(image: BuiltImage, *, work_directory: Path | None, clock: Clock) -> Verdict:
    """Return the verdict that ``image`` carries no identity of its own and lets nobody in by password.

    Raises:
        BuildError: It does, or cannot be looked into; ``details`` names everything that was found.
        NoSpaceError: There is no room for a raw copy.
    """
    started = clock.monotonic()
    with workplace(work_directory) as work:
        raw = work / "disk.raw"
        source_format = qemu_format(image.image.format)
        try:
            run(
                ["qemu-img", "convert", "-f", source_format, "-O", "raw", "--", image.path, raw],
                timeout_seconds=_TOOL_SECONDS,
            )
        except ToolFailedError as problem:
            raise BuildError(
                f"{image.path.name} cannot be read: {problem.message}", details=problem.details
            ) from problem
        tree = FileSystem(f"{raw}?offset={_root_offset_bytes(raw)}")
        findings = look_for_identity(tree)
    if findings:
        raise BuildError(
            f"{image.path.name} failed its identity audit: {findings[0]}",
            details="\n".join(findings),
            context={"gate": GATE, "findings": findings},
        )
    return Verdict(
        gate=GATE,
        image_digest=str(image.image.checksum),
        outcome=Outcome.PASSED,
        decided_at=clock.now(),
        seconds=round(clock.monotonic() - started, 1),
        facts=(("host-keys", "none"), ("machine-id", "empty"), ("passwords", "none"), ("sshd", "keys only")),
    )


def look_for_identity(tree: FileSystem) -> list[str]:
    """Return everything in ``tree`` that no image may carry; empty: nothing."""
    findings = [
        f"an SSH host key is baked in: /etc/ssh/{entry.name}"
        for entry in tree.entries("/etc/ssh")
        if fnmatchcase(entry.name, "ssh_host_*")
    ]
    machine_id = tree.content("/etc/machine-id")
    if machine_id is not None and machine_id.strip() not in {"", "uninitialized"}:
        findings.append("a machine-id is baked in: /etc/machine-id")
    findings += _passwords(tree.content("/etc/shadow"))
    findings += [
        f"left behind: {folder}/{entry.name}"
        for folder in _EMPTY_FOLDERS
        for entry in tree.entries(folder)
        if not stat.S_ISDIR(entry.mode)
    ]
    findings += [f"left behind: {path}" for path in _ABSENT if tree.exists(path)]
    findings += [
        f"a log is not empty: /var/log/{entry.name}"
        for entry in tree.entries("/var/log")
        if stat.S_ISREG(entry.mode) and entry.size_bytes and entry.name != "README"
    ]
    resolver = next((entry for entry in tree.entries("/etc") if entry.name == "resolv.conf"), None)
    if resolver is not None and stat.S_ISREG(resolver.mode) and resolver.size_bytes:
        findings.append("name servers of the building machine are baked in: /etc/resolv.conf")
    found = sshd_settings(tree)
    findings += [
        f"sshd has {name} {found[name]}, not {' or '.join(sorted(wanted))}"
        for name, wanted in _SSHD_WANTED.items()
        if found[name] not in wanted
    ]
    return findings


def sshd_settings(tree: FileSystem) -> dict[str, str]:
    """Return the settings of sshd that matter here, as sshd itself would read them: the first value wins."""
    found: dict[str, str] = {}
    text = tree.content("/etc/ssh/sshd_config")
    if text is None:
        raise BuildError("the image has no /etc/ssh/sshd_config")
    _read_sshd(tree, text, found)
    return {name: found.get(name, default) for name, default in _SSHD_DEFAULTS.items()}


def _read_sshd(tree: FileSystem, text: str, found: dict[str, str]) -> None:
    for line in text.splitlines():
        words = line.split("#")[0].replace("=", " ", 1).split()
        if len(words) < 2:  # noqa: PLR2004 - a keyword and its value
            continue
        keyword = words[0].lower()
        if keyword == "match":
            # What follows holds for some connections only.
            return
        if keyword == "challengeresponseauthentication":
            keyword = "kbdinteractiveauthentication"
        if keyword == "include":
            for pattern in words[1:]:
                folder, _, name = pattern.rpartition("/")
                folder = folder if folder.startswith("/") else f"/etc/ssh/{folder}".rstrip("/")
                for entry in sorted(tree.entries(folder), key=lambda entry: entry.name):
                    if fnmatchcase(entry.name, name):
                        _read_sshd(tree, tree.content(f"{folder}/{entry.name}") or "", found)
        else:
            found.setdefault(keyword, words[1].strip('"').lower())


def _passwords(shadow: str | None) -> list[str]:
    if shadow is None:
        raise BuildError("the image has no /etc/shadow")
    accounts = [line.split(":") for line in shadow.splitlines() if line]
    return [
        f"the account {account[0]} has a password in /etc/shadow, or needs none"
        for account in accounts
        if len(account) < 2 or not account[1].startswith(("*", "!"))  # noqa: PLR2004 - name and password
    ]


def _root_offset_bytes(raw: Path) -> int:
    try:
        said = run(["sfdisk", "--json", raw], timeout_seconds=_TOOL_SECONDS).text()
        table = json.loads(said)["partitiontable"]
        sector_bytes = int(table.get("sectorsize", _SECTOR_BYTES))
        extents = [(int(row["size"]), int(row["start"]) * sector_bytes) for row in table["partitions"]]
    except (ToolFailedError, ValueError, KeyError) as problem:
        raise BuildError("the image has no partition table that could be read", details=str(problem)) from problem
    with storage_errors("reading", raw), raw.open("rb") as stream:
        for _, start in sorted(extents, reverse=True):
            stream.seek(start + _EXT_MAGIC_AT)
            if stream.read(len(_EXT_MAGIC)) == _EXT_MAGIC:
                return start
    raise BuildError("the image has no ext4 partition: its files cannot be audited")
