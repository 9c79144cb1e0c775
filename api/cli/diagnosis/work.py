"""Findings about what cannot go on: calls that wait for a person, work that nobody takes, files of workers, parked events, the log.

Numbers are in the readiness report, of all tenants together. Names and reasons are of the tenant of the doctor's key.
"""

from collections import Counter
from typing import Any
from urllib.parse import quote

from api.cli.diagnosis.asking import Asking
from api.cli.diagnosis.findings import Diagnosis
from api.cli.output import duration, shortened

SHOWN = 5
STUCK_S = 600
OTHERS = "(other)"
START_BUILTIN = "start a worker for it: tidelog worker --builtin (`tidelog up` does, unless TIDELOG_BUILTIN_WORKER is off)"
RAISE = "wait, or raise the limit in the policy that the tool declares; what it is: tidelog tools show"
RETRY_PARKED = "mend the reason, then: tidelog projections retry"


async def examine_work(found: Diagnosis, server: Asking) -> None:
    import httpx2

    health = found.health or {}
    try:
        if "work" in health:  # else the database is away, or the server is of an earlier release
            await _ambiguous_calls(found, server, health["work"])
            _held_calls(found, health["work"])
            await _queues(found, server, health["work"])
            await _limited_tools(found, server, health["work"])
            _open_runs(found, health["degraded"])
            await _stuck_runs(found, server, health["work"])
            await _idle_agents(found, server)
            await _files(found, server, health["import_problems"])
        await _parked(found, server, health.get("parked", {}))
        await _gaps(found, server)
    except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
        found.add("work", "note", f"not looked at any further: {error!r}")


async def _ambiguous_calls(found: Diagnosis, server: Asking, work: dict[str, Any]) -> None:
    if not work["ambiguous"]:
        found.add("calls", "ok", "none waits for a person")
        return
    oldest = f", the oldest for {duration(work['oldest_ambiguous_s'])}" if work["oldest_ambiguous_s"] is not None else ""
    page = await server.get("/v1/invocations", {"status": "ambiguous", "limit": SHOWN})
    calls = [] if page is None else page["data"]
    names = "".join(f"; {call['tool']} {call['invocation_id']}" for call in calls)
    example = calls[0]["invocation_id"] if calls else "ID"
    found.add(
        "calls", "wrong", f"{work['ambiguous']} ambiguous tool calls wait for a person{oldest}{names}",
        f"find out whether each took effect, then: tidelog invocations resolve {example} --reason TEXT with --result JSON, "
        "--error MESSAGE or --not-happened; all of them: tidelog invocations list --ambiguous",
    )  # fmt: skip


def _held_calls(found: Diagnosis, work: dict[str, Any]) -> None:
    """`held` is missing in answers of an earlier release."""
    if work.get("held") and (work.get("oldest_held_s") or 0.0) >= STUCK_S:
        text = f"{work['held']} tool calls wait until people approve them, the oldest for {duration(work['oldest_held_s'])}"
        found.add("approvals", "warning", text, "tidelog inbox; those that others decide, too: tidelog inbox list --all")


async def _limited_tools(found: Diagnosis, server: Asking, work: dict[str, Any]) -> None:
    """Tools whose calls wait because of the limits that the tools declare."""
    for queue in work["waits_long"]:
        if queue["kind"] != "tool" or queue["name"] == OTHERS:
            continue
        tool = await server.get(f"/v1/tools/{quote(queue['name'], safe='')}", {})
        limits = None if tool is None else tool.get("limits")  # missing in answers of an earlier release
        if tool is None or not limits:
            continue
        policy, name = tool["policy"], queue["name"]
        if limits["waiting"] and policy.get("max_parallel"):
            at_once = f"{limits['in_use']} of at most {policy['max_parallel']} calls at once go on"
            found.add("permits", "warning", f"calls of {name} wait for permits: {at_once}", RAISE)
        elif policy.get("rate") and (limits["held_until"] or (limits["tokens"] or 0) < 1):
            text = f"at most {policy['rate']['calls']} calls begin within {policy['rate'].get('per_s', 1.0):g} s"
            held = f"; the service behind it asked for silence until {limits['held_until']}" if limits["held_until"] else ""
            found.add("rate", "warning", f"calls of {name} wait for their turns: {text}{held}", RAISE)


async def _queues(found: Diagnosis, server: Asking, work: dict[str, Any]) -> None:
    unoffered = work.get("unoffered", [])  # missing in reports of an earlier release
    named = {(queue["kind"], queue["name"]) for queue in unoffered}
    for queue in unoffered:
        name = f"{queue['kind']} {queue['name']}"
        found.add(
            "no worker", "wrong",
            f"{queue['waiting']} pieces of work for {name} wait, the oldest for {duration(queue['oldest_waiting_s'])}; "
            "no worker with a session offers it",
            f"{await _what_serves(server, queue)}; what runs: tidelog workers list",
        )  # fmt: skip
    for queue in work["waits_long"]:
        if (queue["kind"], queue["name"]) in named:
            continue
        name = f"other {queue['kind']}s" if queue["name"] == OTHERS else f"{queue['kind']} {queue['name']}"
        text = f"{queue['waiting']} pieces of work for {name} wait, the oldest for {duration(queue['oldest_waiting_s'])}"
        if queue["running"]:
            found.add(
                "queue", "warning", f"{text}; {queue['running']} are being done",
                "start more workers, or raise --concurrency or --tool-concurrency of a worker",
            )  # fmt: skip
        else:
            found.add(
                "queue", "wrong", f"{text}; no worker does any",
                f"see whether a worker has {name}, and what it has in hand: tidelog workers list; start more: "
                "tidelog worker --agents FOLDER",
            )  # fmt: skip
    if not work["waits_long"] and not unoffered:
        found.add("queues", "ok", f"no work has waited for a minute: {work['waiting']} wait, {work['running']} are being done")


async def _what_serves(server: Asking, queue: dict[str, Any]) -> str:
    """What to do so that the work of an agent or tool is taken."""
    tool = await server.get(f"/v1/tools/{queue['name']}") if queue["kind"] == "tool" else None
    if tool is not None and tool.get("kind", "python") != "python":
        return f"the tool is data, of the kind {tool['kind']}: {START_BUILTIN}"
    return f"start a worker that has {queue['kind']} {queue['name']}: tidelog worker --agents FOLDER"


async def _stuck_runs(found: Diagnosis, server: Asking, work: dict[str, Any]) -> None:
    """Running runs to which nothing has happened for long. Of the tenant of the doctor's key."""
    if not work["runs"]:
        return
    page = await server.get("/v1/runs", {"status": "running", "unmoved_s": STUCK_S, "limit": SHOWN + 1})
    runs = [] if page is None else page["data"]
    if runs:
        number = f"more than {SHOWN}" if len(runs) > SHOWN else str(len(runs))
        text = f"{number} of the running runs had no event for {duration(STUCK_S)}; {runs[0]['run_id']}"
        if reasons := await _reasons(server, runs[:SHOWN]):
            text += f"; {'they wait' if len(runs) > 1 else 'it waits'} for: {reasons}"
        found.add("stuck runs", "warning", text, "what each waits for, and what helps: tidelog runs stuck")


async def _reasons(server: Asking, runs: list[dict[str, Any]]) -> str:
    """What runs wait for, the most frequent first, as `approval (2), free worker`."""
    counted = Counter[str]()
    for run in runs:
        waits = await server.get(f"/v1/runs/{run['run_id']}/waits", {})
        counted.update({wait["waits_for"].replace("_", " ") for wait in (waits or {}).get("data", ())})
    return ", ".join(f"{reason} ({number})" if number > 1 else reason for reason, number in counted.most_common())


def _open_runs(found: Diagnosis, degraded: list[dict[str, Any]]) -> None:
    for trouble in degraded:
        if trouble["code"] == "many-open-runs":
            found.add(
                "runs", "wrong", f"{trouble['count']:,} are open {trouble['detail']}",
                "start more workers, cancel runs that nobody needs, or raise TIDELOG_MAX_OPEN_RUNS",
            )  # fmt: skip


async def _idle_agents(found: Diagnosis, server: Asking) -> None:
    """Agents and tools that are registered and that no worker has at present. This is no fault while they have no work."""
    for what in ("agents", "tools"):
        page = await server.get(f"/v1/{what}", {"limit": 1_000})
        found_idle = [] if page is None else [each for each in page["data"] if each.get("workers") == 0]
        idle = [each for each in found_idle if each.get("kind") != "chain"]  # the server itself carries those out
        data = [each["name"] for each in idle if each.get("kind", "python") != "python"]
        names = [each["name"] for each in idle if each["name"] not in data]
        if names:
            found.add(what, "note", f"{len(names)} are registered and no worker with a session offers them: {_some(names)}")
        if data:
            found.add(what, "warning", f"{len(data)} are data, and no worker carries them out: {_some(data)}", START_BUILTIN)


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


async def _files(found: Diagnosis, server: Asking, count: int) -> None:
    if not count:
        return
    answer = await server.get("/v1/workers/problems", {"limit": 100})
    listed = {} if answer is None else {(each["path"], each["message"]): each for each in answer["data"]}
    for path, message in list(listed)[:SHOWN]:
        each = listed[path, message]
        found.add(
            "worker file", "wrong", f"{path}: {each['kind']}: {message} (worker {each['worker_id']})",
            "mend the file, then restart that worker; the report is gone three minutes after the worker's end",
        )  # fmt: skip
    if not listed:
        found.add(
            "worker file", "wrong", f"workers have {count} files that they cannot use", "give the key of their tenant to see which"
        )
    elif len(listed) > SHOWN:
        found.add("worker file", "wrong", f"and {len(listed) - SHOWN} more", "GET /v1/workers/problems has all")


async def _parked(found: Diagnosis, server: Asking, parked: dict[str, int]) -> None:
    for consumer, count in sorted(parked.items()):
        if not count:
            continue
        page = await server.get(f"/v1/projections/{consumer}/parked", {"limit": 1})
        first = page["data"][0] if page and page["data"] else None
        reason = f"; the first at position {first['position']}: {shortened(first['error'], 200)}" if first else ""
        found.add(
            consumer, "wrong", f"{count} events are put aside that it could not handle{reason}",
            f"{RETRY_PARKED} {consumer.partition(':')[0]}; the list: tidelog projections parked",
        )  # fmt: skip


async def _gaps(found: Diagnosis, server: Asking) -> None:
    gaps = await server.get("/v1/log/gaps")
    if gaps is None:
        return
    whole = gaps["looked_from"] == 1
    seen = f"positions {gaps['looked_from']} to {gaps['head']}"
    if gaps["missing"]:
        where = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in gaps["gaps"])
        found.add(
            "log", "wrong", f"{gaps['missing']} events are missing among {seen}: {where}",
            "somebody deleted rows: restore a backup (docs/how-to/restore-a-backup.md); tidelog verify names what differs",
        )  # fmt: skip
    elif whole:
        found.add("log", "ok", f"every position has its event, up to {gaps['head']}")
    else:
        found.add("log", "ok", f"{seen} have their events; tidelog verify reads the others too")
