"""What cannot go on, or not for long: the part of the readiness report that does not make a process unready.

A process that serves requests stays in service although a call waits for a person. So these troubles are named, and `status` is
`degraded`; `tidelog doctor` says how to mend each of them.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from application.engine.ports.sessions import UnofferedWork
from application.views.activity import OTHER, STATES, Activity

WAITS_LONG_S = 60.0
"""Seconds. Work that no worker has taken for so long has too few workers, or workers that do nothing."""
LITTLE_ROOM = 1024**3
"""Bytes. With less room on the disk of the data folder its servers may soon refuse events."""
MAX_QUEUES = 20
UNOFFERED_S = 10.0
"""Seconds. A worker that starts anew has its session again long before."""
MAX_UNOFFERED = 100
MANY_RUNS = 0.9
"""Share of the bound of open runs. With so many, the bound is about to be reached: nobody keeps up with the starts."""


def suspects(activity: Activity) -> set[tuple[str, str]]:
    """Kind and label of work that waits and of which nobody does any. A worker without a session may do work of the others."""
    return {
        (total.kind, total.label)
        for total in activity.totals
        if total.oldest_s.get("waiting", 0.0) >= UNOFFERED_S and not total.now["running"]
    }


def without_worker(activity: Activity, unoffered: Sequence[UnofferedWork]) -> list[UnofferedWork]:
    """Those agents and tools that no session offers, and that a worker without a session does not do either."""
    known, suspected = {(total.kind, total.label) for total in activity.totals}, suspects(activity)
    labels = [(queue.kind, queue.name if (queue.kind, queue.name) in known else OTHER) for queue in unoffered]
    return [queue for queue, label in zip(unoffered, labels, strict=True) if label in suspected]


def work(activity: Activity, max_runs: int, unoffered: Sequence[UnofferedWork] = ()) -> dict[str, Any]:
    """How much is going on, and the queues whose work has waited longest.

    `max_runs`: the bound of open runs. `unoffered`: agents and tools with work and without a worker.
    """
    queues: list[dict[str, Any]] = [
        {
            "kind": total.kind,
            "name": total.label,
            "waiting": total.now["waiting"],
            "running": total.now["running"],
            "oldest_waiting_s": round(total.oldest_s["waiting"], 3),
        }
        for total in activity.totals
        if total.oldest_s.get("waiting", 0.0) >= WAITS_LONG_S
    ]
    queues.sort(key=lambda queue: -queue["oldest_waiting_s"])
    return {
        **{state: sum(total.now[state] for total in activity.totals if total.kind != "run") for state in STATES},
        "runs": sum(total.now["running"] for total in activity.totals if total.kind == "run"),
        "max_runs": max_runs,
        "oldest_waiting_s": _rounded(activity.oldest_s("waiting")),
        "oldest_ambiguous_s": _rounded(activity.oldest_s("ambiguous")),
        "oldest_held_s": _rounded(activity.oldest_s("held")),
        "waits_long": queues[:MAX_QUEUES],
        "unoffered": [{**asdict(queue), "oldest_waiting_s": round(queue.oldest_waiting_s, 3)} for queue in unoffered],
    }


def degraded(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The troubles of a report: a stable `code`, a sentence for people, and a number where there is one."""
    found = []

    def add(code: str, count: int, detail: str) -> None:
        found.append({"code": code, "count": count, "detail": detail})

    work: dict[str, Any] = report.get("work", {})
    if count := work.get("ambiguous", 0):
        add("ambiguous-calls", count, "tool calls wait for a person: their workers vanished, and a repeat might do harm")
    if unoffered := work.get("unoffered", []):
        waiting = sum(queue["waiting"] for queue in unoffered)
        add("no-worker", waiting, f"work waits, and no worker with a session offers {_names(unoffered)}")
    named = {(queue["kind"], queue["name"]) for queue in unoffered}
    if queues := [queue for queue in work.get("waits_long", []) if (queue["kind"], queue["name"]) not in named]:
        waiting = sum(queue["waiting"] for queue in queues)
        add("work-waits", waiting, f"no worker has taken work for over a minute: {_names(queues)}")
    if work and work["runs"] >= work["max_runs"] * MANY_RUNS:
        add("many-open-runs", work["runs"], f"of {work['max_runs']:,} runs that may be open; beyond that, starts are refused")
    if count := report.get("import_problems", 0):
        add("import-problems", count, "workers have files that they cannot use")
    for name, count in sorted(report.get("parked", {}).items()):
        if count:
            add("parked", count, f"{name} has put aside what it could not handle")
    free = report.get("free_bytes")
    if free is not None and free < LITTLE_ROOM:
        add("little-room", free, f"the disk of the data folder has {free / 1024**2:.0f} MiB left")
    return found


def _names(queues: Sequence[dict[str, Any]]) -> str:
    more = f" and {len(queues) - MAX_QUEUES} more" if len(queues) > MAX_QUEUES else ""
    return ", ".join(f"{queue['kind']} {queue['name']}" for queue in queues[:MAX_QUEUES]) + more


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 3)
