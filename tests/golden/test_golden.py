"""Stored events stay readable, byte for byte. A change of an event is a new version with an upcast and a new file.

A golden file may be made anew until the first release that contains the file. After that release the file is as fixed as users'
logs.
"""

import json
import re
import subprocess
from pathlib import Path

import jsonschema
import pytest

from domain.kernel import Event
from domain.registry import REGISTRY, UPCASTS
from tests.golden.examples import EXAMPLES
from tests.golden.generate import FOLDER, file_name, write_missing

ROOT = Path(__file__).parents[2]
FILES = sorted(FOLDER.glob("*.json"))


def topic_and_version(path: Path) -> tuple[str, int]:
    match = re.fullmatch(r"(.+)\.v(\d+)\.json", path.name)
    assert match is not None, f"{path.name}: expected <topic>.v<version>.json"
    return match[1], int(match[2])


def stored(path: Path) -> bytes:
    return path.read_bytes().removesuffix(b"\n")


def test_every_version_of_every_event_has_a_golden_file() -> None:
    wanted = {file_name(topic, n) for topic, event in REGISTRY.events.items() for n in range(1, event.VERSION + 1)}
    assert {path.name for path in FILES} == wanted


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_golden_file_is_readable(path: Path) -> None:
    topic, version = topic_and_version(path)
    event = REGISTRY.decode(topic, version, stored(path))
    assert type(event) is REGISTRY.events[topic]
    if version == event.VERSION:
        kept, now = json.loads(stored(path)), json.loads(REGISTRY.encode(event))
        assert {name: now[name] for name in kept} == kept
        if now.keys() == kept.keys():  # otherwise fields were added later, and these may be missing
            assert REGISTRY.encode(event) == stored(path)
        jsonschema.validate(kept, REGISTRY.schema(topic, version), jsonschema.Draft202012Validator)


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: event.TOPIC)
def test_example_is_what_the_golden_file_says(event: Event) -> None:
    """The comparison finds two fields whose meanings were swapped, although the file still decodes."""
    content = stored(FOLDER / file_name(event.TOPIC, event.VERSION))
    read, kept = REGISTRY.decode(event.TOPIC, event.VERSION, content), json.loads(content)
    assert {name: getattr(read, name) for name in kept} == {name: getattr(event, name) for name in kept}


def test_there_is_one_example_of_each_event_with_every_field_set() -> None:
    assert sorted(event.TOPIC for event in EXAMPLES) == sorted(REGISTRY.events)
    for event in EXAMPLES:
        assert event.model_fields_set == set(type(event).model_fields), event.TOPIC


def test_every_old_version_has_an_upcast_and_no_other_has() -> None:
    assert set(UPCASTS) == {(topic, n) for topic, event in REGISTRY.events.items() for n in range(1, event.VERSION)}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_field_of_a_newer_release_is_ignored(path: Path) -> None:
    """A reader that was not updated yet gets events with one more field."""
    topic, version = topic_and_version(path)
    newer = stored(path).replace(b"{", b'{"field_of_a_newer_release":1,', 1)
    assert REGISTRY.decode(topic, version, newer) == REGISTRY.decode(topic, version, stored(path))


def test_generator_never_changes_a_file(tmp_path: Path) -> None:
    first = tmp_path / file_name(EXAMPLES[0].TOPIC, EXAMPLES[0].VERSION)
    first.write_bytes(b"kept")
    written = write_missing(tmp_path)
    assert first.read_bytes() == b"kept"
    assert len(written) == len(EXAMPLES) - 1
    assert write_missing(tmp_path) == []


def test_released_golden_files_are_unchanged() -> None:
    """Compares the files with every release that is tagged `v…` in this clone, and with the last commit."""
    folder = FOLDER.relative_to(ROOT).as_posix()
    changed = _git("status", "--porcelain", "--", folder).decode().splitlines()
    assert [line for line in changed if not line.startswith(("??", "A "))] == [], "golden files are added, never changed"
    for tag in _git("tag", "--list", "v*").decode().split():
        names = _git("ls-tree", "--name-only", tag, f"{folder}/").decode().split()
        for name in names:
            assert (ROOT / name).read_bytes() == _git("show", f"{tag}:{name}"), f"{name} is not what {tag} released"


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, timeout=30, check=True).stdout
