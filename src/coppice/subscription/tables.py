# SPDX-License-Identifier: Apache-2.0
"""The tables of subscriptions: what is followed, whom it trusts, what was verified, and the floor against rollback."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations when it maps the class

from sqlalchemy import JSON, Boolean, ForeignKey, Index, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from coppice.database import Base, Instant


class SubscriptionEndorserRow(Base):
    """An endorser whom a subscription trusts; numbers rise in the order in which they were named."""

    __tablename__ = "subscription_endorser"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    subscription: Mapped[str] = mapped_column(String(64), ForeignKey("subscription.name", ondelete="CASCADE"))
    subject: Mapped[list[list[str]]] = mapped_column(JSON)
    issuer: Mapped[list[list[str]]] = mapped_column(JSON)
    fingerprint: Mapped[str | None] = mapped_column(String(64))
    first_use: Mapped[bool] = mapped_column(Boolean)
    added_at: Mapped[datetime] = mapped_column(Instant)


class SubscriptionRow(Base):
    """A list that the site follows.

    ``driver`` and ``options`` say what kind of source it has. ``anchors`` is empty where no certificate vouches for its
    lists. ``etag`` and ``last_modified`` are what the server said of the current list, and are kept only while that
    list is the current one and was verified by the subscription as it stands.
    """

    __tablename__ = "subscription"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    uri: Mapped[str] = mapped_column(Text)
    driver: Mapped[str] = mapped_column(String(64), default="hepix", server_default="hepix")
    options: Mapped[dict[str, object]] = mapped_column(JSON, default=dict, server_default="{}")
    list_identifier: Mapped[str | None] = mapped_column(Text)
    anchors: Mapped[str] = mapped_column(Text)
    revocation: Mapped[str] = mapped_column(String(16))
    namespaces: Mapped[str] = mapped_column(String(16))
    profile: Mapped[str] = mapped_column(String(16))
    trust_on_first_use: Mapped[bool] = mapped_column(Boolean)
    allow_sha1: Mapped[bool] = mapped_column(Boolean)
    allow_host_certificate: Mapped[bool] = mapped_column(Boolean)
    selection: Mapped[dict[str, object]] = mapped_column(JSON)
    credential: Mapped[dict[str, str | None] | None] = mapped_column(JSON(none_as_null=True))
    server_anchors: Mapped[str | None] = mapped_column(Text)
    added_at: Mapped[datetime] = mapped_column(Instant)
    paused_at: Mapped[datetime | None] = mapped_column(Instant)
    etag: Mapped[str | None] = mapped_column(Text)
    last_modified: Mapped[str | None] = mapped_column(Text)
    checked_at: Mapped[datetime | None] = mapped_column(Instant)
    fetched_at: Mapped[datetime | None] = mapped_column(Instant)
    last_attempt_at: Mapped[datetime | None] = mapped_column(Instant)
    last_error_code: Mapped[str | None] = mapped_column(String(64))
    last_error: Mapped[str | None] = mapped_column(Text)

    endorsers: Mapped[list[SubscriptionEndorserRow]] = relationship(
        order_by=SubscriptionEndorserRow.number, cascade="all, delete-orphan", passive_deletes=True, lazy="selectin"
    )


class ArchivedListRow(Base):
    """A list that was verified for a subscription, as the bytes that were signed; each content by each signer once.

    ``basis`` is by what it came to be trusted; None where an older database did not keep it: by a certificate.
    """

    __tablename__ = "archived_list"
    __table_args__ = (UniqueConstraint("subscription", "payload_sha512", "signer_fingerprint"),)

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    subscription: Mapped[str] = mapped_column(String(64), ForeignKey("subscription.name", ondelete="CASCADE"))
    list_identifier: Mapped[str] = mapped_column(Text)
    version: Mapped[str] = mapped_column(String(256))
    created: Mapped[datetime | None] = mapped_column(Instant)
    expires: Mapped[datetime] = mapped_column(Instant)
    payload_sha512: Mapped[str] = mapped_column(String(128))
    message_sha512: Mapped[str] = mapped_column(String(128))
    signer: Mapped[str | None] = mapped_column(Text)
    signer_issuer: Mapped[str | None] = mapped_column(Text)
    signer_fingerprint: Mapped[str | None] = mapped_column(String(64))
    basis: Mapped[str | None] = mapped_column(String(16))
    verified_at: Mapped[datetime] = mapped_column(Instant)
    # Not read unless it is asked for: what is known of a list is small, the list may not be.
    message: Mapped[bytes] = mapped_column(LargeBinary, deferred=True)


class CurrentListRow(Base):
    """Which of a subscription's archived lists is in force, and what was told of it.

    ``anchors_state`` is of the trust anchors and CRLs that it was judged by last; None: of which ones is not known.
    """

    __tablename__ = "current_list"

    subscription: Mapped[str] = mapped_column(
        String(64), ForeignKey("subscription.name", ondelete="CASCADE"), primary_key=True
    )
    archived: Mapped[int] = mapped_column(ForeignKey("archived_list.number", ondelete="CASCADE"))
    images: Mapped[int | None] = mapped_column()
    anchors_state: Mapped[str | None] = mapped_column(String(64))
    warnings: Mapped[list[list[str]]] = mapped_column(JSON)
    told: Mapped[list[str]] = mapped_column(JSON)


class TrustedVersionRow(Base):
    """The highest version of each list that was ever verified here, and who vouched for it; it outlives subscriptions.

    ``endorsers`` are pairs of subject and issuer; None where an older database did not keep them. ``vouchers`` are
    pairs of basis and signer of a list that no certificate vouches for, whose ``endorsers`` are empty. ``reset_from``
    is the version that an administrator took back last; ``is_open`` from then on until the next list is verified: any
    version may be it.
    """

    __tablename__ = "trusted_version"

    list_identifier: Mapped[str] = mapped_column(Text, primary_key=True)
    version: Mapped[str] = mapped_column(String(256))
    payload_sha512: Mapped[str] = mapped_column(String(128))
    created: Mapped[datetime | None] = mapped_column(Instant)
    endorsers: Mapped[list[list[list[list[str]]]] | None] = mapped_column(JSON(none_as_null=True))
    vouchers: Mapped[list[list[str]] | None] = mapped_column(JSON(none_as_null=True))
    seen_at: Mapped[datetime] = mapped_column(Instant)
    reset_from: Mapped[str | None] = mapped_column(String(256))
    is_open: Mapped[bool] = mapped_column(Boolean, default=False)


class ListedImageRow(Base):
    """An image that the current list of that identifier names: to see when two lists use one image identifier."""

    __tablename__ = "listed_image"
    __table_args__ = (Index("listed_image_by_image", "image_identifier"),)

    list_identifier: Mapped[str] = mapped_column(Text, primary_key=True)
    image_identifier: Mapped[str] = mapped_column(Text, primary_key=True)


class ToldImageRow(Base):
    """A wanted image that the journal told of, for a subscription; the empty identifier: it is told from then on."""

    __tablename__ = "told_image"

    subscription: Mapped[str] = mapped_column(ForeignKey("subscription.name", ondelete="CASCADE"), primary_key=True)
    image_identifier: Mapped[str] = mapped_column(Text, primary_key=True)
    version: Mapped[str] = mapped_column(Text)


class UnsubscribedListRow(Base):
    """A list whose subscription was removed: what is registered of it is withdrawn."""

    __tablename__ = "unsubscribed_list"

    list_identifier: Mapped[str] = mapped_column(Text, primary_key=True)
    removed_at: Mapped[datetime] = mapped_column(Instant)
