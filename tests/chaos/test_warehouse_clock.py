"""A clock that jumps: versions stand in the order they were made in, whatever any clock or file's time says."""

from __future__ import annotations

import os
import random
import sys
from datetime import UTC, datetime, timedelta

import warehouse.commits
import warehouse.locking
import warehouse.root
from warehouse import Warehouse, arrow_table

# Back by an hour, on by a year, the two changes of summer time, a step of NTP, and far beyond all of them.
JUMPS_S = (-3600, 365 * 86_400, 3600, -0.4, 0.4, -40 * 365 * 86_400, 40 * 365 * 86_400)


class JumpingClock:
    """Stands in for `datetime` and for `time` where the warehouse asks them what time it is."""

    def __init__(self, seed: int) -> None:
        self._random, self._now = random.Random(seed), datetime(2026, 3, 29, 0, 59, tzinfo=UTC)
        self.jumps = 0

    def jump(self) -> None:
        self.jumps += 1
        moved = self._now + timedelta(seconds=self._random.choice(JUMPS_S))
        self._now = min(max(moved, datetime(1980, 1, 1, tzinfo=UTC)), datetime(2090, 1, 1, tzinfo=UTC))

    def now(self, zone: object = None) -> datetime:
        self.jump()
        return self._now

    def time(self) -> float:
        return self.now().timestamp()


def test_T_S3_two_hundred_jumps_turn_no_order_around(tmp_path, monkeypatch):
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}", file=sys.stderr)
    clock, dice = JumpingClock(seed), random.Random(seed)
    for module in (warehouse.commits, warehouse.locking):
        monkeypatch.setattr(module, "datetime", clock)
    monkeypatch.setattr(warehouse.root, "time", clock)
    house = Warehouse(tmp_path / "w")
    published: list[str] = []
    for number in range(60):
        with house.lock("a run"):
            holder = house.holder()
            assert holder is not None and holder["command"] == "a run"
            builder = house.begin(house.current())
            builder.replace("items", arrow_table("items", {"item_id": [f"i{number}"], "attributes": ["{}"]}))
            builder.stage("ingest", key=f"key {number}", summary={"n": number})
            snapshot = builder.commit()
            before = house.current()
            house.publish(snapshot)
            published.append(snapshot.id)
            folder = tmp_path / "w" / "snapshots" / snapshot.id
            stamp = clock.time()
            os.utime(folder, (stamp, stamp))
            if dice.random() < 0.1:
                house.gc(keep=3, min_age_s=dice.choice((0.0, 86_400.0)))
        assert before is None or snapshot.counter > before.counter
        current = house.current()
        assert current is not None and current.id == snapshot.id and current.rows("items") == 1
        kept = [one.id for one in house.snapshots()]
        assert kept[:3] == published[::-1][:3]
        assert kept == [one for one in reversed(published) if one in set(kept)]
        found = house.find_stage("ingest", f"key {number}")
        assert found is not None and found.id == snapshot.id
    assert clock.jumps >= 200
