"""Where two runs differ: their events side by side, aligned by step and by key of the journal.

The events of both are read page by page. What both say alike is forgotten; of what only one has said so far, a hash and a short
text are kept. So runs of any length are compared in little memory.
"""

import hashlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

Event = Mapping[str, Any]
"""`type`, `subject`, `position` and `data` of an event, as `GET /v1/runs/{run_id}/events` gives them."""
Place = tuple[str, str, str]
"""Step, key of the journal, and what is said there. The step and the key may be empty."""
SHOWN = 300
"""Characters of a value that are kept."""
MOST_KEPT = 1_000
"""Differences that are kept, the first ones."""
ENDS = {"run.completed": "completed", "run.failed": "failed", "run.cancelled": "cancelled"}


@dataclass(frozen=True, slots=True)
class SaidOfRun:
    digest: bytes
    text: str
    position: int
    number: int
    """Place among what the run says."""


@dataclass(frozen=True, slots=True)
class RunDifference:
    """What differs at one place. `before`, `after`: short texts of the values, None where the run says nothing there."""

    step: str | None
    key: str | None
    what: str
    before: str | None
    after: str | None
    position: int | None
    """Of the event of the first run."""
    other_position: int | None

    def __str__(self) -> str:
        where = "" if self.step is None else f"step '{self.step}'" + (f", '{self.key}'" if self.key else "")
        return f"{where}: {self.what}" if where else self.what

    def document(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True)
class RunComparison:
    """`differences`: the first ones, in the order of the runs. `count`: of all. `same`: how much both say alike."""

    differences: list[RunDifference] = field(default_factory=list)
    count: int = 0
    same: int = 0


async def compare(one: AsyncIterator[Event], other: AsyncIterator[Event]) -> RunComparison:
    """Compares two runs by their events, each in the order of the log."""
    sides = (_Side(), _Side())
    found: list[tuple[int, RunDifference]] = []
    comparison = RunComparison()
    streams = [aiter(one), aiter(other)]
    open_ = [True, True]
    while any(open_):
        for number in (0, 1):
            if not open_[number]:
                continue
            event = await anext(streams[number], None)
            if event is None:
                open_[number] = False
                continue
            for place, said in sides[number].feed(event):
                match = sides[1 - number].pending.pop(place, None)
                if match is None:
                    sides[number].pending[place] = said
                elif match.digest == said.digest:
                    comparison.same += 1
                else:
                    pair = (said, match) if number == 0 else (match, said)
                    found.append((min(pair[0].number, pair[1].number), _difference(place, *pair)))
                    comparison.count += 1
                    _cut(found)
    for number in (0, 1):
        other_side = sides[1 - number]
        for place, said in sides[number].pending.items():
            if place[0] in other_side.taken_steps or place[:2] in other_side.taken_entries:
                continue  # the other run took it over, and does not say it again
            comparison.count += 1
            found.append((said.number, _difference(place, said, None) if number == 0 else _difference(place, None, said)))
            _cut(found)
    comparison.differences = [difference for _, difference in sorted(found, key=lambda one: one[0])][:MOST_KEPT]
    return comparison


def _cut(found: list[tuple[int, RunDifference]]) -> None:
    if len(found) > 2 * MOST_KEPT:
        found.sort(key=lambda one: one[0])
        del found[MOST_KEPT:]


def _difference(place: Place, one: SaidOfRun | None, other: SaidOfRun | None) -> RunDifference:
    step, key, what = place
    return RunDifference(
        step or None, key or None, what, None if one is None else one.text, None if other is None else other.text,
        None if one is None else one.position, None if other is None else other.position,
    )  # fmt: skip


class _Side:
    """What one run says, event by event."""

    def __init__(self) -> None:
        self.pending: dict[Place, SaidOfRun] = {}
        self.taken_steps: set[str] = set()
        self.taken_entries: set[tuple[str, str]] = set()
        self._steps: dict[str, str] = {}
        """Agent run → its step."""
        self._calls: dict[str, tuple[str, str]] = {}
        """Invocation → its step and key."""
        self._counts: Counter[str] = Counter()
        self._number = 0

    def feed(self, event: Event) -> Iterator[tuple[Place, SaidOfRun]]:
        for step, key, what, value in self._said(event["type"], str(event["subject"]), event["data"]):
            self._number += 1
            text = json.dumps(value, sort_keys=True, ensure_ascii=False)
            shown = text if len(text) <= SHOWN else text[:SHOWN] + "…"
            digest = hashlib.sha256(text.encode(errors="surrogatepass")).digest()
            yield (step, key, what), SaidOfRun(digest, shown, event["position"], self._number)

    def _said(self, topic: str, subject: str, data: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Any]]:
        if topic.startswith("run."):
            return self._of_run(topic, data)
        return self._of_work(topic, subject, data)

    def _of_run(self, topic: str, data: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Any]]:
        match topic:
            case "run.started":
                yield "", "", "input", data.get("input")
                for step in data["plan"]["steps"]:
                    yield step["key"], "", "plan", {name: value for name, value in step.items() if name != "agent_version"}
                yield "", "", "metadata", data.get("metadata") or {}
            case "run.step_scheduled":
                self._steps[str(data["agent_run_id"])] = data["step"]
                yield from self._begun(data["step"], data, data.get("mapped", False))
            case "run.part_scheduled":
                part = f"{data['step']}.{data['part']}"
                if data.get("agent_run_id") is not None:
                    self._steps[str(data["agent_run_id"])] = part
                    yield from self._begun(part, data, True)
            case "run.step_taken_over":
                self.taken_steps.add(data["step"])
                yield from _ended(data["step"], data["status"], data)
            case "run.part_taken_over":
                self.taken_steps.add(f"{data['step']}.{data['part']}")
                yield from _ended(f"{data['step']}.{data['part']}", data["status"], data)
            case "run.step_skipped":
                yield data["step"], "", "outcome", "skipped"
            case "run.step_completed" | "run.step_failed":
                yield from _ended(data["step"], topic.removeprefix("run.step_"), data)
            case "run.part_completed" | "run.part_failed":
                yield from _ended(f"{data['step']}.{data['part']}", topic.removeprefix("run.part_"), data)
            case "run.completed" | "run.failed" | "run.cancelled":
                yield "", "", "outcome", ENDS[topic]
                if data.get("result") is not None:
                    yield "", "", "result", data["result"]

    def _of_work(self, topic: str, subject: str, data: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Any]]:
        match topic:
            case "agent_run.step_recorded" if data["kind"] in ("step", "state_get", "state_set"):
                result = data.get("result")
                if data["kind"] != "step" and isinstance(result, Mapping):
                    result = {"name": result.get("name"), "value": result.get("value")}
                yield self._step(subject), data["key"], "recorded result", result
            case "agent_run.entry_taken_over":
                self.taken_entries.add((self._step(subject), data["key"]))
            case "invocation.requested" if data.get("asked_by", "agent_run") == "agent_run" and data.get("agent_run_id"):
                step = self._step(str(data["agent_run_id"]))
                self._calls[subject] = step, data["key"]
                yield step, data["key"], "tool", data["tool"]
                yield step, data["key"], "arguments", data.get("arguments") or {}
            case "invocation.succeeded" | "invocation.failed" | "invocation.resolved" if subject in self._calls:
                step, key = self._calls[subject]
                error = data.get("error")
                yield step, key, "result" if error is None else "error", data.get("result") if error is None else _brief(error)
            case "message.sent":
                way = f"to {data['recipient']}"
                self._counts[f"{data['sender']} {way}"] += 1
                number = self._counts[f"{data['sender']} {way}"]
                yield data["sender"], f"{way} #{number}", "message", data.get("body")

    def _begun(self, step: str, data: Mapping[str, Any], mapped: bool) -> Iterator[tuple[str, str, str, Any]]:
        self._counts[step] += 1  # once more for each fallback
        again = f" #{self._counts[step]}" if self._counts[step] > 1 else ""
        version = f"@{data['agent_version']}" if data.get("agent_version") is not None else ""
        yield step, "", f"agent{again}", f"{data['agent']}{version}"
        if mapped and not again:
            yield step, "", "input", data.get("input")

    def _step(self, agent_run_id: str) -> str:
        return self._steps.get(agent_run_id, "?")


def _ended(step: str, status: str, data: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Any]]:
    yield step, "", "outcome", status
    if data.get("error") is not None:
        yield step, "", "error", _brief(data["error"])
    elif status == "completed":
        yield step, "", "result", data.get("result")


def _brief(error: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": error.get("type"), "message": error.get("message")}
