"""Amounts of budgets on the command line: `0.01usd,calls=10,tokens=5000,wall=60s`."""

import re
from typing import Any, Literal

from api.cli import output

FORM = "0.01usd,calls=10,tokens=5000,wall=60"
_MONEY = re.compile(r"(?:money=)?(\d{1,9}(?:\.\d{1,6})?)([a-z]{2,10})?")
_COUNT = re.compile(r"(calls|tokens)=(\d{1,15})")
_WALL = re.compile(r"wall(?:_s)?=(\d+(?:\.\d+)?)(s|m|h)?")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def amounts_of(option: str, text: str, *, wall: bool = True) -> dict[str, Any]:
    """The amounts of a text; the unit of the money, if it names one, as `currency`. Raises CommandFailed."""
    found: dict[str, Any] = {}
    for part in filter(None, re.split(r"[,|\s]+", text)):
        if match := _COUNT.fullmatch(part):
            name, value = match[1], int(match[2])
        elif wall and (match := _WALL.fullmatch(part)):
            name, value = "wall_s", float(match[1]) * _SECONDS[match[2] or "s"]  # type: ignore[assignment]
        elif match := _MONEY.fullmatch(part):
            name, value = "money", match[1]  # type: ignore[assignment]
            found |= {} if match[2] is None else {"currency": match[2]}
        else:
            told = f"{option}: not an amount: {output.shortened(part, 40)}; write it as {FORM}"
            raise output.CommandFailed(output.one_line(told), output.WRONG_USAGE)
        if name in found:
            raise output.CommandFailed(f"{option}: {name} is given twice", output.WRONG_USAGE)
        found[name] = value
    if not found:
        raise output.CommandFailed(f"{option}: say how much, as {FORM}", output.WRONG_USAGE)
    return found


OnSpent = Literal["stop", "degrade", "ask"]
ON_SPENT = "stop: the run fails. degrade: a cheaper tool, or the call alone fails. ask: people are asked for more."


def given_budget(limits: str | None, on_spent: str | None) -> dict[str, Any] | None:
    """`--budget` and `--on-spent` as the body of a start has them. None: nothing was given. Raises CommandFailed."""
    if limits is None:
        if on_spent is not None:
            raise output.CommandFailed("--on-spent goes with --budget", output.WRONG_USAGE)
        return None
    return amounts_of("--budget", limits) | ({} if on_spent is None else {"on_spent": on_spent})


def told(amounts: dict[str, Any], currency: str) -> str:
    """Amounts for people: what is not there, or is zero, is left out."""
    money, tokens, calls, wall = (amounts.get(name) for name in ("money", "tokens", "calls", "wall_s"))
    parts = [
        f"{money} {currency}" if money not in (None, "0") else "",
        f"{tokens:,} tokens" if tokens else "",
        f"{calls:,} call{'' if calls == 1 else 's'}" if calls else "",
        f"{wall:g} s" if wall else "",
    ]
    return ", ".join(part for part in parts if part)


def left_told(amounts: dict[str, Any], currency: str) -> str:
    """What is left of each kind that is limited, also where it is nothing."""
    money, tokens, calls = (amounts.get(name) for name in ("money", "tokens", "calls"))
    parts = [
        "" if money is None else f"{money} {currency}",
        "" if tokens is None else f"{tokens:,} tokens",
        "" if calls is None else f"{calls:,} call{'' if calls == 1 else 's'}",
    ]
    return ", ".join(part for part in parts if part)
