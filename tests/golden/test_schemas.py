"""No version of an event changes in a way that makes an older reader, or a reader of stored events, fail."""

import json
import subprocess
from pathlib import Path

import pytest

from domain.registry import REGISTRY, UPCASTS
from tests.golden.generate import SCHEMAS, breaks, current, file_name

ROOT = Path(__file__).parents[2]
GENERATE = "write it with `python -m tests.golden.generate`"


@pytest.mark.parametrize(("topic", "version"), REGISTRY.shapes(), ids=lambda part: str(part))
def test_schema_is_what_it_was(topic: str, version: int) -> None:
    path = SCHEMAS / file_name(topic, version)
    assert path.exists(), f"{topic}, version {version}, is new: {GENERATE}"
    old, new = json.loads(path.read_text()), current(topic, version)
    problem = breaks(topic, version, old, new)
    assert not problem, problem
    assert old == new, f"{topic}, version {version}, changed in a way that a reader of before can take: if it is meant, {GENERATE}"


def test_every_version_that_was_ever_stored_is_known() -> None:
    known = {file_name(topic, version) for topic, version in REGISTRY.shapes()}
    gone = {path.name for path in SCHEMAS.glob("*.json")} - known
    assert not gone, f"{sorted(gone)}: may be in a log; keep the class, or an Upcast with its shape, in domain/registry.py"


def test_shapes_of_old_versions_say_which_they_are() -> None:
    for (topic, version), upcast in UPCASTS.items():
        assert (topic, version) == (upcast.shape.TOPIC, upcast.shape.VERSION)
        assert upcast.shape is not REGISTRY.events[topic]
        assert REGISTRY.schema(topic, version)["title"] == f"{REGISTRY.events[topic].__name__}V{version}"


def test_released_schemas_were_not_rewritten() -> None:
    """The comparison with the tagged releases (`v…`) of this clone finds golden schemas that were edited by hand or deleted."""
    folder = SCHEMAS.relative_to(ROOT).as_posix()
    for tag in _git("tag", "--list", "v*").split():
        for name in _git("ls-tree", "--name-only", tag, f"{folder}/").split():
            topic, _, version = Path(name).stem.rpartition(".v")
            problem = breaks(topic, int(version), json.loads(_git("show", f"{tag}:{name}")), current(topic, int(version)))
            assert not problem, f"released as {tag}: {problem}"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, timeout=30, check=True).stdout.decode()
