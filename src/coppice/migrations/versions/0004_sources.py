# SPDX-License-Identifier: Apache-2.0
"""Subscriptions to sources of other kinds, and how lists came to be trusted."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    # Every subscription that there is follows a signed image list.
    op.add_column("subscription", sa.Column("driver", sa.String(length=64), nullable=False, server_default="hepix"))
    op.add_column("subscription", sa.Column("options", sa.JSON(), nullable=False, server_default="{}"))
    op.add_column("archived_list", sa.Column("basis", sa.String(length=16), nullable=True))
    op.add_column("trusted_version", sa.Column("vouchers", sa.JSON(), nullable=True))
