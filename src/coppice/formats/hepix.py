# SPDX-License-Identifier: Apache-2.0
"""The HEPiX image list: JSON bytes ⇄ `ImageList`.

The format nests ``hv:imagelist`` → ``hv:images`` → ``hv:image``; keys carry the prefix of who coined them: ``dc:``
Dublin Core, ``sl:`` StratusLab, ``hv:`` HEPiX, ``ad:`` AppDB. Numbers may be written as texts. An entry that cannot be
read but names its identifier becomes an `UnreadableEntry`; one that does not, or an identifier that stands there twice,
refuses the list.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from coppice.clock import to_rfc3339
from coppice.errors import DocumentError
from coppice.formats.fields import Fields
from coppice.formats.limits import DEFAULT_LIMITS, ListLimits
from coppice.formats.strict_json import read_json, refuse
from coppice.imagelist.model import ImageList, ListedImage, Profile, UnreadableEntry
from coppice.model.checksum import Checksum
from coppice.model.endorser import DistinguishedName, Endorser
from coppice.model.identifiers import ImageIdentifier, ListIdentifier, is_uuid
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements
from coppice.model.validity import Validity
from coppice.model.version import Version

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_IMAGES = 10_000
MAX_TITLE_BYTES = 4096
_WHAT = "image list"


def read_list(payload: bytes, *, profile: Profile = Profile.STRICT, limits: ListLimits = DEFAULT_LIMITS) -> ImageList:
    """Return the image list that ``payload`` says.

    Args:
        payload: UTF-8 JSON.
        profile: How much of the format it must keep to.
        limits: How much it may be.

    Raises:
        DocumentError: It is no HEPiX image list; the message names the place.
    """
    document = read_json(payload, what=_WHAT, max_bytes=limits.size_bytes, max_depth=limits.depth)
    # An older form of the format has no outer object.
    outer = Fields(document, "$", _WHAT)
    fields = outer if "hv:images" in document else outer.group("hv:imagelist")
    images, unreadable = _entries(fields)
    return ImageList(
        identifier=ListIdentifier(_identifier(fields)),
        version=_version(fields),
        title=fields.text("dc:title", limit_bytes=MAX_TITLE_BYTES),
        description=fields.text("dc:description"),
        source=fields.text("dc:source"),
        uri=fields.word("hv:uri"),
        validity=Validity(created=fields.instant("dc:date:created"), expires=fields.instant("dc:date:expires")),
        endorsers=(_endorser(fields.group("hv:endorser").group("hv:x509")),),
        vo=fields.optional_text("ad:vo"),
        images=images,
        unreadable=unreadable,
        extra=fields.rest(),
    )


def write_list(content: ImageList) -> bytes:
    """Return ``content`` as JSON; every key that the format demands is there.

    Raises:
        DocumentError: It holds entries that could not be read: a list is never passed on in part.
    """
    if content.unreadable:
        refuse("$.hv:imagelist.hv:images", "entries that could not be read cannot be written", what=_WHAT)
    fields: dict[str, object] = {
        "dc:date:created": to_rfc3339(content.validity.created),
        "dc:date:expires": to_rfc3339(content.validity.expires),
        "dc:identifier": content.identifier,
        "dc:title": content.title,
        "dc:description": content.description,
        "dc:source": content.source,
        "hv:version": content.version,
        "hv:uri": content.uri,
        "ad:vo": content.vo,
        "hv:endorser": _endorser_fields(content.endorsers[0]) if content.endorsers else None,
        "hv:images": [{"hv:image": _image_fields(image)} for image in content.images],
        **content.extra,
    }
    document = {"hv:imagelist": _said(fields)}
    return (json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n").encode("utf-8")


def _endorser_fields(endorser: Endorser) -> dict[str, object]:
    return {
        "hv:x509": {
            "dc:creator": endorser.name,
            "hv:email": endorser.email,
            "hv:ca": str(endorser.issuer),
            "hv:dn": str(endorser.subject),
        }
    }


def _said(fields: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in fields.items() if value is not None}


def _image_fields(image: ListedImage) -> dict[str, object]:
    needs = image.requirements
    system = image.operating_system
    numbers = {
        "hv:size": image.size_bytes,
        "hv:ram_minimum": needs.minimum_ram_mib,
        "hv:core_minimum": needs.minimum_cores,
        "ad:ram_recommended": needs.recommended_ram_mib,
        "ad:core_recommended": needs.recommended_cores,
        "coppice:disk_minimum": needs.minimum_disk_bytes,
    }
    return _said(
        {
            "dc:identifier": image.identifier,
            "dc:title": image.title,
            "dc:description": image.description,
            "dc:date:expires": to_rfc3339(image.expires) if image.expires else None,
            "hv:version": image.version,
            "hv:uri": image.uri,
            "hv:format": image.declared_format,
            "hv:hypervisor": image.hypervisor,
            "sl:checksum:sha512": image.checksum.hexdigest,
            "sl:arch": system.architecture,
            "sl:os": system.kind,
            "sl:osname": system.distribution,
            "sl:osversion": system.version,
            "sl:comments": image.comments,
            "ad:group": ", ".join(image.groups) or None,
            "ad:mpuri": image.mpuri,
            "ad:base_mpuri": image.base_mpuri,
            # Existing readers expect texts.
            **{key: None if number is None else str(number) for key, number in numbers.items()},
            **image.extra,
        }
    )


def _entries(fields: Fields) -> tuple[tuple[ListedImage, ...], tuple[UnreadableEntry, ...]]:
    entries = fields.array("hv:images")
    if len(entries) > MAX_IMAGES:
        fields.refuse("hv:images", f"more than {MAX_IMAGES} images")
    images: list[ListedImage] = []
    unreadable: list[UnreadableEntry] = []
    places: dict[str, str] = {}
    for index, entry in enumerate(entries):
        path = f"{fields.path}.hv:images[{index}]"
        if not isinstance(entry, dict):
            refuse(path, "an object is needed", what=_WHAT)
        image = Fields(entry, path, _WHAT).group("hv:image")
        identifier = ImageIdentifier(_identifier(image))
        if identifier in places:
            refuse(path, f"the image {identifier} stands there twice, first at {places[identifier]}", what=_WHAT)
        places[identifier] = path
        try:
            images.append(_image(image, identifier))
        except DocumentError as problem:
            unreadable.append(UnreadableEntry(identifier=identifier, problem=problem.message))
    return tuple(images), tuple(unreadable)


def _image(fields: Fields, identifier: ImageIdentifier) -> ListedImage:
    kind = fields.text("sl:os")
    try:
        checksum = Checksum("sha512", fields.word("sl:checksum:sha512").lower())
    except ValueError as problem:
        fields.refuse("sl:checksum:sha512", str(problem))
    return ListedImage(
        identifier=identifier,
        version=_version(fields),
        title=fields.text("dc:title", limit_bytes=MAX_TITLE_BYTES),
        description=fields.text("dc:description"),
        uri=fields.word("hv:uri"),
        size_bytes=fields.integer("hv:size", least=1),
        checksum=checksum,
        declared_format=fields.optional_text("hv:format"),
        operating_system=OperatingSystem(
            kind=kind,
            distribution=fields.optional_text("sl:osname") or kind,
            version=fields.text("sl:osversion"),
            architecture=fields.text("sl:arch"),
        ),
        hypervisor=fields.text("hv:hypervisor"),
        comments=fields.text("sl:comments"),
        expires=fields.optional_instant("dc:date:expires"),
        requirements=Requirements(
            minimum_cores=fields.optional_integer("hv:core_minimum"),
            minimum_ram_mib=fields.optional_integer("hv:ram_minimum"),
            minimum_disk_bytes=fields.optional_integer("coppice:disk_minimum"),
            recommended_cores=fields.optional_integer("ad:core_recommended"),
            recommended_ram_mib=fields.optional_integer("ad:ram_recommended"),
        ),
        groups=tuple(part for group in (fields.optional_text("ad:group") or "").split(",") if (part := group.strip())),
        mpuri=fields.optional_text("ad:mpuri"),
        base_mpuri=fields.optional_text("ad:base_mpuri"),
        extra=fields.rest(),
    )


def _identifier(fields: Fields) -> str:
    text = fields.text("dc:identifier", limit_bytes=4096)
    if not is_uuid(text):
        fields.refuse("dc:identifier", f"a UUID is needed, not {text[:60]!r}")
    return text.lower()


def _version(fields: Fields) -> str:
    text = fields.word("hv:version")
    try:
        Version(text)
    except ValueError as problem:
        fields.refuse("hv:version", str(problem))
    return text


def _endorser(fields: Fields) -> Endorser:
    return Endorser(
        name=fields.text("dc:creator"),
        email=fields.text("hv:email"),
        subject=_name(fields, "hv:dn"),
        issuer=_name(fields, "hv:ca"),
    )


def _name(fields: Fields, key: str) -> DistinguishedName:
    text = fields.text(key)
    try:
        return DistinguishedName.parse(text)
    except ValueError as problem:
        fields.refuse(key, str(problem))
