"""Sessions, their messages, and the files of their KV state."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision: str | None = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _create_sessions()
    _create_messages()
    _create_kv_files()


def _create_sessions() -> None:
    op.create_table(
        "sessions",
        sa.Column("key", _KEY, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sa.Column("updated", sa.Double, nullable=False),
        sa.Column("messages", sa.Integer, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("left_out", sa.Integer, nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.UniqueConstraint("owner", "id", name="uq_sessions_owner_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_sessions_owner_updated", "sessions", ["owner", "updated", "key"])
    op.create_index("ix_sessions_updated", "sessions", ["updated"])


def _create_messages() -> None:
    op.create_table(
        "messages",
        sa.Column("key", _KEY, primary_key=True),
        sa.Column(
            "session",
            _KEY,
            sa.ForeignKey("sessions.key", name="fk_messages_session", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("tokens", sa.Integer),
        sa.Column("extra", sa.JSON(none_as_null=True)),
        sa.Column("partial", sa.Boolean, nullable=False),
        sa.Column("superseded", sa.Boolean, nullable=False),
        sa.Column("created", sa.Double, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_messages_session", "messages", ["session", "key"])


def _create_kv_files() -> None:
    op.create_table(
        "kv_files",
        sa.Column("folder", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("session", sa.Text, nullable=False),
        sa.Column("engine", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("chars", sa.Integer, nullable=False),
        sa.Column("text_sha256", sa.Text, nullable=False),
        sa.Column("tokens", sa.LargeBinary, nullable=False),
        sa.Column("pieces", sa.Text, nullable=False),
        sa.Column("used", sa.Double, nullable=False),
    )
    op.create_index("ix_kv_files_session", "kv_files", ["owner", "session"])
    op.create_index("ix_kv_files_engine", "kv_files", ["engine", "owner", "used"])
