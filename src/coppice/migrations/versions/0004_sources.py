# SPDX-License-Identifier: Apache-2.0
"""Subscriptions to sources of other kinds, and how lists came to be trusted."""

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
