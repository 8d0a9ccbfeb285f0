# SPDX-License-Identifier: Apache-2.0
"""The first tables: catalogue, subscriptions, events."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "appliance",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("identifier", sa.String(length=36), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("groups", sa.JSON(), nullable=False),
        sa.Column("os_kind", sa.String(length=64), nullable=False),
        sa.Column("os_distribution", sa.String(length=64), nullable=False),
        sa.Column("os_version", sa.String(length=64), nullable=False),
        sa.Column("architecture", sa.String(length=32), nullable=False),
        sa.Column("requirements", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("identifier"),
    )
    op.create_table(
        "endorser",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("certificate", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("passphrase_file", sa.Text(), nullable=True),
        sa.Column("creator", sa.Text(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "event",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("number"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "subscription",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("list_identifier", sa.String(length=64), nullable=True),
        sa.Column("endorser_subject", sa.JSON(), nullable=False),
        sa.Column("endorser_issuer", sa.JSON(), nullable=False),
        sa.Column("anchors", sa.Text(), nullable=False),
        sa.Column("revocation", sa.String(length=16), nullable=False),
        sa.Column("images", sa.JSON(), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_error_code", sa.String(length=64), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "trusted_version",
        sa.Column("list_identifier", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=256), nullable=False),
        sa.Column("payload_sha512", sa.String(length=128), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("list_identifier"),
    )
    op.create_table(
        "unsubscribed_list",
        sa.Column("list_identifier", sa.String(length=64), nullable=False),
        sa.Column("removed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("list_identifier"),
    )
    op.create_table(
        "appliance_version",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("appliance_name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=256), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("disk_format", sa.String(length=16), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("virtual_size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha512", sa.String(length=128), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires", sa.DateTime(timezone=True), nullable=True),
        sa.Column("provenance", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(
            ["appliance_name"],
            ["appliance.name"],
        ),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("appliance_name", "version"),
    )
    op.create_table(
        "selection",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("identifier", sa.String(length=36), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("vo", sa.String(length=255), nullable=True),
        sa.Column("endorser", sa.String(length=64), nullable=False),
        sa.Column("publisher", sa.String(length=64), nullable=False),
        sa.Column("lifetime_days", sa.Integer(), nullable=False),
        sa.Column("last_version", sa.String(length=256), nullable=True),
        sa.ForeignKeyConstraint(
            ["endorser"],
            ["endorser.name"],
        ),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("identifier"),
    )
    op.create_table(
        "verified_list",
        sa.Column("subscription", sa.String(length=64), nullable=False),
        sa.Column("message", sa.LargeBinary(), nullable=False),
        sa.Column("list_version", sa.String(length=256), nullable=False),
        sa.Column("payload_sha512", sa.String(length=128), nullable=False),
        sa.Column("expires", sa.DateTime(timezone=True), nullable=False),
        sa.Column("verified_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["subscription"], ["subscription.name"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("subscription"),
    )
    op.create_table(
        "selected_appliance",
        sa.Column("selection", sa.String(length=64), nullable=False),
        sa.Column("appliance", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["appliance"],
            ["appliance.name"],
        ),
        sa.ForeignKeyConstraint(["selection"], ["selection.name"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("selection", "appliance"),
    )
