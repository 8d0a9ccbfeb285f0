# SPDX-License-Identifier: Apache-2.0
"""Selections: the image lists of one publisher, what goes into each, and who may sign it."""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sqlalchemy import delete, select

from coppice.catalogue.consistency import check_contents, check_list
from coppice.catalogue.drafts import SelectionDraft
from coppice.catalogue.endorsers import endorser_row, require_name
from coppice.catalogue.history import last_version_of, published_now
from coppice.catalogue.lists import selection_of, selection_row
from coppice.catalogue.releases import set_row
from coppice.catalogue.rows import appliance_row, tell
from coppice.catalogue.tables import (
    BoundEndorserRow,
    EndorserRow,
    SelectedApplianceRow,
    SelectedSetRow,
    SelectionRow,
)
from coppice.clock import SystemClock, to_rfc3339
from coppice.errors import ExistsError, InconsistentListError, InputError, NotFoundError, StateError
from coppice.model.identifiers import is_uuid

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from sqlalchemy.orm import Session

    from coppice.catalogue.model import RecordedPublication, Selection
    from coppice.clock import Clock
    from coppice.database import Database

_EDITED = ("title", "description", "source", "vo", "endorser", "publisher", "lifetime_days", "last_version", "keys")


class Selections:
    """The image lists of one publisher.

    Args:
        database: Where they are kept.
        clock: Tells when a change was made; the machine's when None.
    """

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()

    def create(
        self,
        name: str,
        *,
        title: str,
        description: str,
        source: str,
        endorser: str,
        publisher: str,
        vo: str | None = None,
        lifetime_days: int = 28,
        identifier: str | None = None,
        keys: Mapping[str, object] | None = None,
    ) -> Selection:
        """Make a list that carries nothing yet; its identifier is minted here, once.

        Args:
            name: How commands call it, and under what name it is published.
            title: For people, one line.
            description: For people, a paragraph.
            source: Where the list comes from.
            endorser: Who signs it as a rule.
            publisher: Where it goes.
            vo: Virtual organisation.
            lifetime_days: From signing to expiry.
            identifier: Of a list that had its life elsewhere, or was deleted here; its versions go on.
            keys: Further keys, by the names that `SelectionDraft.set` takes.

        Raises:
            InputError: The name or the identifier cannot be one.
            InconsistentListError: Something does not hold of it.
            ExistsError: There is a list of that name, or of that identifier.
            NotFoundError: There is no such endorser.
        """
        require_name(name, "an image list")
        if identifier is not None and not is_uuid(identifier):
            raise InputError(f"{identifier[:60]!r} is no identifier", resolution="An identifier is a UUID.")
        draft = SelectionDraft(
            name=name,
            title="",
            description="",
            source="",
            vo=None,
            endorser=endorser,
            publisher="",
            lifetime_days=0,
            last_version=None,
        )
        said = {
            "title": title,
            "description": description,
            "source": source,
            "endorser": endorser,
            "publisher": publisher,
            "lifetime": lifetime_days,
            **({} if vo is None else {"vo": vo}),
            **(keys or {}),
        }
        for key, value in said.items():
            draft.set(key, value)
        with self._database.session() as session:
            if session.get(SelectionRow, name) is not None:
                raise ExistsError(f"there is an image list {name!r} already", resolution="Choose another name.")
            endorser_row(session, draft.endorser)
            minted = _identifier(session, identifier)
            # A list that had a life before, here or elsewhere, goes on after the last version that is known of it.
            known = last_version_of(session, minted)
            draft.last_version = draft.last_version if draft.last_version is not None else known
            check_list(draft, endorsers=_endorsers(session), last_version=known)
            row = SelectionRow(name=name, identifier=minted)
            _write(row, draft)
            session.add(row)
            tell(session, "image list", name, "created", self._clock.now(), {"list": minted})
            session.flush()
            return selection_of(session, row)

    def get(self, name: str) -> Selection:
        """Return the list ``name`` with the newest version of each of its appliances, and the newest of its sets.

        Raises:
            NotFoundError: There is no such list.
        """
        with self._database.session() as session:
            return selection_of(session, selection_row(session, name))

    def all(self) -> tuple[Selection, ...]:
        """Return every list, by name."""
        with self._database.session() as session:
            rows = session.scalars(select(SelectionRow).order_by(SelectionRow.name)).all()
            return tuple(selection_of(session, row) for row in rows)

    @contextmanager
    def edit(
        self, name: str, *, publishers: Collection[str] | None = None, dry_run: bool = False
    ) -> Iterator[SelectionDraft]:
        """Yield a draft of the list ``name``; keep it when the block ends well, and change nothing when not.

        The list's version and its dates are not the editor's: each publication gives it the next version and new dates.

        Args:
            name: The list.
            publishers: Names of the publishers of the settings; None: the publisher is not asked for.
            dry_run: Check what was edited, and keep nothing.

        Raises:
            NotFoundError: There is no such list.
            InconsistentListError: What was edited contradicts itself; the details name all that is wrong.
        """
        with self._database.session() as session:
            row = selection_row(session, name)
            draft = _draft(row)
            before = _draft(row)
            yield draft
            check_list(draft, endorsers=_endorsers(session), publishers=publishers, last_version=before.last_version)
            changed = {
                key: _plain(getattr(draft, key)) for key in _EDITED if getattr(draft, key) != getattr(before, key)
            }
            if draft.endorser != before.endorser:
                # Who signed until now may go on to; who signs from now on is bound by being named.
                session.merge(BoundEndorserRow(selection=name, endorser=before.endorser))
            _write(row, draft)
            if changed:
                tell(session, "image list", name, "edited", self._clock.now(), {"keys": changed})
            if dry_run:
                session.rollback()

    def select(self, name: str, appliance: str) -> Selection:
        """Have the list ``name`` carry ``appliance``.

        Raises:
            NotFoundError: There is no such list or appliance.
            InconsistentListError: A set of the list carries it already.
        """
        with self._database.session() as session:
            row = selection_row(session, name)
            appliance_row(session, appliance)
            if session.get(SelectedApplianceRow, (name, appliance)) is None:
                session.add(SelectedApplianceRow(selection=name, appliance=appliance))
                tell(session, "image list", name, "appliance added", self._clock.now(), {"appliance": appliance})
            return _checked(session, row)

    def deselect(self, name: str, appliance: str) -> Selection:
        """Have the list ``name`` carry ``appliance`` no more: subscribers will withdraw it.

        Raises:
            NotFoundError: There is no such list, or it does not carry the appliance.
        """
        with self._database.session() as session:
            row = selection_row(session, name)
            selected = session.get(SelectedApplianceRow, (name, appliance))
            if selected is None:
                raise NotFoundError(f"the image list {name!r} does not carry {appliance!r} by itself")
            session.delete(selected)
            tell(session, "image list", name, "appliance removed", self._clock.now(), {"appliance": appliance})
            session.flush()
            return selection_of(session, row)

    def bind_set(self, name: str, set_name: str) -> Selection:
        """Have the list ``name`` carry the set ``set_name``, always in its newest release, whole.

        Raises:
            NotFoundError: There is no such list or set.
            InconsistentListError: The list carries one of its appliances already.
        """
        with self._database.session() as session:
            row = selection_row(session, name)
            set_row(session, set_name)
            if session.get(SelectedSetRow, (name, set_name)) is None:
                session.add(SelectedSetRow(selection=name, set_name=set_name))
                tell(session, "image list", name, "set added", self._clock.now(), {"set": set_name})
            return _checked(session, row)

    def unbind_set(self, name: str, set_name: str) -> Selection:
        """Have the list ``name`` carry the set no more: subscribers will withdraw all of its appliances.

        Raises:
            NotFoundError: There is no such list, or it does not carry the set.
        """
        with self._database.session() as session:
            row = selection_row(session, name)
            selected = session.get(SelectedSetRow, (name, set_name))
            if selected is None:
                raise NotFoundError(f"the image list {name!r} does not carry the set {set_name!r}")
            session.delete(selected)
            tell(session, "image list", name, "set removed", self._clock.now(), {"set": set_name})
            session.flush()
            return selection_of(session, row)

    def bind_endorser(self, name: str, endorser: str) -> Selection:
        """Let ``endorser`` sign the list ``name`` when that is asked for.

        Raises:
            NotFoundError: There is no such list or endorser.
        """
        with self._database.session() as session:
            row = selection_row(session, name)
            endorser_row(session, endorser)
            if endorser not in selection_of(session, row).endorsers:
                session.add(BoundEndorserRow(selection=name, endorser=endorser))
                tell(session, "image list", name, "endorser bound", self._clock.now(), {"endorser": endorser})
                session.flush()
            return selection_of(session, row)

    def unbind_endorser(self, name: str, endorser: str) -> Selection:
        """Let ``endorser`` sign the list ``name`` no more.

        Raises:
            NotFoundError: There is no such list, or the endorser is not bound to it.
            InconsistentListError: The endorser is the one who signs it as a rule.
        """
        with self._database.session() as session:
            row = selection_row(session, name)
            if row.endorser == endorser:
                raise InconsistentListError(
                    f"the image list {name} needs {endorser}, who signs it as a rule",
                    resolution=f"`coppice imagelist edit {name} --set endorser=NAME` has another one sign it.",
                )
            bound = session.get(BoundEndorserRow, (name, endorser))
            if bound is None:
                raise NotFoundError(f"the endorser {endorser!r} is not bound to the image list {name!r}")
            session.delete(bound)
            tell(session, "image list", name, "endorser unbound", self._clock.now(), {"endorser": endorser})
            session.flush()
            return selection_of(session, row)

    def delete(self, name: str, *, force: bool = False, dry_run: bool = False) -> RecordedPublication | None:
        """Delete the list ``name``; its publication history stays. Return what subscribers still find of it.

        Args:
            name: The list.
            force: Although it is published.
            dry_run: Change nothing.

        Raises:
            NotFoundError: There is no such list.
            StateError: It is published and has not expired.
        """
        now = self._clock.now()
        with self._database.session() as session:
            row = selection_row(session, name)
            there = published_now(session, row.identifier, now)
            if there is not None and not force:
                raise StateError(
                    f"the image list {name} is published: version {there.version}, until {to_rfc3339(there.expires)}",
                    details=f"at {there.uri}",
                    resolution="Sites keep its images until that date. To have them withdrawn first, remove what it "
                    "carries and publish it; or delete it with --force.",
                    context={"version": there.version, "uri": there.uri},
                )
            if not dry_run:
                session.execute(delete(SelectionRow).where(SelectionRow.name == name))
                tell(session, "image list", name, "deleted", now, {"list": row.identifier})
            return there


def _identifier(session: Session, wanted: str | None) -> str:
    if wanted is None:
        return str(uuid.uuid4())
    other = session.scalar(select(SelectionRow.name).where(SelectionRow.identifier == wanted.lower()))
    if other is not None:
        raise ExistsError(
            f"the image list {other!r} has the identifier {wanted.lower()}", resolution="One list has it at a time."
        )
    return wanted.lower()


def _endorsers(session: Session) -> set[str]:
    return set(session.scalars(select(EndorserRow.name)))


def _checked(session: Session, row: SelectionRow) -> Selection:
    session.flush()
    found = selection_of(session, row)
    # A set without a release is no mistake yet: it is one when the list is published.
    check_contents(found, unreleased=True)
    return found


def _draft(row: SelectionRow) -> SelectionDraft:
    return SelectionDraft(name=row.name, **{key: getattr(row, key) for key in _EDITED[:-1]}, keys=dict(row.keys))


def _write(row: SelectionRow, draft: SelectionDraft) -> None:
    for key in _EDITED[:-1]:
        setattr(row, key, getattr(draft, key))
    row.keys = dict(draft.keys)


def _plain(value: object) -> object:
    return dict(value) if isinstance(value, dict) else value
