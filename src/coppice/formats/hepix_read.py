# SPDX-License-Identifier: Apache-2.0
"""JSON bytes → `ImageList`.

Numbers may be written as texts. An entry that cannot be read but names its identifier becomes an `UnreadableEntry`; one
that does not, or an identifier that stands there twice, refuses the list.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from coppice.errors import DocumentError
from coppice.formats.fields import Fields
from coppice.formats.hepix_delta import read_delta, read_mirrors
from coppice.formats.limits import DEFAULT_LIMITS, ListLimits
from coppice.formats.strict_json import read_json, refuse
from coppice.imagelist.model import ImageList, ListedImage, MarketplaceUser, Profile, UnreadableEntry
from coppice.model.checksum import Checksum
from coppice.model.endorser import DistinguishedName, Endorser
from coppice.model.identifiers import ImageIdentifier, ListIdentifier, is_uuid
from coppice.model.operating_system import OperatingSystem
from coppice.model.requirements import Requirements
from coppice.model.validity import Validity
from coppice.model.version import MAX_VERSION_LENGTH, Version

if TYPE_CHECKING:
    from datetime import datetime

WHAT = "image list"
MAX_ENDORSERS = 64
MAX_IDENTIFIER_BYTES = 255
"""Of an identifier that is no UUID."""
_NOT_IN_IDENTIFIERS = frozenset("/\\")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    """What the list is held against, and what its images share: most of a list's images differ in little."""

    lenient: bool
    limits: ListLimits
    systems: dict[tuple[str | None, ...], OperatingSystem] = field(default_factory=dict)
    requirements: dict[tuple[int | None, ...], Requirements] = field(default_factory=dict)
    users: dict[tuple[str | None, ...], MarketplaceUser] = field(default_factory=dict)
    problems: list[DocumentError] = field(default_factory=list)


def read_list(payload: bytes, *, profile: Profile = Profile.STRICT, limits: ListLimits = DEFAULT_LIMITS) -> ImageList:
    """Return the image list that ``payload`` says.

    Args:
        payload: UTF-8 JSON.
        profile: How much of the format it must keep to.
        limits: How much it may be, whatever the profile.

    Raises:
        DocumentError: It is no HEPiX image list; the message names the place.
    """
    document = read_json(
        payload,
        what=WHAT,
        max_bytes=limits.size_bytes,
        max_depth=limits.depth,
        max_text_bytes=limits.text_bytes,
        max_values=limits.values,
    )
    return _outer(document, _Terms(lenient=profile is Profile.LENIENT, limits=limits))


def read_document(
    document: dict[str, object], *, profile: Profile, limits: ListLimits
) -> tuple[ImageList | None, tuple[DocumentError, ...]]:
    """Return what `read_list` makes of a document that was parsed, and everything that it met.

    Returns:
        The list, None where it is refused; and why it is, or why each unreadable entry is.
    """
    terms = _Terms(lenient=profile is Profile.LENIENT, limits=limits)
    try:
        return _outer(document, terms), tuple(terms.problems)
    except DocumentError as problem:
        return None, (*terms.problems, problem)


def _outer(document: dict[str, object], terms: _Terms) -> ImageList:
    outer = Fields(document, "$", WHAT)
    if "hv:images" not in document:
        return _list(outer.group("hv:imagelist"), terms, outer.rest())
    if "hv:imagelist" in document:
        outer.refuse("hv:images", "it stands beside hv:imagelist: which of the two is the list?")
    # An older form of the format has no outer object.
    return _list(outer, terms, {})


def _list(fields: Fields, terms: _Terms, outer_extra: dict[str, object]) -> ImageList:
    images, unreadable = _entries(fields, terms)
    validity = Validity(created=fields.instant("dc:date:created"), expires=fields.instant("dc:date:expires"))
    lenient = terms.lenient
    text = fields.text_or_empty if lenient else fields.text
    return ImageList(
        identifier=ListIdentifier(_identifier(fields, terms)),
        version=_list_version(fields, validity.created, lenient=lenient),
        title=text("dc:title", limit_bytes=terms.limits.title_bytes),
        description=text("dc:description"),
        source=text("dc:source"),
        uri=(fields.text_or_empty if lenient and fields.is_blank("hv:uri") else fields.word)("hv:uri"),
        validity=validity,
        endorsers=_endorsers(fields, lenient=lenient),
        vo=fields.optional_text("ad:vo"),
        swid=fields.optional_label("ad:swid"),
        number_of_images=fields.integer_if_readable("ad:num_of_images"),
        images=images,
        unreadable=unreadable,
        extra=fields.rest(),
        outer_extra=outer_extra,
    )


def _entries(fields: Fields, terms: _Terms) -> tuple[tuple[ListedImage, ...], tuple[UnreadableEntry, ...]]:
    entries = fields.array("hv:images")
    if len(entries) > terms.limits.images:
        fields.refuse("hv:images", f"more than {terms.limits.images} images")
    images: list[ListedImage] = []
    unreadable: list[UnreadableEntry] = []
    places: dict[str, int] = {}
    for index, entry in enumerate(entries):
        wrapper = fields.element("hv:images", index, entry)
        image = wrapper.group("hv:image")
        identifier = ImageIdentifier(_identifier(image, terms))
        first = places.setdefault(identifier, index)
        if first != index:
            place = f"{fields.path}.hv:images[{first}]"
            refuse(wrapper.path, f"the image {identifier} stands there twice, first at {place}", what=WHAT)
        try:
            images.append(_image(image, identifier, terms, wrapper.rest()))
        except DocumentError as problem:
            terms.problems.append(problem)
            unreadable.append(UnreadableEntry(identifier=identifier, problem=problem.message))
    return tuple(images), tuple(unreadable)


def _image(fields: Fields, identifier: ImageIdentifier, terms: _Terms, wrapper_extra: dict[str, object]) -> ListedImage:
    text = fields.text_or_empty if terms.lenient else fields.text
    try:
        checksum = Checksum("sha512", fields.word("sl:checksum:sha512").lower())
    except ValueError as problem:
        fields.refuse("sl:checksum:sha512", str(problem))
    return ListedImage(
        identifier=identifier,
        version=_image_version(fields),
        title=text("dc:title", limit_bytes=terms.limits.title_bytes),
        description=text("dc:description"),
        uri=fields.word("hv:uri"),
        size_bytes=fields.integer("hv:size", least=1),
        checksum=checksum,
        declared_format=fields.optional_text("hv:format"),
        operating_system=_operating_system(fields, terms),
        hypervisor=text("hv:hypervisor"),
        comments=text("sl:comments"),
        expires=fields.optional_instant("dc:date:expires"),
        requirements=_requirements(fields, terms),
        groups=_groups(fields),
        mpuri=fields.optional_text("ad:mpuri"),
        base_mpuri=fields.optional_text("ad:base_mpuri"),
        appliance_id=fields.optional_label("ad:appid"),
        user=_user(fields, terms),
        traffic_in=fields.take("ad:traffic_in"),
        traffic_out=fields.take("ad:traffic_out"),
        mirrors=read_mirrors(fields, what=WHAT),
        delta=read_delta(fields),
        extra=fields.rest(),
        wrapper_extra=wrapper_extra,
    )


def _operating_system(fields: Fields, terms: _Terms) -> OperatingSystem:
    facts = (
        fields.text("sl:os"),
        fields.optional_text("sl:osname"),
        fields.text("sl:osversion"),
        fields.text("sl:arch"),
    )
    known = terms.systems.get(facts)
    if known is None:
        kind, distribution, version, architecture = facts
        known = terms.systems[facts] = OperatingSystem(
            kind=kind, distribution=distribution or kind, version=version, architecture=architecture
        )
    return known


def _requirements(fields: Fields, terms: _Terms) -> Requirements:
    facts = (
        fields.optional_integer("hv:core_minimum"),
        fields.optional_integer("hv:ram_minimum"),
        fields.optional_integer("coppice:disk_minimum"),
        fields.optional_integer("ad:core_recommended"),
        fields.optional_integer("ad:ram_recommended"),
    )
    known = terms.requirements.get(facts)
    if known is None:
        known = terms.requirements[facts] = Requirements(
            minimum_cores=facts[0],
            minimum_ram_mib=facts[1],
            minimum_disk_bytes=facts[2],
            recommended_cores=facts[3],
            recommended_ram_mib=facts[4],
        )
    return known


def _groups(fields: Fields) -> tuple[str, ...]:
    text = fields.optional_text("ad:group")
    return () if text is None else tuple(group for part in text.split(",") if (group := part.strip()))


def _user(fields: Fields, terms: _Terms) -> MarketplaceUser | None:
    facts = (
        fields.optional_text("ad:user:fullname"),
        fields.optional_label("ad:user:guid"),
        fields.optional_text("ad:user:uri"),
    )
    if facts == (None, None, None):
        return None
    known = terms.users.get(facts)
    if known is None:
        full_name, guid, uri = facts
        known = terms.users[facts] = MarketplaceUser(full_name=full_name, guid=guid, uri=uri)
    return known


def _identifier(fields: Fields, terms: _Terms) -> str:
    text = fields.text("dc:identifier", limit_bytes=MAX_IDENTIFIER_BYTES)
    if is_uuid(text):
        return text.lower()
    if not terms.lenient:
        fields.refuse("dc:identifier", f"a UUID is needed, not {text[:60]!r}")
    # What it names is kept apart from what another list names by a slash between the two.
    if not text.isprintable() or not _NOT_IN_IDENTIFIERS.isdisjoint(text):
        fields.refuse("dc:identifier", f"it has slashes, or characters that cannot be printed: {text[:60]!r}")
    if not text or text != text.strip():
        fields.refuse("dc:identifier", "it is empty, or has blanks around it")
    return text


def _image_version(fields: Fields) -> str:
    text = fields.word("hv:version")
    if not Version.is_version(text):
        fields.refuse("hv:version", f"it has no order: {text[:60]!r}")
    return text


def _list_version(fields: Fields, created: datetime, *, lenient: bool) -> str:
    if lenient and fields.is_blank("hv:version"):
        fields.take("hv:version")
    else:
        text = fields.word("hv:version")
        if len(text) > MAX_VERSION_LENGTH:
            fields.refuse("hv:version", f"a version longer than {MAX_VERSION_LENGTH} characters")
        if Version.is_version(text):
            return text
    # Without an order of its own, a list is as new as its date of creation.
    seconds = f"{created.year:04}{created:%m%d%H%M%S}"
    return f"{seconds}.{created.microsecond:06}" if created.microsecond else seconds


def _endorsers(fields: Fields, *, lenient: bool) -> tuple[Endorser, ...]:
    if lenient and fields.lacks("hv:endorser"):
        fields.take("hv:endorser")
        return ()
    if not fields.is_array("hv:endorser"):
        return (_endorser(fields.group("hv:endorser")),)
    # Some writers make an array of it, whether there are several or not.
    written = fields.array("hv:endorser")
    if not written and not lenient:
        fields.refuse("hv:endorser", "nobody stands there")
    if len(written) > MAX_ENDORSERS:
        fields.refuse("hv:endorser", f"more than {MAX_ENDORSERS} endorsers")
    return tuple(_endorser(fields.element("hv:endorser", index, each)) for index, each in enumerate(written))


def _endorser(wrapper: Fields) -> Endorser:
    fields = wrapper.group("hv:x509")
    return Endorser(
        name=fields.text("dc:creator"),
        email=fields.text("hv:email"),
        subject=_subject(fields),
        issuer=_name(fields, "hv:ca"),
        extra=fields.rest(),
        wrapper_extra=wrapper.rest(),
    )


def _subject(fields: Fields) -> DistinguishedName:
    # Some descriptions of the format call it hv:dn_x509.
    if fields.lacks("hv:dn_x509"):
        fields.take("hv:dn_x509")
        return _name(fields, "hv:dn")
    other = _name(fields, "hv:dn_x509")
    if fields.lacks("hv:dn"):
        fields.take("hv:dn")
        return other
    subject = _name(fields, "hv:dn")
    if other != subject:
        fields.refuse("hv:dn_x509", "it is another name than hv:dn")
    return subject


def _name(fields: Fields, key: str) -> DistinguishedName:
    text = fields.text(key)
    try:
        return DistinguishedName.parse(text)
    except ValueError as problem:
        fields.refuse(key, str(problem))
