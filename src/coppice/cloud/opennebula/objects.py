# SPDX-License-Identifier: Apache-2.0
"""Images, VM templates, datastores and groups as OpenNebula's answers have them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from coppice.cloud.opennebula import document
from coppice.errors import CloudAnswerError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from coppice.cloud.opennebula.document import Attributes

_NUMBER = re.compile(r"-?[0-9]{1,10}")
_MOST = 2**31 - 1
USE_OWNER = (1, 1, 0)
"""The owner's own rights: use and manage; never administer."""


class State(IntEnum):
    """States of an image (``Image.h``)."""

    INIT = 0
    READY = 1
    USED = 2
    DISABLED = 3
    LOCKED = 4
    ERROR = 5
    CLONE = 6
    DELETE = 7
    USED_PERS = 8
    LOCKED_USED = 9
    LOCKED_USED_PERS = 10


WHOLE = frozenset({State.READY, State.USED, State.DISABLED, State.CLONE, State.USED_PERS})
"""States of an image whose bytes are all there."""
STARTABLE = frozenset({State.READY, State.USED, State.CLONE})
WORKING = frozenset({State.INIT, State.LOCKED, State.LOCKED_USED, State.LOCKED_USED_PERS})
IN_USE = frozenset({State.USED, State.USED_PERS, State.CLONE, State.LOCKED_USED, State.LOCKED_USED_PERS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """Who may use an object beside its owner.

    Attributes:
        group: The members of its group.
        other: Everybody.
    """

    group: bool
    other: bool


NOBODY = Rights(group=False, other=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """An image of the pool.

    Attributes:
        identifier: Its number.
        owner: Number of its owner.
        name: Its name.
        group: Number of its group.
        rights: Who may use it.
        state: Its state.
        datastore: Number of its datastore.
        datastore_name: And its name.
        size_mib: Of the disk that a guest sees.
        source: Where its bytes lie, as its datastore says; empty: nowhere yet.
        registered_at: Seconds since 1970, by the front-end's clock.
        machines: How many run from it, or are being made from it.
        attributes: Its ``TEMPLATE``.
    """

    identifier: int
    owner: int
    name: str
    group: int
    rights: Rights
    state: State
    datastore: int
    datastore_name: str
    size_mib: int
    source: str
    registered_at: int
    machines: int
    attributes: Attributes


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTemplate:
    """A VM template of the pool.

    Attributes:
        identifier: Its number.
        owner: Number of its owner.
        name: Its name.
        group: Number of its group.
        rights: Who may use it.
        attributes: Its ``TEMPLATE``.
    """

    identifier: int
    owner: int
    name: str
    group: int
    rights: Rights
    attributes: Attributes

    @property
    def images(self) -> tuple[int, ...]:
        """Numbers of the images that its disks are of; -1 where a disk names none by number."""
        numbers = []
        for name, value in self.attributes:
            if name == "DISK":
                text = dict(value).get("IMAGE_ID", "") if not isinstance(value, str) else ""
                numbers.append(int(text) if _NUMBER.fullmatch(text) and 0 <= int(text) <= _MOST else -1)
        return tuple(numbers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Datastore:
    """A datastore.

    Attributes:
        identifier: Its number.
        name: Its name.
        holds_images: Whether images of disks can lie there.
        driver: ``DS_MAD``: what copies images into it.
        transfer: ``TM_MAD``: what brings them to hosts.
        base_path: Where its files are on the front-end.
        is_measured: Whether the front-end knows how much room there is; a new one finds out after a while.
    """

    identifier: int
    name: str
    holds_images: bool
    driver: str
    transfer: str
    base_path: str
    is_measured: bool = True


def image_of(element: Element) -> StoredImage:
    """Read an ``IMAGE`` element.

    Raises:
        CloudAnswerError: Something is missing, or is not what it should be.
    """
    number = _number(element, "STATE")
    try:
        state = State(number)
    except ValueError as problem:
        raise _unreadable(element, f"state {number} is unknown") from problem
    return StoredImage(
        identifier=_number(element, "ID"),
        owner=_number(element, "UID"),
        name=_text(element, "NAME"),
        group=_number(element, "GID"),
        rights=_rights(element),
        state=state,
        datastore=_number(element, "DATASTORE_ID"),
        datastore_name=_text(element, "DATASTORE"),
        size_mib=_number(element, "SIZE"),
        source=_text(element, "SOURCE"),
        registered_at=_number(element, "REGTIME"),
        machines=_number(element, "RUNNING_VMS") + _number(element, "CLONING_OPS"),
        attributes=_attributes(element),
    )


def template_of(element: Element) -> StoredTemplate:
    """Read a ``VMTEMPLATE`` element.

    Raises:
        CloudAnswerError: Something is missing, or is not what it should be.
    """
    return StoredTemplate(
        identifier=_number(element, "ID"),
        owner=_number(element, "UID"),
        name=_text(element, "NAME"),
        group=_number(element, "GID"),
        rights=_rights(element),
        attributes=_attributes(element),
    )


def datastore_of(element: Element) -> Datastore:
    """Read a ``DATASTORE`` element.

    Raises:
        CloudAnswerError: Something is missing, or is not what it should be.
    """
    return Datastore(
        identifier=_number(element, "ID"),
        name=_text(element, "NAME"),
        holds_images=_number(element, "TYPE") == 0,
        driver=_text(element, "DS_MAD"),
        transfer=_text(element, "TM_MAD"),
        base_path=_text(element, "BASE_PATH"),
        is_measured=element.findtext("TOTAL_MB", "0").strip() not in {"", "0"},
    )


def unseen_datastore(identifier: int) -> Datastore:
    """Return a datastore of which nothing is known but its number."""
    return Datastore(
        identifier=identifier, name=str(identifier), holds_images=True, driver="", transfer="", base_path=""
    )


def group_of(element: Element) -> tuple[int, str]:
    """Read number and name of a ``GROUP`` element.

    Raises:
        CloudAnswerError: One is missing.
    """
    return _number(element, "ID"), _text(element, "NAME")


def _attributes(element: Element) -> Attributes:
    template = element.find("TEMPLATE")
    if template is None:
        raise _unreadable(element, "it has no TEMPLATE")
    return document.read(template)


def _rights(element: Element) -> Rights:
    permissions = element.find("PERMISSIONS")
    if permissions is None:
        raise _unreadable(element, "it has no PERMISSIONS")
    return Rights(group=_number(permissions, "GROUP_U") == 1, other=_number(permissions, "OTHER_U") == 1)


def _text(element: Element, name: str) -> str:
    found = element.find(name)
    if found is None:
        raise _unreadable(element, f"it has no {name}")
    return found.text or ""


def _number(element: Element, name: str) -> int:
    text = _text(element, name)
    # What is larger no call could name (XML-RPC's `i4`); times go on after 2038.
    if _NUMBER.fullmatch(text) is None or (abs(int(text)) > _MOST and name != "REGTIME"):
        raise _unreadable(element, f"{name} is no number: {text[:50]!r}")
    return int(text)


def _unreadable(element: Element, why: str) -> CloudAnswerError:
    return CloudAnswerError(
        f"OpenNebula's answer cannot be read: in an element {element.tag[:50]}, {why}",
        resolution="Nothing was changed. See whether something between Coppice and the front-end changes answers, and "
        "whether this version of OpenNebula is one that Coppice knows.",
    )
