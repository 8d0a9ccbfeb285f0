# SPDX-License-Identifier: Apache-2.0
"""The audit's words: a check with its reason, what it finds, and what it looks at."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fnmatch import fnmatchcase, translate
from typing import TYPE_CHECKING

from coppice.factory.evidence.ownership import Ownership

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from coppice.definition.model import AuditException, Definition
    from coppice.factory.evidence.contents import Digests
    from coppice.factory.evidence.tree import GuestTree, Node


EDITION = 3
"""Raised when a check looks at more than before: builds that an older audit let pass are made, and looked at, anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that no image may have, unless its definition says why.

    Attributes:
        check: Name of the check.
        path: Where it is.
        text: What it is, for people.
    """

    check: str
    path: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is looked at.

    Attributes:
        tree: The image's files.
        definition: What was declared.
        ownership: Which package each file belongs to.
        digests: Of the files' contents, by path.
        capable: Paths of the programs with capabilities that no package brought.
    """

    tree: GuestTree
    definition: Definition
    ownership: Ownership = field(default_factory=Ownership)
    digests: Mapping[str, Digests] = field(default_factory=dict)
    capable: frozenset[str] = frozenset()

    def text_behind(self, node: Node) -> str:
        """Return the text of a file, or of that which a link leads to, as programs read it; empty: there is none."""
        return self.tree.text(node.path) or ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One item of the checklist.

    Attributes:
        name: For verdicts, and for exceptions in definitions.
        finds: What it finds, for people.
        reason: Why an image must not have it.
        look: Gives where it is and what it is.
    """

    name: str
    finds: str
    reason: str
    look: Callable[[Subject], Iterator[tuple[str, str]]]

    def findings(self, subject: Subject) -> tuple[Finding, ...]:
        """Return everything that it finds, by path."""
        found = {Finding(check=self.name, path=path, text=text) for path, text in self.look(subject)}
        return tuple(sorted(found, key=lambda finding: (finding.path, finding.text)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Audited:
    """What the whole checklist found.

    Attributes:
        findings: What no exception covers.
        excepted: What an exception covers.
        unused: Exceptions that cover nothing.
    """

    findings: tuple[Finding, ...]
    excepted: tuple[Finding, ...]
    unused: tuple[AuditException, ...]


def any_of(*patterns: str) -> re.Pattern[str]:
    """Return a pattern that matches what any of the shell's ``patterns`` does."""
    return re.compile("|".join(translate(pattern) for pattern in patterns))


def weigh(findings: tuple[Finding, ...], exceptions: tuple[AuditException, ...]) -> Audited:
    """Return ``findings`` sorted into those that an exception covers and those that none does."""
    used = {exception for exception in exceptions if any(_covers(exception, finding) for finding in findings)}
    excepted = tuple(finding for finding in findings if any(_covers(each, finding) for each in used))
    return Audited(
        findings=tuple(finding for finding in findings if finding not in excepted),
        excepted=excepted,
        unused=tuple(exception for exception in exceptions if exception not in used),
    )


def _covers(exception: AuditException, finding: Finding) -> bool:
    return exception.check == finding.check and fnmatchcase(finding.path, exception.path)
