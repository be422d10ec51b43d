"""How many units of work run at once."""

from __future__ import annotations

import pytest

from ffenc.parallel.pool import even_rounds


@pytest.mark.parametrize(
    ("units", "workers", "at_once"),
    [(3, 2, 3), (5, 2, 3), (4, 2, 2), (12, 2, 2), (13, 2, 2), (1, 1, 1), (7, 1, 1), (5, 4, 5), (11, 4, 6)],
)
def test_the_last_round_leaves_no_worker_idle_where_up_to_twice_as_many_can_help(
    units: int, workers: int, at_once: int
) -> None:
    assert even_rounds(units, workers) == at_once
