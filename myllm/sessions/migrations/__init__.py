"""Alembic's environment for the store: `env.py` and one file per change of the schema."""
