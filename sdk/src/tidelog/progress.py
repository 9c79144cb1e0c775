"""How far an agent is: what it says by `ctx.progress`."""

import math
from dataclasses import dataclass
from typing import Any

MAX_MESSAGE = 500
MOST = 1e15


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total`, which may be unknown, and what the agent does now."""

    done: float
    total: float | None = None
    message: str | None = None

    def fields(self) -> dict[str, Any]:
        said = {"done": self.done, "total": self.total, "message": self.message}
        return {name: value for name, value in said.items() if value is not None}


def progress_of(done: Any, total: Any, message: Any) -> Progress:
    """Raises ValueError."""
    text = None if message is None else _text(message)
    return Progress(_number(done, "`done`", zero=True), None if total is None else _number(total, "`total`", zero=False), text)


def _number(value: Any, what: str, *, zero: bool) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{what} is a number, not {value!r:.80}")
    if not (0 <= value <= MOST and (zero or value > 0)):
        raise ValueError(f"{what} is {'from 0' if zero else 'more than 0 and'} up to {MOST:g}, not {value!r:.80}")
    return float(value)


def _text(message: Any) -> str:
    clean = str(message).replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    return clean if len(clean) <= MAX_MESSAGE else clean[: MAX_MESSAGE - 1] + "…"
