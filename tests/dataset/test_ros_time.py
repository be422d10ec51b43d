"""Messages at their own rates are put on the grid of frames: nearest within a tolerance, or it is said."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from ffenc import SourceError
from ffenc.dataset.sources.ros_time import Piece, Stream, nearest, on_grid

SECOND = 10**9


def stream(times: Any, *, tolerance: float = 0.05, header: Any = None) -> Stream:
    stamps = np.asarray(np.round(np.asarray(times, np.float64) * SECOND), np.int64) + 7 * SECOND
    given = (
        None if header is None else np.asarray(np.asarray(header, np.float64) * SECOND, np.int64) + 7 * SECOND
    )
    return Stream("/t", stamps, given, 100, int(tolerance * SECOND))


def grid(fps: Any = 10, which: str = "header", on_gap: str = "error", **streams: Stream) -> list[Piece]:
    return on_grid(streams, Fraction(fps), which=which, on_gap=on_gap, where="bag")


def test_each_frame_has_the_message_nearest_to_its_time() -> None:
    rng = np.random.default_rng(1)
    slow = np.arange(50) / 10 + rng.uniform(-0.02, 0.02, 50)
    fast = np.arange(2000) / 400
    (piece,) = grid(camera=stream(slow), joints=stream(fast))
    times = slow[0] + np.arange(len(piece.times)) / 10
    assert np.allclose((piece.times - 7 * SECOND) / SECOND, times, atol=1e-6)
    for name, given in (("camera", slow), ("joints", fast)):
        wanted = np.abs(given[None] - times[:, None]).argmin(1)
        assert np.array_equal(piece.picks[name], wanted)


def test_the_grid_is_exact_for_rates_that_are_not_whole() -> None:
    fps = Fraction(30000, 1001)
    (piece,) = grid(fps, camera=stream(np.arange(100_000) * 1001 / 30000, tolerance=0.01))
    assert len(piece.times) == 100_000
    exact = [7 * SECOND + int(i * SECOND / fps) for i in (1, 99_999)]
    assert [int(piece.times[i]) for i in (1, 99_999)] == exact
    assert np.array_equal(piece.picks["camera"], np.arange(100_000))


def test_it_begins_and_ends_where_all_streams_are_there() -> None:
    (piece,) = grid(camera=stream(np.arange(30) / 10), late=stream(1 + np.arange(15) / 10))
    assert (piece.times[0], len(piece.times)) == (8 * SECOND, 15)
    assert piece.cut == (pytest.approx(1.0), pytest.approx(0.5))
    with pytest.raises(SourceError, match="its topics have no time in common: .*stamps: received"):
        grid(camera=stream(np.arange(9) / 10), other=stream(100 + np.arange(9) / 10))
    with pytest.raises(SourceError, match="/t has no messages"):
        grid(camera=stream([]))


def test_what_is_missing_is_an_error_repeated_split_or_dropped() -> None:
    times = np.delete(np.arange(20) / 10, [5, 6, 12])
    with pytest.raises(
        SourceError, match=r"within 0.05 s of frame 5 .at 0.500 s; the nearest is 0.1 s away., nor of 2 "
    ):
        grid(camera=stream(times), joints=stream(np.arange(200) / 100))
    both = {"camera": stream(times), "joints": stream(np.arange(200) / 100)}
    (piece,) = grid(on_gap="repeat", **both)
    assert piece.repeated["camera"] == [5, 6, 12]
    assert piece.picks["camera"][4:8].tolist() == [4, 4, 4, 5]
    assert "joints" not in piece.repeated
    pieces = grid(on_gap="split", **both)
    assert [len(one.times) for one in pieces] == [5, 5, 7]
    assert pieces[1].picks["camera"].tolist() == [5, 6, 7, 8, 9]
    assert pieces[1].begin == 7 * SECOND + 700_000_000
    assert grid(on_gap="drop-episode", **both) == []


def test_times_are_reported() -> None:
    received = [0, 0.1, 0.2, 0.3, 0.4, 0.9, 1.0]
    header = [0, 0.1, 0.1, 0.05, 0.3, 0.8, 20.0]
    found = stream(received, header=header).report("header")
    assert (found["duplicates"], found["out_of_order"], found["clock_jumps"]) == (1, 1, 1)
    assert found["longest_gap"] == 19.2
    plain = stream(received).report("header")
    assert plain == {"topic": "/t", "messages": 7, "rate": 10.0, "jitter": 0.3, "longest_gap": 0.5}
    assert stream([0]).report("header") == {"topic": "/t", "messages": 1}


def test_a_clock_that_was_set_is_an_error() -> None:
    back = np.concatenate([np.arange(40) / 10, np.arange(40) / 10 + 1.5])
    with pytest.raises(
        SourceError, match=r"/t: its clock was set back by 2.400 s before message 40; write stamps"
    ):
        grid(camera=stream(back))
    assert len(grid(which="received", camera=stream(np.arange(80) / 10, header=back))[0].times) == 80
    years = np.concatenate([np.arange(20) / 10 - 1.6e9, np.arange(20) / 10])
    with pytest.raises(
        SourceError, match=r"1,600,000,0\d\d s from .*, 16,000,000,0\d\d frames; at most 10,000,000"
    ):
        grid(camera=stream(years))


def test_one_message_is_near_every_time() -> None:
    near, far = nearest(np.array([5], np.int64), np.array([1, 5, 9], np.int64))
    assert near.tolist() == [0, 0, 0]
    assert far.tolist() == [4, 0, 4]


def test_the_times_of_a_day_at_a_rate_with_a_large_denominator_are_exact() -> None:
    fps = Fraction(299701, 10000)
    count = 24 * 3600 * 30
    stamps = np.arange(count, dtype=np.int64) * 33_366_589
    camera = Stream("/top", stamps, None, 0, 20_000_000)
    (piece,) = on_grid({"top": camera}, fps, which="received", on_gap="repeat", where="bag")
    last = len(piece.times) - 1
    assert last > count - 100
    for frame in (0, 1, 1_000_003, last):
        assert piece.times[frame] == frame * 1_000_000_000 * fps.denominator // fps.numerator
