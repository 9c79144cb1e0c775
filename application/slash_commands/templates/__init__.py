"""The shipped slash commands that are workflows: a file of YAML for each, as `tidelog workflows create -f` takes it.

They are read when the first of them is needed: the parser is slow, and most processes need none.
"""

from collections.abc import Mapping
from functools import lru_cache
from importlib.resources import files

from application.workflows.written import read_workflow
from application.workflows.yaml_text import load
from domain.workflows import WorkflowDefinition

NAMES = ("feature", "swarm", "task")


def text_of(name: str) -> str:
    """A shipped command as YAML. `name`: one of `NAMES`."""
    return files(__name__).joinpath(f"{name}.yaml").read_text("utf-8")


@lru_cache(maxsize=1)
def templates() -> Mapping[str, WorkflowDefinition]:
    """The shipped commands by their names."""
    return {name: _definition(name) for name in NAMES}


def _definition(name: str) -> WorkflowDefinition:
    written = read_workflow(load(text_of(name)))
    if written.pop("name") != name:
        raise ValueError(f"{name}.yaml says another name")
    return WorkflowDefinition.model_validate(written)
