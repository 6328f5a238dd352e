"""Runs the revisions against the database that the environment names (PGHOST ...), or prints their SQL."""

from __future__ import annotations

import os
from importlib import import_module
from logging.config import fileConfig

from alembic import context
from alembic.util import CommandError
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

from reference_app.migrations import DOMAIN
from reference_app.tables import metadata

domain = context.config.attributes.get(DOMAIN)
if domain is None:
    # Alembic's own program does not know which domain's revisions are meant.
    raise CommandError("start it as reference_app's command alembic (bin/alembic), which reads DOMAIN_MODULE")
import_module(f"reference_app.domains.{domain}.tables")

if context.config.config_file_name and os.environ.get("ALEMBIC_LOGGING", "1") == "1":
    fileConfig(context.config.config_file_name, disable_existing_loggers=False)

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    engine = create_engine(
        "postgresql+psycopg://",
        poolclass=NullPool,
        connect_args={
            "connect_timeout": 5,
            "application_name": "alembic",
            "target_session_attrs": "read-write",
        },
    )
    with engine.connect() as connection:
        # One transaction for each revision: a failure leaves the database at the revision before it.
        context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()
