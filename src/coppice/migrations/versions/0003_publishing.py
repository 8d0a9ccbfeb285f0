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


def _endorsers() -> None:
    op.add_column("endorser", sa.Column("kind", sa.String(length=16), nullable=False, server_default="pem"))
    op.add_column("endorser", sa.Column("passphrase_variable", sa.String(length=256), nullable=True))
    op.add_column("endorser", sa.Column("ask_passphrase", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("endorser", sa.Column("digest", sa.String(length=16), nullable=False, server_default="sha256"))
    op.add_column("endorser", sa.Column("subject", sa.JSON(), nullable=True))
    op.add_column("endorser", sa.Column("issuer", sa.JSON(), nullable=True))
