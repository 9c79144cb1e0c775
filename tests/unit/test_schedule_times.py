"""When schedules are due, over days on which clocks are changed, beside a model that looks at every minute."""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from domain.schedules import Definition, When, last_until, next_after, next_times, starts_at, zone_of
from domain.starting import Target
from tests.kit.waiting import new_id

MINUTE = timedelta(minutes=1)
BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"
CHANGES = {
    BERLIN: (date(2026, 3, 29), date(2026, 10, 25)),
    NEW_YORK: (date(2026, 3, 8), date(2026, 11, 1)),
    LORD_HOWE: (date(2026, 4, 5), date(2026, 10, 4)),  # by half an hour
}
fields = st.tuples(
    st.sampled_from(["0", "15", "30", "59", "0,30", "10-12", "*", "*/15", "5/20"]),
    st.sampled_from(["0", "1", "2", "3", "1,2", "1-3", "23", "*", "*/2", "22-23"]),
    st.sampled_from(["*", "1", "L", "25", "5,29"]),
    st.sampled_from(["*", "3", "3,10", "4-11"]),
    st.sampled_from(["*", "0", "SUN", "1-5", "7#1"]),
).map(" ".join)


def local(cron: str, zone: str, after: datetime, count: int) -> list[str]:
    """The next times as clocks show them, with the offset."""
    found: list[str] = []
    for _ in range(count):
        after = next_after(When(cron=cron, time_zone=zone), after) or after
        found.append(after.astimezone(ZoneInfo(zone)).strftime("%m-%d %H:%M %z"))
    return found


@pytest.mark.parametrize(
    ("zone", "cron", "day", "expected"),
    [
        # clocks go from 2:00 to 3:00
        (BERLIN, "30 2 * * *", "2026-03-28T12:00Z", ["03-29 03:00 +0200", "03-30 02:30 +0200"]),
        (BERLIN, "0,30 2 * * *", "2026-03-28T12:00Z", ["03-29 03:00 +0200", "03-30 02:00 +0200"]),
        (BERLIN, "30 2,3 * * *", "2026-03-28T12:00Z", ["03-29 03:00 +0200", "03-29 03:30 +0200"]),
        (BERLIN, "*/30 2 * * *", "2026-03-28T12:00Z", ["03-30 02:00 +0200", "03-30 02:30 +0200"]),
        (BERLIN, "30 * * * *", "2026-03-29T00:00Z", ["03-29 01:30 +0100", "03-29 03:30 +0200"]),
        # and from 3:00 to 2:00
        (BERLIN, "30 2 * * *", "2026-10-24T12:00Z", ["10-25 02:30 +0200", "10-26 02:30 +0100"]),
        (BERLIN, "30 2 * * *", "2026-10-25T01:10Z", ["10-26 02:30 +0100"]),
        (BERLIN, "30 * * * *", "2026-10-25T00:00Z", ["10-25 02:30 +0200", "10-25 02:30 +0100", "10-25 03:30 +0100"]),
        (NEW_YORK, "15 2 * * *", "2026-03-07T12:00Z", ["03-08 03:00 -0400", "03-09 02:15 -0400"]),
        (NEW_YORK, "15 1 * * *", "2026-10-31T12:00Z", ["11-01 01:15 -0400", "11-02 01:15 -0500"]),
        (NEW_YORK, "*/30 1 * * *", "2026-11-01T05:10Z", ["11-01 01:30 -0400", "11-01 01:00 -0500", "11-01 01:30 -0500"]),
        # by half an hour: from 2:00 to 2:30, and from 2:00 to 1:30
        (LORD_HOWE, "15 2 * * *", "2026-10-03T12:00Z", ["10-04 02:30 +1100", "10-05 02:15 +1100"]),
        (LORD_HOWE, "45 1 * * *", "2026-04-04T12:00Z", ["04-05 01:45 +1100", "04-06 01:45 +1030"]),
        (LORD_HOWE, "*/30 1 * * *", "2026-04-04T12:00Z", ["04-05 01:00 +1100", "04-05 01:30 +1100", "04-05 01:30 +1030"]),
        (LORD_HOWE, "*/15 5 * * *", "2026-04-04T12:00Z", ["04-05 05:00 +1030", "04-05 05:15 +1030"]),
        # a day that does not exist at all
        ("Pacific/Apia", "0 12 * * *", "2011-12-29T12:00Z", ["12-29 12:00 -1000", "12-31 00:00 +1400", "12-31 12:00 +1400"]),
    ],
)
def test_days_on_which_clocks_are_changed(zone: str, cron: str, day: str, expected: list[str]) -> None:
    assert local(cron, zone, datetime.fromisoformat(day), len(expected)) == expected


def of_minutes(cron: str, zone_name: str, first: date, days: int) -> list[datetime]:
    """A model of our own: all times of some days, found by looking at every minute that passes."""
    when, zone = When(cron=cron, time_zone=zone_name), ZoneInfo(zone_name)
    minute, hour, *_ = cron.split()
    from cronsim import CronSim

    parsed = CronSim(cron, datetime(2000, 1, 1))  # noqa: DTZ001
    assert when.cron == cron
    found: set[datetime] = set()
    for number in range(days):
        day = first + timedelta(days=number)
        if day.month not in parsed.months or not parsed.match_day(day):
            continue
        begin = datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC) - timedelta(hours=3)
        passing = [begin + n * MINUTE for n in range(31 * 60)]
        shown = [(moment, moment.astimezone(zone)) for moment in passing]
        of_day = [(moment, clock) for moment, clock in shown if clock.date() == day]
        if minute.startswith("*") or hour.startswith("*"):
            found |= {moment for moment, clock in of_day if clock.minute in parsed.minutes and clock.hour in parsed.hours}
            continue
        for h in parsed.hours:
            for m in parsed.minutes:
                found.add(next(moment for moment, clock in of_day if (clock.hour, clock.minute) >= (h, m)))
    return sorted(found)


@settings(max_examples=60, deadline=None)
@given(fields, st.sampled_from([(zone, day) for zone, days in CHANGES.items() for day in days]), st.data())
def test_the_times_are_those_of_the_model_forward_and_back(cron: str, change: tuple[str, date], data: st.DataObject) -> None:
    zone, day = change
    expected = of_minutes(cron, zone, day - timedelta(days=2), 5)
    when = When(cron=cron, time_zone=zone)
    begin = datetime.combine(day - timedelta(days=2), datetime.min.time(), ZoneInfo(zone)).astimezone(UTC)
    end = datetime.combine(day + timedelta(days=3), datetime.min.time(), ZoneInfo(zone)).astimezone(UTC)
    found, place = [], begin - MINUTE
    while (place := next_after(when, place) or end) < end:
        found.append(place)
    assert found == expected
    back, last = [], last_until(when, end - MINUTE)
    while last is not None and last >= begin:
        back.append(last)
        last = last_until(when, last - timedelta(microseconds=1))
    assert back == expected[::-1]
    moment = begin + timedelta(seconds=data.draw(st.integers(0, int((end - begin).total_seconds()) - 1)))
    assert next((each for each in expected if each > moment), None) in (next_after(when, moment), None)
    assert [each for each in expected if each <= moment][-1:] in ([last_until(when, moment)], [])


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 90_000), st.integers(0, 10**7), st.integers(-(10**6), 10**6))
def test_an_interval_is_due_at_whole_intervals_from_its_anchor(every_s: int, seconds: int, microseconds: int) -> None:
    anchor = datetime(2026, 3, 1, 0, 0, 7, tzinfo=UTC)
    when = When(every_s=every_s, anchored_at=anchor)
    moment = anchor + timedelta(seconds=seconds, microseconds=microseconds)
    after, until = next_after(when, moment), last_until(when, moment)
    assert after is not None and until is not None and until <= moment < after
    assert after - until == timedelta(seconds=every_s) and (until - anchor) % timedelta(seconds=every_s) == timedelta(0)


def test_an_interval_without_an_anchor_counts_from_1970() -> None:
    assert next_after(When(every_s=86_400), datetime(2026, 3, 1, 5, tzinfo=UTC)) == datetime(2026, 3, 2, tzinfo=UTC)


def test_once_is_due_once() -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    when = When(at=at)
    assert (next_after(when, at - MINUTE), next_after(when, at)) == (at, None)
    assert (last_until(when, at), last_until(when, at - MINUTE)) == (at, None)


FIVE = "a cron expression has five fields: minute, hour, day of the month, month, day of the week"


@pytest.mark.parametrize(
    ("given", "place", "told"),
    [
        ({}, (), "give exactly one of `cron`, `every_s` and `at`"),
        ({"cron": "* * * * *", "every_s": 1}, (), "give exactly one of `cron`, `every_s` and `at`"),
        ({"every_s": 5, "time_zone": "UTC"}, (), "`time_zone` goes with `cron`"),
        ({"cron": "* * * * *", "anchored_at": "2026-01-01T00:00:00Z"}, (), "`anchored_at` goes with `every_s`"),
        ({"cron": "* * * *"}, ("cron",), FIVE),
        ({"cron": "0 * * * * *"}, ("cron",), FIVE),
        ({"cron": "60 * * * *"}, ("cron",), "not a cron expression: bad minute"),
        ({"cron": "0 0 30 2 *"}, ("cron",), "not a cron expression: bad day-of-month"),
        ({"cron": "0 0 L/2/x * *"}, ("cron",), "not a cron expression: bad day-of-month"),
        ({"cron": "*", "time_zone": "Europe/Berln"}, ("time_zone",),
         "no time zone of the IANA database is called 'Europe/Berln', as Europe/Berlin is"),
        ({"cron": "*", "time_zone": "../etc/passwd"}, ("time_zone",),
         "no time zone of the IANA database is called '../etc/passwd', as Europe/Berlin is"),
        ({"at": "0001-01-01T00:00:00Z"}, ("at",), "must be a time of the years 1970 to 2500"),
        ({"at": "2501-01-01T00:00:00Z"}, ("at",), "must be a time of the years 1970 to 2500"),
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused_with_its_place(given: dict[str, object], place: tuple[str, ...], told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        When.model_validate(given)
    faults = {error["loc"]: error["msg"].removeprefix("Value error, ") for error in refused.value.errors()}
    assert faults[place] == told


@pytest.mark.parametrize("every_s", [0, 366 * 86_400 + 1])
def test_intervals_have_bounds(every_s: int) -> None:
    with pytest.raises(ValidationError):
        When(every_s=every_s)
    assert When(every_s=366 * 86_400).every_s and When(at="1970-01-01T00:00:00Z") and When(at="2500-12-31T00:00:00Z")  # type: ignore[arg-type]


def test_times_are_kept_in_utc() -> None:
    when = When.model_validate({"at": "2026-01-31T12:00:00+02:00"})
    assert when.at == datetime(2026, 1, 31, 10, tzinfo=UTC) and when.at.tzinfo is UTC
    assert zone_of(None).key == "UTC"


def test_an_expression_without_a_day_is_never_due() -> None:
    """Within fifty years, which are looked at quickly."""
    after = datetime(2096, 3, 1, tzinfo=UTC)
    assert next_after(When(cron="0 0 29 2 *"), after) == datetime(2104, 2, 29, tzinfo=UTC)  # 2100 has none
    assert next_after(When(cron="0 0 */30 2 7#5"), after) is None


def test_bounds_are_of_the_times_themselves() -> None:
    start, end = datetime(2026, 3, 1, 12, tzinfo=UTC), datetime(2026, 3, 3, 12, tzinfo=UTC)
    bounded = Definition(when=When(cron="0 12 * * *"), start=Target(agent="a"), start_at=start, end_at=end)
    day = timedelta(days=1)
    assert list(next_times(bounded, start - 10 * day, 9)) == [start, start + day, end]
    assert list(next_times(bounded, start, 1)) == [start + day]
    assert (bounded.after(end), bounded.until(end), bounded.until(end + 9 * day)) == (None, end, end)
    assert (bounded.until(start), bounded.until(start - MINUTE)) == (start, None)
    later = bounded.model_copy(update={"start_at": start + MINUTE, "end_at": end - MINUTE})
    assert list(next_times(later, start - 10 * day, 9)) == [start + day]
    assert later.until(end) == start + day and later.until(start) is None
    with pytest.raises(ValidationError, match="`start_at` is later than `end_at`"):
        Definition(when=When(every_s=1), start=Target(agent="a"), start_at=end, end_at=start)


def test_jitter_is_the_same_at_each_look_and_another_for_each_time() -> None:
    schedule_id, due = new_id(), datetime(2026, 3, 1, tzinfo=UTC)
    spread = {starts_at(schedule_id, 60, due + n * MINUTE) - due - n * MINUTE for n in range(100)}
    assert len(spread) > 90 and all(timedelta(0) <= one < timedelta(seconds=60) for one in spread)
    assert max(spread) > timedelta(seconds=50)
    berlin = due.astimezone(ZoneInfo(BERLIN))
    assert starts_at(schedule_id, 60, due) == starts_at(schedule_id, 60, berlin) != starts_at(new_id(), 60, due)
    assert starts_at(schedule_id, 0, due) == due


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "give exactly one of `workflow`, `agent`, `plan`, `tool` and `signal`"),
        ({"agent": "a", "plan": {}}, "give exactly one of `workflow`, `agent`, `plan`, `tool` and `signal`"),
        ({"tool": "a"}, "a schedule starts runs: give exactly one of `workflow`, `agent` and `plan`"),
    ],
)
def test_what_is_started_is_one_thing(given: dict[str, object], told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Definition.model_validate({"when": {"every_s": 60}, "start": given})
    assert refused.value.errors()[0]["msg"] == f"Value error, {told}"
