"""Plans in files: JSON or YAML."""

from pathlib import Path
from typing import Any

from api.cli import options, output

YAML_FILES = (".yaml", ".yml")


def plan_of(given: str) -> dict[str, Any]:
    """The plan in a file of JSON or YAML, or in JSON itself. Raises CommandFailed."""
    path = given.removeprefix("@")
    if given.lstrip().startswith("{"):
        return options.object_of("--plan", given)
    if path.endswith(YAML_FILES):
        return _yaml(Path(path))
    return options.object_of("--plan", f"@{path}" if path.endswith(".json") else given)


def _yaml(path: Path) -> dict[str, Any]:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    from tidelog.errors import PermanentError
    from tidelog.values import to_json

    try:
        value = to_json(YAML(typ="safe", pure=True).load(path.read_text("utf-8")), "--plan", max_bytes=None)
    except OSError as error:
        raise output.CommandFailed(f"--plan: {error.strerror}: {error.filename}", output.WRONG_USAGE) from None
    except (YAMLError, UnicodeDecodeError, RecursionError) as error:
        told = " ".join(str(error).split())
        why = output.one_line(f"--plan: {path} is not YAML: {output.shortened(told, 200)}")
        raise output.CommandFailed(why, output.WRONG_USAGE) from None
    except (ValueError, PermanentError) as error:
        raise output.CommandFailed(output.one_line(f"--plan: {path}: {error}"), output.WRONG_USAGE) from None
    if not isinstance(value, dict):
        raise output.CommandFailed(f"--plan: {path} must hold one object", output.WRONG_USAGE)
    return value
