# SPDX-License-Identifier: Apache-2.0
"""Who was told of which event, and what is parked."""

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
