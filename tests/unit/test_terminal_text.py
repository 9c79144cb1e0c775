"""Text of others on a terminal: nothing that a terminal obeys, nothing that nobody sees."""

import io
import json
import sys
import unicodedata

import pytest
from rich.console import Console
from rich.text import Text

from api.cli import output
from api.cli.screen import VisibleText
from tidelog.terminal import visible

SEEN_SIGNS_OF_FORMAT = {
    *range(0x600, 0x606), 0x6DD, 0x70F, 0x890, 0x891, 0x8E2, 0x110BD, 0x110CD,  # Arabic, Syriac, Kaithi: signs around numbers
    *range(0x13430, 0x13440),  # Egyptian: the arrangement of signs
}  # fmt: skip


def test_every_control_and_format_character_of_unicode_is_escaped() -> None:
    obeyed = [
        chr(point)
        for point in range(sys.maxunicode + 1)
        if unicodedata.category(chr(point)) in ("Cc", "Cf", "Cs", "Zl", "Zp") and point not in SEEN_SIGNS_OF_FORMAT
    ]
    assert [character for character in obeyed if visible(character) == character] == []
    assert visible("".join(obeyed)).isascii()


@pytest.mark.parametrize("text", ["Grüße, 你好 🌊 ❤️", "سلام", "a\\b [red] \u00a0", "é e\u0301", ""])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_characters_that_take_no_room_are_escaped() -> None:
    assert visible("a\u200bb\u00adc\u3164d\U000e0041") == "a\\u200bb\\u00adc\\u3164d\\udb40\\udc41"


def test_lines_stay_lines_where_they_are_ours() -> None:
    assert visible("one\ntwo\t\r\x1b[2J") == "one\\ntwo\\t\\r\\u001b[2J"
    assert visible("one\ntwo\t\r\x1b[2J", lines=True) == "one\ntwo\t\\r\\u001b[2J"


def test_json_stays_the_same_value() -> None:
    value = {"a\u202e": ["\x9b1m\x7f\u2028", "\ud800", "\U000e0041\n", 1]}
    text = visible(json.dumps(value, ensure_ascii=False, indent=2), lines=True)
    assert json.loads(text) == value
    assert text.isascii()


def test_styles_of_ours_reach_a_terminal_and_those_of_others_do_not() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard", width=200)
    console.push_render_hook(VisibleText())
    table = output.table("Name")
    table.add_row(f"[red]{output.escape('a' + chr(27) + '[32m[bold]')}[/red]")
    console.print(table)
    console.print(Text("b\x1b[33m", "blue"))
    assert isinstance(console.file, io.StringIO)
    written = console.file.getvalue()
    assert "\x1b[31ma\\u001b[32m[bold]\x1b[0m" in written
    assert "\x1b[34mb\\u001b[33m\x1b[0m" in written
    assert written.count("\x1b[33m") == written.count("\x1b[32m") == 0


def test_a_terminal_without_unicode_gets_escapes_and_programs_get_json(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), "ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    output.say("≈ é")
    output.line({"é": "🌊"})
    assert isinstance(stream.buffer, io.BytesIO)
    first, second = stream.buffer.getvalue().decode("ascii").splitlines()
    assert first == "\\u2248 \\xe9"
    assert json.loads(second) == {"é": "🌊"}
