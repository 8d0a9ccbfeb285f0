# SPDX-License-Identifier: Apache-2.0
"""The tables of the cache: what nothing needs, what is handed out, what could not be fetched."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations when it maps the class

from sqlalchemy import JSON, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from coppice.database import Base, Instant


class UnneededObjectRow(Base):
    """An object of the cache that nothing needed when all that may need it was known, and since when."""

    __tablename__ = "unneeded_object"

    sha512: Mapped[str] = mapped_column(String(128), primary_key=True)
    since: Mapped[datetime] = mapped_column(Instant)


class HandedOutImageRow(Base):
    """An image that is handed out to hooks, with all that they were told of it; numbers rise as images come."""

    __tablename__ = "handed_out_image"
    __table_args__ = (UniqueConstraint("file_name"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    list_identifier: Mapped[str] = mapped_column(Text)
    image_identifier: Mapped[str] = mapped_column(Text)
    version: Mapped[str] = mapped_column(Text)
    digest: Mapped[str] = mapped_column(String(140))
    sha512: Mapped[str] = mapped_column(String(128))
    file_name: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    expires: Mapped[datetime] = mapped_column(Instant)
    since: Mapped[datetime] = mapped_column(Instant)
    facts: Mapped[dict[str, object]] = mapped_column(JSON)
    given: Mapped[list[int]] = mapped_column(JSON)


class FailedFetchRow(Base):
    """An image whose fetching failed, and in how many runs; the key is made of its list and identifier."""

    __tablename__ = "failed_fetch"

    image_key: Mapped[str] = mapped_column(String(64), primary_key=True)
    list_identifier: Mapped[str] = mapped_column(Text)
    image_identifier: Mapped[str] = mapped_column(Text)
    version: Mapped[str] = mapped_column(Text)
    digest: Mapped[str] = mapped_column(String(140))
    list_version: Mapped[str] = mapped_column(Text)
    runs: Mapped[int]
    code: Mapped[str] = mapped_column(String(64))
    message: Mapped[str] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(Instant)
