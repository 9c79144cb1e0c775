"""JSON Schemas of tools, where the package `jsonschema` is installed. The SDK does not depend on it."""

import importlib
from collections.abc import Mapping
from typing import Any

from tidelog.tools import InvalidResultError, Tool


def faults_of(schema: Mapping[str, Any], value: Any) -> list[str] | None:
    """What of a value does not fit; None: nobody here can tell, because `jsonschema` is not installed."""
    try:
        jsonschema: Any = importlib.import_module("jsonschema")
    except ImportError:
        return None
    validator = jsonschema.Draft202012Validator(dict(schema))
    errors = sorted(validator.iter_errors(value), key=lambda error: str(error.json_path))
    return [f"/{'/'.join(map(str, error.absolute_path))}: {str(error.message)[:300]}" for error in errors[:10]]


def check_result(tool: Tool[..., Any], result: Any) -> None:
    """Raises InvalidResultError for a result that breaks the JSON Schema that a tool declares. The server does so, too."""
    if isinstance(tool.returns, Mapping) and (faults := faults_of(tool.returns, result)):
        raise InvalidResultError(f"the result of tool {tool.name!r} does not fit its schema: {'; '.join(faults)}")
