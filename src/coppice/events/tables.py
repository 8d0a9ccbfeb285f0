# SPDX-License-Identifier: Apache-2.0
"""The tables of events, of who is told of them, and of what became of that."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations when it maps the class

from sqlalchemy import JSON, ForeignKey, Index, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from coppice.database import Base, Instant


class EventRow(Base):
    """Something that happened; numbers rise in the order in which it happened."""

    __tablename__ = "event"
    __table_args__ = (
        Index("ix_event_at", "at"),
        Index("ix_event_image", "list_identifier", "image_identifier"),
        Index("ix_event_subscription", "subscription"),
        # Numbers are never used again, not even after the newest events were removed.
        {"sqlite_autoincrement": True},
    )

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    kind: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(Text)
    facts: Mapped[dict[str, object]] = mapped_column(JSON)
    at: Mapped[datetime] = mapped_column(Instant)
    subscription: Mapped[str | None] = mapped_column(Text)
    list_identifier: Mapped[str | None] = mapped_column(Text)
    image_identifier: Mapped[str | None] = mapped_column(Text)
    cloud: Mapped[str | None] = mapped_column(Text)


class HookRow(Base):
    """Who is told; ``told_up_to``: of all events up to this one it is settled, or a delivery says, what becomes."""

    __tablename__ = "hook"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    identifier: Mapped[str] = mapped_column(String(36))
    met_at: Mapped[datetime] = mapped_column(Instant)
    told_up_to: Mapped[int]


class DeliveryRow(Base):
    """What became of telling one hook of one event."""

    __tablename__ = "delivery"
    __table_args__ = (Index("ix_delivery_event", "event"), Index("ix_delivery_state", "hook", "state", "event"))

    hook: Mapped[str] = mapped_column(ForeignKey("hook.name", ondelete="CASCADE"), primary_key=True)
    event: Mapped[int] = mapped_column(ForeignKey("event.number", ondelete="CASCADE"), primary_key=True)
    state: Mapped[str] = mapped_column(String(16))
    stream: Mapped[str] = mapped_column(Text)
    attempts: Mapped[int]
    replays: Mapped[int]
    due_at: Mapped[datetime | None] = mapped_column(Instant)
    changed_at: Mapped[datetime] = mapped_column(Instant)
    error_code: Mapped[str | None] = mapped_column(String(64))
    error: Mapped[str | None] = mapped_column(Text)
    output: Mapped[str | None] = mapped_column(Text)


class IntendedEventRow(Base):
    """A change that is about to be made where no transaction reaches, and the event that tells of it."""

    __tablename__ = "intended_event"

    place: Mapped[str] = mapped_column(String(64), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(Text)
    facts: Mapped[dict[str, object]] = mapped_column(JSON)
    expected: Mapped[dict[str, object]] = mapped_column(JSON)


class ImportedEventRow(Base):
    """An archived event that is in the journal, while its file may be there still."""

    __tablename__ = "imported_event"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    at: Mapped[datetime] = mapped_column(Instant)
