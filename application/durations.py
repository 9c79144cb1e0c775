"""Durations as people write them: `90s`, `15m`, `24h`, `7d`, `2w`."""

import re

EXAMPLES = "90s, 15m, 24h, 7d or 2w"
_DURATION = re.compile(r"(\d{1,9})([smhdw])", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def seconds_of(text: str) -> int | None:
    """The seconds of a duration. None: the text is none."""
    found = _DURATION.fullmatch(text)
    return None if found is None else int(found[1]) * _UNITS[found[2]]
