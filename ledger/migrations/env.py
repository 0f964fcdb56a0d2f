"""Run by Alembic for `ledger.schema.migrate`, on the connection that it is given."""

from __future__ import annotations

from alembic import context

from ledger.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite cannot alter a table in place
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
