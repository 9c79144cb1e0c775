"""A JSON parser that does not recurse, for texts that are nested deeper than the usual parser takes (pydantic's: 200 levels).

This parser is slow, and used only after the fast one gave up. It keeps integers of any size.
"""

import re

import pydantic_core

from domain.kernel import Json

MAX_DEPTH = 1_024
"""1,000 levels of a value, and some of the document around it."""
_TOKEN = re.compile(r'[ \t\n\r]*(?:([\[\]{},:])|("(?:[^"\\]|\\.)*"|[^ \t\n\r\[\]{},:"]+))', re.DOTALL)


def loads(text: bytes | str) -> Json:
    """Parses a text into plain data. Raises ValueError for a text that is not JSON, or is nested deeper than 1,024 levels."""
    reader = _Reader()
    source = text.decode() if isinstance(text, bytes) else text
    position, end = 0, len(source.rstrip(" \t\n\r"))
    while position < end:
        token = _TOKEN.match(source, position)
        if token is None:
            raise ValueError(f"not JSON at character {position}")
        mark, scalar = token.groups()
        taken = reader.mark(mark) if mark is not None else reader.value(pydantic_core.from_json(scalar))
        if not taken:
            raise ValueError(f"not JSON: {token[0].strip()[:20]!r} at character {token.start()}")
        position = token.end()
    return reader.result()


class _Reader:
    """The open arrays and objects, and which token may come next. Each method answers whether its token may stand there."""

    def __init__(self) -> None:
        self._root: list[Json] = []
        self._open: list[list[Json] | dict[str, Json]] = []
        self._keys: list[str] = []
        """Keys of the open objects whose values are being read."""
        self._next = "value"
        """`value`, `first` (a value or the end), `key`, `first key` (a key or the end), `colon`, `more` (a comma or the end)."""

    def result(self) -> Json:
        if self._open or not self._root:
            raise ValueError("not JSON: it ends too early")
        return self._root[0]

    def value(self, value: Json) -> bool:
        if self._next in ("key", "first key") and isinstance(value, str):
            self._keys.append(value)
            self._next = "colon"
            return True
        if self._next not in ("value", "first"):
            return False
        self._put(value)
        self._next = "more"
        return True

    def _put(self, value: Json) -> None:
        inside = self._open[-1] if self._open else self._root
        if isinstance(inside, dict):
            inside[self._keys.pop()] = value
        else:
            inside.append(value)

    def mark(self, mark: str) -> bool:
        match mark:
            case "[" | "{" if self._next in ("value", "first"):
                if len(self._open) == MAX_DEPTH:
                    raise ValueError(f"nested deeper than {MAX_DEPTH:,} levels")
                begun: list[Json] | dict[str, Json] = [] if mark == "[" else {}
                self._put(begun)
                self._open.append(begun)
                self._next = "first" if mark == "[" else "first key"
            case "]" | "}" if self._open and self._ends(mark):
                self._open.pop()
                self._next = "more"
            case "," if self._open and self._next == "more":
                self._next = "value" if isinstance(self._open[-1], list) else "key"
            case ":" if self._next == "colon":
                self._next = "value"
            case _:
                return False
        return True

    def _ends(self, mark: str) -> bool:
        if isinstance(self._open[-1], list):
            return mark == "]" and self._next in ("first", "more")
        return mark == "}" and self._next in ("first key", "more")
