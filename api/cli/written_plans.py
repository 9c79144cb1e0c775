"""Plans and workflows in files, with the line of each part."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from api.cli import output

if TYPE_CHECKING:
    from application.workflows.yaml_text import LoadedYaml


@dataclass(frozen=True)
class WrittenPlan:
    name: str
    """Of the file."""
    loaded: "LoadedYaml"

    @property
    def value(self) -> Any:
        return self.loaded.value

    def line_of(self, pointer: str) -> int:
        """The line of a part, or of the nearest one around it that is there."""
        where = self.loaded.place_of(pointer)
        return where[0] if where else 1


def read(file: str) -> WrittenPlan:
    """YAML or JSON; `-`: standard input. Raises CommandFailed, with the line of what is wrong."""
    from application.workflows.yaml_text import MAX_BYTES, YamlFault, load_with_places

    name = "stdin" if file == "-" else file
    try:
        if file == "-":
            text = sys.stdin.buffer.read(MAX_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                text = opened.read(MAX_BYTES + 1)
        return WrittenPlan(name, load_with_places(text))
    except OSError as error:
        raise output.CommandFailed(output.one_line(f"{name}: {error.strerror}"), output.WRONG_USAGE) from None
    except YamlFault as error:
        raise output.CommandFailed(output.one_line(f"{name}: {error.message}"), output.WRONG_USAGE) from None
