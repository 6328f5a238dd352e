"""Reads and writes detections. Every write can be repeated: a transaction whose outcome is unknown is run again."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, select, tuple_
from sqlalchemy.dialects.postgresql import insert

from reference_app.domains.medical_inventory.tables import detections, items


def save(connection: Connection, detection: dict[str, Any]) -> None:
    """Stores a detection in the form of `show`; storing it again changes nothing."""
    photo, model = detection["photo"], detection["model"]
    stored = connection.execute(
        insert(detections).on_conflict_do_nothing(),
        {
            "id": detection["id"],
            "created_at": datetime.fromisoformat(detection["created_at"]),
            "digest": photo["digest"],
            "media_type": photo["media_type"],
            "size": photo["size"],
            "width": photo["width"],
            "height": photo["height"],
            "count": detection["count"],
            "model_version": model["version"],
            "model_digest": model["digest"],
            "replica": detection["replica"],
        },
    )
    if stored.rowcount and detection["items"]:
        connection.execute(
            insert(items),
            [
                {
                    "detection_id": detection["id"],
                    "number": number,
                    "label": item["label"],
                    "confidence": item["confidence"],
                    "angle": item["angle"],
                    **item["box"],
                }
                for number, item in enumerate(detection["items"])
            ],
        )


def find(connection: Connection, identity: str) -> dict[str, Any] | None:
    """One detection with its items."""
    row = connection.execute(select(detections).where(detections.c.id == identity)).one_or_none()
    if row is None:
        return None
    found = connection.execute(select(items).where(items.c.detection_id == identity).order_by(items.c.number))
    return _show(
        row,
        [
            {
                "label": item.label,
                "confidence": item.confidence,
                "box": {"x": item.x, "y": item.y, "width": item.width, "height": item.height},
                "angle": item.angle,
            }
            for item in found
        ],
    )


def newest(connection: Connection, limit: int, before: str | None) -> list[dict[str, Any]]:
    """The newest detections without their items; `before` continues behind the detection with that id."""
    query = select(detections).order_by(detections.c.created_at.desc(), detections.c.id.desc()).limit(limit)
    if before:
        last = select(detections.c.created_at, detections.c.id).where(detections.c.id == before).scalar_subquery()
        query = query.where(tuple_(detections.c.created_at, detections.c.id) < last)
    return [_show(row) for row in connection.execute(query)]


def _show(row: Row[Any], found: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    detection = {
        "id": row.id,
        "created_at": row.created_at.astimezone(UTC).isoformat(timespec="milliseconds"),
        "count": row.count,
        "photo": {
            "digest": row.digest,
            "media_type": row.media_type,
            "size": row.size,
            "width": row.width,
            "height": row.height,
        },
        "model": {"version": row.model_version, "digest": row.model_digest},
        "replica": row.replica,
    }
    if found is not None:
        detection |= {"counts": dict(sorted(Counter(item["label"] for item in found).items())), "items": found}
    return detection
