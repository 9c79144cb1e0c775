"""Variables that are no settings, but look like one: the setting would silently keep its default."""

from collections.abc import Iterable
from difflib import get_close_matches

from api.settings import Settings

PREFIX = "TIDELOG_"
OF_WORKERS = f"{PREFIX}WORKER_"
OF_SECRETS = f"{PREFIX}SECRET_"
"""Secrets of tools that call out have the names that their definitions say."""
LIKENESS = 0.75
"""Variables of agents have names of their own, which are less like a setting."""


def misspelt(names: Iterable[str]) -> list[tuple[str, str]]:
    """Pairs of a variable and the setting that it looks like."""
    known = {name.upper() for name in Settings.model_fields}
    found = []
    for name in sorted(names):
        rest = name.removeprefix(PREFIX)
        if rest == name or rest in known or name.startswith((OF_WORKERS, OF_SECRETS)):
            continue
        if match := get_close_matches(rest, known, 1, LIKENESS):
            found.append((name, PREFIX + match[0]))
    return found
