"""When a schedule is due: five fields of cron in a time zone, an interval, or once.

Days on which clocks are put forward or back have the rules of Debian's cron. A *fixed* expression, whose minute and hour do not
begin with `*`, is due once for each of its times of day: a time that the day does not have is due at the moment at which the clocks
are put forward, and a time that the day has twice is due at the first of the two. Any other expression follows the clock on the
wall: a time that the day does not have is left out, and a time that it has twice is due twice.

Nothing here knows the present time. Whoever asks says after, or up to, which moment.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, NamedTuple, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, AwareDatetime, Field, StringConstraints, field_validator, model_validator

from domain.kernel import Value

if TYPE_CHECKING:
    from cronsim import CronSim

LEAST_YEAR, MOST_YEAR = 1970, 2500
YEARS_LOOKED_AT = 50
"""An expression without a day in so many years is never due."""
LONGEST_INTERVAL_S = 366 * 86_400
KEPT_TIMES = 20_000
"""Answers about cron that are remembered."""
_DAY = timedelta(days=1)
_NEAR = timedelta(hours=26)
"""No clock is put forward or back by more."""


def _in_utc(moment: datetime) -> datetime:
    if not LEAST_YEAR <= moment.year <= MOST_YEAR:
        raise ValueError(f"must be a time of the years {LEAST_YEAR} to {MOST_YEAR}")
    return moment.astimezone(UTC)


Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A time with a zone, kept in UTC."""


class When(Value):
    """One of three: `cron` with its `time_zone`, `every_s`, or `at`."""

    cron: Annotated[str, StringConstraints(max_length=200, strip_whitespace=True)] | None = None
    """Minute, hour, day of the month, month, day of the week."""
    time_zone: Annotated[str, StringConstraints(max_length=100)] | None = None
    """A name of the IANA time zone database. None: UTC."""
    every_s: int | None = Field(default=None, ge=1, le=LONGEST_INTERVAL_S)
    anchored_at: Moment | None = None
    """An interval is due at this time, and at all times that are whole intervals away from it."""
    at: Moment | None = None

    @model_validator(mode="after")
    def _is_one_of_three(self) -> Self:
        if sum(each is not None for each in (self.cron, self.every_s, self.at)) != 1:
            raise ValueError("give exactly one of `cron`, `every_s` and `at`")
        if self.cron is None and self.time_zone is not None:
            raise ValueError("`time_zone` goes with `cron`")
        if self.every_s is None and self.anchored_at is not None:
            raise ValueError("`anchored_at` goes with `every_s`")
        return self

    @field_validator("cron")
    @classmethod
    def _is_cron(cls, cron: str | None) -> str | None:
        if cron is not None:
            _table(cron)
        return cron

    @field_validator("time_zone")
    @classmethod
    def _is_zone(cls, name: str | None) -> str | None:
        zone_of(name)
        return name


@lru_cache(maxsize=1_000)
def zone_of(name: str | None) -> ZoneInfo:
    """Raises ValueError."""
    try:
        return ZoneInfo(name or "UTC")
    except (ValueError, OSError, LookupError):  # no name, a directory, a name that nobody knows
        raise ValueError(f"no time zone of the IANA database is called {name!r}, as Europe/Berlin is") from None


class _Table(NamedTuple):
    """What an expression says."""

    days: "CronSim"
    months: frozenset[int]
    minutes_of_day: Sequence[int]
    """In order."""
    fixed: bool


@lru_cache(maxsize=1_000)
def _table(cron: str) -> _Table:
    """Raises ValueError."""
    from cronsim import CronSim, CronSimError  # few processes read an expression

    fields = cron.split()
    if len(fields) != 5:
        raise ValueError("a cron expression has five fields: minute, hour, day of the month, month, day of the week")
    try:
        parsed = CronSim(cron, datetime(2000, 1, 1))  # noqa: DTZ001  # only its fields are used
    except (CronSimError, ValueError, IndexError, AssertionError) as error:
        why = str(error)
        raise ValueError(f"not a cron expression: {why[:1].lower() + why[1:] or 'it cannot be read'}") from None
    minutes = sorted(60 * hour + minute for hour in parsed.hours for minute in parsed.minutes)
    fixed = not fields[0].startswith("*") and not fields[1].startswith("*")
    return _Table(parsed, frozenset(parsed.months), minutes, fixed)


def next_after(when: When, after: datetime) -> datetime | None:
    """The first time later than a moment. None: there is none."""
    if when.at is not None:
        return when.at if when.at > after else None
    if when.every_s is not None:
        return _of_interval(when.every_s, when.anchored_at, after) + timedelta(seconds=when.every_s)
    return _cron_after(when, after)


def last_until(when: When, until: datetime) -> datetime | None:
    """The last time that is not later than a moment. None: there is none."""
    if when.at is not None:
        return when.at if when.at <= until else None
    if when.every_s is not None:
        return _of_interval(when.every_s, when.anchored_at, until)
    return _cron_until(when, until)


# Kept: what is due in a schedule is asked twice, and many schedules are due at the same times.
@lru_cache(maxsize=KEPT_TIMES)
def _cron_after(when: When, after: datetime) -> datetime | None:
    return next((each for each in _cron_times(when, after, 1) if each > after), None)


@lru_cache(maxsize=KEPT_TIMES)
def _cron_until(when: When, until: datetime) -> datetime | None:
    return next((each for each in _cron_times(when, until, -1) if each <= until), None)


def _of_interval(every_s: int, anchored_at: datetime | None, until: datetime) -> datetime:
    """The last time of an interval that is not later than a moment."""
    anchor = anchored_at or datetime(LEAST_YEAR, 1, 1, tzinfo=UTC)
    return anchor + (until - anchor) // timedelta(seconds=every_s) * timedelta(seconds=every_s)


def _cron_times(when: When, moment: datetime, step: int) -> Iterator[datetime]:
    """The times near a moment and beyond it, in UTC, in order: forward (`step` 1) or back (-1)."""
    assert when.cron is not None
    table, zone = _table(when.cron), zone_of(when.time_zone)
    before, after = moment - _NEAR, moment + _NEAR
    if before.astimezone(zone).utcoffset() != after.astimezone(zone).utcoffset():
        yield from _times_around(when, moment, step)
        here = (after if step > 0 else before).astimezone(zone).date() + step * _DAY
    else:  # no clock is changed near the moment, so what lies before it today need not be looked at
        local = moment.astimezone(zone)
        minute = 60 * local.hour + local.minute
        here = local.date()
        place = bisect_left(table.minutes_of_day, minute) if step > 0 else bisect_right(table.minutes_of_day, minute)
        if _has_day(table, here):
            of_day = table.minutes_of_day[place:] if step > 0 else table.minutes_of_day[:place]
            yield from _times_of_day(table, zone, here, of_day, step)
        here += step * _DAY
    for day in _days(table, here, step):
        yield from _times_of_day(table, zone, day, table.minutes_of_day, step)


def _times_around(when: When, moment: datetime, step: int) -> Iterator[datetime]:
    """The times of the days around a moment near which clocks are changed."""
    assert when.cron is not None
    zone = zone_of(when.time_zone)
    day, last = (moment - _NEAR).astimezone(zone).date(), (moment + _NEAR).astimezone(zone).date()
    found: list[datetime] = []
    while day <= last:
        found += _times_of_changed_day(when.cron, when.time_zone, day)
        day += _DAY
    yield from found[bisect_right(found, moment) :] if step > 0 else reversed(found[: bisect_right(found, moment)])


@lru_cache(maxsize=500)
def _times_of_changed_day(cron: str, zone: str | None, day: date) -> Sequence[datetime]:
    """Kept: around such a day each look would compute them all again."""
    table = _table(cron)
    return tuple(_times_of_day(table, zone_of(zone), day, table.minutes_of_day, 1)) if _has_day(table, day) else ()


def _has_day(table: _Table, day: date) -> bool:
    return day.month in table.months and table.days.match_day(day)


def _days(table: _Table, day: date, step: int) -> Iterator[date]:
    """The days of an expression, from a day on."""
    end = day.year + step * YEARS_LOOKED_AT
    while (day.year - end) * step < 0:
        if day.month not in table.months:
            first = day.replace(day=1)
            day = (first + 32 * _DAY).replace(day=1) if step > 0 else first - _DAY
            continue
        if table.days.match_day(day):
            yield day
        day += step * _DAY


def _times_of_day(table: _Table, zone: ZoneInfo, day: date, minutes: Sequence[int], step: int) -> Iterator[datetime]:
    """The moments of some minutes of a day. On a day on which clocks are changed they are sorted, so none may be left out."""
    noon = datetime(day.year, day.month, day.day, 12, tzinfo=zone)
    begin, end = (noon - _DAY).utcoffset(), (noon + _DAY).utcoffset()
    if begin == end:
        for minute in minutes if step > 0 else reversed(minutes):
            yield datetime(day.year, day.month, day.day, minute // 60, minute % 60, tzinfo=zone).astimezone(UTC)
        return
    found: set[datetime] = set()
    for minute in minutes:
        wall = datetime(day.year, day.month, day.day, minute // 60, minute % 60, tzinfo=zone)
        found.update(_moments(wall, table.fixed))
    yield from sorted(found, reverse=step < 0)


def _moments(wall: datetime, fixed: bool) -> Sequence[datetime]:
    """The moments at which clocks show a time."""
    first, second = wall.astimezone(UTC), wall.replace(fold=1).astimezone(UTC)
    if first == second:
        return (first,)
    if first.astimezone(wall.tzinfo).replace(fold=0) == wall:  # the clocks show it twice
        return (first,) if fixed else (first, second)
    if not fixed:
        return ()
    while first.astimezone(wall.tzinfo).utcoffset() == (first - timedelta(minutes=1)).astimezone(wall.tzinfo).utcoffset():
        first -= timedelta(minutes=1)
    return (first,)
