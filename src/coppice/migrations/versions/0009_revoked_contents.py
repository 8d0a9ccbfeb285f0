# SPDX-License-Identifier: Apache-2.0
"""What an image that is revoked by its name is known to hold: several contents, each once."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables."""
    op.create_table(
        "revoked_content",
        sa.Column("revocation", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=140), nullable=False),
        sa.Column("everywhere", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["revocation"], ["revocation.number"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("revocation", "digest"),
    )
    # One content was kept beside the name until now, and was revoked in every list.
    table = sa.table("revocation", *map(sa.column, ("number", "digest", "list_identifier")))
    contents = sa.table("revoked_content", *map(sa.column, ("revocation", "digest", "everywhere")))
    named = sa.and_(table.c.list_identifier.is_not(None), table.c.digest.is_not(None))
    kept = sa.select(table.c.number, table.c.digest, sa.true()).where(named)
    op.execute(sa.insert(contents).from_select(["revocation", "digest", "everywhere"], kept))
    op.execute(sa.update(table).where(named).values(digest=None))
