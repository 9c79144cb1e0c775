"""Text that came from a stranger's repository, made safe for JSON and for Markdown."""

import re
from collections.abc import Container, Sequence
from zlib import crc32

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def words(text: str) -> frozenset[str]:
    """The words of a text, for lists of names that are easier to read without quotes and commas."""
    return frozenset(text.split())


def json_safe(raw: bytes, limit: int = 300) -> str:
    """Bytes of a path or a name as text that any JSON reader accepts and whose size is bounded.

    Control characters and bytes that are no UTF-8 are shown as escapes. A longer text is cut, and a checksum distinguishes it from
    others. A changed name can be shown but not passed back to the file system.
    """
    text = _visible(raw.decode("utf-8", "backslashreplace"))
    if len(text) <= limit:
        return text
    return f"{text[: limit - 9]}~{crc32(raw):08x}"


def _visible(text: str) -> str:
    """Control characters and the marks that turn the writing direction, shown as escapes."""
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode("ascii"), text)


def prose(text: str, limit: int = 120) -> str:
    """For running text and table cells: no part of the result is read as Markdown or HTML, and the result stays on one line."""
    shown = _visible(text)
    shown = shown if len(shown) <= limit else shown[: limit - 1] + "…"
    shown = shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|#~!])", r"\\\1", shown)


def code(text: str, limit: int = 160) -> str:
    """A code span, fenced by more backticks than the text holds. A pipe is escaped, because most code spans are in tables."""
    shown = _visible(text)
    shown = shown if len(shown) <= limit else "…" + shown[-(limit - 1) :]
    shown = shown.replace("|", "\\|")
    runs = [len(run) for run in re.findall(r"`+", shown)]
    fence = "`" * (max(runs, default=0) + 1)
    pad = " " if runs else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def number(value: int) -> str:
    """1234567 as 1,234,567."""
    return f"{value:,}"


def size(value: int) -> str:
    """Bytes in a readable unit, with binary prefixes."""
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            return f"{int(amount)} B" if unit == "B" else f"{amount:,.1f} {unit}"
        amount /= 1024
    raise AssertionError("unreachable: the last unit always returns")


def plural(count: int, one: str, many: str | None = None) -> str:
    return f"{number(count)} {one if count == 1 else many or one + 's'}"


def percent(part: int, whole: int) -> str:
    if whole <= 0:
        return "0%"
    share = 100 * part / whole
    return f"{share:.0f}%" if share >= 1 or part == 0 else "under 1%"


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], numeric: Container[int] = ()) -> str:
    """A Markdown table. The columns whose index is in `numeric` are right-aligned."""
    rule = tuple("---:" if column in numeric else "---" for column in range(len(head)))
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))
