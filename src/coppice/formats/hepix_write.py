# SPDX-License-Identifier: Apache-2.0
"""`ImageList` → JSON bytes: the same content always gives the same bytes."""

from __future__ import annotations

import json
from datetime import UTC
from typing import TYPE_CHECKING

from coppice.clock import require_aware
from coppice.errors import DocumentError
from coppice.formats.hepix_delta import DELTA_KEY, MIRRORS_KEY, write_delta
from coppice.formats.strict_json import refuse
from coppice.imagelist.model import MarketplaceUser

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from coppice.imagelist.model import ImageList, ListedImage
    from coppice.model.endorser import DistinguishedName, Endorser

_WHAT = "image list"


def write_list(content: ImageList) -> bytes:
    """Return ``content`` as JSON; every key that the format demands is there, if the content has it.

    Raises:
        DocumentError: It holds entries that could not be read: a list is never passed on in part. Or it holds what
            JSON cannot say.
    """
    if content.unreadable:
        refuse("$.hv:imagelist.hv:images", "entries that could not be read cannot be written", what=_WHAT)
    document = _with_extra({"hv:imagelist": _list_fields(content)}, content.outer_extra)
    try:
        return (json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n").encode("utf-8")
    except (ValueError, TypeError, RecursionError) as problem:
        raise DocumentError(
            "the image list holds something that JSON cannot say", details=f"{type(problem).__name__}: {problem}"[:300]
        ) from problem


def _list_fields(content: ImageList) -> dict[str, object]:
    endorsers = [_endorser_fields(endorser) for endorser in content.endorsers]
    fields: dict[str, object | None] = {
        "dc:date:created": _instant(content.validity.created),
        "dc:date:expires": _instant(content.validity.expires),
        "dc:identifier": content.identifier,
        "dc:title": content.title,
        "dc:description": content.description,
        "dc:source": content.source,
        "hv:version": content.version,
        "hv:uri": content.uri or None,
        "ad:vo": content.vo,
        "ad:swid": content.swid,
        "ad:num_of_images": _number(content.number_of_images),
        # Most readers know a single one only.
        "hv:endorser": endorsers[0] if len(endorsers) == 1 else endorsers or None,
        "hv:images": [_with_extra({"hv:image": _image_fields(image)}, image.wrapper_extra) for image in content.images],
    }
    return _with_extra(fields, content.extra)


def _endorser_fields(endorser: Endorser) -> dict[str, object]:
    names: dict[str, object | None] = {
        "dc:creator": endorser.name,
        "hv:email": endorser.email,
        "hv:ca": _one_line(endorser.issuer),
        "hv:dn": _one_line(endorser.subject),
    }
    return _with_extra({"hv:x509": _with_extra(names, endorser.extra)}, endorser.wrapper_extra)


def _one_line(name: DistinguishedName) -> str:
    r"""Return a name as OpenSSL's one-line form has it, ``\xHH`` for what is not ASCII: readers compare the texts."""
    return "".join(
        sign if sign.isascii() else "".join(f"\\x{byte:02X}" for byte in sign.encode("utf-8")) for sign in str(name)
    )


def _image_fields(image: ListedImage) -> dict[str, object]:
    needs = image.requirements
    system = image.operating_system
    user = image.user or MarketplaceUser()
    return _with_extra(
        {
            "dc:identifier": image.identifier,
            "dc:title": image.title,
            "dc:description": image.description,
            "dc:date:expires": None if image.expires is None else _instant(image.expires),
            "hv:version": image.version,
            "hv:uri": image.uri,
            "hv:format": image.declared_format,
            "hv:hypervisor": image.hypervisor,
            "hv:size": _number(image.size_bytes),
            "hv:ram_minimum": _number(needs.minimum_ram_mib),
            "hv:core_minimum": _number(needs.minimum_cores),
            "sl:checksum:sha512": image.checksum.hexdigest,
            "sl:arch": system.architecture,
            "sl:os": system.kind,
            "sl:osname": system.distribution,
            "sl:osversion": system.version,
            "sl:comments": image.comments,
            "ad:group": ", ".join(image.groups) or None,
            "ad:mpuri": image.mpuri,
            "ad:base_mpuri": image.base_mpuri,
            "ad:appid": image.appliance_id,
            "ad:user:fullname": user.full_name,
            "ad:user:guid": user.guid,
            "ad:user:uri": user.uri,
            "ad:ram_recommended": _number(needs.recommended_ram_mib),
            "ad:core_recommended": _number(needs.recommended_cores),
            "ad:traffic_in": image.traffic_in,
            "ad:traffic_out": image.traffic_out,
            "coppice:disk_minimum": _number(needs.minimum_disk_bytes),
            MIRRORS_KEY: list(image.mirrors) or None,
            DELTA_KEY: write_delta(image.delta) if image.delta is not None else None,
        },
        image.extra,
    )


def _with_extra(fields: Mapping[str, object | None], extra: Mapping[str, object]) -> dict[str, object]:
    # A known key says what the content says; the rest has no order but its own.
    said = {key: value for key, value in fields.items() if value is not None}
    said.update((key, value) for key, value in extra.items() if key not in said)
    return said


def _number(number: int | None) -> str | None:
    # Existing readers expect texts.
    return None if number is None else str(number)


def _instant(instant: datetime) -> str:
    return require_aware(instant).astimezone(UTC).isoformat().replace("+00:00", "Z")
