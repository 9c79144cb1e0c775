"""Names, descriptions and capabilities: the rules that agents and tools share."""

import inspect
import re
from typing import Any

from pydantic import BaseModel

from tidelog.errors import DefinitionError, NotJsonError, ValueTooDeepError
from tidelog.values import to_json

AGENT_NAME = re.compile(r"[a-z0-9_-]{1,100}")
TOOL_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
CAPABILITY = TOOL_NAME


def kebab_case(class_name: str) -> str:
    """`RepoReviewer` → `repo-reviewer`, `HTTPFetcher` → `http-fetcher`."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", class_name)
    return words.lower().strip("_")


def first_paragraph(documented: Any) -> str:
    """The first paragraph of a docstring as one line; empty if there is none. A class does not inherit its base's."""
    text = documented.__dict__.get("__doc__") if isinstance(documented, type) else documented.__doc__
    return " ".join(inspect.cleandoc(text or "").split("\n\n", 1)[0].split())


def check_name(name: object, pattern: re.Pattern[str], what: str) -> str:
    """Raises `DefinitionError` (invalid-name) unless the whole name fits."""
    if not isinstance(name, str) or len(name) > 100 or not pattern.fullmatch(name):
        raise DefinitionError("invalid-name", f"{what} has the name {name!r}; allowed is {pattern.pattern}")
    return name


def check_capabilities(capabilities: object, what: str) -> tuple[str, ...]:
    """Raises `DefinitionError` (invalid-metadata) unless it is a tuple or list of capability names."""
    if isinstance(capabilities, str) or not isinstance(capabilities, tuple | list):
        raise DefinitionError(
            "invalid-metadata", f"{what}: capabilities must be a tuple of names, as in ('git',), not {capabilities!r}"
        )
    for capability in capabilities:
        if not isinstance(capability, str) or len(capability) > 100 or not CAPABILITY.fullmatch(capability):
            raise DefinitionError("invalid-metadata", f"{what} has the capability {capability!r}; allowed is {CAPABILITY.pattern}")
    return tuple(capabilities)


def check_version(version: object, what: str) -> str:
    """Raises `DefinitionError` (invalid-metadata) unless it is a non-empty string."""
    if not isinstance(version, str) or not version or len(version) > 100:
        raise DefinitionError("invalid-metadata", f"{what}: version must be a non-empty string, not {version!r}")
    return version


def check_json(definition: BaseModel, what: str) -> None:
    """Raises `DefinitionError` (invalid-metadata) unless each field is data that can be sent and recorded."""
    for name, value in definition:
        try:
            to_json(value, f"its {name}", None)
        except (NotJsonError, ValueTooDeepError) as error:
            raise DefinitionError("invalid-metadata", f"{what}: {error}") from error
