# SPDX-License-Identifier: Apache-2.0
"""A plan as data: what ``--json`` shows and what a plan file holds."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from coppice.clock import to_rfc3339
from coppice.cloud.properties import presentation_digest, presentation_of

if TYPE_CHECKING:
    from collections.abc import Mapping

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
        "name": name_of(action),
        "digest": str(action.digest),
        "state": str(action.state) if action.state is not None else None,
        "cloud_identifier": action.registered.cloud_identifier if action.registered is not None else None,
        "metadata_digest": None if action.desired is None else presentation_digest(presentation_of(action.desired)),
        "reason": action.reason,
        "after": list(action.after),
        "together": action.together,
        "pin": action.pin,
    }


def name_of(action: Action) -> str | None:
    """Return what people call the image that a step is about: its title in the list, or its name in the cloud."""
    if action.desired is not None:
        return action.desired.listed.title
    return None if action.registered is None else action.registered.name


def plan_differences(agreed: Mapping[str, object], plan: Plan) -> tuple[str, ...]:
    """Return in what ``plan`` differs from one that was written as data, a line each; none: it is the same.

    When it was made, and in which words it gives names and reasons, does not matter.
    """
    now = plan_as_dict(plan)
    found = []
    for what in ("actions", "held"):
        before, after = _essence(agreed.get(what)), _essence(now[what])
        found += [f"planned then, and not now: {_said(each)}" for each in sorted(before.keys() - after.keys())]
        found += [f"planned now, and not then: {_said(each)}" for each in sorted(after.keys() - before.keys())]
        if not found and list(before) != list(after):
            found.append(f"the order of the {what} is another")
    if not found and agreed.get("fingerprint") != now["fingerprint"]:
        found.append("what is registered has changed")
    return tuple(found)


def _essence(steps: object) -> dict[str, None]:
    """Return what matters of steps as texts, in their order; what is no step is itself, and like none."""
    return {
        json.dumps(_without_words(each), sort_keys=True): None for each in (steps if isinstance(steps, list) else [])
    }


def _without_words(step: object) -> object:
    if not isinstance(step, dict):
        return step
    left = {key: _without_words(value) for key, value in step.items() if key not in {"reason", "name"}}
    error = left.get("error")
    if isinstance(error, dict):
        left["error"] = error.get("code")
    return left


def _said(step: str) -> str:
    known = json.loads(step)
    inner = known.get("action", known) if isinstance(known, dict) else None
    facts = inner if isinstance(inner, dict) else known if isinstance(known, dict) else {}
    shown = {key: str(facts[key])[:100] for key in ("kind", "list", "image", "version", "state") if facts.get(key)}
    image = "/".join(shown[key] for key in ("list", "image") if key in shown)
    version, state = shown.get("version"), shown.get("state")
    parts = (shown.get("kind"), image, version and f"version {version}", state and f"({state})")
    text = " ".join(part for part in parts if part)
    return text.encode("unicode_escape").decode("ascii") or "something that is no step of a plan"
