# SPDX-License-Identifier: Apache-2.0
"""The tables of the clouds: what each was seen to have, and what an administrator revoked."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations when it maps the class

from sqlalchemy import JSON, ForeignKey, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from coppice.database import Base, Instant


class ObservationRow(Base):
    """What a cloud was seen to have, last; for people and metrics only: plans are made from the cloud itself."""

    __tablename__ = "cloud_observation"

    cloud: Mapped[str] = mapped_column(String(64), primary_key=True)
    at: Mapped[datetime | None] = mapped_column(Instant)
    """When `images` was seen; None: never yet."""
    images: Mapped[list[dict[str, object]]] = mapped_column(JSON)
    tried_at: Mapped[datetime] = mapped_column(Instant)
    error_code: Mapped[str | None] = mapped_column(String(64))
    error: Mapped[str | None] = mapped_column(Text)
    """Why it could not be asked when it was tried last; None: it could."""


class RevocationRow(Base):
    """What an administrator revoked; numbers rise."""

    __tablename__ = "revocation"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    digest: Mapped[str | None] = mapped_column(String(140))
    """What is revoked; None: the image that is named."""
    list_identifier: Mapped[str | None] = mapped_column(Text)
    image_identifier: Mapped[str | None] = mapped_column(Text)
    version: Mapped[str | None] = mapped_column(Text)
    reason: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(Instant)


class RevokedContentRow(Base):
    """What an image that is revoked by its name is known to hold: what is built on it outlives lists and clouds."""

    __tablename__ = "revoked_content"

    revocation: Mapped[int] = mapped_column(ForeignKey("revocation.number", ondelete="CASCADE"), primary_key=True)
    digest: Mapped[str] = mapped_column(String(140), primary_key=True)
    everywhere: Mapped[bool]
    """It was known when the revocation was made; else it counts for the image's own list."""
