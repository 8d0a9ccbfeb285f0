# SPDX-License-Identifier: Apache-2.0
"""How a list and its images are published at any `Place`: images first and verified, then the list, in one step.

The order, which each publisher shares: claim the images, bring those that are not there, verify all of them where they
are, replace the list, note what no list names any more. Killed at any point, the next call goes on.
"""

from __future__ import annotations

from contextlib import closing, suppress
from typing import TYPE_CHECKING

from coppice.clock import Clock, SystemClock
from coppice.errors import CoppiceError, DocumentError, ExistsError, InputError, PublicationError
from coppice.imagelist import retirement
from coppice.imagelist.ledger import INTENT, INTENT_AGE, Claim, Ledger, Verified, current_notes
from coppice.imagelist.model import Publication
from coppice.imagelist.place import PARTIAL_AGE_SECONDS, Facts, Held, Kind, facts_of, safe
from coppice.monitor import Unit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from pathlib import Path

    from coppice.imagelist.model import ListedImage, RemoteFile, SignedImageList
    from coppice.imagelist.place import Place
    from coppice.monitor import Monitor


class PlacePublisher:
    """The `Publisher` for a place of whatever kind.

    Args:
        place: Where.
        clock: Tells since when images are unnamed.
    """

    def __init__(self, place: Place, *, clock: Clock | None = None) -> None:
        self.place = place
        self._clock = clock or SystemClock()

    def prepare(self, files: Mapping[str, Path], monitor: Monitor) -> None:
        """Learn which files are to be published, before `image_uri` is asked for theirs."""
        for name in files:
            safe(name)
        self.place.prepare(files, monitor)

    def image_uri(self, file_name: str) -> str:
        """Return the URI under which an image file of that name will be fetched."""
        return self.place.address(Kind.IMAGE, safe(file_name))

    def list_uri(self, list_name: str) -> str:
        """Return the URI under which the list of that name will be fetched."""
        return self.place.address(Kind.LIST, safe(list_name))

    def published(self, list_name: str) -> bytes | None:
        """Return the list as readers get it now; None when there is none."""
        with closing(self.place):
            return self.place.read(Kind.LIST, safe(list_name))

    def publish(
        self, list_name: str, signed: SignedImageList, files: Mapping[str, Path], monitor: Monitor
    ) -> Publication:
        """Put ``files`` (name → local path) and then the list in place.

        Raises:
            ExistsError: A file of that name is there with other content.
            InputError: A name is not safe, or a file is not the one that the list tells of.
            PublicationError: The place refused, or another run is removing one of the files.
            StorageError: A file cannot be read, or the place cannot be written.
            TransferError: The place cannot be reached.
        """
        with closing(self.place):
            return self._publish(list_name, signed, files, monitor)

    def _publish(
        self, list_name: str, signed: SignedImageList, files: Mapping[str, Path], monitor: Monitor
    ) -> Publication:
        place = self.place
        safe(list_name)
        images = self._images(signed, files)
        promised = {name: _promised(image) for name, image in images.items()} | self._parts(signed, files)
        named = {*files, *promised}
        place.sweep(older_than_seconds=PARTIAL_AGE_SECONDS)
        claim = Claim(place, list_name, named, self._clock.now)
        claim.renew()
        self._refuse_while_removed(named)
        for name in promised.keys() - files.keys():
            self._check_here(name, promised[name], monitor)
        ledger = self._ledger(list_name, files, monitor)
        before = dict(ledger.files)
        written: dict[str, int] = {}
        for name, source in files.items():
            claim.renew()
            known = ledger.files.get(name)
            verified, copied = self._bring(
                name, source, images.get(name), known=known, promised=promised.get(name), monitor=monitor
            )
            ledger.files[name] = verified
            if copied:
                written[name] = verified.facts.size_bytes
        if ledger.files != before:
            ledger.write(place)
        place.announce(images)
        previous = place.read(Kind.LIST, list_name)
        claim.renew()
        self._replace(list_name, previous, signed.message)
        retirement.note_unnamed(
            place, previous=previous, current=signed.message, now=self._clock.now(), monitor=monitor
        )
        claim.end()
        return Publication(
            list_uri=self.list_uri(list_name), images_written=tuple(written), bytes_written=sum(written.values())
        )

    def retire(self, *, unnamed_since: datetime, monitor: Monitor) -> tuple[str, ...]:
        """Remove image files that no published list has named since ``unnamed_since``; return their names."""
        with closing(self.place) as place:
            place.sweep(older_than_seconds=PARTIAL_AGE_SECONDS)
            return retirement.retire(place, unnamed_since=unnamed_since, now=self._clock.now(), monitor=monitor)

    def _images(self, signed: SignedImageList, files: Mapping[str, Path]) -> dict[str, ListedImage]:
        """Return what the list tells of the files, and of images at this place that are not handed in; by name.

        All else that it names is held by somebody else.
        """
        uris = {self.image_uri(name): name for name in files}
        images: dict[str, ListedImage] = {}
        for image in signed.content.images:
            name = uris.get(image.uri) or self._name_here(image.uri)
            if name is not None:
                images[name] = image
        return images

    def _parts(self, signed: SignedImageList, files: Mapping[str, Path]) -> dict[str, Facts]:
        """Return what the list tells of the files of deltas at this place, by name."""
        uris = {self.image_uri(name): name for name in files}
        parts: dict[str, Facts] = {}
        for file in (file for image in signed.content.images for file in _delta_files(image)):
            name = uris.get(file.uri) or self._name_here(file.uri)
            if name is not None:
                parts[name] = Facts(size_bytes=file.size_bytes, sha512=file.checksum.hexdigest)
        return parts

    def _name_here(self, uri: str) -> str | None:
        for name in self.place.meant_by(uri):
            with suppress(InputError):
                if self.place.address(Kind.IMAGE, safe(name)) == uri:
                    return name
        return None

    def _check_here(self, name: str, facts: Facts, monitor: Monitor) -> None:
        """Refuse a list that names a file of this place which is neither handed in nor there."""
        held = self.place.describe(name)
        if held is None or not self._is_held(name, facts, held, None, monitor):
            raise InputError(
                f"the list tells of an image that is not handed in, and "
                f"{'not' if held is None else 'with other bytes'} at {self.place.label}: {self.image_uri(name)}",
                resolution="Add the image to the catalogue as a file, or take it out of the list.",
            )

    def _refuse_while_removed(self, wanted: set[str]) -> None:
        for _, names, is_current in current_notes(self.place, INTENT, INTENT_AGE, self._clock.now()):
            both = names & wanted
            if is_current and both:
                raise PublicationError(
                    f"{min(both)} is being removed from {self.place.label} by another run",
                    resolution="Run again when it has ended; a removal that was killed counts for an hour.",
                    context={"images": sorted(both)},
                )

    def _ledger(self, list_name: str, files: Mapping[str, Path], monitor: Monitor) -> Ledger:
        """Return the list's ledger with all ``files`` in it: what is put later is known from the start."""
        try:
            ledger = Ledger.read(self.place, list_name)
        except DocumentError as problem:
            monitor.message(f"{problem.message}; it is begun anew, and images that it knew are never removed")
            ledger = Ledger(list_name)
        new = set(files) - set(ledger.files)
        if new:
            there = set(self.place.names(Kind.IMAGE))
            for name in set(ledger.files) - there - set(files):
                del ledger.files[name]
            ledger.files.update(dict.fromkeys(sorted(new)))
            ledger.write(self.place)
        return ledger

    def _bring(
        self,
        name: str,
        source: Path,
        image: ListedImage | None,
        *,
        known: Verified | None,
        promised: Facts | None,
        monitor: Monitor,
    ) -> tuple[Verified, bool]:
        """Have one file at the place, verified; return what it is, and whether it was copied."""
        held = self.place.describe(name)
        if held is not None and promised is not None and self._is_held(name, promised, held, known, monitor):
            return Verified(facts=promised, stamp=held.stamp), False
        with monitor.task(f"check {name}", unit=Unit.BYTES) as task:
            facts = facts_of(source, task)
        if promised is not None and facts != promised:
            raise InputError(
                f"the image {source} is not the one in the catalogue",
                details=f"promised: {promised.size_bytes} bytes, sha512 {promised.sha512}\n"
                f"found:    {facts.size_bytes} bytes, sha512 {facts.sha512}",
                resolution="The file was changed after it was added: add it again, under a new version.",
            )
        if held is not None and promised is None and self._is_held(name, facts, held, known, monitor):
            return Verified(facts=facts, stamp=held.stamp), False
        if held is not None:
            raise ExistsError(
                f"{name} is at {self.place.label} with other content, and subscribers may be fetching it",
                resolution="Move it away by hand if nobody needs it.",
                context={"image": name},
            )
        with monitor.task(f"publish {name}", total=facts.size_bytes, unit=Unit.BYTES) as task:
            self.place.put(name, source, facts, image, task)
        held = self.place.describe(name)
        if held is None or held.size_bytes != facts.size_bytes:
            found = "not there" if held is None else f"{held.size_bytes} bytes long"
            raise PublicationError(
                f"{name} is {found} at {self.place.label} after {facts.size_bytes} bytes were put there",
                resolution="The list was not published. Ask whoever runs the server.",
                context={"image": name},
            )
        return Verified(facts=facts, stamp=held.stamp), True

    def _is_held(self, name: str, facts: Facts, held: Held, known: Verified | None, monitor: Monitor) -> bool:
        if held.size_bytes != facts.size_bytes:
            return False
        if held.stamp is not None and known == Verified(facts=facts, stamp=held.stamp):
            return True
        with monitor.task(f"verify {name}", total=facts.size_bytes, unit=Unit.BYTES) as task:
            return self.place.holds(name, facts, task)

    def _replace(self, list_name: str, previous: bytes | None, message: bytes) -> None:
        if previous == message:
            return
        self.place.replace(Kind.LIST, list_name, message)
        try:
            found = self.place.read(Kind.LIST, list_name)
        except CoppiceError as problem:
            raise PublicationError(
                f"the list {list_name} was put at {self.place.label} and cannot be read there: {problem.message}",
                details=problem.details,
                resolution="Publish again.",
            ) from problem
        if found != message:
            raise PublicationError(
                f"the list {list_name} at {self.place.label} is not the one that was put there",
                resolution="Another run may have published it at the same time, or the server changes what it is "
                "given. Look at it, and publish again.",
            )


def _promised(image: ListedImage) -> Facts:
    return Facts(size_bytes=image.size_bytes, sha512=image.checksum.hexdigest)


def _delta_files(image: ListedImage) -> tuple[RemoteFile, ...]:
    delta = image.delta
    return () if delta is None else (delta.index, *delta.packs, *(patch.file for patch in delta.patches))
