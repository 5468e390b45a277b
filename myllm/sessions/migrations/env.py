"""Alembic runs this file; `myllm.sessions.schema` provides the connection."""

from __future__ import annotations

from alembic import context

from myllm.sessions.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite can alter little of a table, so Alembic makes a new one and moves the rows.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
