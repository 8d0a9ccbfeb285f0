# SPDX-License-Identifier: Apache-2.0
"""The table of events."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations when it maps the class

from sqlalchemy import JSON, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from coppice.database import Base, Instant


class EventRow(Base):
    """Something that happened; numbers rise in the order in which it happened."""

    __tablename__ = "event"
    # Numbers are never used again, not even after the newest events were removed.
    __table_args__ = {"sqlite_autoincrement": True}  # noqa: RUF012 - SQLAlchemy wants this very form

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    kind: Mapped[str] = mapped_column(String(64))
    subject: Mapped[str] = mapped_column(Text)
    facts: Mapped[dict[str, object]] = mapped_column(JSON)
    at: Mapped[datetime] = mapped_column(Instant)
