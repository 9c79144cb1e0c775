"""The metrics of runs, agents, tools and queues as text. They are figures of the log: the same in every process.

docs/reference/metrics.md explains the same list. The text has a bounded length, because agents and tools have a bounded number of
labels, and it is made once for each report on readiness.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from application.views.activity import AGED, AGENT_STATES, BOUNDS_S, OUTCOMES, TOOL_STATES, Activity, Total

WORDS = {"run": ("run", "runs"), "agent": ("agent_run", "agent_runs"), "tool": ("tool_call", "tool_calls")}
MEANT = {"run": "runs", "agent": "runs of agents", "tool": "tool calls"}
IN_STATES = {"agent": AGENT_STATES, "tool": TOOL_STATES}
SUCCEEDED = "succeeded"
"""The glossary's word for a tool call that has a result."""


class _Figures(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def work_metrics(activity: Activity, report: Mapping[str, Any]) -> bytes:
    """`report`: the report on readiness that was made of the activity."""
    registry = CollectorRegistry()
    registry.register(_Figures([*_families(activity), *_others(activity, report)]))
    return generate_latest(registry)


def _families(activity: Activity) -> Iterator[Metric]:
    for kind in WORDS:
        yield from _of_kind(kind, [total for total in activity.totals if total.kind == kind])


def _of_kind(kind: str, totals: Sequence[Total]) -> Iterator[Metric]:
    one, many = WORDS[kind]
    meant, names = MEANT[kind], [] if kind == "run" else [kind]
    started = CounterMetricFamily(f"tidelog_{many}_started", f"Started {meant}", labels=names)
    ended = CounterMetricFamily(f"tidelog_{many}_ended", f"Ended {meant}, by outcome", labels=[*names, "status"])
    going_on = GaugeMetricFamily(
        f"tidelog_{many}_in_flight", f"{meant.capitalize()} that have not ended", labels=[*names, *_state(kind)]
    )
    took = HistogramMetricFamily(f"tidelog_{one}_duration_seconds", f"Time of {meant} from start to end", labels=names)
    retries = CounterMetricFamily(f"tidelog_{one}_retries", f"Failed attempts of {meant} that are tried again", labels=names)
    doubtful = CounterMetricFamily(f"tidelog_{one}_ambiguous", f"{meant.capitalize()} that became ambiguous", labels=names)
    for total in totals:
        label = [total.label] if names else []
        started.add_metric(label, total.started)
        for outcome in OUTCOMES:
            if outcome != "degraded" or kind == "run":
                word = SUCCEEDED if (kind, outcome) == ("tool", "completed") else outcome
                ended.add_metric([*label, word], total.ended[outcome])
        if kind == "run":
            going_on.add_metric(label, total.now["running"])
        for state in IN_STATES.get(kind, ()):
            going_on.add_metric([*label, state], total.now[state])
        took.add_metric(label, _buckets(total), total.seconds)
        retries.add_metric(label, total.retries)
        doubtful.add_metric(label, total.became_ambiguous)
    yield from (started, ended, going_on, took)
    if kind != "run":
        yield retries
    if kind == "tool":
        yield doubtful


def _state(kind: str) -> list[str]:
    return [] if kind == "run" else ["state"]


def _buckets(total: Total) -> list[tuple[str, float]]:
    bounds = [*map(floatToGoString, BOUNDS_S), "+Inf"]
    return list(zip(bounds, map(float, accumulate(total.durations)), strict=True))


def _others(activity: Activity, report: Mapping[str, Any]) -> Iterator[Metric]:
    oldest = GaugeMetricFamily(
        "tidelog_queue_oldest_seconds", "For how long the oldest work of a queue has waited for a worker", labels=["kind", "name"]
    )
    for total in activity.totals:
        if total.kind != "run":
            oldest.add_metric([total.kind, total.label], total.oldest_s.get("waiting", 0.0))
    yield oldest
    stuck = GaugeMetricFamily(
        "tidelog_work_oldest_seconds", "For how long the oldest work has been in a state", labels=["kind", "state"]
    )  # fmt: skip
    for kind, states in IN_STATES.items():
        for state in AGED:
            if state in states:
                ages = [total.oldest_s[state] for total in activity.totals if total.kind == kind and state in total.oldest_s]
                stuck.add_metric([kind, state], max(ages, default=0.0))
    yield stuck
    missing = GaugeMetricFamily(
        "tidelog_queues_without_worker", "Agents and tools with waiting work that no session of a worker offers", labels=["kind"]
    )
    for kind in ("agent", "tool"):
        missing.add_metric([kind], sum(queue["kind"] == kind for queue in report["work"]["unoffered"]))
    yield missing
    yield GaugeMetricFamily(
        "tidelog_ambiguous_oldest_seconds", "For how long the oldest ambiguous tool call has waited for a person",
        value=activity.oldest_s("ambiguous") or 0.0,
    )  # fmt: skip
    yield GaugeMetricFamily("tidelog_import_problems", "Files of workers that cannot be used", value=report["import_problems"])
    room = GaugeMetricFamily("tidelog_data_folder_free_bytes", "Room on the disk of the data folder")
    if report["free_bytes"] is not None:
        room.add_metric([], report["free_bytes"])
    yield room
