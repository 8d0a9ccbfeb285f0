# SPDX-License-Identifier: Apache-2.0
"""What each version is built on, and where the evidence of its build is kept."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    op.add_column("appliance_version", sa.Column("built_on", sa.JSON(), nullable=False, server_default="[]"))
    op.add_column("appliance_version", sa.Column("evidence", sa.Text(), nullable=True))
