# SPDX-License-Identifier: Apache-2.0
"""Subscriptions: several endorsers, credentials, selections, pauses, an archive of verified lists."""

import hashlib
import json

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Change the tables; what was followed, verified and remembered before stays."""
    _extend_subscriptions()
    _make_endorsers()
    _make_archive()
    op.add_column("trusted_version", sa.Column("created", sa.DateTime(timezone=True), nullable=True))
    op.add_column("trusted_version", sa.Column("endorsers", sa.JSON(), nullable=True))
    op.add_column("trusted_version", sa.Column("reset_from", sa.String(length=256), nullable=True))
    op.add_column("trusted_version", sa.Column("is_open", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "listed_image",
        sa.Column("list_identifier", sa.Text(), nullable=False),
        sa.Column("image_identifier", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("list_identifier", "image_identifier"),
    )
    op.create_index("listed_image_by_image", "listed_image", ["image_identifier"])
    _move_rows()
    op.drop_table("verified_list")
    # Not by making the table anew: SQLite would empty all that refers to it.
    for column in ("endorser_subject", "endorser_issuer", "images", "list_identifier"):
        op.drop_column("subscription", column)
    op.execute(sa.text("ALTER TABLE subscription RENAME COLUMN list_text TO list_identifier"))
    # An identifier that is no UUID may be longer than one.
    for table in ("trusted_version", "unsubscribed_list"):
        with op.batch_alter_table(table) as batch:
            batch.alter_column("list_identifier", existing_type=sa.String(length=64), type_=sa.Text(), nullable=False)


def _extend_subscriptions() -> None:
    for column in (
        sa.Column("list_text", sa.Text(), nullable=True),
        sa.Column("namespaces", sa.String(length=16), nullable=False, server_default="automatic"),
        sa.Column("profile", sa.String(length=16), nullable=False, server_default="strict"),
        sa.Column("trust_on_first_use", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("allow_sha1", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("allow_host_certificate", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("selection", sa.JSON(), nullable=False, server_default="{}"),
        sa.Column("credential", sa.JSON(), nullable=True),
        sa.Column("server_anchors", sa.Text(), nullable=True),
        sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("etag", sa.Text(), nullable=True),
        sa.Column("last_modified", sa.Text(), nullable=True),
        sa.Column("checked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("fetched_at", sa.DateTime(timezone=True), nullable=True),
    ):
        op.add_column("subscription", column)


def _make_endorsers() -> None:
    op.create_table(
        "subscription_endorser",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("subscription", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.JSON(), nullable=False),
        sa.Column("issuer", sa.JSON(), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=True),
        sa.Column("first_use", sa.Boolean(), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["subscription"], ["subscription.name"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("number"),
    )


def _make_archive() -> None:
    op.create_table(
        "archived_list",
        sa.Column("number", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("subscription", sa.String(length=64), nullable=False),
        sa.Column("list_identifier", sa.Text(), nullable=False),
        sa.Column("version", sa.String(length=256), nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires", sa.DateTime(timezone=True), nullable=False),
        sa.Column("payload_sha512", sa.String(length=128), nullable=False),
        sa.Column("message_sha512", sa.String(length=128), nullable=False),
        sa.Column("signer", sa.Text(), nullable=True),
        sa.Column("signer_issuer", sa.Text(), nullable=True),
        sa.Column("signer_fingerprint", sa.String(length=64), nullable=True),
        sa.Column("verified_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("message", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["subscription"], ["subscription.name"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("subscription", "payload_sha512", "signer_fingerprint"),
    )
    op.create_table(
        "current_list",
        sa.Column("subscription", sa.String(length=64), nullable=False),
        sa.Column("archived", sa.Integer(), nullable=False),
        sa.Column("images", sa.Integer(), nullable=True),
        sa.Column("anchors_state", sa.String(length=64), nullable=True),
        sa.Column("warnings", sa.JSON(), nullable=False),
        sa.Column("told", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["subscription"], ["subscription.name"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["archived"], ["archived_list.number"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("subscription"),
    )


def _move_rows() -> None:
    """Bring the rows of the first schema, as they were written, to where the new one keeps them."""
    connection = op.get_bind()
    connection.execute(sa.text("UPDATE subscription SET list_text = list_identifier"))
    followed = connection.execute(
        sa.text("SELECT name, list_identifier, endorser_subject, endorser_issuer, images, added_at FROM subscription")
    ).all()
    for name, list_identifier, subject, issuer, images, added_at in followed:
        connection.execute(
            sa.text(
                "INSERT INTO subscription_endorser (subscription, subject, issuer, first_use, added_at) "
                "VALUES (:name, :subject, :issuer, :no, :at)"
            ),
            {"name": name, "subject": _json(subject), "issuer": _json(issuer), "no": False, "at": added_at},
        )
        connection.execute(
            sa.text("UPDATE subscription SET selection = :selection WHERE name = :name"),
            {"name": name, "selection": json.dumps({"images": json.loads(_json(images))})},
        )
        connection.execute(
            sa.text("UPDATE trusted_version SET endorsers = :endorsers WHERE list_identifier = :list"),
            {"list": list_identifier, "endorsers": f"[[{_json(subject)}, {_json(issuer)}]]"},
        )
        _archive_verified(connection, name, list_identifier)


def _archive_verified(connection: sa.Connection, name: str, list_identifier: str | None) -> None:
    kept = connection.execute(
        sa.text(
            "SELECT message, list_version, payload_sha512, expires, verified_at FROM verified_list "
            "WHERE subscription = :name"
        ),
        {"name": name},
    ).first()
    if kept is None or list_identifier is None:
        return
    digest = hashlib.sha512(kept.message).hexdigest()
    connection.execute(
        sa.text(
            "INSERT INTO archived_list (subscription, list_identifier, version, expires, payload_sha512, "
            "message_sha512, verified_at, message) "
            "VALUES (:name, :list, :version, :expires, :payload, :digest, :verified_at, :message)"
        ),
        {
            "name": name,
            "list": list_identifier,
            "version": kept.list_version,
            "expires": kept.expires,
            "payload": kept.payload_sha512,
            "digest": digest,
            "verified_at": kept.verified_at,
            "message": kept.message,
        },
    )
    connection.execute(
        sa.text(
            "INSERT INTO current_list (subscription, archived, warnings, told) "
            "SELECT subscription, number, '[]', '[]' FROM archived_list WHERE subscription = :name"
        ),
        {"name": name},
    )
    connection.execute(
        sa.text("UPDATE subscription SET checked_at = :at, fetched_at = :at WHERE name = :name"),
        {"at": kept.verified_at, "name": name},
    )


def _json(value: object) -> str:
    # A database with a JSON type of its own gives what was read; SQLite gives the text.
    return value if isinstance(value, str) else json.dumps(value)
