"""How people write a span of time: `90s`, `1h30m`, `7d`."""

import math
import re
from datetime import datetime, timedelta
from typing import Any

from tidelog.errors import PermanentError

UNITS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
LONGEST_S = 10 * 366 * 86_400
_SPAN = re.compile(r"(?:\d{1,9}(?:\.\d{1,6})?[wdhms])+", re.ASCII)
_PART = re.compile(r"([\d.]+)([wdhms])", re.ASCII)


def span_of(time: Any) -> tuple[float | None, datetime | None]:
    """Seconds, or a time. Raises PermanentError."""
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise PermanentError("the time to sleep until has no time zone: datetime.now(UTC) + …")
        return None, time
    if isinstance(time, timedelta):
        seconds = time.total_seconds()
    elif isinstance(time, str):
        if not _SPAN.fullmatch(time):
            raise PermanentError(f"a time is written as 90s, 15m, 1h30m, 7d or 2w, not {time!r:.80}")
        seconds = sum(float(number) * UNITS[unit] for number, unit in _PART.findall(time))
    elif isinstance(time, int | float) and not isinstance(time, bool):
        seconds = float(time)
    else:
        raise PermanentError(f"a time is a number of seconds, a text such as 1h30m, a timedelta or a datetime, not {time!r:.80}")
    if math.isnan(seconds) or not 0 <= seconds <= LONGEST_S:
        raise PermanentError(f"a sleep takes 0 seconds to 10 years, not {seconds:g} seconds")
    return seconds, None
