"""Instances, deployments and audit events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """Forward."""
    op.create_table(
        "instances",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("project", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.Column("last_number", sa.Integer, nullable=False),
        sa.Column("destroyed_at", sa.DateTime),
    )
    op.create_table(
        "deployments",
        sa.Column("deployment", sa.Text, primary_key=True),
        sa.Column("short", sa.Text, nullable=False),
        sa.Column("instance_key", sa.Text, sa.ForeignKey("instances.key"), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("trigger", sa.Text, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("started_at", sa.DateTime, nullable=False),
        sa.Column("ended_at", sa.DateTime),
        sa.Column("outcome", sa.Text),
        sa.Column("retired", sa.Boolean, nullable=False),
        sa.Column("request", DOCUMENT, nullable=False),
        sa.Column("progress", DOCUMENT, nullable=False),
        sa.UniqueConstraint("instance_key", "number", name="one_number_per_deployment"),
    )
    op.create_index("deployments_by_short", "deployments", ["short"])
    op.create_index("deployments_by_start", "deployments", ["started_at"])
    op.create_table(
        "events",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("at", sa.DateTime, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("instance_key", sa.Text, nullable=False),
        sa.Column("deployment", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("detail", DOCUMENT, nullable=False),
        sa.Column("prev_hash", sa.Text, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.UniqueConstraint("prev_hash", name="one_chain"),
    )
    op.create_index("events_by_instance", "events", ["instance_key", "number"])


def downgrade() -> None:
    """Back."""
    op.drop_table("events")
    op.drop_table("deployments")
    op.drop_table("instances")
