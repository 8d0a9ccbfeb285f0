# SPDX-License-Identifier: Apache-2.0
"""What the cache holds is needed for, and what could not be fetched."""

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
