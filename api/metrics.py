"""The metrics of this process for Prometheus. docs/reference/metrics.md explains the same list."""

from prometheus_client import Counter, Gauge, Histogram

FAST = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5)

HEAD = Gauge("tidelog_log_head_position", "Position of the newest event")
LAG = Gauge("tidelog_consumer_lag_events", "Events that a consumer has not handled yet", ["consumer"])
PARKED = Gauge("tidelog_parked_events", "Events put aside because a consumer could not handle them", ["consumer"])
UPKEEP_AGE = Gauge("tidelog_upkeep_success_age_seconds", "Seconds since a chore of the upkeep succeeded", ["upkeep"])
UPKEEP_REMOVED = Gauge("tidelog_upkeep_removed_rows", "Rows that a chore of the upkeep has removed so far", ["upkeep"])

REQUESTS = Counter("tidelog_http_requests_total", "HTTP requests", ["method", "route", "status"])
REQUEST_SECONDS = Histogram("tidelog_http_request_seconds", "Time to answer", ["route"], buckets=FAST)
CONNECTIONS = Gauge("tidelog_http_connections", "Open HTTP connections")
REFUSED = Counter("tidelog_http_refused_total", "Connections that were ended because of what the peer did, or too many", ["reason"])

AUDITED = Counter("tidelog_audit_actions_total", "Answered actions of operators, by result", ["action", "result"])
AUDIT_REFUSALS = Counter("tidelog_audit_refusals_total", "Requests that were refused for want of a key or a permission", ["key"])
RUNS_REFUSED = Counter("tidelog_runs_refused_total", "Starts of runs that were refused because too many runs are open", ["reason"])
BUDGETS_SHORT = Counter("tidelog_budget_refusals_total", "Calls for which a budget had too little", ["scope", "kind"])
BUDGET_SHARE = Gauge("tidelog_budget_used_ratio", "Largest share of a budget of today that was given out", ["scope"])
SESSIONS = Gauge("tidelog_worker_sessions", "Open connections of workers' sessions")
SESSION_SLOTS = Gauge("tidelog_worker_free_slots", "Free slots of the workers that are connected to this process", ["kind"])
BREAKERS = Gauge("tidelog_breakers", "Breakers of the tools that workers offer at this process, by state", ["state"])
BREAKERS_TOLD = Counter("tidelog_breaker_actions_total", "Breakers that this process opened, and calls that it put off", ["action"])
TOOL_PERMITS = Gauge("tidelog_tool_permits_in_use", "Calls of tools with a limit of calls at once that this process has begun")
TOOL_WAITING = Gauge("tidelog_tool_calls_waiting", "Calls at hand that wait for a permit or a token")
TOOL_TOKENS = Gauge("tidelog_tool_tokens", "Tokens of tools with a rate that this process has drawn and not spent")
SOCKETS = Gauge("tidelog_event_sockets", "Open WebSockets of event streams")
SOCKET_SUBSCRIPTIONS = Gauge("tidelog_event_socket_subscriptions", "Subscriptions on these WebSockets")
SOCKET_RESYNCS = Counter("tidelog_event_socket_resyncs_total", "Subscriptions that ended because their clients read too slowly")
SESSION_MESSAGES = Counter("tidelog_worker_messages_total", "Messages of workers' sessions", ["direction"])

WRITE_SECONDS = Histogram("tidelog_append_write_seconds", "Time to write a batch of appends durably, tries included", buckets=FAST)
WRITTEN_APPENDS = Counter("tidelog_append_written_total", "Appends in those batches, refused ones included")
WAITING_APPENDS = Gauge("tidelog_append_waiting", "Appends that wait for this process's writer")


def written(seconds: float, appends: int) -> None:
    """Counts a finished batch of the writer."""
    WRITE_SECONDS.observe(seconds)
    WRITTEN_APPENDS.inc(appends)
