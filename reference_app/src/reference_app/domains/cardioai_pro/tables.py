"""The tables of Cardio.AI.Pro, as the code sees them; Alembic's revisions make them."""

from __future__ import annotations

from sqlalchemy import Column, Date, DateTime, Float, ForeignKey, Index, Integer, LargeBinary, Table, Text, func
from sqlalchemy.dialects.postgresql import JSONB, UUID

from reference_app.tables import metadata
from reference_app.task_table import tasks

recordings = Table(
    "recordings",
    metadata,
    Column("id", UUID(as_uuid=False), primary_key=True),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("digest", Text, nullable=False),
    Column("sample_rate", Float, nullable=False),
    Column("samples", Integer, nullable=False),
    # Microvolts, 16 bits each.
    Column("signal", LargeBinary, nullable=False),
)

analyses = Table(
    "analyses",
    metadata,
    Column("id", UUID(as_uuid=False), ForeignKey("recordings.id", ondelete="CASCADE"), primary_key=True),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("heart_rate", Float),
    Column("rhythm", Text, nullable=False),
    Column("confidence", Float, nullable=False),
    Column("quality", Float, nullable=False),
    # Places of the beats, intervals, variability.
    Column("details", JSONB, nullable=False),
    Column("source", Text, nullable=False),
    Column("replica", Text, nullable=False),
    # What the listing reads, newest first, and the statistics of a day.
    Index("analyses_created_at_id_idx", "created_at", "id"),
)

daily_statistics = Table(
    "daily_statistics",
    metadata,
    Column("day", Date, primary_key=True),
    Column("rhythm", Text, primary_key=True),
    Column("analyses", Integer, nullable=False),
    Column("mean_heart_rate", Float),
    Column("mean_confidence", Float, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
)

# The queue's length is asked for every few seconds, and most tasks have ended.
Index("tasks_queued_idx", tasks.c.created_at, postgresql_where=tasks.c.state == "queued")
