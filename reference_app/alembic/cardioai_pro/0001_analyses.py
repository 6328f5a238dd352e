"""Tasks, recordings, analyses and the statistics of each day.

Revision: cardioai_pro_0001, the first.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB, UUID

revision = "cardioai_pro_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the tables and the indexes that the listing and the queue's length read."""
    op.create_table(
        "tasks",
        sa.Column("id", UUID(as_uuid=False), primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("finished_at", sa.DateTime(timezone=True)),
        sa.Column("result", JSONB),
        sa.Column("error", sa.Text),
    )
    op.create_index("tasks_queued_idx", "tasks", ["created_at"], postgresql_where=sa.text("state = 'queued'"))
    op.create_table(
        "recordings",
        sa.Column("id", UUID(as_uuid=False), primary_key=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("sample_rate", sa.Float, nullable=False),
        sa.Column("samples", sa.Integer, nullable=False),
        sa.Column("signal", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "analyses",
        sa.Column("id", UUID(as_uuid=False), sa.ForeignKey("recordings.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.Column("heart_rate", sa.Float),
        sa.Column("rhythm", sa.Text, nullable=False),
        sa.Column("confidence", sa.Float, nullable=False),
        sa.Column("quality", sa.Float, nullable=False),
        sa.Column("details", JSONB, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("replica", sa.Text, nullable=False),
    )
    op.create_index("analyses_created_at_id_idx", "analyses", ["created_at", "id"])
    op.create_table(
        "daily_statistics",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("rhythm", sa.Text, primary_key=True),
        sa.Column("analyses", sa.Integer, nullable=False),
        sa.Column("mean_heart_rate", sa.Float),
        sa.Column("mean_confidence", sa.Float, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
    )


def downgrade() -> None:
    """Drops them."""
    for table in ("daily_statistics", "analyses", "recordings", "tasks"):
        op.drop_table(table)
