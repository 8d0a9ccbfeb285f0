# SPDX-License-Identifier: Apache-2.0
"""A plan as data: what ``--json`` shows and what a plan file holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coppice.clock import to_rfc3339
from coppice.cloud.properties import presentation_digest, presentation_of

if TYPE_CHECKING:
    from coppice.cloud.steps import Action, Plan


def plan_as_dict(plan: Plan) -> dict[str, object]:
    """Return the plan for ``--json``."""
    return {
        "cloud": plan.cloud,
        "made_at": to_rfc3339(plan.made_at),
        "fingerprint": plan.fingerprint,
        "unchanged": plan.unchanged,
        "actions": [action_as_dict(action) for action in plan.actions],
        "held": [
            {
                "list": held.list_identifier,
                "action": action_as_dict(held.action) if held.action is not None else None,
                "error": held.error.as_dict(),
            }
            for held in plan.held
        ],
        "refused": [error.as_dict() for error in plan.refused],
    }


def action_as_dict(action: Action) -> dict[str, object]:
    """Return one step of a plan for ``--json``."""
    return {
        "kind": str(action.kind),
        "list": action.key.list_identifier,
        "image": action.key.image_identifier,
        "version": action.version,
        "digest": str(action.digest),
        "state": str(action.state) if action.state is not None else None,
        "cloud_identifier": action.registered.cloud_identifier if action.registered is not None else None,
        "metadata_digest": None if action.desired is None else presentation_digest(presentation_of(action.desired)),
        "reason": action.reason,
        "after": list(action.after),
        "together": action.together,
    }
