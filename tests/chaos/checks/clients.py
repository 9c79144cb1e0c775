"""What clients saw, compared with the log: the answers about their runs, and the live feed."""

from collections.abc import Iterator
from typing import Any

from tests.chaos.checks.snapshot import Snapshot, Violation
from tests.chaos.load import StartedRun


def check_follower(seen: list[int], snapshot: Snapshot) -> Iterator[Violation]:
    if seen[: snapshot.head] != list(range(1, snapshot.head + 1)):
        wrong = next((i for i, position in enumerate(seen, 1) if i != position), len(seen) + 1)
        yield Violation("feed-without-gap-or-double", f"event {wrong} of the feed", f"{seen[max(0, wrong - 3) : wrong + 3]}")


def check_answers(started: list[StartedRun], snapshot: Snapshot) -> Iterator[Violation]:
    """Each acknowledged run is in the log once, and its agents saw the values of the log."""
    known = {row["run_id"] for row in snapshot.tables["run"]}
    if len({run.id for run in started}) != len(started) or known != {run.id for run in started}:
        yield Violation("runs-as-acknowledged", "all runs", f"{len(started)} acknowledged, {len(known)} there")
    for run in started:
        if run.end is None:
            yield Violation("run-has-ended", f"run {run.id}", "the client saw no end")
        elif run.end["status"] == run.expected == "completed":
            if run.end["degraded"] != run.degraded:
                yield Violation("run-ended-as-expected", f"run {run.id}", f"degraded: {run.end['degraded']}")
            yield from _results(run, run.end)


def _results(run: StartedRun, shown: dict[str, Any]) -> Iterator[Violation]:
    """The editor got the results and the shared values of the earlier steps, and the listener got all messages in order."""
    results = {step["key"]: step["result"] for step in shown["steps"]}
    edited = results["editor"]
    for key, result in edited["results"].items():
        if result != results[key]:
            yield Violation("results-handed-on", f"run {run.id}", f"{key}: {result}, but it was {results[key]}")
    for key, value in edited["found"].items():
        if value != results[key]["second"]:
            yield Violation("values-shared", f"run {run.id}", f"{key}: {value}, but it was {results[key]['second']}")
    if "listener" in results:
        said = {
            key: [{"number": n, "word": results[key][f"said-{n}"]} for n in range(3)] for key in ("one", "two", "late")
        }  # fmt: skip
        if results["listener"]["heard"] != said:
            yield Violation("heard-as-said", f"run {run.id}", f"heard {results['listener']['heard']}, said {said}")
