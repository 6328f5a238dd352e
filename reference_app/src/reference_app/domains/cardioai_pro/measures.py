"""Cardio.AI.Pro's own metrics: what its alerts and its scaling ask for."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

latency = Histogram(
    "ecg_processing_latency_seconds",
    "From an ECG's arrival until its analysis is stored, waiting in the queue included.",
    ["path"],
    buckets=(0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 300),
)
queue_length = Gauge("ecg_analysis_queue_length", "Analyses that were queued and have not ended, in the whole system.")
concurrent = Gauge("ecg_concurrent_analyses", "Analyses that this replica has accepted and not stored yet.")
rhythms = Counter("ecg_rhythms_total", "Analyses stored, by rhythm.", ["rhythm"])
