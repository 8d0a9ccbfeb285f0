# SPDX-License-Identifier: Apache-2.0
"""The tables of subscriptions: what is followed, what was verified, and the floor against rollback."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations when it maps the class

from sqlalchemy import JSON, ForeignKey, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from coppice.database import Base, Instant


class SubscriptionRow(Base):
    """A list that the site follows."""

    __tablename__ = "subscription"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    uri: Mapped[str] = mapped_column(Text)
    list_identifier: Mapped[str | None] = mapped_column(String(64))
    endorser_subject: Mapped[list[list[str]]] = mapped_column(JSON)
    endorser_issuer: Mapped[list[list[str]]] = mapped_column(JSON)
    anchors: Mapped[str] = mapped_column(Text)
    revocation: Mapped[str] = mapped_column(String(16))
    images: Mapped[list[str]] = mapped_column(JSON)
    added_at: Mapped[datetime] = mapped_column(Instant)
    last_attempt_at: Mapped[datetime | None] = mapped_column(Instant)
    last_error_code: Mapped[str | None] = mapped_column(String(64))
    last_error: Mapped[str | None] = mapped_column(Text)


class VerifiedListRow(Base):
    """The last verified list of a subscription, as the bytes that were signed."""

    __tablename__ = "verified_list"

    subscription: Mapped[str] = mapped_column(
        String(64), ForeignKey("subscription.name", ondelete="CASCADE"), primary_key=True
    )
    message: Mapped[bytes] = mapped_column(LargeBinary)
    list_version: Mapped[str] = mapped_column(String(256))
    payload_sha512: Mapped[str] = mapped_column(String(128))
    expires: Mapped[datetime] = mapped_column(Instant)
    verified_at: Mapped[datetime] = mapped_column(Instant)


class TrustedVersionRow(Base):
    """The highest version of each list that was ever verified here; it outlives the subscription."""

    __tablename__ = "trusted_version"

    list_identifier: Mapped[str] = mapped_column(String(64), primary_key=True)
    version: Mapped[str] = mapped_column(String(256))
    payload_sha512: Mapped[str] = mapped_column(String(128))
    seen_at: Mapped[datetime] = mapped_column(Instant)


class UnsubscribedListRow(Base):
    """A list whose subscription was removed: what is registered of it is withdrawn."""

    __tablename__ = "unsubscribed_list"

    list_identifier: Mapped[str] = mapped_column(String(64), primary_key=True)
    removed_at: Mapped[datetime] = mapped_column(Instant)
