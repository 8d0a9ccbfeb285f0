# SPDX-License-Identifier: Apache-2.0
"""The tables of the catalogue: appliances, their immutable versions, endorsers, and what goes into which list."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - SQLAlchemy reads the annotations when it maps the class

from sqlalchemy import JSON, BigInteger, ForeignKey, String, Text, UniqueConstraint, false
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
    requirements: Mapped[dict[str, int]] = mapped_column(JSON)
    versions: Mapped[list[ApplianceVersionRow]] = relationship(back_populates="appliance")


class ApplianceVersionRow(Base):
    """A version of an appliance; it never changes."""

    __tablename__ = "appliance_version"
    __table_args__ = (UniqueConstraint("appliance_name", "version"),)

    number: Mapped[int] = mapped_column(primary_key=True)
    appliance_name: Mapped[str] = mapped_column(ForeignKey("appliance.name"))
    version: Mapped[str] = mapped_column(String(256))
    path: Mapped[str] = mapped_column(Text)
    disk_format: Mapped[str] = mapped_column(String(16))
    size_bytes: Mapped[int] = mapped_column(BigInteger)
    virtual_size_bytes: Mapped[int] = mapped_column(BigInteger)
    sha512: Mapped[str] = mapped_column(String(128))
    created: Mapped[datetime] = mapped_column(Instant)
    expires: Mapped[datetime | None] = mapped_column(Instant)
    provenance: Mapped[str | None] = mapped_column(Text)
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


class SelectedApplianceRow(Base):
    """An appliance that a list carries, always in its newest version."""

    __tablename__ = "selected_appliance"

    selection: Mapped[str] = mapped_column(ForeignKey("selection.name", ondelete="CASCADE"), primary_key=True)
    appliance: Mapped[str] = mapped_column(ForeignKey("appliance.name"), primary_key=True)
