"""`python -m tests.golden.generate`: writes golden files.

The example of an event and version is written once: an existing file is never changed. The schema of an event and version is
written anew if an older reader can take the change. Any other change is refused with an explanation.
"""

import json
import sys
from collections.abc import Iterable
from pathlib import Path

from domain.kernel import Event
from domain.registry import REGISTRY
from tests.golden.compatibility import Schema, compare, normal
from tests.golden.examples import EXAMPLES

FOLDER = Path(__file__).parent / "events"
SCHEMAS = Path(__file__).parent / "schemas"


def file_name(topic: str, version: int) -> str:
    return f"{topic}.v{version}.json"


def write_missing(folder: Path, examples: Iterable[Event] = EXAMPLES) -> list[Path]:
    """Returns the written files. A file holds the stored bytes of the event and a newline."""
    folder.mkdir(exist_ok=True)
    written = []
    for event in examples:
        path = folder / file_name(event.TOPIC, event.VERSION)
        try:
            with path.open("xb") as file:
                file.write(REGISTRY.encode(event) + b"\n")
        except FileExistsError:
            continue
        written.append(path)
    return written


def breaks(topic: str, version: int, old: Schema, new: Schema) -> str:
    """The problem with a change of a version's schema, and the remedy. Empty if an older reader can take the change."""
    found = [change.words for change in compare(old, new) if change.breaks]
    if not found:
        return ""
    event = REGISTRY.events[topic]
    name, module = event.__name__, f"{event.__module__.replace('.', '/')}.py"
    lines = [f"{topic}, version {version}, is not what it was:", *(f"  - {words}" for words in found)]
    if version == event.VERSION:
        lines += [
            f"Leave version {version} as it is, and make a new one:",
            f"  1. {module}: the class {name} gets the change and VERSION = {version + 1}; what it was stays as a class",
            f"     {name}V{version}(Event) with the same TOPIC and VERSION = {version}, and so do changed values in it.",
            f"  2. domain/registry.py: UPCASTS[{topic!r}, {version}] = Upcast({name}V{version}, to_next), where to_next makes the",
            f"     JSON object of version {version + 1} from that of version {version}.",
            "  3. tests/golden/examples.py and docs/reference/events.md: the new fields; then `python -m tests.golden.generate`.",
        ]
    else:
        lines.append(f"An old version never changes: put its shape right, in UPCASTS[{topic!r}, {version}] of domain/registry.py.")
    lines.append(
        f"(Only if no release holds this version yet: delete tests/golden/schemas/{file_name(topic, version)} and generate it.)"
    )
    return "\n".join(lines)


def current(topic: str, version: int) -> Schema:
    return normal(REGISTRY.schema(topic, version))


def write_schemas(folder: Path) -> tuple[list[Path], list[str]]:
    """Returns the written files and the explanations of refused changes."""
    folder.mkdir(exist_ok=True)
    written, refused = [], []
    for topic, version in REGISTRY.shapes():
        path, new = folder / file_name(topic, version), current(topic, version)
        old = json.loads(path.read_text()) if path.exists() else None
        if old == new:
            continue
        if old is not None and (problem := breaks(topic, version, old, new)):
            refused.append(problem)
            continue
        path.write_text(json.dumps(new, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
        written.append(path)
    return written, refused


if __name__ == "__main__":
    written, refused = write_schemas(SCHEMAS)
    for new in (*write_missing(FOLDER), *written):
        sys.stdout.write(f"written: {new.parent.name}/{new.name}\n")
    for problem in refused:
        sys.stderr.write(f"refused: {problem}\n")
    sys.exit(bool(refused))
