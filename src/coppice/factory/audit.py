# SPDX-License-Identifier: Apache-2.0
"""The gate ``audit``: look into a finished image, without mounting or booting it, for what no image may have.

It reads the bytes that will be published, whichever builder made them, and holds them against a checklist. A definition
may except something by the check's name, the path and a reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.definition.model import FileSystemKind
from coppice.errors import AuditError
from coppice.factory.audit_accounts import ACCOUNT_CHECKS
from coppice.factory.audit_contents import CONTENT_CHECKS
from coppice.factory.audit_leftovers import LEFTOVER_CHECKS
from coppice.factory.audit_model import Subject, weigh
from coppice.factory.audit_network import NETWORK_CHECKS
from coppice.factory.evidence.contents import Contents
from coppice.factory.evidence.inventory import Inventory, take_inventory
from coppice.factory.evidence.ownership import ownership_of
from coppice.factory.evidence.root import open_root
from coppice.factory.model import Outcome, Verdict
from coppice.factory.outputs import read_disk
from coppice.factory.workplace import workplace
from coppice.model.image import DiskFormat

if TYPE_CHECKING:
    from pathlib import Path

    from coppice.clock import Clock
    from coppice.definition.model import AuditException, Definition
    from coppice.factory.audit_model import Audited, Check, Finding
    from coppice.factory.model import BuiltImage

GATE = "audit"
CHECKS: tuple[Check, ...] = (*ACCOUNT_CHECKS, *LEFTOVER_CHECKS, *NETWORK_CHECKS, *CONTENT_CHECKS)
"""The checklist."""
_TOOL_SECONDS = 300.0
_EXECUTABLE = 0o111
_OWN_BUILDER = "bootstrap"
_MOST_TOLD = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What the audit of an image that passed found out.

    Attributes:
        verdict: That it passed.
        inventory: Every file in it.
        unused: Exceptions of the definition that cover nothing: somebody should take them out.
        contents: What its files contain.
    """

    verdict: Verdict
    inventory: Inventory
    unused: tuple[AuditException, ...]
    contents: Contents = field(default_factory=Contents)


def audit(
    image: BuiltImage,
    definition: Definition,
    *,
    work_directory: Path | None,
    clock: Clock,
    disk: Path | None = None,
    contents: Contents | None = None,
) -> AuditReport:
    """Return what is in ``image``, which has nothing that no image may have, but for what ``definition`` excepts.

    Args:
        image: What is looked into.
        definition: What was built.
        work_directory: Where a raw copy is made; None: the system's temporary directory.
        clock: For dates and durations.
        disk: The image's disk, raw, of which somebody has seen that the image has it; None: a copy is made.
        contents: What is known of contents of files, as of those of its parent's.

    Raises:
        AuditError: It has; ``details`` names everything that was found.
        BuildError: It cannot be looked into.
        NoSpaceError: There is no room for a raw copy.
    """
    started, contents = clock.monotonic(), contents or Contents()
    unknown = sorted({each.check for each in definition.audit_exceptions} - {check.name for check in CHECKS})
    if unknown:
        raise AuditError(
            f"{definition.name} has an audit exception for {unknown[0]!r}, and there is no such check",
            details=f"The checks: {', '.join(check.name for check in CHECKS)}",
            resolution="Correct the name in [[audit-exception]].",
        )
    with workplace(work_directory) as work:
        subject = read_subject(disk or _as_raw(image, work), definition, work, contents)
        audited = judge(subject)
        inventory = take_inventory(subject.tree, subject.ownership, subject.digests)
    if audited.findings:
        raise _failure(image, audited)
    return AuditReport(
        verdict=Verdict(
            gate=GATE,
            image_digest=str(image.image.checksum),
            outcome=Outcome.PASSED,
            decided_at=clock.now(),
            seconds=round(clock.monotonic() - started, 1),
            facts=_facts(audited),
        ),
        inventory=inventory,
        unused=audited.unused,
        contents=contents,
    )


def read_subject(raw: Path, definition: Definition, work: Path, contents: Contents | None = None) -> Subject:
    """Return what is in the raw disk ``raw``, ready to be checked; the disk must stay until that is done.

    Args:
        raw: The disk.
        definition: What was built.
        work: An empty directory.
        contents: What is known of contents of files.

    Raises:
        BuildError: It cannot be looked into.
    """
    disk = open_root(raw, work, may_be_btrfs=_makes_btrfs(definition))
    tree = disk.tree()
    ownership = ownership_of(tree)
    programs = (node for node in tree if node.is_file and node.mode & _EXECUTABLE)
    return Subject(
        tree=tree,
        definition=definition,
        ownership=ownership,
        digests=disk.digests(tree, ownership, contents or Contents()),
        capable=disk.capable(node for node in programs if node.path not in ownership.packages),
    )


def _makes_btrfs(definition: Definition) -> bool:
    # Its nodes are this factory's own then; whatever writes them otherwise may be a stranger.
    return definition.builder == _OWN_BUILDER and definition.file_system is FileSystemKind.BTRFS


def judge(subject: Subject) -> Audited:
    """Return what the checklist finds in ``subject``, and which of it the definition excepts."""
    findings = tuple(finding for check in CHECKS for finding in check.findings(subject))
    return weigh(findings, subject.definition.audit_exceptions)


def _facts(audited: Audited) -> tuple[tuple[str, str], ...]:
    excepted = [finding.check for finding in audited.excepted]
    return (
        *(
            (each.name, f"{excepted.count(each.name)} excepted" if each.name in excepted else "passed")
            for each in CHECKS
        ),
        *(("unused-exception", f"{each.check} {each.path}") for each in audited.unused),
    )


def _failure(image: BuiltImage, audited: Audited) -> AuditError:
    reasons = {check.name: check.reason for check in CHECKS}
    lines = [_line(finding, reasons) for finding in audited.findings]
    if len(lines) > _MOST_TOLD:
        lines = [*lines[:_MOST_TOLD], f"… and {len(lines) - _MOST_TOLD} more"]
    first = audited.findings[0]
    return AuditError(
        f"{image.path.name} failed its audit: {first.path}: {first.text} ({first.check})",
        details="\n".join(lines),
        resolution="Have the build not leave it there. Where it is meant to be, say so in the definition, with a "
        "reason: [[audit-exception]] with check, path and reason.",
        context={
            "gate": GATE,
            "findings": [
                {"check": each.check, "path": each.path, "text": each.text, "reason": reasons[each.check]}
                for each in audited.findings[:_MOST_TOLD]
            ],
        },
    )


def _line(finding: Finding, reasons: dict[str, str]) -> str:
    return f"{finding.check}: {finding.path}: {finding.text}. {reasons[finding.check]}"


def _as_raw(image: BuiltImage, work: Path) -> Path:
    if image.image.format is DiskFormat.RAW:
        return image.path
    raw = work / "disk.raw"
    read_disk(image, raw, timeout_seconds=_TOOL_SECONDS)
    return raw
