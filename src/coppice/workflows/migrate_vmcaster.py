# SPDX-License-Identifier: Apache-2.0
"""Take over what a vmcaster publishes: its database → catalogue, each list with its identifiers, version and keys.

Each list comes in by itself and whole; one that cannot is skipped, and said. Once more is fine: a list that is here
stays as it is. Images stay where they are, and are listed by reference.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from coppice.catalogue.endorsers import Endorsers
from coppice.catalogue.intake import ForeignList, Intake
from coppice.catalogue.keys import LONGEST_LIFETIME_DAYS
from coppice.catalogue.selections import Selections
from coppice.clock import to_rfc3339
from coppice.errors import CoppiceError, InputError, NotFoundError
from coppice.formats.hepix import read_list
from coppice.imagelist.model import Profile
from coppice.model.endorser import DistinguishedName
from coppice.model.identifiers import ListIdentifier, is_uuid
from coppice.model.version import Version
from coppice.workflows.import_list import foreign_version, without_ours
from coppice.workflows.migration import Migrated, Outcome, free_name
from coppice.workflows.prepare import open_publisher
from coppice.workflows.vmcaster_database import read_vmcaster

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from coppice.catalogue.model import EndorserIdentity
    from coppice.clock import Clock
    from coppice.database import Database
    from coppice.imagelist.model import ImageList, Publisher
    from coppice.settings.model import Settings
    from coppice.workflows.vmcaster_database import CastCatalogue, CastEndorser, CastList

_LIFETIME_DAYS = 28
"""vmcaster's own, where a list does not tell."""


def import_vmcaster(
    path: Path,
    *,
    publisher: str,
    settings: Settings,
    database: Database,
    clock: Clock,
    endorser: str | None = None,
    dry_run: bool = False,
) -> tuple[Migrated, ...]:
    """Bring every image list of the vmcaster database at ``path`` into the catalogue.

    Args:
        path: vmcaster's SQLite file; it is only read.
        publisher: Name of the publisher of the settings that the lists go to from now on.
        settings: Publishers, and how much a list may be.
        database: Where the catalogue is.
        clock: Tells the time.
        endorser: Who signs every list from now on; None: of those whom vmcaster bound to it, one who can sign here.
        dry_run: Change nothing; only say what would be.

    Raises:
        UnreadableFileError: The database cannot be read, or is not vmcaster's.
        SettingsError: The settings do not name the publisher.
        NotFoundError: The endorser cannot sign here.
    """
    cast = read_vmcaster(path)
    taker = _Taker(
        publisher_name=publisher,
        publisher=open_publisher(settings, publisher),
        endorser=None if endorser is None else Endorsers(database).get(endorser),
        known_endorsers=Endorsers(database).all(),
        settings=settings,
        database=database,
        clock=clock,
        dry_run=dry_run,
    )
    here = {each.identifier: each.name for each in Selections(database).all()}
    found = [taker.endorser_of(each) for each in cast.endorsers]
    for each in cast.lists:
        name = here.get(ListIdentifier(each.identifier.lower()))
        if name is not None:
            found.append(_list(each, name, Outcome.THERE))
            continue
        name = free_name(_wanted_name(each), set(here.values()), each.identifier)
        try:
            found += taker.take(each, name)
        except CoppiceError as problem:
            found.append(_list(each, None, Outcome.SKIPPED, error=problem))
            continue
        here[ListIdentifier(each.identifier.lower())] = name
    return (*found, *_unbound(cast))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taker:
    """Takes one image list after the other."""

    publisher_name: str
    publisher: Publisher
    endorser: EndorserIdentity | None
    known_endorsers: tuple[EndorserIdentity, ...]
    settings: Settings
    database: Database
    clock: Clock
    dry_run: bool

    def endorser_of(self, cast: CastEndorser) -> Migrated:
        """Return what becomes of an endorser: certificate and key are not in the database."""
        known = self._known(cast)
        if known is not None:
            return Migrated(kind="endorser", identifier=cast.subject, name=known.name, outcome=Outcome.THERE)
        error = NotFoundError(
            f"nobody who can sign here is {cast.subject}",
            resolution="If this endorser signs here from now on: `coppice endorser add` with certificate and key, "
            "then import once more.",
        )
        return Migrated(kind="endorser", identifier=cast.subject, name=None, outcome=Outcome.SKIPPED, error=error)

    def take(self, cast: CastList, name: str) -> list[Migrated]:
        """Take a list in; return what became of it and of its images.

        Raises:
            InputError: It cannot be a list here.
            NotFoundError: Nobody of its endorsers can sign here.
            CoppiceError: It contradicts what the catalogue has.
        """
        if not is_uuid(cast.identifier):
            raise InputError(f"its identifier {cast.identifier[:60]!r} is no UUID, which every subscriber needs")
        bound = [known for each in cast.endorsers if (known := self._known(each)) is not None]
        signs = self.endorser or (bound[0] if bound else None)
        if signs is None:
            raise NotFoundError(
                "none of its endorsers can sign here",
                details="bound to it: " + (", ".join(each.subject for each in cast.endorsers) or "nobody"),
                resolution="`coppice endorser add` one of them, or name another with --endorser, and import again.",
            )
        content, skipped = self._content(cast)
        foreign = self._foreign(cast, content, name=name, endorser=signs.name)
        Intake(self.database, self.clock).take(foreign, publishers=set(self.settings.publishers), dry_run=self.dry_run)
        if not self.dry_run:
            for other in bound:
                if other.name != signs.name:
                    Selections(self.database, self.clock).bind_endorser(name, other.name)
        notes = tuple(self._notes(cast, foreign, signs))
        images = [
            Migrated(kind="image", identifier=image.identifier, name=name, outcome=Outcome.IMPORTED)
            for image in content.images
        ]
        return [_list(cast, name, Outcome.IMPORTED, notes=notes), *images, *skipped]

    def _content(self, cast: CastList) -> tuple[ImageList, list[Migrated]]:
        """Return the list as its format has it, and the images that cannot be in one."""
        skipped = [
            _image(image.identifier, f"its identifier {image.identifier[:60]!r} is no UUID")
            for image in cast.images
            if not is_uuid(image.identifier)
        ]
        document = {
            "hv:imagelist": {
                **self._defaults(cast),
                **{key: value for key, value in cast.keys.items() if key not in {"hv:images", "hv:endorser"}},
                **self._dates(cast),
                "hv:version": cast.keys["hv:version"] if _is_version(cast.keys.get("hv:version")) else "0",
                "dc:identifier": cast.identifier,
                "hv:images": [
                    {"hv:image": {**image.keys, "dc:identifier": image.identifier}}
                    for image in cast.images
                    if is_uuid(image.identifier)
                ],
            }
        }
        payload = json.dumps(document).encode()
        # The endorser is written anew with each signature; what else may be missing is made up for here.
        content = read_list(payload, profile=Profile.LENIENT, limits=self.settings.lists)
        skipped += [_image(entry.identifier, entry.problem) for entry in content.unreadable]
        return replace(content, unreadable=()), skipped

    def _defaults(self, cast: CastList) -> dict[str, str]:
        title = cast.keys.get("dc:title") or cast.keys.get("dc:description") or cast.identifier
        return {"dc:title": title[:200], "dc:description": title, "dc:source": title[:200]}

    def _dates(self, cast: CastList) -> dict[str, str]:
        created = _instant(cast.keys.get("dc:date:created")) or self.clock.now().replace(microsecond=0)
        expires = _instant(cast.keys.get("dc:date:expires"))
        if expires is None or expires <= created:
            expires = created + timedelta(days=_LIFETIME_DAYS)
        return {"dc:date:created": to_rfc3339(created), "dc:date:expires": to_rfc3339(expires)}

    def _foreign(self, cast: CastList, content: ImageList, *, name: str, endorser: str) -> ForeignList:
        lifetime = content.validity.expires - content.validity.created
        return ForeignList(
            name=name,
            identifier=ListIdentifier(content.identifier.lower()),
            version=content.version if _is_version(cast.keys.get("hv:version")) else None,
            title=content.title,
            description=content.description,
            source=content.source,
            vo=content.vo,
            endorser=endorser,
            publisher=self.publisher_name,
            lifetime_days=min(max(1, round(lifetime / timedelta(days=1))), LONGEST_LIFETIME_DAYS),
            keys=without_ours({**content.extra, **({} if content.swid is None else {"ad:swid": content.swid})}),
            versions=tuple(foreign_version(content, image) for image in content.images),
        )

    def _notes(self, cast: CastList, foreign: ForeignList, signs: EndorserIdentity) -> Iterator[str]:
        before, after = cast.keys.get("hv:uri"), self.publisher.list_uri(foreign.name)
        if before is None:
            yield f"vmcaster does not know its address; it will be at {after}: tell its subscribers"
        elif before != after:
            yield f"subscribers fetch it from {before}; from now on it is at {after}: tell them, or redirect"
        if signs.subject not in {_name(each.subject) for each in cast.endorsers}:
            yield f"{signs.name} signs it from now on, whom vmcaster did not bind to it: tell its subscribers first"
        if foreign.version is None:
            yield "vmcaster has no version of it that was published: the first one from here is 1"
        if foreign.vo is None:
            yield "it names no VO: some readers refuse it (`coppice imagelist edit NAME --set vo=VO`)"
        for image in cast.images:
            if image.contradicted:
                yield (
                    f"the image {image.identifier} has two values of {', '.join(image.contradicted)}; the later counts"
                )

    def _known(self, cast: CastEndorser) -> EndorserIdentity | None:
        wanted = _name(cast.subject)
        issuer = cast.keys.get("hv:ca")
        for known in self.known_endorsers:
            if wanted is not None and known.subject == wanted and (issuer is None or known.issuer == _name(issuer)):
                return known
        return None


def _name(text: str) -> DistinguishedName | None:
    try:
        return DistinguishedName.parse(text)
    except ValueError:
        return None


def _instant(text: str | None) -> datetime | None:
    try:
        return None if text is None else datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def _is_version(text: str | None) -> bool:
    try:
        Version(text or "")
    except ValueError:
        return False
    return True


def _wanted_name(cast: CastList) -> str:
    """Return what the address calls the list, or else its title."""
    try:
        last = urlsplit(cast.keys.get("hv:uri", "")).path.rpartition("/")[2]
    except ValueError:
        last = ""
    stem = last.lower().removesuffix(".list").removesuffix(".json").removesuffix("_signed")
    return stem if stem not in {"", "image", "imagelist", "index"} else cast.keys.get("dc:title", "list")


def _unbound(cast: CastCatalogue) -> list[Migrated]:
    return [_image(image.identifier, "no image list carries it, and nobody is told of it") for image in cast.unbound]


def _image(identifier: str, why: str) -> Migrated:
    error = InputError(f"the image {identifier[:60]} is left out: {why}")
    return Migrated(kind="image", identifier=identifier, name=None, outcome=Outcome.SKIPPED, error=error)


def _list(
    cast: CastList,
    name: str | None,
    outcome: Outcome,
    *,
    error: CoppiceError | None = None,
    notes: tuple[str, ...] = (),
) -> Migrated:
    return Migrated(kind="image list", identifier=cast.identifier, name=name, outcome=outcome, error=error, notes=notes)
