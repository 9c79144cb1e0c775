"""Findings about API keys that soon expire: the doctor's own key, and the others of the tenant where the own key may list them."""

from datetime import UTC, datetime
from typing import Any

from api.cli.diagnosis.asking import Asking
from api.cli.diagnosis.findings import Diagnosis
from api.cli.expiry import is_soon, time_left, told
from api.cli.output import shortened

SHOWN = 5
PAGES = 10
"""Pages of a thousand keys. The newest come first."""
GIVERS = ("owner", "admin")


async def examine_keys(found: Diagnosis, server: Asking) -> None:
    import httpx2

    try:
        own = await server.get("/v1/keys/self")
        listed = await _listed(server) if own is not None else None
    except (httpx2.HTTPError, ValueError, KeyError, TypeError) as error:
        found.add("keys", "note", f"not looked at: {error!r}")
        return
    if own is None:  # no key, an earlier release, or the key of a worker
        return
    now = datetime.now(UTC)
    soon = [key for key in listed or [own] if is_soon(key, now)]
    soon.sort(key=lambda key: (key["key_id"] != own["key_id"], key["expires_at"]))
    for key in soon[:SHOWN]:
        mine = key["key_id"] == own["key_id"]
        who = "the key that you use" if mine else f"{shortened(key['label'], 40)} ({shortened(key['role'], 20)})"
        text = f"{who} expires in {told(time_left(key, now))}, at {key['expires_at'][:16]}Z"
        found.add("key", "warning", text, _mend(own, key["key_id"]))
    if len(soon) > SHOWN:
        found.add("key", "warning", f"and {len(soon) - SHOWN} more expire within 14 days", "tidelog keys list --valid shows all")
    if not soon:
        found.add("keys", "ok", "none expires within 14 days" if listed else "yours does not expire within 14 days")


def _mend(own: dict[str, Any], key_id: str) -> str:
    command = f"tidelog keys rotate {key_id} --expires 90d"
    may = own["role"] in GIVERS and not own.get("projects")
    return command if may else f"ask an owner or admin of the tenant for: {command}"


async def _listed(server: Asking) -> list[dict[str, Any]]:
    """The keys of the tenant. None of them if the own key may not list them."""
    keys: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    for _ in range(PAGES):
        page = await server.get("/v1/keys", {"limit": 1000, **cursor})
        if page is None:
            break
        keys += page["data"]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
    return keys
