"""Lines of slash commands: name, options and text. A line is read as it was meant, or refused with the place and what helps."""

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from application.slash_commands.line import MAX_LINE, MAX_OPTIONS, BadLine, CommandLine, Option, quoted, read_line, write_line


def said(text: str) -> tuple[str, dict[str, str], str]:
    line = read_line(text)
    return line.name, {option.name: option.value for option in line.options}, line.text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/task", ("task", {}, "")),
        ("  /task  ", ("task", {}, "")),
        ("/task Write release notes", ("task", {}, "Write release notes")),
        ("/task Write release notes agent=writer", ("task", {"agent": "writer"}, "Write release notes")),
        ("/task agent=writer Write release notes", ("task", {"agent": "writer"}, "Write release notes")),
        ("/task Write agent=writer release notes", ("task", {"agent": "writer"}, "Write release notes")),
        ("/task --agent writer Write", ("task", {"agent": "writer"}, "Write")),
        ("/task --agent=writer Write", ("task", {"agent": "writer"}, "Write")),
        ("/task --agent\n'a b' Write", ("task", {"agent": "a b"}, "Write")),
        ("/task agent=", ("task", {"agent": ""}, "")),
        ("/task two\nlines,  two  spaces\n", ("task", {}, "two\nlines,  two  spaces")),
        # quotes of values, as in a shell
        ("/task a='b c' d=\"e f\"", ("task", {"a": "b c", "d": "e f"}, "")),
        (r"/task a='b\c' d=e\ f", ("task", {"a": r"b\c", "d": "e f"}, "")),
        (r'/task a="say \"hi\" \n \\"', ("task", {"a": 'say "hi" \\n \\'}, "")),
        ("/task a=x'y z'\"w v\"u", ("task", {"a": "xy zw vu"}, "")),
        ("/task a=b\\", ("task", {"a": "b\\"}, "")),
        # JSON
        ('/task a={"b": [1, 2], "c": "d e"} text', ("task", {"a": '{"b": [1, 2], "c": "d e"}'}, "text")),
        ("/task a=[1, 2]", ("task", {"a": "[1, 2]"}, "")),
        ("/task a=[1, 2]x", ("task", {"a": "[1,"}, "2]x")),
        ("/task a={b}", ("task", {"a": "{b}"}, "")),
        # prose
        ("/task Don't say 'no'", ("task", {}, "Don't say 'no'")),
        ('/task Say "a=b c" and \'d=e f\' g=h', ("task", {"g": "h"}, 'Say "a=b c" and \'d=e f\'')),
        ("/task 'tis the season, isn't it", ("task", {}, "'tis the season, isn't it")),
        ('/task "Set a=b --c now"', ("task", {}, "Set a=b --c now")),
        ('/task g=h "Set a=b"', ("task", {"g": "h"}, "Set a=b")),
        ('/task "Set a=b" twice', ("task", {}, '"Set a=b" twice')),
        ('/task "one" g=h "two"', ("task", {"g": "h"}, '"one" "two"')),
        ("/task g=h -- a=b --c", ("task", {"g": "h"}, "a=b --c")),
        ("/task --", ("task", {}, "")),
        ("/task Write notes -- they matter a=b", ("task", {"a": "b"}, "Write notes -- they matter")),
        ("/task See http://x.example/?a=b, a==b and a=>b", ("task", {}, "See http://x.example/?a=b, a==b and a=>b")),
        ("/task 1=2 =3 -x ---y", ("task", {}, "1=2 =3 -x ---y")),
        ("/query metadata.ticket=T-1", ("query", {"metadata.ticket": "T-1"}, "")),
    ],
)  # fmt: skip
def test_a_line_is_read(text: str, expected: Any) -> None:
    assert said(text) == expected


def test_an_option_knows_its_place() -> None:
    assert read_line(" /task Do a=b --c d").options == (Option("a", "b", 11), Option("c", "d", 15))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "a command begins with `/` and its name, as in `/task Write release notes`"),
        ("task Write", "a command begins with `/` and its name, as in `/task Write release notes`"),
        ("/", "the name of the command is missing after `/`: write for example `/task Write release notes`"),
        ("/ task", "the name of the command is missing after `/`: write for example `/task Write release notes`"),
        ("/task a='b", "the quote at character 9 is not closed: close it, or write a backslash in front of it"),
        ("/task a=b'c", "the quote at character 10 is not closed: close it, or write a backslash in front of it"),
        ('/task a="b\\"', "the quote at character 9 is not closed: close it, or write a backslash in front of it"),
        ("/task Do --agent", "'--agent' at character 10 has no value: write `agent=VALUE`"),
        ("/task a\x00b", "character 8 of the line is a NUL character, which no text may have"),
        ("/" + "x" * MAX_LINE, "the line has 100,001 characters, and 100,000 are the most"),
        ("/task " + "a=b " * (MAX_OPTIONS + 1), "the line has more than 100 options, which are the most"),
    ],
)
def test_a_line_is_refused_with_its_place_and_a_cure(text: str, told: str) -> None:
    with pytest.raises(BadLine) as refused:
        read_line(text)
    assert refused.value.message == told
    assert (refused.value.pointer, refused.value.faults) == ("/text", (("/text", told),))


def test_the_longest_line_and_the_most_options_are_read() -> None:
    assert len(read_line("/" + "x" * (MAX_LINE - 1)).name) == MAX_LINE - 1
    assert len(read_line("/task " + "a=b " * MAX_OPTIONS).options) == MAX_OPTIONS


ANY = st.text(st.sampled_from("ab=-'\"\\ \n\t/{}[]:,.1$é") | st.characters(exclude_categories=["Cs"]), max_size=60)


@given(ANY)
@example("a={" * 50)
@example('"' * 59)
def test_every_text_is_read_or_refused(text: str) -> None:
    for line in (text, f"/x {text}", f"/x a={text}"):
        try:
            read = read_line(line)
        except BadLine:
            continue
        assert read.name
        assert all(option.name and line[option.at - 1 :].lstrip("-").startswith(option.name) for option in read.options)
        assert len(read.text) + sum(len(option.value) for option in read.options) <= len(line)


VALUES = st.text(
    st.sampled_from("ab=-'\"\\ \n{}[]1") | st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30
)


@given(
    st.from_regex(r"[a-z][a-z_.-]{0,8}", fullmatch=True),
    st.lists(st.tuples(st.from_regex(r"[A-Za-z_][A-Za-z0-9_.-]{0,8}", fullmatch=True), VALUES), max_size=4),
    VALUES,
)
def test_a_written_line_is_read_as_it_was_meant(name: str, options: list[tuple[str, str]], text: str) -> None:
    written = write_line(CommandLine(name, tuple(Option(key, value, 0) for key, value in options), text))
    read = read_line(written)
    assert (read.name, [(option.name, option.value) for option in read.options], read.text) == (name, options, text)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | VALUES, lambda v: st.lists(v) | st.dictionaries(VALUES, v), max_leaves=5
    )
)
def test_a_json_value_that_is_quoted_stays_whole(value: Any) -> None:
    text = json.dumps(value)
    assert read_line(f"/x a={quoted(text)} b").options[0].value == text


def test_a_plain_value_needs_no_quotes() -> None:
    assert write_line(CommandLine("task", (Option("agent", "a.b/c-1", 0), Option("x", "", 0)), "")) == '/task agent=a.b/c-1 x=""'
    assert write_line(CommandLine("task", (), "a")) == '/task "a"'
