"""Plans in files: JSON or YAML."""

from typing import Any

from api.cli import options, output, written_plans

YAML_FILES = (".yaml", ".yml")


def plan_of(given: str) -> dict[str, Any]:
    """The plan in a file of JSON or YAML, or in JSON itself. Raises CommandFailed."""
    path = given.removeprefix("@")
    if given.lstrip().startswith("{"):
        return options.object_of("--plan", given)
    if path.endswith(YAML_FILES):
        return _yaml(path)
    return options.object_of("--plan", f"@{path}" if path.endswith(".json") else given)


def _yaml(path: str) -> dict[str, Any]:
    value = written_plans.read(path).value
    if not isinstance(value, dict):
        raise output.CommandFailed(f"--plan: {path} must hold one object", output.WRONG_USAGE)
    return value
