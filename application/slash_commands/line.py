"""The line of a slash command: its name, its options, and the free text. `/task Write release notes agent=writer`.

- An option is `name=value` or `--name value`. Quotes and backslashes of a value are read as a shell reads them; a value that begins
  with `{` or `[` and is JSON is taken as it stands.
- All other words are the text, as they are written: prose has apostrophes. A part of the text in quotes is text, whatever it looks
  like, and so is all that follows `--` where no text stands before. The quotes around the whole text are left out.
"""

import json
import re
from collections.abc import Sequence
from typing import NamedTuple

from domain.errors import InvalidCommand

MAX_LINE = 100_000
"""Characters."""
MAX_OPTIONS = 100
MOST_SHOWN = 50

_SPACE = re.compile(r"\s*")
_WORD = re.compile(r"\S+")
_OPTION = re.compile(r"(?:--)?([A-Za-z_][\w.-]*)=(?![=>])")
_FLAG = re.compile(r"--([A-Za-z_][\w.-]*)(?!\S)")
_END = re.compile(r"--(?!\S)")
_QUOTED = re.compile(r"""(?:"(?:[^"\\]|\\.)*"|'[^']*')(?!\S)""", re.DOTALL)
_PLAIN = re.compile(r"[\w./:@%+,-]+", re.ASCII)
_DECODER = json.JSONDecoder()


class BadLine(InvalidCommand):
    """A line that cannot be read as a slash command, or does not fit its command."""

    code = "bad-command-line"

    def __init__(self, *faults: str) -> None:
        """At least one fault: what is wrong, where, and what helps."""
        super().__init__("; ".join(faults), pointer="/text", faults=[("/text", fault) for fault in faults])


class Option(NamedTuple):
    name: str
    value: str
    """Without the quotes."""
    at: int
    """The place of the option in the line, counted in characters from 1 on."""


class CommandLine(NamedTuple):
    name: str
    options: tuple[Option, ...] = ()
    text: str = ""


def shown(word: str) -> str:
    """A word of a line in a refusal: cut, and on one line."""
    word = " ".join(word.split())
    return f"'{word[:MOST_SHOWN]}…'" if len(word) > MOST_SHOWN else f"'{word}'"


def read_line(text: str) -> CommandLine:
    """Raises BadLine."""
    if len(text) > MAX_LINE:
        raise BadLine(f"the line has {len(text):,} characters, and {MAX_LINE:,} are the most")
    if "\x00" in text:
        raise BadLine(f"character {text.index(chr(0)) + 1} of the line is a NUL character, which no text may have")
    begin = _space(text, 0)
    if text[begin : begin + 1] != "/":
        raise BadLine("a command begins with `/` and its name, as in `/task Write release notes`")
    named = _WORD.match(text, begin + 1)
    if named is None:
        raise BadLine("the name of the command is missing after `/`: write for example `/task Write release notes`")
    return _Reader(text, named.end()).line(named[0])


class _Reader:
    def __init__(self, text: str, at: int) -> None:
        self._text = text
        self._at = at
        self._options: list[Option] = []
        self._segments: list[str] = []
        """Parts of the free text, between which there are options."""
        self._begun: int | None = None
        """Where the present segment begins."""
        self._quote_ends: int | None = None
        """Where the part in quotes ends with which the present segment begins. None: it begins with none."""
        self._only_quoted = False
        """Whether the last segment is nothing but such a part."""

    def line(self, name: str) -> CommandLine:
        while (at := _space(self._text, self._at)) < len(self._text):
            self._at = at
            if not self._option(at) and not self._rest(at):
                self._word(at)
        self._end_segment(self._at)
        return CommandLine(name, tuple(self._options), self._whole_text())

    def _option(self, at: int) -> bool:
        """Whether there is an option, which is then read."""
        if found := _OPTION.match(self._text, at):
            begin = found.end()
        elif found := _FLAG.match(self._text, at):
            begin = _space(self._text, found.end())
            if begin == len(self._text):
                raise BadLine(f"{shown(found[0])} at character {at + 1} has no value: write `{found[1][:MOST_SHOWN]}=VALUE`")
        else:
            return False
        if len(self._options) == MAX_OPTIONS:
            raise BadLine(f"the line has more than {MAX_OPTIONS} options, which are the most")
        self._end_segment(at)
        value, self._at = _value(self._text, begin)
        self._options.append(Option(found[1], value, at + 1))
        return True

    def _rest(self, at: int) -> bool:
        """Whether all that follows is text, which is then read."""
        if self._segments or self._begun is not None or not _END.match(self._text, at):
            return False
        if rest := self._text[at + 2 :].strip():
            self._segments.append(rest)
        self._at = len(self._text)
        return True

    def _word(self, at: int) -> None:
        quoted = _QUOTED.match(self._text, at) if self._text[at] in "\"'" else None
        word = quoted or _WORD.match(self._text, at)
        assert word is not None  # there is no white space here
        if self._begun is None:
            self._begun, self._quote_ends = at, word.end() if quoted else None
        self._at = word.end()

    def _end_segment(self, at: int) -> None:
        if self._begun is None:
            return
        segment = self._text[self._begun : at].rstrip()
        self._segments.append(segment)
        self._only_quoted = self._quote_ends == self._begun + len(segment)
        self._begun = None

    def _whole_text(self) -> str:
        if len(self._segments) == 1 and self._only_quoted:
            return _value(self._segments[0], 0)[0]
        return " ".join(self._segments)


def _space(text: str, at: int) -> int:
    """The end of the white space."""
    found = _SPACE.match(text, at)
    return found.end() if found else at


def _value(text: str, at: int) -> tuple[str, int]:
    """The value that begins at a place, and its end. Raises BadLine."""
    if text[at : at + 1] in ("{", "[") and (end := _end_of_json(text, at)) is not None:
        return text[at:end], end
    parts: list[str] = []
    while at < len(text) and not text[at].isspace():
        match text[at]:
            case "'":
                end = text.find("'", at + 1)
                if end < 0:
                    raise _open_quote(at)
                parts.append(text[at + 1 : end])
                at = end + 1
            case '"':
                part, at = _double_quoted(text, at)
                parts.append(part)
            case "\\" if at + 1 < len(text):
                parts.append(text[at + 1])
                at += 2
            case character:
                parts.append(character)
                at += 1
    return "".join(parts), at


def _double_quoted(text: str, begin: int) -> tuple[str, int]:
    parts: list[str] = []
    at = begin + 1
    while at < len(text) and text[at] != '"':
        if text[at] == "\\" and text[at + 1 : at + 2] in ("\\", '"'):
            at += 1
        parts.append(text[at])
        at += 1
    if at == len(text):
        raise _open_quote(begin)
    return "".join(parts), at + 1


def _open_quote(at: int) -> BadLine:
    return BadLine(f"the quote at character {at + 1} is not closed: close it, or write a backslash in front of it")


def _end_of_json(text: str, at: int) -> int | None:
    """The end of a JSON value that is followed by white space or nothing. None: there is no such value."""
    try:
        _, end = _DECODER.raw_decode(text, at)
    except (ValueError, RecursionError):
        return None
    return end if end == len(text) or text[end].isspace() else None


def quoted(value: str) -> str:
    """A value so that `read_line` reads it as it is."""
    return value if _PLAIN.fullmatch(value) else _in_quotes(value)


def _in_quotes(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def write_line(line: CommandLine) -> str:
    """A line that `read_line` reads as this one, apart from the places of the options."""
    options = [f"{option.name}={quoted(option.value)}" for option in line.options]
    text = [_in_quotes(line.text)] if line.text else []
    return " ".join([f"/{line.name}", *options, *text])


def join(line: CommandLine, words: Sequence[str]) -> str:
    """A line with further words of a shell, which has put them together: a word is an option, or text as a whole.

    Raises BadLine.
    """
    options, text = [*line.options], [line.text] if line.text else []
    waiting = list(reversed(words))
    while waiting:
        word = waiting.pop()
        if found := _OPTION.match(word):
            options.append(Option(found[1], word[found.end() :], 0))
        elif found := _FLAG.match(word):
            if not waiting:
                raise BadLine(f"{shown(word)} has no value: write `{found[1][:MOST_SHOWN]}=VALUE`")
            options.append(Option(found[1], waiting.pop(), 0))
        else:
            text.append(word)
    return write_line(CommandLine(line.name, tuple(options), " ".join(text)))
