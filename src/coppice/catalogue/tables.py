# SPDX-License-Identifier: Apache-2.0
"""The tables of the catalogue: appliances, their versions, endorsers, sets, what goes into which list, publications."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations when it maps the class

from sqlalchemy import JSON, BigInteger, ForeignKey, LargeBinary, String, Text, UniqueConstraint, false
from sqlalchemy.orm import Mapped, mapped_column, relationship

from coppice.database import Base, Instant


class ApplianceRow(Base):
    """An appliance: its identifier is minted once and never used again."""

    __tablename__ = "appliance"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    identifier: Mapped[str] = mapped_column(String(36), unique=True)
    title: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text)
    groups: Mapped[list[str]] = mapped_column(JSON)
    os_kind: Mapped[str] = mapped_column(String(64))
    os_distribution: Mapped[str] = mapped_column(String(64))
    os_version: Mapped[str] = mapped_column(String(64))
    architecture: Mapped[str] = mapped_column(String(32))
    requirements: Mapped[dict[str, int | str]] = mapped_column(JSON)
    hypervisor: Mapped[str] = mapped_column(Text, server_default="KVM")
    comments: Mapped[str] = mapped_column(Text, server_default="")
    keys: Mapped[dict[str, object]] = mapped_column(JSON, server_default="{}")
    edited: Mapped[list[str]] = mapped_column(JSON, server_default="[]")
    """Which of its keys a person set: a later build does not write over them."""
    discontinued_on: Mapped[datetime | None] = mapped_column(Instant)
    successor: Mapped[str | None] = mapped_column(String(36))
    versions: Mapped[list[ApplianceVersionRow]] = relationship(back_populates="appliance")


class ApplianceVersionRow(Base):
    """A version of an appliance; of it, only the end of its endorsement can change."""

    __tablename__ = "appliance_version"
    __table_args__ = (UniqueConstraint("appliance_name", "version"),)

    number: Mapped[int] = mapped_column(primary_key=True)
    appliance_name: Mapped[str] = mapped_column(ForeignKey("appliance.name"))
    version: Mapped[str] = mapped_column(String(256))
    path: Mapped[str | None] = mapped_column(Text)
    """Of the file that is held here; None: it is listed by reference, and `uri` says where it is."""
    uri: Mapped[str | None] = mapped_column(Text)
    disk_format: Mapped[str | None] = mapped_column(Text)
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    virtual_size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    sha512: Mapped[str] = mapped_column(String(128))
    created: Mapped[datetime] = mapped_column(Instant)
    expires: Mapped[datetime | None] = mapped_column(Instant)
    provenance: Mapped[str | None] = mapped_column(Text)
    mpuri: Mapped[str | None] = mapped_column(Text)
    built_on: Mapped[list[str]] = mapped_column(JSON, server_default="[]")
    """Digests of the published files that it is built on, the nearest first."""
    evidence: Mapped[str | None] = mapped_column(Text)
    """Directory with what is known of its build; None: nothing is."""
    deleted_at: Mapped[datetime | None] = mapped_column(Instant)
    """From when on it is no more; the row stays, since its version may never get other bytes."""
    appliance: Mapped[ApplianceRow] = relationship(back_populates="versions")


class EndorserRow(Base):
    """An endorser who can sign here: where the certificate and the key lie, never the key itself."""

    __tablename__ = "endorser"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16), server_default="pem")
    certificate: Mapped[str] = mapped_column(Text)
    """Empty where it comes with the key."""
    key: Mapped[str] = mapped_column(Text)
    passphrase_file: Mapped[str | None] = mapped_column(Text)
    passphrase_variable: Mapped[str | None] = mapped_column(String(256))
    ask_passphrase: Mapped[bool] = mapped_column(server_default=false())
    digest: Mapped[str] = mapped_column(String(16), server_default="sha256")
    subject: Mapped[list[list[str]] | None] = mapped_column(JSON(none_as_null=True))
    issuer: Mapped[list[list[str]] | None] = mapped_column(JSON(none_as_null=True))
    creator: Mapped[str] = mapped_column(Text)
    email: Mapped[str] = mapped_column(Text)


class SelectionRow(Base):
    """What goes into one image list."""

    __tablename__ = "selection"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    identifier: Mapped[str] = mapped_column(String(36), unique=True)
    title: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text)
    source: Mapped[str] = mapped_column(Text)
    vo: Mapped[str | None] = mapped_column(String(255))
    endorser: Mapped[str] = mapped_column(ForeignKey("endorser.name"))
    publisher: Mapped[str] = mapped_column(String(64))
    lifetime_days: Mapped[int]
    last_version: Mapped[str | None] = mapped_column(String(256))
    keys: Mapped[dict[str, object]] = mapped_column(JSON, server_default="{}")


class BoundEndorserRow(Base):
    """An endorser who may sign a list, beside the one who signs it by default."""

    __tablename__ = "bound_endorser"

    selection: Mapped[str] = mapped_column(ForeignKey("selection.name", ondelete="CASCADE"), primary_key=True)
    endorser: Mapped[str] = mapped_column(ForeignKey("endorser.name"), primary_key=True)


class SelectedApplianceRow(Base):
    """An appliance that a list carries, always in its newest version."""

    __tablename__ = "selected_appliance"

    selection: Mapped[str] = mapped_column(ForeignKey("selection.name", ondelete="CASCADE"), primary_key=True)
    appliance: Mapped[str] = mapped_column(ForeignKey("appliance.name"), primary_key=True)


class SetRow(Base):
    """Appliances that belong together; the identifier is minted once."""

    __tablename__ = "appliance_set"

    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    identifier: Mapped[str] = mapped_column(String(36), unique=True)
    title: Mapped[str] = mapped_column(Text)
    description: Mapped[str] = mapped_column(Text)
    expires: Mapped[datetime | None] = mapped_column(Instant)


class SetMemberRow(Base):
    """An appliance of a set: its next release takes it in."""

    __tablename__ = "set_member"

    set_name: Mapped[str] = mapped_column(ForeignKey("appliance_set.name", ondelete="CASCADE"), primary_key=True)
    appliance: Mapped[str] = mapped_column(ForeignKey("appliance.name"), primary_key=True)


class SetReleaseRow(Base):
    """A release of a set; it never changes."""

    __tablename__ = "set_release"
    __table_args__ = (UniqueConstraint("set_name", "version"),)

    number: Mapped[int] = mapped_column(primary_key=True)
    set_name: Mapped[str] = mapped_column(ForeignKey("appliance_set.name", ondelete="CASCADE"))
    version: Mapped[str] = mapped_column(String(256))
    created: Mapped[datetime] = mapped_column(Instant)
    members_of: Mapped[str | None] = mapped_column(String(256))
    """Version of the earlier release whose members it has, when it was made to go back to them."""


class SetReleaseMemberRow(Base):
    """An appliance version of a release."""

    __tablename__ = "set_release_member"

    release: Mapped[int] = mapped_column(ForeignKey("set_release.number", ondelete="CASCADE"), primary_key=True)
    appliance_version: Mapped[int] = mapped_column(ForeignKey("appliance_version.number"), primary_key=True)


class SelectedSetRow(Base):
    """A set that a list carries, always in its newest release."""

    __tablename__ = "selected_set"

    selection: Mapped[str] = mapped_column(ForeignKey("selection.name", ondelete="CASCADE"), primary_key=True)
    set_name: Mapped[str] = mapped_column(ForeignKey("appliance_set.name"), primary_key=True)


class PublicationRow(Base):
    """A version of a list that was signed: the bytes, and whether they went out. Kept when the list is deleted."""

    __tablename__ = "publication"
    # One version of a list never has two contents, whoever tries.
    __table_args__ = (UniqueConstraint("list_identifier", "version"),)

    number: Mapped[int] = mapped_column(primary_key=True)
    selection: Mapped[str] = mapped_column(String(64), index=True)
    list_identifier: Mapped[str] = mapped_column(String(36))
    version: Mapped[str] = mapped_column(String(256))
    state: Mapped[str] = mapped_column(String(16))
    payload_sha512: Mapped[str] = mapped_column(String(128))
    signer: Mapped[str] = mapped_column(Text)
    endorser: Mapped[str | None] = mapped_column(String(64))
    uri: Mapped[str] = mapped_column(Text)
    images: Mapped[list[dict[str, object]]] = mapped_column(JSON)
    message: Mapped[bytes] = mapped_column(LargeBinary)
    signed_at: Mapped[datetime] = mapped_column(Instant)
    expires: Mapped[datetime] = mapped_column(Instant)
    published_at: Mapped[datetime | None] = mapped_column(Instant)
