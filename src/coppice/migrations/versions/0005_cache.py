# SPDX-License-Identifier: Apache-2.0
"""What the cache holds that nothing needs, what is handed out to hooks, and what could not be fetched."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    op.create_table(
        "unneeded_object",
        sa.Column("sha512", sa.String(length=128), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("sha512"),
    )
    op.create_table(
        "handed_out_image",
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("list_identifier", sa.Text(), nullable=False),
        sa.Column("image_identifier", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=140), nullable=False),
        sa.Column("sha512", sa.String(length=128), nullable=False),
        sa.Column("file_name", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("expires", sa.DateTime(timezone=True), nullable=False),
        sa.Column("since", sa.DateTime(timezone=True), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("given", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("file_name"),
    )
    op.create_table(
        "failed_fetch",
        sa.Column("image_key", sa.String(length=64), nullable=False),
        sa.Column("list_identifier", sa.Text(), nullable=False),
        sa.Column("image_identifier", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=140), nullable=False),
        sa.Column("list_version", sa.Text(), nullable=False),
        sa.Column("runs", sa.Integer(), nullable=False),
        sa.Column("code", sa.String(length=64), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("image_key"),
    )
