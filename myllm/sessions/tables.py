"""The tables of the store. Times are seconds since 1970, UTC.

A change here needs a migration in `migrations/versions`; a test compares the two.
"""

from __future__ import annotations

import sqlalchemy as sa

# SQLite numbers rows by itself only if the key is an INTEGER; other databases need 64 bits.
_Key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

metadata = sa.MetaData()

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("key", _Key, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("updated", sa.Double, nullable=False),
    # The number of messages in force, without superseded ones; kept here to make lists fast.
    sa.Column("messages", sa.Integer, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    # How many of the oldest messages did not fit into the last prompt.
    sa.Column("left_out", sa.Integer, nullable=False),
    # Counts the changes. A transaction that changes a session must have seen the last change.
    sa.Column("version", sa.Integer, nullable=False),
    sa.UniqueConstraint("owner", "id", name="uq_sessions_owner_id"),
    sa.Index("ix_sessions_owner_updated", "owner", "updated", "key"),
    sa.Index("ix_sessions_updated", "updated"),
    sqlite_autoincrement=True,  # the key of a removed session is never used again
)

messages = sa.Table(
    "messages",
    metadata,
    sa.Column("key", _Key, primary_key=True),
    sa.Column(
        "session",
        _Key,
        sa.ForeignKey("sessions.key", name="fk_messages_session", ondelete="CASCADE"),
        nullable=False,
    ),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("content", sa.Text, nullable=False),
    sa.Column("tokens", sa.Integer),
    # What a message has besides its text: see history.Extra.
    sa.Column("extra", sa.JSON(none_as_null=True)),
    sa.Column("partial", sa.Boolean, nullable=False),
    sa.Column("superseded", sa.Boolean, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Index("ix_messages_session", "session", "key"),
    sqlite_autoincrement=True,
)

kv_files = sa.Table(
    "kv_files",
    metadata,
    # Servers that share a database have one folder each.
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
    sa.Index("ix_kv_files_session", "owner", "session"),
    sa.Index("ix_kv_files_engine", "engine", "owner", "used"),
)

keys = sa.Table(
    "keys",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("sha256", sa.LargeBinary, nullable=False),
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("last_used", sa.Double),
    # The others are the fields of keys.KeyRules.
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("models", sa.JSON, nullable=False),
    sa.Column("requests_per_minute", sa.Integer),
    sa.Column("tokens_per_minute", sa.Integer),
    sa.Column("concurrent_requests", sa.Integer),
    sa.Column("max_priority", sa.Integer, nullable=False),
    sa.Column("expires", sa.Double),
    sa.Column("disabled", sa.Boolean, nullable=False),
    sa.UniqueConstraint("sha256", name="uq_keys_sha256"),
)

# One row, made by the first change. Every transaction that changes a key counts it up.
key_changes = sa.Table(
    "key_changes",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
)

# What each key used of each model: a row for each hour (its beginning) in which it used any.
usage = sa.Table(
    "usage",
    metadata,
    sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False),
    sa.Column("generated_tokens", sa.BigInteger, nullable=False),
    sa.Column("slot_s", sa.Double, nullable=False),
    sa.Column("errors", sa.BigInteger, nullable=False),
)

# The last write of each server, so that one that is repeated adds nothing.
usage_writes = sa.Table(
    "usage_writes",
    metadata,
    sa.Column("writer", sa.Text, primary_key=True),
    sa.Column("number", sa.BigInteger, nullable=False),
    sa.Column("written", sa.Double, nullable=False),
)
