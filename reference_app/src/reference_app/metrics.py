"""The metrics, named once; /metrics renders them."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)

requests = Counter("http_requests_total", "HTTP requests answered.", ["method", "route", "status"])
request_seconds = Histogram(
    "http_request_duration_seconds", "Time to answer HTTP requests.", ["method", "route"], buckets=_SECONDS
)
requests_running = Gauge("http_requests_in_progress", "HTTP requests being answered.")
refused = Counter("requests_refused_total", "Requests that asked for a change and were refused.", ["code"])
results = Counter("results_total", "Results stored, by where they came from.", ["source"])
items = Counter("items_detected_total", "Items detected.", ["label"])
stage_seconds = Histogram("stage_duration_seconds", "Time in each stage of a request.", ["stage"], buckets=_SECONDS)
cache = Counter("cache_requests_total", "Look-ups in the cache.", ["result"])
redis_errors = Counter("redis_errors_total", "Redis commands that failed.", ["operation"])
database_retries = Counter("database_retries_total", "Transactions that were tried again.", ["reason"])
influx_points = Counter("influx_points_total", "Points written, refused or dropped.", ["result"])
influx_retries = Counter("influx_retries_total", "Requests to InfluxDB that were tried again.")
influx_queue = Gauge("influx_queue_points", "Points that wait to be written.")
dependency_up = Gauge("dependency_up", "1 while the dependency answers.", ["dependency"])
ready = Gauge("replica_ready", "1 while this replica is ready.")
model = Gauge("model_info", "1 for the model in use.", ["version", "digest", "source"])
model_broken = Gauge("model_broken", "1 while the published model is refused and an earlier one stays in use.")
model_loads = Counter("model_loads_total", "Models loaded or refused.", ["result"])
clients = Gauge("websocket_clients", "WebSocket clients connected.")
messages = Counter("websocket_messages_total", "Messages to WebSocket clients.", ["result"])
tasks = Counter("tasks_total", "Tasks queued and finished.", ["state"])
periodic = Counter("periodic_total", "What beat had done.", ["name", "result"])
tokens = Counter("tokens_checked_total", "Tokens checked, by result.", ["result"])
