"""Reads and writes recordings and analyses. Every write can be repeated: a transaction may be run again."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Connection, Row, Select, cast, func, select, tuple_
from sqlalchemy import Date as DateType
from sqlalchemy.dialects.postgresql import insert

from reference_app.domains.cardioai_pro.recording import Recording, unpack
from reference_app.domains.cardioai_pro.tables import analyses, daily_statistics, recordings

_DETAILS = ("beats", "rr", "hrv", "milliseconds")


def keep(connection: Connection, identity: str, recording: Recording, digest: str) -> None:
    """Stores a recording."""
    connection.execute(
        insert(recordings).on_conflict_do_nothing(),
        {
            "id": identity,
            "digest": digest,
            "sample_rate": recording.rate,
            "samples": len(recording.samples),
            "signal": recording.packed(),
        },
    )


def recording_of(connection: Connection, identity: str) -> tuple[Recording, str, datetime] | None:
    """A recording, its digest, and when it came."""
    row = connection.execute(select(recordings).where(recordings.c.id == identity)).one_or_none()
    return (unpack(row.signal, row.sample_rate), row.digest, row.created_at) if row else None


def save(connection: Connection, analysis: dict[str, Any]) -> None:
    """Stores an analysis in the form of `find`, whose recording is there; storing it again changes nothing."""
    connection.execute(
        insert(analyses).on_conflict_do_nothing(),
        {
            "id": analysis["id"],
            "created_at": datetime.fromisoformat(analysis["created_at"]),
            "details": {name: analysis[name] for name in _DETAILS},
            **{name: analysis[name] for name in ("heart_rate", "rhythm", "confidence", "quality", "source", "replica")},
        },
    )


def find(connection: Connection, identity: str) -> dict[str, Any] | None:
    """One analysis."""
    row = connection.execute(_joined().where(analyses.c.id == identity)).one_or_none()
    return _show(row) | row.details if row else None


def newest(connection: Connection, limit: int, before: str | None) -> list[dict[str, Any]]:
    """The newest analyses without their details; `before` continues behind the analysis with that id."""
    query = _joined().order_by(analyses.c.created_at.desc(), analyses.c.id.desc()).limit(limit)
    if before:
        last = select(analyses.c.created_at, analyses.c.id).where(analyses.c.id == before).scalar_subquery()
        query = query.where(tuple_(analyses.c.created_at, analyses.c.id) < last)
    return [_show(row) for row in connection.execute(query)]


def count_day(connection: Connection, first: date) -> None:
    """Writes the statistics of the day and those after it, from what is stored."""
    day = cast(func.timezone("UTC", analyses.c.created_at), DateType).label("day")
    rows = (
        select(
            day,
            analyses.c.rhythm,
            func.count(),
            func.avg(analyses.c.heart_rate),
            func.avg(analyses.c.confidence),
            func.now(),
        )
        .where(analyses.c.created_at >= datetime(first.year, first.month, first.day, tzinfo=UTC))
        .group_by(day, analyses.c.rhythm)
    )
    names = ["day", "rhythm", "analyses", "mean_heart_rate", "mean_confidence", "updated_at"]
    written = insert(daily_statistics).from_select(names, rows)
    connection.execute(
        written.on_conflict_do_update(
            index_elements=["day", "rhythm"], set_={name: written.excluded[name] for name in names[2:]}
        )
    )


def statistics(connection: Connection, first: date) -> list[dict[str, Any]]:
    """Each day's analyses by rhythm, the newest day first."""
    query = select(daily_statistics).where(daily_statistics.c.day >= first)
    days: dict[date, dict[str, Any]] = {}
    for row in connection.execute(query.order_by(daily_statistics.c.day.desc(), daily_statistics.c.rhythm)):
        shown = days.setdefault(row.day, {"day": row.day.isoformat(), "analyses": 0, "rhythms": {}})
        shown["analyses"] += row.analyses
        shown["rhythms"][row.rhythm] = {
            "analyses": row.analyses,
            "mean_heart_rate": None if row.mean_heart_rate is None else round(row.mean_heart_rate, 1),
            "mean_confidence": round(row.mean_confidence, 2),
        }
    return list(days.values())


def _joined() -> Select[Any]:
    about = (recordings.c.digest, recordings.c.sample_rate, recordings.c.samples)
    return select(analyses, *about).join(recordings, recordings.c.id == analyses.c.id)


def _show(row: Row[Any]) -> dict[str, Any]:
    return {
        "id": row.id,
        "created_at": row.created_at.astimezone(UTC).isoformat(timespec="milliseconds"),
        "heart_rate": row.heart_rate,
        "rhythm": row.rhythm,
        "confidence": row.confidence,
        "quality": row.quality,
        "recording": {"digest": row.digest, "sample_rate": row.sample_rate, "samples": row.samples},
        "source": row.source,
        "replica": row.replica,
    }
