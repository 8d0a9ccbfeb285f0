# SPDX-License-Identifier: Apache-2.0
"""The facts of an event: all that those who are told of it need, in a form that the journal keeps.

An event is told from the journal alone, perhaps days after it happened, and perhaps once more: nothing about it is
looked up when it is told. So what a list said of an image stands in the event itself.
"""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Protocol

from coppice.clock import to_rfc3339
from coppice.log import redact, redact_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

    from coppice.model.checksum import Checksum
    from coppice.model.operating_system import OperatingSystem

LISTED = "listed"
"""Under this name stands what a list says of an image, word for word: it is public and signed, and no secret."""
SESSION = "session"
"""Under this name stands which run an event belongs to: a UUID, the same for all events of a run."""

MAX_LISTED_TEXT_BYTES = 4096
"""Of a text that a list says of an image; handlers get no more of it either."""
MAX_TEXT_BYTES = 16 * 1024
MAX_ENTRIES = 1000
MAX_FACTS_BYTES = 128 * 1024
_MAX_DEPTH = 12
_CUT = " [cut]"
_TOO_DEEP = "[nested too deep]"


class MarketplaceUser(Protocol):
    """Who brought an image into a marketplace, as image lists say it."""

    @property
    def full_name(self) -> str | None: ...  # noqa: D102 - as in the hand-over type
    @property
    def guid(self) -> str | None: ...  # noqa: D102
    @property
    def uri(self) -> str | None: ...  # noqa: D102


class Listed(Protocol):
    """What is told of a listed image: the hand-over type of image lists has all of it."""

    @property
    def identifier(self) -> str: ...  # noqa: D102 - as in the hand-over type
    @property
    def version(self) -> str: ...  # noqa: D102
    @property
    def title(self) -> str: ...  # noqa: D102
    @property
    def description(self) -> str: ...  # noqa: D102
    @property
    def uri(self) -> str: ...  # noqa: D102
    @property
    def size_bytes(self) -> int: ...  # noqa: D102
    @property
    def checksum(self) -> Checksum: ...  # noqa: D102
    @property
    def declared_format(self) -> str | None: ...  # noqa: D102
    @property
    def operating_system(self) -> OperatingSystem: ...  # noqa: D102
    @property
    def hypervisor(self) -> str: ...  # noqa: D102
    @property
    def comments(self) -> str: ...  # noqa: D102
    @property
    def expires(self) -> datetime | None: ...  # noqa: D102
    @property
    def groups(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def mpuri(self) -> str | None: ...  # noqa: D102
    @property
    def base_mpuri(self) -> str | None: ...  # noqa: D102
    @property
    def appliance_id(self) -> str | None: ...  # noqa: D102
    @property
    def user(self) -> MarketplaceUser | None: ...  # noqa: D102


class Listing(Protocol):
    """What is told of the list that an image stands in: the hand-over type of image lists has all of it."""

    @property
    def identifier(self) -> str: ...  # noqa: D102 - as in the hand-over type
    @property
    def version(self) -> str: ...  # noqa: D102
    @property
    def vo(self) -> str | None: ...  # noqa: D102


def new_session() -> str:
    """Return the identifier of a run, for the events that belong to it."""
    return str(uuid.uuid4())


def run_facts(session: str, **more: object) -> dict[str, object]:
    """Return the facts of an event that tells of a whole run (`EventKind.CACHE_RUN_BEGUN`, `CACHE_RUN_ENDED`).

    Args:
        session: From `new_session`.
        more: What else is known.
    """
    return {SESSION: session, **more}


def image_facts(
    subscription: str | None,
    image_list: Listing,
    listed: Listed,
    *,
    file_name: str | None = None,
    sha512: Checksum | None = None,
    session: str | None = None,
    **more: object,
) -> dict[str, object]:
    """Return the facts of an event about a listed image; they are plain JSON, and may be kept to be told again.

    What is told when an image leaves is what was told when it came: whoever keeps an image keeps its facts, since the
    list may not name it any more by then.

    Args:
        subscription: Through which the list is followed.
        image_list: The list.
        listed: What it says of the image.
        file_name: Under which the published file is handed out.
        sha512: Of the published file, where the list has another checksum.
        session: Of the run, from `new_session`.
        more: What else is known.
    """
    digest = sha512 or listed.checksum
    facts: dict[str, object] = {
        "subscription": subscription,
        "list": str(image_list.identifier),
        "list_version": image_list.version,
        "vo": image_list.vo,
        "image": str(listed.identifier),
        "version": listed.version,
        "digest": str(digest),
        "file_name": file_name,
        LISTED: _listed(listed),
    }
    if session is not None:
        facts[SESSION] = session
    return facts | more


def _listed(listed: Listed) -> dict[str, object]:
    system, user = listed.operating_system, listed.user
    said: dict[str, object] = {
        "title": listed.title,
        "description": listed.description,
        "uri": redact(listed.uri),
        "size_bytes": listed.size_bytes,
        "checksum": str(listed.checksum),
        "format": listed.declared_format,
        "os": system.kind,
        "os_name": system.distribution,
        "os_version": system.version,
        "architecture": system.architecture,
        "hypervisor": listed.hypervisor,
        "comments": listed.comments,
        "expires": None if listed.expires is None else to_rfc3339(listed.expires),
        "groups": [cut_text(group, MAX_LISTED_TEXT_BYTES) for group in listed.groups[:MAX_ENTRIES]],
        "mpuri": listed.mpuri,
        "base_mpuri": listed.base_mpuri,
        "appliance_id": listed.appliance_id,
        "user_full_name": None if user is None else user.full_name,
        "user_guid": None if user is None else user.guid,
        "user_uri": None if user is None else user.uri,
    }
    return {
        name: cut_text(value, MAX_LISTED_TEXT_BYTES) if isinstance(value, str) else value
        for name, value in said.items()
        if value not in (None, "", [])
    }


def kept_facts(facts: Mapping[str, object]) -> dict[str, object]:
    """Return ``facts`` as the journal keeps them: without secrets, bounded, text that every reader can encode.

    What a list says word for word stays so; it was bounded when it was taken in.
    """
    kept: dict[str, object] = {}
    for name, value in facts.items():
        bounded = _bounded(value, MAX_LISTED_TEXT_BYTES if name == LISTED else MAX_TEXT_BYTES, 0)
        kept[name] = bounded if name == LISTED else redact_value(name, bounded)
    if _size(kept) > MAX_FACTS_BYTES:
        for name in sorted(kept, key=lambda each: _size(kept[each]), reverse=True):
            kept[name] = f"[left out: {_size(kept[name])} bytes]"
            if _size(kept) <= MAX_FACTS_BYTES:
                break
    return kept


def cut_text(text: str, limit_bytes: int) -> str:
    """Return as much of ``text`` as fits into ``limit_bytes`` of UTF-8, with whole characters only."""
    if len(text) <= limit_bytes and text.isascii():
        return text
    encoded = text.encode("utf-8", errors="backslashreplace")
    return encoded[:limit_bytes].decode("utf-8", errors="ignore")


def _bounded(value: object, limit_bytes: int, depth: int) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, dict):
        return _bounded_entries(value.items(), limit_bytes, depth)
    if isinstance(value, (list, tuple)):
        if depth >= _MAX_DEPTH:
            return _TOO_DEEP
        kept = [_bounded(each, limit_bytes, depth + 1) for each in value[:MAX_ENTRIES]]
        return kept if len(value) <= MAX_ENTRIES else [*kept, f"[{len(value) - MAX_ENTRIES} more]"]
    text = str(value)
    cut = cut_text(text, limit_bytes)
    return cut if len(cut) >= len(text) else cut_text(text, limit_bytes - len(_CUT)) + _CUT


def _bounded_entries(entries: Iterable[tuple[object, object]], limit_bytes: int, depth: int) -> object:
    if depth >= _MAX_DEPTH:
        return _TOO_DEEP
    kept: dict[str, object] = {}
    for name, value in entries:
        if len(kept) >= MAX_ENTRIES:
            kept["..."] = "[more]"
            break
        kept[cut_text(str(name), 256)] = _bounded(value, limit_bytes, depth + 1)
    return kept


def _size(value: object) -> int:
    return len(json.dumps(value))
