# SPDX-License-Identifier: Apache-2.0
"""How the simulator says no: the codes of OpenNebula's XML-RPC interface, and faults of the protocol itself."""

from __future__ import annotations

from enum import IntEnum

INVALID_NAME_CHARACTERS = "&|:\\\";/'#{}$<>"
"""What `oned` takes in no object's name."""
NAME_LIMIT_BYTES = 128


class Code(IntEnum):
    """What kind of refusal it is, as the third value of an answer has it."""

    AUTHENTICATION = 0x0100
    AUTHORISATION = 0x0200
    NO_EXISTS = 0x0400
    ACTION = 0x0800
    API = 0x1000
    INTERNAL = 0x2000
    ALLOCATE = 0x4000


class Refusal(Exception):  # noqa: N818 - it is an answer, and no error of the simulator
    """A call is refused.

    Args:
        code: Of which kind.
        text: Without the name of the method, which the answer adds.
        object_id: Which object it is about, where the recordings name it.
    """

    def __init__(self, code: int, text: str, object_id: int = -1) -> None:
        super().__init__(text)
        self.code = code
        self.text = text
        self.object_id = object_id


class ProtocolFault(Exception):  # noqa: N818 - the protocol's own word
    """A call that is none: an XML-RPC fault answers it."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def check_name(name: str, code: Code) -> None:
    """Refuse a name that no object can have."""
    prefix = "Error allocating a new image. " if code is Code.ALLOCATE else ""
    if not name:
        raise Refusal(code, f"{prefix}Invalid NAME, it cannot be empty")
    for character in name:
        if character in INVALID_NAME_CHARACTERS:
            raise Refusal(code, f"{prefix}Invalid NAME, char '{character}' is not allowed")
    if len(name.encode()) > NAME_LIMIT_BYTES:
        raise Refusal(code, f"{prefix}Invalid NAME, max length is {NAME_LIMIT_BYTES} chars")


def missing(kind: str, object_id: int) -> Refusal:
    """Return what answers a call for an object that is not there."""
    return Refusal(Code.NO_EXISTS, f"Error getting {kind} [{object_id}].", object_id)
