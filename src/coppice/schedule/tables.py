# SPDX-License-Identifier: Apache-2.0
"""The table of the service: when each job ran, and what came of it."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations when it maps the class

from sqlalchemy import Float, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from coppice.database import Base, Instant


class JobRow(Base):
    """A job of the service, and its last runs."""

    __tablename__ = "job"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    started_at: Mapped[datetime | None] = mapped_column(Instant)
    ended_at: Mapped[datetime | None] = mapped_column(Instant)
    succeeded_at: Mapped[datetime | None] = mapped_column(Instant)
    outcome: Mapped[str | None] = mapped_column(String(16))
    """What became of the run that ended last (`coppice.schedule.model.Outcome`)."""
    exit_code: Mapped[int | None]
    error: Mapped[str | None] = mapped_column(Text)
    seconds: Mapped[float | None] = mapped_column(Float)
    runs: Mapped[int]
    failures: Mapped[int]
