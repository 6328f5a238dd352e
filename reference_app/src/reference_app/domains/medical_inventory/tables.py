"""The tables of Medical Inventory, as the code sees them; Alembic's revisions make them."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, DateTime, Float, ForeignKey, Index, Integer, Table, Text, func
from sqlalchemy.dialects.postgresql import UUID

from reference_app.tables import metadata
from reference_app.task_table import tasks  # noqa: F401 - part of this domain's schema

detections = Table(
    "detections",
    metadata,
    Column("id", UUID(as_uuid=False), primary_key=True),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    Column("digest", Text, nullable=False),
    Column("media_type", Text, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("count", Integer, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("model_digest", Text, nullable=False),
    Column("replica", Text, nullable=False),
    # What the listing reads, newest first.
    Index("detections_created_at_id_idx", "created_at", "id"),
)

items = Table(
    "items",
    metadata,
    Column("detection_id", UUID(as_uuid=False), ForeignKey("detections.id", ondelete="CASCADE"), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("label", Text, nullable=False),
    Column("confidence", Float, nullable=False),
    Column("x", Integer, nullable=False),
    Column("y", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    Column("height", Integer, nullable=False),
    Column("angle", Float, nullable=False),
)
