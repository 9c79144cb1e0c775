"""`python -m tests.golden.generate`: writes the golden files that are missing, and never touches one that is there."""

import sys
from collections.abc import Iterable
from pathlib import Path

from domain.kernel import Event
from domain.registry import encode
from tests.golden.examples import EXAMPLES

FOLDER = Path(__file__).parent / "events"


def file_name(topic: str, version: int) -> str:
    return f"{topic}.v{version}.json"


def write_missing(folder: Path, examples: Iterable[Event] = EXAMPLES) -> list[Path]:
    """The files that were written. A file holds the stored bytes of the event and a newline."""
    folder.mkdir(exist_ok=True)
    written = []
    for event in examples:
        path = folder / file_name(event.TOPIC, event.VERSION)
        try:
            with path.open("xb") as file:
                file.write(encode(event) + b"\n")
        except FileExistsError:
            continue
        written.append(path)
    return written


if __name__ == "__main__":
    for new in write_missing(FOLDER):
        sys.stdout.write(f"written: {new.name}\n")
