# SPDX-License-Identifier: Apache-2.0
"""How stale appliances are, for people and for ``--json``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.cli.output import moment

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from coppice.cli.output import Output
    from coppice.workflows.staleness import Appraisal


def describe_appraisal(appraisal: Appraisal) -> dict[str, object]:
    """Return what is known of an appliance, for ``--json``."""
    decision, known = appraisal.decision, appraisal.evidence
    updates = None if known is None else known.updates
    return {
        "appliance": appraisal.name,
        "version": appraisal.version.version,
        "definition": None if appraisal.definition is None else appraisal.definition.name,
        "decision": decision.choice,
        "triggers": decision.triggers,
        "reasons": decision.reasons,
        "due_at": decision.due_at,
        "built_at": None if known is None else known.built_at,
        "expires": appraisal.version.expires,
        "updates": None if updates is None else len(updates),
        "security_updates": None if known is None or updates is None else known.security,
        "packages": updates,
        "changed_keys": () if known is None else known.changed_keys,
        "failed": None if known is None else known.failed,
        "errors": [problem.as_dict() for problem in appraisal.errors],
    }


def render_appraisals(output: Output, appraisals: Sequence[Appraisal], now: datetime) -> None:
    """Print a table, one appliance a line."""
    output.table(
        ["appliance", "version", "built", "updates", "security", "decision", "when"],
        [
            [
                each.name,
                each.version.version,
                "" if each.evidence is None else moment(each.evidence.built_at, now),
                *_counts(each),
                each.decision.choice,
                "" if each.decision.due_at is None else moment(each.decision.due_at, now),
            ]
            for each in appraisals
        ],
    )


def render_reasons(output: Output, appraisals: Sequence[Appraisal]) -> None:
    """Print why, one reason a line."""
    for each in appraisals:
        for reason in each.decision.reasons:
            output.line(f"{each.name}: {reason}")


def _counts(appraisal: Appraisal) -> tuple[object, object]:
    known = appraisal.evidence
    if known is None:
        return "", ""
    if known.updates is None:
        return "unknown", "unknown"
    # What is not known of one repository may hide more.
    more = "+" if appraisal.errors else ""
    return f"{len(known.updates)}{more}", f"{known.security}{more or ('+' if known.undeclared else '')}"
