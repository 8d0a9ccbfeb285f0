# SPDX-License-Identifier: Apache-2.0
"""The catalogue: own keys, discontinued appliances, sets, and the history of publications."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    _endorsers()
    _appliances()
    _lists()
    _sets()
    _publications()


def _endorsers() -> None:
    op.add_column("endorser", sa.Column("kind", sa.String(length=16), nullable=False, server_default="pem"))
    op.add_column("endorser", sa.Column("passphrase_variable", sa.String(length=256), nullable=True))
    op.add_column("endorser", sa.Column("ask_passphrase", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("endorser", sa.Column("digest", sa.String(length=16), nullable=False, server_default="sha256"))
    op.add_column("endorser", sa.Column("subject", sa.JSON(), nullable=True))
    op.add_column("endorser", sa.Column("issuer", sa.JSON(), nullable=True))


def _appliances() -> None:
    op.add_column("appliance", sa.Column("hypervisor", sa.Text(), nullable=False, server_default="KVM"))
    op.add_column("appliance", sa.Column("comments", sa.Text(), nullable=False, server_default=""))
    op.add_column("appliance", sa.Column("keys", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("appliance", sa.Column("edited", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("appliance", sa.Column("discontinued_on", sa.DateTime(timezone=True), nullable=True))
    op.add_column("appliance", sa.Column("successor", sa.String(length=36), nullable=True))
    # SQLite changes a column by making the table anew. That is safe for this table alone: nothing refers to it yet, and
    # dropping one that others refer to would delete, or refuse, their rows.
    with op.batch_alter_table("appliance_version") as table:
        table.alter_column("path", existing_type=sa.Text(), nullable=True)
        table.alter_column("disk_format", existing_type=sa.String(length=16), type_=sa.Text(), nullable=True)
        table.alter_column("virtual_size_bytes", existing_type=sa.BigInteger(), nullable=True)
        table.add_column(sa.Column("uri", sa.Text(), nullable=True))
        table.add_column(sa.Column("mpuri", sa.Text(), nullable=True))
        table.add_column(sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))


def _lists() -> None:
    op.add_column("selection", sa.Column("keys", sa.JSON(), nullable=False, server_default="{}"))
    op.create_table(
        "bound_endorser",
        sa.Column("selection", sa.String(length=64), nullable=False),
        sa.Column("endorser", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["selection"], ["selection.name"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["endorser"], ["endorser.name"]),
        sa.PrimaryKeyConstraint("selection", "endorser"),
    )


def _sets() -> None:
    op.create_table(
        "appliance_set",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("identifier", sa.String(length=36), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("expires", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("identifier"),
    )
    op.create_table(
        "set_member",
        sa.Column("set_name", sa.String(length=64), nullable=False),
        sa.Column("appliance", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["set_name"], ["appliance_set.name"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["appliance"], ["appliance.name"]),
        sa.PrimaryKeyConstraint("set_name", "appliance"),
    )
    op.create_table(
        "set_release",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("set_name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=256), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("members_of", sa.String(length=256), nullable=True),
        sa.ForeignKeyConstraint(["set_name"], ["appliance_set.name"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("set_name", "version"),
    )
    op.create_table(
        "set_release_member",
        sa.Column("release", sa.Integer(), nullable=False),
        sa.Column("appliance_version", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["release"], ["set_release.number"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["appliance_version"], ["appliance_version.number"]),
        sa.PrimaryKeyConstraint("release", "appliance_version"),
    )
    op.create_table(
        "selected_set",
        sa.Column("selection", sa.String(length=64), nullable=False),
        sa.Column("set_name", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(["selection"], ["selection.name"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["set_name"], ["appliance_set.name"]),
        sa.PrimaryKeyConstraint("selection", "set_name"),
    )


def _publications() -> None:
    op.create_table(
        "publication",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("selection", sa.String(length=64), nullable=False),
        sa.Column("list_identifier", sa.String(length=36), nullable=False),
        sa.Column("version", sa.String(length=256), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("payload_sha512", sa.String(length=128), nullable=False),
        sa.Column("signer", sa.Text(), nullable=False),
        sa.Column("endorser", sa.String(length=64), nullable=True),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("images", sa.JSON(), nullable=False),
        sa.Column("message", sa.LargeBinary(), nullable=False),
        sa.Column("signed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires", sa.DateTime(timezone=True), nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("list_identifier", "version"),
    )
    op.create_index("ix_publication_selection", "publication", ["selection"])
