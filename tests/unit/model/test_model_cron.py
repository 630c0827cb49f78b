"""Cron schedules: what is due when, in which zone, and what is refused."""

from __future__ import annotations

import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sagong.errors import InvalidArgument
from sagong.model.cron import parse


def at(text: str) -> float:
    """A moment in UTC."""
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.UTC).timestamp()


@pytest.mark.parametrize(
    ("schedule", "after", "due"),
    [
        ("* * * * *", "2024-01-01T00:00:30", "2024-01-01T00:01"),
        ("*/15 * * * *", "2024-01-01T00:46", "2024-01-01T01:00"),
        ("30 4 * * *", "2024-01-01T04:30", "2024-01-02T04:30"),
        ("0 0 31 * *", "2024-01-31T12:00", "2024-03-31T00:00"),
        ("0 0 29 2 *", "2024-03-01T00:00", "2028-02-29T00:00"),
        ("0 9 * * mon-fri", "2024-01-05T10:00", "2024-01-08T09:00"),
        ("0 9 * * SUN", "2024-01-01T00:00", "2024-01-07T09:00"),
        ("0 0 */10 * 6", "2024-01-02T00:00", "2024-01-06T00:00"),
        ("0 0 */1 * 6", "2024-01-01T00:00", "2024-01-06T00:00"),
        ("0 0 13 * fri", "2024-09-01T00:00", "2024-09-06T00:00"),
        ("5,35 8-10/2 1 JAN,JUL *", "2024-01-01T10:10", "2024-01-01T10:35"),
        ("@daily", "2024-01-01T00:00", "2024-01-02T00:00"),
        ("@hourly", "2024-01-01T00:00", "2024-01-01T01:00"),
        ("@every 90s", "2024-01-01T00:00", "2024-01-01T00:01:30"),
        ("1/20 * * * *", "2024-01-01T00:02", "2024-01-01T00:21"),
    ],
)
def test_the_next_time_is_found(schedule: str, after: str, due: str) -> None:
    assert parse(schedule).after(at(after)) == at(due)


def test_a_time_zone_moves_it_and_summer_time_is_minded() -> None:
    berlin = parse("30 9 * * *", "Europe/Berlin")
    assert berlin.after(at("2024-01-01T00:00")) == at("2024-01-01T08:30")
    assert berlin.after(at("2024-07-01T00:00")) == at("2024-07-01T07:30")
    assert parse("TZ=Asia/Seoul 0 0 * * *").after(at("2024-01-01T00:00")) == at("2024-01-01T15:00")


def test_a_time_that_the_clock_skips_does_not_come() -> None:
    due = parse("30 2 * * *", "Europe/Berlin").after(at("2024-03-30T12:00"))
    assert due == at("2024-04-01T00:30"), "on 31 March 2024 there was no 02:30 in Berlin"


def test_what_never_comes_is_never_due() -> None:
    assert parse("0 0 30 2 *").after(at("2024-01-01T00:00")) is None


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("", "expected exactly 5 fields, found 0: []"),
        ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
        ("60 * * * *", "end of range (60) above maximum (59): 60"),
        ("* 24 * * *", "end of range (24) above maximum (23): 24"),
        ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
        ("* * * 13 *", "end of range (13) above maximum (12): 13"),
        ("* * * * 7", "end of range (7) above maximum (6): 7"),
        ("a * * * *", 'failed to parse int from a: strconv.Atoi: parsing "a": invalid syntax'),
        ("*/b * * * *", 'failed to parse int from b: strconv.Atoi: parsing "b": invalid syntax'),
        ("*/0 * * * *", "step of range should be a positive number: */0"),
        ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
        ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
        ("1/2/3 * * * *", "too many slashes: 1/2/3"),
        ("@never", "unrecognized descriptor: @never"),
        ("@every x", 'failed to parse duration @every x: time: invalid duration "x"'),
        ("TZ=No/Where * * * * *", "unknown time zone No/Where"),
    ],
)
def test_nonsense_is_refused_in_upstreams_words(wrong: str, said: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse(wrong)
    assert caught.value.message == said


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["*/7 3-5 * * *", "0 0 1-7 * 1", "13 13 * 2,6 *", "*/10 * * * 0"]),
    st.integers(int(at("2023-01-01T00:00")), int(at("2026-01-01T00:00"))),
)
def test_it_is_the_first_that_fits(schedule: str, moment: int) -> None:
    """Against the naive way: look at minute after minute."""
    found = parse(schedule)
    due = found.after(moment)
    assert due is not None and due > moment and due % 60 == 0
    minute = moment // 60 * 60 + 60
    while minute < due:
        one = datetime.datetime.fromtimestamp(minute, datetime.UTC)
        fits = one.minute in found.minutes and one.hour in found.hours
        assert not (fits and found._due_on(one.date())), one
        minute += 60 if fits else 600 - minute % 600
