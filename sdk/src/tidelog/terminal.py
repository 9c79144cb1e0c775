"""Text of others on a terminal: characters that a terminal obeys, or that nobody sees, are written as JSON writes them."""

import re

_UNSEEN = (
    ("\x00", "\x1f"), ("\x7f", "\x9f"),  # C0, DEL, C1
    ("\xad", "\xad"), ("\u034f", "\u034f"), ("\u061c", "\u061c"), ("\u115f", "\u1160"), ("\u17b4", "\u17b5"), ("\u180b", "\u180f"),
    ("\u200b", "\u200f"), ("\u2028", "\u202e"), ("\u2060", "\u206f"),  # zero-width, line separators, bidi
    ("\u3164", "\u3164"), ("\ud800", "\udfff"), ("\ufe00", "\ufe0d"), ("\ufeff", "\ufeff"), ("\uffa0", "\uffa0"),
    ("\ufff0", "\ufffb"), ("\U0001bca0", "\U0001bca3"), ("\U0001d173", "\U0001d17a"), ("\U000e0000", "\U000e0fff"),
)  # fmt: skip
"""Ranges of characters, both ends included: controls, lone surrogates, and characters that Unicode calls ignorable by default.

U+FE0E and U+FE0F stay: they choose between two pictures of a sign. Format signs that are seen (Arabic, Egyptian) stay, too.
"""
_CLASS = "".join(f"{re.escape(first)}-{re.escape(last)}" for first, last in _UNSEEN)
_ANY = re.compile(f"[{_CLASS}]")
_ANY_BUT_LINES = re.compile(f"(?![\n\t])[{_CLASS}]")


def visible(text: str, *, lines: bool = False) -> str:
    """The text with each such character escaped. `lines`: line feeds and tabs stay as they are.

    The escapes are those of JSON. So a JSON text stays the same JSON value.
    """
    return (_ANY_BUT_LINES if lines else _ANY).sub(_escaped, text)


_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def _escaped(found: re.Match[str]) -> str:
    if found.group() in _SHORT:
        return _SHORT[found.group()]
    units = found.group().encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i : i + 2].hex()}" for i in range(0, len(units), 2))
