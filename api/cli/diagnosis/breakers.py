"""Findings about breakers: tools that nobody calls at the moment."""

from typing import Any

from api.cli.diagnosis.asking import Asking
from api.cli.diagnosis.findings import Diagnosis
from api.cli.output import shortened

SHOWN = 5


async def examine_breakers(found: Diagnosis, server: Asking) -> None:
    import httpx2

    try:
        pages = [await server.get("/v1/breakers", {"state": state, "limit": 1000}) for state in ("open", "half_open")]
        listed = [breaker for page in pages if page is not None for breaker in page["data"]]
        findings = [(one["tool"], _told(one)) for one in listed[:SHOWN]]
    except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
        found.add("breakers", "note", f"not looked at: {error!r}")
        return
    if pages[0] is None:  # no key, the key of a worker, or an earlier release
        return
    for tool, told in findings:
        held = next(one for one in listed if one["tool"] == tool)["forced"]
        mend = f"tidelog tools breaker {tool} auto --reason TEXT" if held else f"tidelog tools breaker {tool} says more"
        found.add("breaker", "warning", told, mend)
    if len(listed) > SHOWN:
        found.add("breaker", "warning", f"and {len(listed) - SHOWN} more are not closed", "tidelog tools list shows all")
    if not listed:
        found.add("breakers", "ok", "all are closed")


def _told(breaker: dict[str, Any]) -> str:
    tool, since = shortened(breaker["tool"], 100), breaker["since"]
    if breaker["forced"]:
        why = f": {shortened(breaker['reason'], 200)}" if breaker["reason"] else ""
        return f"{shortened(breaker['by'] or 'somebody', 100)} holds the breaker of {tool} open since {since}{why}"
    if breaker["state"] == "half_open":
        return f"the breaker of {tool} is half-open since {since}: some calls are tried"
    last = f"; the last failure was {shortened(breaker['error'], 200)}" if breaker["error"] else ""
    return f"the breaker of {tool} is open since {since}, and the tool is tried again at {breaker['tried_at']}{last}"
