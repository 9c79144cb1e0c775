"""Parts of the lines of several commands: values uncut, times, the status of a run, the version of an agent."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from api.cli import output

Mood = Literal["plain", "good", "bad", "warning", "quiet"]


def uncut(value: Any) -> str:
    """A JSON value on one line."""
    return output.one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def quoted(text: str, by: str = "    | ") -> str:
    """A text of others that has several lines. The mark shows that no line is of the command itself."""
    return "\n".join(f"{by}{line}" for line in text.splitlines())


def tool_of(call: Mapping[str, Any]) -> str:
    """The tool of a call, and the one that is called instead."""
    tool: str = call["tool"]
    return f"{tool} → {call['fallback']}" if call.get("fallback") else tool


def named(call: Mapping[str, Any]) -> str:
    """The key of a call, with its tool where the key does not begin with it."""
    key: str = call["key"]
    return key if key.startswith(call["tool"]) else f"{call['tool']} ({key})"


def took(part: Mapping[str, Any]) -> str:
    """The time from the start to the end of a step or a call. Empty while it lasts."""
    if part["started_at"] is None or part["finished_at"] is None:
        return ""
    return output.duration(
        (datetime.fromisoformat(part["finished_at"]) - datetime.fromisoformat(part["started_at"])).total_seconds()
    )


def run_status(run: Mapping[str, Any]) -> str:
    """The status of a run with its marks, as rich markup."""
    missing = ", ".join(run.get("missing", ())[:3])
    more = " …" if len(run.get("missing", ())) > 3 else ""
    mark = f" [yellow](degraded: without {output.escape(missing + more)})[/yellow]" if missing else ""
    unreadable = " [red](the server cannot read its document)[/red]" if run.get("unreadable") else ""
    return output.status(run["status"]) + (mark or (" [yellow](degraded)[/yellow]" if run["degraded"] else "")) + unreadable


def who(resolution: Mapping[str, Any]) -> str:
    """Who resolved a call, and for whom."""
    return str(resolution["by"]) + (f" for {resolution['on_behalf_of']}" if resolution.get("on_behalf_of") else "")


def agent_of(step: Mapping[str, Any]) -> str:
    """What a step is, its agent and its version: one that the plan asks for, or else the registered one, which is only noted."""
    version, form = step.get("agent_version"), step.get("form", "agent")
    asked = " (asked for)" if step.get("version_asked") else ""
    agent = f"{step['agent']} v{version}{asked}" if version else str(step["agent"] or "")
    tried = f" → {step['fallbacks'][-1]['agent']}" if step.get("fallbacks") else ""
    return " ".join(filter(None, ["" if form == "agent" else form, f"{agent}{tried}"]))
