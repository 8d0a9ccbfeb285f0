# SPDX-License-Identifier: Apache-2.0
"""A `Definition` as JSON's types, and back: how it stands in the record of a build."""

from __future__ import annotations

import base64
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coppice.definition.model import (
    Access,
    AuditException,
    Boot,
    Contextualisation,
    DefinedFile,
    DefinedUser,
    Definition,
    FileSystemKind,
    Firewall,
    GuestTest,
    OpenPort,
    Page,
    Provisioner,
    ProvisionerKind,
    RebuildPolicy,
    Services,
    Start,
)
from coppice.model.image import DiskFormat
from coppice.model.operating_system import Firmware, OperatingSystem
from coppice.model.requirements import Requirements

if TYPE_CHECKING:
    from collections.abc import Mapping


def definition_document(definition: Definition) -> dict[str, Any]:
    """Return ``definition`` as JSON's types; bytes are base64."""
    found: dict[str, Any] = _plain(asdict(definition))
    return found


def definition_from(document: Mapping[str, Any]) -> Definition:
    """Return the definition in ``document``; what older records do not have is as it was then.

    Raises:
        ValueError, KeyError, TypeError, AttributeError: It holds none.
    """
    known = dict(document)
    end, start = known.get("end_of_life"), known.get("start")
    return Definition(
        **{
            **known,
            "path": Path(known["path"]),
            "groups": tuple(known["groups"]),
            "packages": tuple(known["packages"]),
            "operating_system": OperatingSystem(**known["operating_system"]),
            "requirements": Requirements.from_values(known["requirements"]),
            "firmware": tuple(Firmware(each) for each in known["firmware"]),
            "formats": tuple(DiskFormat(each) for each in known["formats"]),
            "end_of_life": None if end is None else date.fromisoformat(end),
            "file_system": FileSystemKind(known.get("file_system", FileSystemKind.EXT4)),
            "start": None if start is None else Start(**{**start, "key": _bytes(start["key"])}),
            **_contents(known),
            **_behaviour(known),
        }
    )


def _contents(known: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "files": tuple(DefinedFile(**{**each, "content": _bytes(each["content"])}) for each in known.get("files", ())),
        "users": tuple(DefinedUser(**{**each, "groups": tuple(each["groups"])}) for each in known.get("users", ())),
        "services": Services(**{name: tuple(each) for name, each in known.get("services", {}).items()}),
        "provisioners": tuple(_provisioner(each) for each in known.get("provisioners", ())),
    }


def _behaviour(known: Mapping[str, Any]) -> dict[str, Any]:
    firewall, context, boot = known.get("firewall", {}), known.get("contextualisation", {}), known.get("boot", {})
    ports = tuple(OpenPort(**each) for each in firewall.get("open_ports", ()))
    if context:
        said = context["user_data"]
        context = {
            **context,
            "sources": tuple(context["sources"]),
            "user_data": None if said is None else _bytes(said),
        }
    if boot:
        boot = {**boot, "kernel_options": tuple(boot["kernel_options"])}
    return {
        "access": Access(**known.get("access", {})),
        "firewall": Firewall(**{**firewall, "open_ports": ports}),
        "contextualisation": Contextualisation(**context),
        "boot": Boot(**boot),
        "tests": tuple(GuestTest(**{**each, "script": _bytes(each["script"])}) for each in known.get("tests", ())),
        "pages": tuple(Page(**each) for each in known.get("pages", ())),
        "audit_exceptions": tuple(AuditException(**each) for each in known.get("audit_exceptions", ())),
        "rebuild": RebuildPolicy(**known.get("rebuild", {})),
    }


def _provisioner(values: Mapping[str, Any]) -> Provisioner:
    return Provisioner(
        **{
            **values,
            "kind": ProvisionerKind(values["kind"]),
            "files": {path: _bytes(content) for path, content in values["files"].items()},
            "interpreter": tuple(values["interpreter"]),
        }
    )


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, date | Path):
        return str(value)
    return value


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)
