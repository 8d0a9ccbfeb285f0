# SPDX-License-Identifier: Apache-2.0
"""The JSON Schema of ``appliance.toml``, for editors: made from the schema, and shipped as a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coppice.definition.layers import KEYED
from coppice.definition.schema import DefinitionFile

SCHEMA_FILE = Path(__file__).with_name("appliance.schema.json")
"""Where it is shipped; ``make docs`` writes it."""

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
# Of a definition without a parent; a child says what differs. What a site's settings may say is not demanded here.
_DEMANDED = {
    "appliance": ["title", "description"],
    "operating-system": ["distribution", "version", "suite"],
    "build": ["user"],
}
_WHOLE_ITEMS = ("AuditExceptionSection",)
_ITEM_KEYS = {"FileSection": KEYED["file"], "UserSection": KEYED["user"]} | {
    "ProvisionerSection": KEYED["provisioner"],
    "TestSection": KEYED["test"],
    "PageSection": KEYED["page"],
}


def schema_text() -> str:
    """Return the JSON Schema as its file has it."""
    return json.dumps(make_json_schema(), indent=2, ensure_ascii=True) + "\n"


def make_json_schema() -> dict[str, Any]:
    """Return the JSON Schema of one ``appliance.toml``, with or without a parent."""
    made = DefinitionFile.model_json_schema(by_alias=True)
    parts: dict[str, Any] = made.pop("$defs")
    made.pop("required", None)
    for name, part in parts.items():
        if name in _ITEM_KEYS:
            part["required"] = [_ITEM_KEYS[name]]
        elif name not in _WHOLE_ITEMS:
            part.pop("required", None)
        part.get("properties", {}).update(_with_replace(part.get("properties", {})))
        part.pop("title", None)
    properties = _with_replace(made["properties"])
    parts["Variant"] = {
        "type": "object",
        "description": "What differs from the definition that it is a variant of.",
        "properties": {key: value for key, value in properties.items() if key != "variants"},
        "additionalProperties": False,
    }
    properties["variants"]["additionalProperties"] = {"$ref": "#/$defs/Variant"}
    properties["variants"].pop("patternProperties", None)
    properties["variants"].pop("propertyNames", None)
    return {
        "$schema": _DIALECT,
        "title": "appliance.toml",
        "description": "A definition of Coppice: what an appliance is built from.",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "if": {"not": {"required": ["from"]}},
        "then": {
            "required": list(_DEMANDED),
            "properties": {key: {"required": demanded} for key, demanded in _DEMANDED.items()},
        },
        "$defs": parts,
    }


def _with_replace(properties: dict[str, Any]) -> dict[str, Any]:
    return {key: _replaceable(value) for key, value in properties.items()}


def _replaceable(value: dict[str, Any]) -> dict[str, Any]:
    value = {key: each for key, each in value.items() if key != "title"}
    if value.get("type") != "array":
        return value
    told: dict[str, Any] = {key: value.pop(key) for key in ("description", "default") if key in value}
    # One that is put after a parent's may be as short as one likes.
    value.pop("minItems", None)
    replacing = {"type": "object", "properties": {"replace": value}, "required": ["replace"]}
    return {"anyOf": [value, {**replacing, "additionalProperties": False}], **told}
