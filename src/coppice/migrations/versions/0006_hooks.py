# SPDX-License-Identifier: Apache-2.0
"""What an event is about can be searched for; who was told of which event, and what is parked."""

import json

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_COLUMNS = {"subscription": "subscription", "list_identifier": "list", "image_identifier": "image", "cloud": "cloud"}
_OF_A_SUBSCRIPTION = {
    "ImageListVerified",
    "ImageListRefused",
    "ImageListExpiring",
    "ImageListExpired",
    "EndorserPinned",
    "VersionFloorReset",
    "SubscriptionChanged",
}


def upgrade() -> None:
    """Change the tables."""
    for name in _COLUMNS:
        op.add_column("event", sa.Column(name, sa.Text(), nullable=True))
    _fill_columns()
    op.create_index("ix_event_at", "event", ["at"])
    op.create_index("ix_event_image", "event", ["list_identifier", "image_identifier"])
    op.create_index("ix_event_subscription", "event", ["subscription"])
    op.create_table(
        "hook",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("identifier", sa.String(length=36), nullable=False),
        sa.Column("met_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("told_up_to", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "delivery",
        sa.Column("hook", sa.String(length=64), nullable=False),
        sa.Column("event", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("replays", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("error_code", sa.String(length=64), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("output", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["hook"], ["hook.name"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["event"], ["event.number"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("hook", "event"),
    )
    op.create_index("ix_delivery_event", "delivery", ["event"])
    op.create_index("ix_delivery_state", "delivery", ["hook", "state", "event"])
    op.create_table(
        "told_image",
        sa.Column("subscription", sa.String(length=64), nullable=False),
        sa.Column("image_identifier", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["subscription"], ["subscription.name"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("subscription", "image_identifier"),
    )
    op.create_table(
        "intended_event",
        sa.Column("place", sa.String(length=64), nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("expected", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("place", "position"),
    )
    op.create_table(
        "imported_event",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("digest"),
    )


def _fill_columns() -> None:
    connection = op.get_bind()
    event = sa.table(
        "event",
        sa.column("number", sa.Integer),
        sa.column("kind", sa.Text),
        sa.column("subject", sa.Text),
        sa.column("facts", sa.Text),
        *(sa.column(name, sa.Text) for name in _COLUMNS),
    )
    rows = connection.execute(sa.select(event.c.number, event.c.kind, event.c.subject, event.c.facts)).all()
    for number, kind, subject, written in rows:
        facts = json.loads(written) if isinstance(written, str) else written
        values = {name: facts.get(key) for name, key in _COLUMNS.items() if isinstance(facts.get(key), str)}
        if kind in _OF_A_SUBSCRIPTION:
            values["subscription"] = subject
        if values:
            connection.execute(sa.update(event).where(event.c.number == number).values(**values))
