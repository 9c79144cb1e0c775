"""Markers that people leave in comments: TODO, FIXME, XXX, HACK."""

import re
from collections.abc import Iterator
from typing import NamedTuple

from .secrets import redact

MARKERS = ("FIXME", "XXX", "HACK", "TODO")
_TEXT = 140
# At most so many bytes of a line are searched: a longer line is a minified bundle or data.
_LINE = 600
_MARKER = re.compile(rb"(?<![A-Za-z0-9_\"'`.-])(TODO|FIXME|XXX|HACK)(?![A-Za-z0-9_\"'`=\[)-])")
# The start of a comment in some language, or only list marks. A sign right after a quote begins a string's text.
_COMMENT = re.compile(
    rb"^[\s*>+-]*$|(?<![\"'`#])#|//|/\*|(?<![\"'])--|(?:^|\s);|<!--|(?:^|\s)%[\s%]|\"\"\"|'''|\.\. |\bREM\b|\{-|\(\*|\{#"
)
_END = re.compile(r"\s*(\*+/|-->|\*\)|#})\s*$")


class Marker(NamedTuple):
    line: int
    marker: str
    text: str


def find_markers(content: bytes) -> Iterator[Marker]:
    """Upper-case markers in a comment or at the start of a line, one per line. The text holds no secret."""
    line, counted = 1, 0
    last_line = 0
    for match in _MARKER.finditer(content):
        start = content.rfind(b"\n", counted, match.start()) + 1 or counted
        line += content.count(b"\n", counted, start)
        counted = start
        if line == last_line or match.start() - start > _LINE:
            continue
        if not _COMMENT.search(content[start : match.start()]):
            continue
        last_line = line
        end = content.find(b"\n", match.start())
        text = content[match.start() : min(end if end >= 0 else len(content), match.start() + 400)]
        if len(set(_MARKER.findall(text))) > 2:  # a sentence about markers, like the first line of this file
            continue
        shown = _END.sub("", redact(text).decode("utf-8", "replace")).strip()
        yield Marker(line, match.group(1).decode(), shown[:_TEXT])
