# SPDX-License-Identifier: Apache-2.0
"""For ``alembic revision --autogenerate`` by developers; Coppice itself upgrades in `coppice.database`."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine

import coppice.cache.tables
import coppice.catalogue.tables
import coppice.cloud.tables
import coppice.events.tables
import coppice.schedule.tables
import coppice.subscription.tables  # noqa: F401 - imported for the tables that they declare
from coppice.database import Base

with create_engine(context.config.get_main_option("sqlalchemy.url") or "sqlite://").connect() as connection:
    context.configure(connection=connection, target_metadata=Base.metadata)
    with context.begin_transaction():
        context.run_migrations()
