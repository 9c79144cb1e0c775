"""What a call of a tool has used, as far as the tool says."""

import json
from collections.abc import Callable
from decimal import ROUND_CEILING, Decimal
from typing import Any


class Used:
    """What an attempt has used, as far as its tool has said."""

    def __init__(self) -> None:
        self._money: Decimal | None = None
        self._tokens: int | None = None

    def add(self, money: Decimal | float | str | None, tokens: int | None) -> None:
        if money is not None:
            more = Decimal(str(money))
            if not more.is_finite() or not 0 <= more < 10**9:
                raise ValueError(f"not an amount of money: {str(money)[:40]!r}")
            self._money = (self._money or Decimal(0)) + more
        if tokens is not None:
            if tokens < 0:
                raise ValueError("tokens are not negative")
            self._tokens = (self._tokens or 0) + tokens

    def said(self) -> dict[str, Any]:
        """As it goes over the wire. Empty: nothing was said."""
        said: dict[str, Any] = {} if self._tokens is None else {"tokens": self._tokens}
        if self._money is not None:
            said["money"] = format(self._money.quantize(Decimal("0.000001"), ROUND_CEILING).normalize(), "f")
        return said


class Told(Used):
    """Of a tool in a process of its own: what it says goes to the worker at once."""

    def __init__(self, put: Callable[[bytes], None]) -> None:
        super().__init__()
        self._put = put

    def add(self, money: Decimal | float | str | None, tokens: int | None) -> None:
        super().add(money, tokens)
        self._put(json.dumps({"money": None if money is None else str(money), "tokens": tokens}).encode())
