"""The flow `backfill`: the whole refresh once for each of several moments, as the sources were known then."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta

from flows.errors import SettingValueError
from flows.settings import Settings


def moments(first: date, last: date, every_days: int) -> list[datetime]:
    """The first moments (UTC) of the days from `first` to `last`, `every_days` apart, oldest first.

    Raises:
        SettingValueError: there is no such day.
    """
    if every_days < 1 or first > last:
        problem = f"expected a first day up to {last} and at least one day between two moments, got {every_days}"
        raise SettingValueError("first", first.isoformat(), problem)
    n = (last - first).days // every_days + 1
    return [datetime.combine(first + timedelta(days=every_days * step), time(), UTC) for step in range(n)]


def settings_as_of(settings: Settings, when: list[datetime]) -> Iterator[Settings]:
    """The settings with each moment as `source.as_of`."""
    for moment in when:
        source = settings.source.model_copy(update={"as_of": moment})
        yield settings.model_copy(update={"source": source})
