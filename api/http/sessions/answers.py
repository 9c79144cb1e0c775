"""Messages of the server as JSON."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

import orjson

from api.http.conventions.answers import json_text
from api.http.conventions.errors import response_to
from api.http.sessions.limits import MAX_MESSAGE, PATH
from application.workers.hosting.messages import (
    Answer,
    Defined,
    Done,
    Drain,
    LifeSign,
    Refused,
    Stop,
    Update,
    Verdict,
    Welcome,
    WorkForAgent,
    WorkForTool,
)
from application.workers.journal import EntryView, JournalView, MailItem
from domain.kernel import Json, timestamp

REFUSALS_IN_FULL, MAX_REFUSALS = 96 * 1024, 320 * 1024
"""Bytes of refused agents in a `welcome`, and of refused tools: a worker with a thousand faults gets its session all the same."""
BEAT = b'{"t":"beat"}'
_RELEASE = version("tidelog-server")


class Answers:
    """Writes the messages of one connection."""

    def __init__(self, trace_id: str, max_event_bytes: int) -> None:
        self._scope: dict[str, Any] = {"path": PATH, "state": {"trace_id": trace_id}}
        self._max_event_bytes = max_event_bytes

    def written(self, answer: Answer) -> bytes:
        """A message. Raises PayloadTooLarge for a message over the limit."""
        match answer:
            case LifeSign():
                return BEAT
            case Done():
                page = {} if answer.page is None else {**_journal(answer.page), "more": answer.page.more}
                return json_text({"t": "done", "id": answer.id, **answer.fields, **page})
            case Refused():
                return json_text({"t": "refused", "id": answer.id, "problem": self.problem(answer.error)})
            case WorkForTool():
                return json_text(_work_for_tool(answer))
            case WorkForAgent():
                return _work_for_agent(answer)
            case Update():
                shown = _journal(answer.news)
                del shown["status"]
                return json_text({"t": "update", "work": answer.work_id, "attempt": answer.attempt, **shown})
            case Stop():
                return json_text({"t": "stop", "work": answer.work_id, "attempt": answer.attempt, "reason": answer.reason})
            case Drain():
                return json_text({"t": "drain", "within_s": answer.within_s})
            case Defined():
                return json_text({"t": "done", "id": answer.id, **self._definitions(answer)})
            case Welcome():
                return json_text(
                    {
                        "t": "welcome",
                        "version": 1,
                        "session": answer.session_id,
                        "secret": answer.secret,
                        "release": _RELEASE,
                        "lease_s": answer.lease_s,
                        "max_event_bytes": self._max_event_bytes,
                        "suspends": True,
                        "progress": True,
                        **self._definitions(answer),
                    }
                )

    def error(self, error: Exception) -> bytes:
        """The last message of a connection that the server ends."""
        return json_text({"t": "error", "problem": self.problem(error)})

    def problem(self, error: Exception) -> orjson.Fragment:
        return orjson.Fragment(bytes(response_to(self._scope, error).body))

    def _definitions(self, answer: Welcome | Defined) -> dict[str, Json]:
        return {"agents": self._verdicts(answer.agents), "tools": self._verdicts(answer.tools)}

    def _verdicts(self, verdicts: Sequence[Verdict]) -> list[Json]:
        """The verdicts. A great many refusals are told in short, and those that still have no room are left out."""
        found: list[Json] = []
        size = 0
        for verdict in verdicts:
            if verdict.error is None:
                found.append({"name": verdict.name, "version": verdict.version, "accepted": True})
                continue
            problem = bytes(response_to(self._scope, verdict.error).body)
            text = _refusal(verdict.name, orjson.Fragment(problem))
            if size + len(text) > REFUSALS_IN_FULL:
                text = _refusal((verdict.name or "")[:100], _in_short(problem))
            if size + len(text) <= MAX_REFUSALS:
                size += len(text)
                found.append(orjson.Fragment(text))
        return found


def _refusal(name: str | None, problem: Json) -> bytes:
    return json_text({"name": name, "accepted": False, "problem": problem})


def _in_short(problem: bytes) -> Json:
    whole = orjson.loads(problem)
    return {**{name: value for name, value in whole.items() if name != "errors"}, "detail": str(whole.get("detail"))[:200]}


def _work_for_tool(answer: WorkForTool) -> dict[str, Json]:
    call = answer.claimed
    return {
        "t": "work",
        "n": answer.n,
        "kind": "reconcile" if call.asks else "tool",
        "work": answer.work_id,
        "attempt": call.attempt,
        "token": answer.token,
        "run": call.run_id,
        "agent_run": call.agent_run_id,
        "tool": call.tool,
        "arguments": call.arguments,
        "timeout_s": call.timeout_s,
        "idempotent": call.idempotent,
        **({} if answer.definition is None else {"definition": answer.definition}),
        **_for_whom(call.on_behalf_of),
    }


def _for_whom(on_behalf_of: str | None) -> dict[str, Json]:
    return {} if on_behalf_of is None else {"on_behalf_of": on_behalf_of}


def _work_for_agent(answer: WorkForAgent) -> bytes:
    """Work of an agent. What does not fit is left for `more`: results of other steps first, then the journal."""
    claimed = answer.claimed
    journal = _journal(claimed.journal)
    del journal["status"]
    message: dict[str, Json] = {
        "t": "work",
        "n": answer.n,
        "kind": "agent",
        "work": answer.work_id,
        "attempt": claimed.attempt,
        "token": answer.token,
        "run": claimed.run_id,
        "step": claimed.step_key,
        "agent": claimed.agent,
        "agent_version": claimed.agent_version,
        "version_asked": claimed.version_asked,
        "input": claimed.input,
        "results": claimed.results,
        "missing": claimed.missing,
        "peers": claimed.peers,
        **({} if claimed.part is None else {"part": claimed.part}),
        **_for_whom(claimed.on_behalf_of),
        **({"receives": claimed.receives} if claimed.receives else {}),
        **journal,
        "more": claimed.journal.more,
        "deadline": None,
    }
    written = json_text(message)
    if len(written) > MAX_MESSAGE:
        written = json_text({**message, "results": {}, "later": list(claimed.results)})
    if len(written) > MAX_MESSAGE:
        message |= {"results": {}, "later": list(claimed.results), "journal": [], "mailbox": [], "version": 0, "more": True}
        written = json_text(message)
    return written


def _journal(view: JournalView) -> dict[str, Any]:
    """A journal, or the news of one, as workers get it."""
    return {
        "status": view.status,
        "version": view.version,
        "journal": [_entry(entry) for entry in view.entries],
        "mailbox": [_mail(mail) for mail in view.mailbox],
    }


def _entry(entry: EntryView) -> dict[str, Any]:
    shown: dict[str, Any] = {"key": entry.key, "kind": entry.kind, "status": entry.status, "result": entry.result}
    if entry.error is not None:
        shown["error"] = entry.error.model_dump()
    if entry.fingerprint is not None:
        shown["fingerprint"] = entry.fingerprint
    if entry.invocation_id is not None:
        shown["invocation_id"] = str(entry.invocation_id)
    return shown


def _mail(mail: MailItem) -> dict[str, Any]:
    return {
        "message_id": str(mail.message_id),
        "sender": mail.sender,
        "body": mail.body,
        "sent_at": timestamp(mail.sent_at),
    }
