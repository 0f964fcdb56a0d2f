"""The database itself refuses to change or delete an audit event."""

from __future__ import annotations

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

WHY = "the audit trail is only ever added to"
SQLITE = ("UPDATE", "DELETE")


def upgrade() -> None:
    """Forward."""
    if op.get_context().dialect.name == "postgresql":
        op.execute(
            "CREATE FUNCTION events_are_final() RETURNS trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN RAISE EXCEPTION '{WHY}'; END $$"
        )
        op.execute(
            "CREATE TRIGGER events_are_final BEFORE UPDATE OR DELETE OR TRUNCATE ON events "
            "FOR EACH STATEMENT EXECUTE FUNCTION events_are_final()"
        )
        return
    for verb in SQLITE:
        op.execute(
            f"CREATE TRIGGER events_are_final_{verb.lower()} BEFORE {verb} ON events "
            f"BEGIN SELECT RAISE(ABORT, '{WHY}'); END"
        )


def downgrade() -> None:
    """Back."""
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP TRIGGER events_are_final ON events")
        op.execute("DROP FUNCTION events_are_final()")
        return
    for verb in SQLITE:
        op.execute(f"DROP TRIGGER events_are_final_{verb.lower()}")
