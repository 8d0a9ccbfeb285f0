# SPDX-License-Identifier: Apache-2.0
"""What other programs wrote on the images that they registered: the only place that knows their markers. Pure.

What such a marker says is a claim, never a proof: whoever may write properties could have written it.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from coppice.cloud.properties import MAX_VALUE_LENGTH, PREFIX, clean
from coppice.model.checksum import Checksum

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from coppice.cloud.driver import ForeignImage

MAX_ATTRIBUTES_LENGTH = 64 * 1024
_RETIRED_NAME = re.compile(r"(?:^EXPIRED_\d+_|_EXPIRED_\d{4}-)")
_SHA512 = re.compile(r"[0-9A-Fa-f]{128}")


class Program(StrEnum):
    """A program whose images can be taken over."""

    NIFTY = "nifty"
    CLOUDKEEPER_ONE = "cloudkeeper-one"
    CLOUDKEEPER_OS = "cloudkeeper-os"
    ATROPE = "atrope"
    VMCATCHER = "vmcatcher"
    """A handler of vmcatcher's events, glancepush among them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a program says of an image that it registered; None: it does not say.

    Attributes:
        program: Which.
        image: The image's identifier in its list.
        list: The list's identifier.
        version: The image's version.
        vo: The virtual organisation.
        mpuri: Where a marketplace shows this version.
        title: Its title.
        published: Checksum of the file that the list names.
        uploaded: Checksum of the file that the program gave to the cloud, after it had converted it.
        retired: Whether the program has put it out of use.
    """

    program: Program
    image: str | None = None
    list: str | None = None
    version: str | None = None
    vo: str | None = None
    mpuri: str | None = None
    title: str | None = None
    published: Checksum | None = None
    uploaded: Checksum | None = None
    retired: bool = False


def recognise(foreign: ForeignImage) -> Claim | None:
    """Return what the program says that registered an image; None: it is nobody's whom Coppice knows.

    Keys are compared without regard to case: some clouds write them in capitals. An image that bears anything of
    Coppice's is another site's, or was given up by hand: it is nobody's here.
    """
    said = {key.lower(): value for key, value in sorted(foreign.properties.items())}
    if any(key.startswith(PREFIX) for key in said):
        return None
    for marks, read in _PROGRAMS:
        if all(said.get(mark, "").strip() for mark in marks):
            return read(said, foreign.name)
    return None


def _nifty(said: Mapping[str, str], name: str) -> Claim:
    return _of_event(said, name, Program.NIFTY, image=_text(said, "nifty_appliance_id"))


def _vmcatcher(said: Mapping[str, str], name: str) -> Claim:
    return _of_event(said, name, Program.VMCATCHER, image=_text(said, "vmcatcher_event_dc_identifier"))


def _of_event(said: Mapping[str, str], name: str, program: Program, *, image: str | None) -> Claim:
    return Claim(
        program=program,
        image=image,
        list=_text(said, "vmcatcher_event_il_dc_identifier"),
        version=_text(said, "vmcatcher_event_hv_version"),
        vo=_text(said, "vmcatcher_event_vo"),
        mpuri=_text(said, "vmcatcher_event_ad_mpuri"),
        title=_text(said, "vmcatcher_event_dc_title"),
        published=_checksum(said, "vmcatcher_event_sl_checksum_sha512"),
        retired=_RETIRED_NAME.search(name) is not None,
    )


def _cloudkeeper_one(said: Mapping[str, str], name: str) -> Claim:
    expired = _text(said, "cloudkeeper_expired")
    return Claim(
        program=Program.CLOUDKEEPER_ONE,
        image=_text(said, "cloudkeeper_appliance_id"),
        list=_text(said, "cloudkeeper_appliance_image_list_id"),
        version=_text(said, "cloudkeeper_appliance_version"),
        vo=_text(said, "cloudkeeper_appliance_vo"),
        mpuri=_text(said, "cloudkeeper_appliance_mpuri"),
        title=_text(said, "cloudkeeper_appliance_title"),
        uploaded=_checksum(said, "cloudkeeper_image_checksum"),
        retired=(expired or "").lower() in {"yes", "true", "1"} or _RETIRED_NAME.search(name) is not None,
    )


def _cloudkeeper_os(said: Mapping[str, str], _name: str) -> Claim:
    return Claim(
        program=Program.CLOUDKEEPER_OS,
        image=_text(said, "appliance_id"),
        list=_text(said, "appliance_image_list_id"),
        version=_text(said, "appliance_version"),
        vo=_text(said, "appliance_vo"),
        mpuri=_text(said, "appliance_mpuri") or _text(said, "vmcatcher_event_ad_mpuri"),
        title=_text(said, "appliance_title"),
        retired=(_text(said, "appliance_status") or "").upper() == "EOL" or "appliance_remove" in said,
    )


def _cloudkeeper_os_head(said: Mapping[str, str], _name: str) -> Claim:
    # It does not write which image it is: list, marketplace URI, title and version must do.
    return Claim(
        program=Program.CLOUDKEEPER_OS,
        list=_text(said, "cloudkeeper_image_list_identifier"),
        version=_text(said, "cloudkeeper_version"),
        vo=_text(said, "cloudkeeper_vo"),
        mpuri=_text(said, "cloudkeeper_mpuri"),
        title=_text(said, "cloudkeeper_title"),
    )


def _atrope(said: Mapping[str, str], _name: str) -> Claim:
    source = _attributes(said.get("appliance_attributes", ""))
    return Claim(
        program=Program.ATROPE,
        image=_text(said, "appdb_id"),
        version=_text(source, "hv:version"),
        vo=_text(source, "ad:vo"),
        mpuri=_text(said, "vmcatcher_event_ad_mpuri"),
        title=_text(source, "dc:title"),
        published=_checksum(said, "image_hash") or _checksum(said, "sha512"),
    )


_PROGRAMS: tuple[tuple[tuple[str, ...], Callable[[Mapping[str, str], str], Claim]], ...] = (
    (("nifty_appliance_id",), _nifty),
    (("cloudkeeper_id", "cloudkeeper_appliance_id"), _cloudkeeper_one),
    (("appliance_id", "appliance_image_list_id"), _cloudkeeper_os),
    (("cloudkeeper_image_list_identifier",), _cloudkeeper_os_head),
    (("appdb_id", "image_hash"), _atrope),
    (("appdb_id", "sha512"), _atrope),
    (("vmcatcher_event_dc_identifier",), _vmcatcher),
)
"""Properties that an image of a program has, in small letters, and what reads them; the first that fits counts."""


def _text(said: Mapping[str, str], key: str) -> str | None:
    """Return what is said under a key, on one line; None: nothing, or what those programs write for nothing."""
    text = clean(said.get(key, ""), MAX_VALUE_LENGTH)
    return None if text in {"", "undefined", "None", "null"} else text


def _checksum(said: Mapping[str, str], key: str) -> Checksum | None:
    text = _text(said, key)
    if text is None:
        return None
    with contextlib.suppress(ValueError):
        return Checksum("sha512", text.lower()) if _SHA512.fullmatch(text) else Checksum.parse(text)
    return None


def _attributes(text: str) -> dict[str, str]:
    """Return the texts of what a program wrote as JSON; nothing where it is none."""
    if not text or len(text) > MAX_ATTRIBUTES_LENGTH:
        return {}
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(text)
        if isinstance(found, dict):
            return {key: value for key, value in found.items() if isinstance(value, str)}
    return {}
