# SPDX-License-Identifier: Apache-2.0
"""What became of every file of a directory of trust anchors: nothing is skipped without a word."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from coppice.formats.names import distinguished_name
from coppice.subscription.anchor_contents import HeldCertificates, problems_of
from coppice.subscription.anchor_files import FileKind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from cryptography import x509

    from coppice.subscription.anchor_files import NamedFile
    from coppice.subscription.anchors import TrustAnchors

_HASHED = re.compile(r"[0-9a-f]{8}\.")


class FileVerdict(StrEnum):
    """What became of a file."""

    USABLE = "usable"
    EXPIRED = "expired"
    """It can be read, and its date has passed: what depends on it is refused."""
    NOT_YET_VALID = "not-yet-valid"
    UNUSABLE = "unusable"
    """It cannot be read, or not be understood."""
    IGNORED = "ignored"
    """It says nothing that Coppice asks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorEntry:
    """One file, under all its names.

    Attributes:
        names: In the directory.
        kind: What it holds.
        verdict: What became of it.
        holds: The authorities that it certifies or speaks of, or whose CRL it is.
        problem: Why it is not usable, or which part of it is not; empty: nothing is wrong.
    """

    names: tuple[str, ...]
    kind: FileKind
    verdict: FileVerdict
    holds: tuple[str, ...] = ()
    problem: str = ""

    @property
    def name(self) -> str:
        """Return the name that tells people most: one that is no hash, if there is one."""
        return next((each for each in self.names if not _HASHED.match(each)), self.names[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorReport:
    """All files, and how many came out how.

    Attributes:
        entries: Each file once.
    """

    entries: tuple[AnchorEntry, ...]

    def count(self, kind: FileKind, verdict: FileVerdict | None = None) -> int:
        """Return how many files of ``kind`` there are, of one verdict or of any."""
        return len([each for each in self.entries if each.kind is kind and verdict in {None, each.verdict}])

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for each file with something that cannot be used."""
        return tuple(f"{each.name}: {each.problem}" for each in self.entries if each.problem)


def report_anchors(anchors: TrustAnchors, now: datetime) -> AnchorReport:
    """Read everything at the path of ``anchors`` and return what became of each file.

    Args:
        anchors: As they were loaded.
        now: When dates are judged.
    """
    entries = [_certificates(file, held, now) for file, held in anchors.held.items()]
    if anchors.contents is not None:
        entries += [_crl(file, anchors, now) for file in anchors.contents.of_kind(FileKind.CRL)]
        for policy in anchors.contents.policies():
            problem = policy.problem or anchors.namespaces.problems.get(policy.file.names[0], "")
            about = policy.about | {rule.issuer for rule in policy.rules if rule.issuer is not None}
            verdict = FileVerdict.UNUSABLE if problem else FileVerdict.USABLE
            entries.append(_entry(policy.file, verdict, tuple(sorted(map(str, about))), problem))
        entries += [_entry(file, FileVerdict.IGNORED, (), "") for file in anchors.contents.of_kind(FileKind.OTHER)]
    return AnchorReport(entries=tuple(entries))


def _entry(file: NamedFile, verdict: FileVerdict, holds: tuple[str, ...], problem: str) -> AnchorEntry:
    return AnchorEntry(names=file.names, kind=file.kind, verdict=verdict, holds=holds, problem=problem)


def _certificates(file: NamedFile, held: HeldCertificates, now: datetime) -> AnchorEntry:
    problems = [*problems_of(held)]
    dates = [(one.not_valid_before_utc, one.not_valid_after_utc) for one in held.authorities]
    holds = tuple(str(distinguished_name(one.subject)) for one in held.authorities)
    if not holds:
        # Where it holds a CRL only, that one is used.
        verdict = FileVerdict.USABLE if held.crls and not problems else FileVerdict.UNUSABLE
        problems = problems if held.crls or problems else ["there is no certificate in it"]
    else:
        verdict = _dated(dates, now)
        if verdict is FileVerdict.EXPIRED:
            problems.append(f"expired on {max(until for _since, until in dates):%Y-%m-%d}")
    return _entry(file, verdict, holds, "; ".join(problems))


def _crl(file: NamedFile, anchors: TrustAnchors, now: datetime) -> AnchorEntry:
    held = anchors.contents.crls_in(file) if anchors.contents is not None else HeldCertificates()
    crls, problem = held.crls, "; ".join(held.problems)
    holds = tuple(str(distinguished_name(crl.issuer)) for crl in crls)
    if not crls:
        return _entry(file, FileVerdict.UNUSABLE, (), problem or "there is no CRL in it")
    verdict = _dated([(crl.last_update_utc, _next_update(crl)) for crl in crls], now)
    if verdict is FileVerdict.EXPIRED:
        problem = "; ".join(filter(None, (problem, f"was due again on {max(map(_next_update, crls)):%Y-%m-%d}")))
    return _entry(file, verdict, holds, problem)


def _next_update(crl: x509.CertificateRevocationList) -> datetime:
    return crl.next_update_utc or crl.last_update_utc


def _dated(dates: list[tuple[datetime, datetime]], now: datetime) -> FileVerdict:
    if any(since <= now <= until for since, until in dates):
        return FileVerdict.USABLE
    return FileVerdict.EXPIRED if any(until < now for _since, until in dates) else FileVerdict.NOT_YET_VALID


def count_table(report: AnchorReport) -> Mapping[FileKind, Mapping[FileVerdict, int]]:
    """Return for each kind of file how many came out how."""
    return {
        kind: {verdict: report.count(kind, verdict) for verdict in FileVerdict if report.count(kind, verdict)}
        for kind in FileKind
    }
