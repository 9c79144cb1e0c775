"""Parts of the bodies of requests, as JSON data."""

from collections.abc import Mapping
from typing import Any

from tidelog.errors import NotJsonError
from tidelog.values import to_json


def object_of(value: object, what: str) -> dict[str, Any]:
    """A value as a JSON object. Raises NotJsonError, ValueTooDeepError."""
    plain = to_json(dict(value) if isinstance(value, Mapping) else value, what, max_bytes=None)
    if not isinstance(plain, dict):
        raise NotJsonError(f"{what} must be a JSON object, not {type(value).__name__}")
    return plain


def plan_of(plan: object) -> dict[str, Any]:
    """A plan as JSON data. The depth of a step's input is counted in the input itself."""
    if not isinstance(plan, Mapping) or not isinstance(plan.get("steps"), list | tuple):
        return object_of(plan, "the plan")
    rest = object_of({name: value for name, value in plan.items() if name != "steps"}, "the plan")
    return {**rest, "steps": [_step(step) for step in plan["steps"]]}


def _step(step: object) -> dict[str, Any]:
    if not isinstance(step, Mapping) or "input" not in step:
        return object_of(step, "a step of the plan")
    plain = object_of({name: value for name, value in step.items() if name != "input"}, "a step of the plan")
    return {**plain, "input": to_json(step["input"], f"the input of step {step.get('key')!r:.80}", max_bytes=None)}


MAX_ON_BEHALF_OF = 200
"""Characters."""


def on_behalf_header(on_behalf_of: str | None) -> dict[str, bytes]:
    """The header that says for whom the caller asks, in UTF-8. None: no header.

    Raises ValueError for a text that the server would refuse.
    """
    if on_behalf_of is None:
        return {}
    said = on_behalf_of.strip(" ")
    if not said or len(said) > MAX_ON_BEHALF_OF or not said.isprintable():
        raise ValueError(f"on_behalf_of must be 1 to {MAX_ON_BEHALF_OF} printable characters")
    return {"Tidelog-On-Behalf-Of": said.encode()}
