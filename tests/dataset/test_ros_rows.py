"""Numbers, texts and tasks of a bag belong to the frames that they were recorded with, or are refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ffenc import ConfigError, FfencWarning, SourceError, plan_reencode
from ffenc.config.mapping import build_mapping
from ffenc.dataset.source import DatasetSource
from ffenc.dataset.sources.kind import Opening
from ffenc.dataset.sources.registry import open_source
from tests.support.recorded import Recorded, _Messages, write_mcap

BEGIN, STEP, LATE = 1_700_000_000_000_000_000, 100_000_000, 4_000_000
FRAMES = 20
MAKE = _Messages()


def camera(begin: int = BEGIN) -> Recorded:
    """A camera at 10 frames/s, whose own time stamps begin at a time; frame i is of the colour i."""
    gray = np.zeros((64, 64, 3), np.uint8)
    return [
        ("/cam", BEGIN + i * STEP + LATE, MAKE.image(begin + i * STEP, gray + i, "rgb8"))
        for i in range(FRAMES)
    ]


def joints(values: dict[int, tuple[list[str], list[float]]]) -> Recorded:
    """Joint states with the time stamps of some frames: names and positions."""
    return [
        ("/joints", BEGIN + i * STEP + LATE, MAKE.joints(BEGIN + i * STEP, names, np.array(position)))
        for i, (names, position) in values.items()
    ]


def opened(path: Path, messages: Recorded, values: dict[str, Any], **options: Any) -> DatasetSource:
    write_mcap(path, sorted(messages, key=lambda one: one[1]))
    mapping = build_mapping({"fps": 10, "cameras": {"cam": {"path": "/cam"}}, **values})
    return open_source(path, Opening(mapping=mapping, **options))


def rows(source: DatasetSource, feature: str, episode: int = 0) -> list[Any]:
    (one,) = source.read([source.episodes[episode]])
    return one.rows[feature].to_pylist()


def state(**more: Any) -> dict[str, Any]:
    return {"features": {"state": {"path": "/joints", **more}}}


def test_a_frame_that_repeats_a_message_has_its_numbers_also_if_others_are_interpolated(
    tmp_path: Path,
) -> None:
    given = joints({i: (["a"], [float(i)]) for i in range(FRAMES) if not 5 < i < 15})
    with pytest.warns(FfencWarning, match="/joints: 9 frames repeat the previous message"):
        source = opened(tmp_path / "a.mcap", camera() + given, state(interpolate=True), on_gap="repeat")
    assert rows(source, "state") == [0, 1, 2, 3, 4, *[5] * 10, 15, 16, 17, 18, 19]


def test_joints_that_change_their_order_are_found_by_name_or_refused(tmp_path: Path) -> None:
    one, other = (["a", "b"], [1.0, 2.0]), (["b", "a"], [2.0, 1.0])
    given = camera() + joints({i: other if i == 7 else one for i in range(FRAMES)})
    source = opened(tmp_path / "a.mcap", given, state(names=["a", "b"]))
    assert rows(source, "state") == [[1, 2]] * FRAMES
    source = opened(tmp_path / "b.mcap", given, state())
    with pytest.raises(SourceError, match=r"message 7: its joints are b, a; .* a, b\. Name the joints"):
        rows(source, "state")


def test_the_order_of_joints_is_the_same_in_all_recordings(tmp_path: Path) -> None:
    folder = tmp_path / "bags"
    folder.mkdir()
    for number, names in enumerate((["a", "b"], ["b", "a"])):
        write_mcap(
            folder / f"{number}.mcap", camera() + joints({i: (names, [1.0, 2.0]) for i in range(FRAMES)})
        )
    mapping = build_mapping({"fps": 10, "cameras": {"cam": {"path": "/cam"}}, **state()})
    source = open_source(folder, Opening(mapping=mapping))
    assert rows(source, "state") == [[1, 2]] * FRAMES
    with pytest.raises(SourceError, match=r"1\.mcap: /joints, message 0: its joints are b, a"):
        rows(source, "state", 1)


def test_times_of_two_clocks_are_not_compared(tmp_path: Path) -> None:
    """A camera's own clock, and topics whose messages have no time stamps."""
    texts = [("/task", BEGIN + i * STEP, MAKE.text(f"task {i}")) for i in (0, 10)]
    numbers = [("/episode", BEGIN + i * STEP, MAKE.number(i)) for i in (0, 10)]
    commands = [("/command", BEGIN + i * STEP, MAKE.array(np.array([float(i)]))) for i in range(FRAMES)]
    given = camera(7 * STEP) + texts + numbers + commands
    cases: dict[str, dict[str, Any]] = {
        "task": {"task": {"path": "/task"}},
        "episode": {"episodes": {"topic": "/episode", "between": []}},
        "command": {"features": {"action": {"path": "/command"}}},
    }
    for topic, values in cases.items():
        with pytest.raises(
            SourceError,
            match=rf"/cam differ by 1,6.* compared with /{topic}, .*: received",
        ):
            opened(tmp_path / f"{topic}.mcap", given, values)
        received = {**values, "time": {"stamps": "received"}}
        source = opened(tmp_path / f"{topic}.mcap", given, received)
        if topic == "task":
            (one,) = source.read(source.episodes)
            assert one.row_tasks is not None
            assert [one.tasks[i] for i in one.row_tasks] == ["task 0"] * 10 + ["task 10"] * 10
        elif topic == "episode":
            assert [one.length for one in source.episodes] == [10, 10]
        else:
            assert rows(source, "action") == list(range(FRAMES))


def test_a_single_text_is_the_task_of_all_rows_whatever_the_clock(tmp_path: Path) -> None:
    given = [*camera(7 * STEP), ("/task", BEGIN + 3 * STEP, MAKE.text("lift"))]
    source = opened(tmp_path / "a.mcap", given, {"task": {"path": "/task"}})
    assert list(source.tasks()) == ["lift"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"scale": 0.5}, r"state\.scale: does not apply to texts"),
        ({"columns": [0]}, r"state\.columns: does not apply to texts"),
        ({"interpolate": True}, r"state\.interpolate: does not apply to texts"),
        ({"dtype": "float32"}, r"state\.dtype: is float32, but /said holds texts"),
    ],
)
def test_settings_that_texts_do_not_have_are_refused(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    given = camera() + [("/said", BEGIN + i * STEP, MAKE.text(f"word {i}")) for i in range(FRAMES)]
    values = {"features": {"state": {"path": "/said"}}}
    assert rows(opened(tmp_path / "a.mcap", given, values), "state")[:2] == ["word 0", "word 1"]
    with pytest.raises(ConfigError, match=said):
        opened(tmp_path / "a.mcap", given, {"features": {"state": {"path": "/said", **more}}})


def test_a_number_that_is_not_finite_is_found_before_anything_is_encoded(tmp_path: Path) -> None:
    given = camera() + joints({i: (["a"], [np.nan if i == 3 else 1.0]) for i in range(FRAMES)})
    write_mcap(tmp_path / "a.mcap", given)
    mapping = build_mapping({"fps": 10, "cameras": {"cam": {"path": "/cam"}}, **state()})
    with pytest.raises(SourceError, match=r"a\.mcap: /joints, episode 0, row 3: number 0 of state is nan"):
        plan_reencode(tmp_path / "a.mcap", tmp_path / "out", mapping=mapping)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a.mcap"]


@pytest.mark.parametrize(("back", "said"), [(2, False), (6, True)])
def test_a_clock_that_is_set_back_by_less_than_a_second_is_reported(
    tmp_path: Path, back: int, said: bool
) -> None:
    gray = np.zeros((64, 64, 3), np.uint8)
    given = [
        ("/cam", BEGIN + i * STEP, MAKE.image(BEGIN + (i if i < 10 else i - back) * STEP, gray + i, "rgb8"))
        for i in range(FRAMES)
    ]
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        opened(tmp_path / "a.mcap", given, {})
        opened(tmp_path / "b.mcap", given, {"time": {"stamps": "received"}})
    wanted = (
        "/cam: the time stamps go back by 0.500 s at message 10, and 6 messages have times of earlier ones"
    )
    assert [wanted in str(one.message) for one in found] == [True] * said


def test_what_is_left_out_at_the_ends_is_reported_with_its_topic(tmp_path: Path) -> None:
    given = camera() + [("/command", BEGIN + i * STEP, MAKE.array(np.array([1.0]))) for i in range(3, 8)]
    given += [("/episode", BEGIN + i * STEP, MAKE.number(i)) for i in (0, 4)]
    values: dict[str, Any] = {"features": {"action": {"path": "/command"}}}
    with pytest.warns(FfencWarning, match=r"the last 1\.2 s are left out: /command ends earlier"):
        source = opened(tmp_path / "a.mcap", given, values)
    assert [one.length for one in source.episodes] == [5]
    with pytest.warns(FfencWarning, match=r"the last 1\.2 s are left out: /command ends earlier"):
        source = opened(
            tmp_path / "b.mcap", given, {**values, "episodes": {"topic": "/episode", "between": []}}
        )
    cuts = [one.notes["source"]["cut_seconds"] for one in source.read(source.episodes)]  # type: ignore[index]
    assert cuts == [
        [pytest.approx(0.3), pytest.approx(0.1)],
        [0, pytest.approx(1.2)],
    ]


def test_settings_that_would_have_no_effect_or_store_no_text_are_refused(tmp_path: Path) -> None:
    given = camera() + [("/command", BEGIN + i * STEP, MAKE.array(np.array([0.5, 2]))) for i in range(FRAMES)]
    action = {"path": "/command"}
    cases: list[tuple[dict[str, Any], str]] = [
        ({"task": action}, r"task\.path: /command has messages of .*Float64MultiArray; expected texts"),
        (
            {"features": {"observation.stamps.cam": action}, "time": {"keep": True}},
            "observation.stamps.cam: is the name of a time that keep stores",
        ),
        (
            {"features": {"action": {**action, "columns": [2]}}},
            r"features\.action\.columns: \[2\]: .* in /command",
        ),
        (
            {"features": {"action": {**action, "dtype": "int64"}}},
            r"/command, row 0: 0\.5 is not a number of dtype",
        ),
        (
            {"cameras": {"cam": {"path": "/cam"}, "observation.images.cam": {"path": "/cam"}}},
            r"cameras\.observation\.images\.cam: is defined twice, as cam too",
        ),
    ]
    for values, said in cases:
        with pytest.raises((ConfigError, SourceError), match=said):
            opened(tmp_path / "a.mcap", given, values)


def test_values_between_episodes_that_the_topic_cannot_have_are_refused(tmp_path: Path) -> None:
    given = camera()
    given += [("/number", BEGIN + i * STEP, MAKE.number(i)) for i in (0, 10)]
    given += [("/word", BEGIN + i * STEP, MAKE.text(f"word {i}")) for i in (0, 10)]
    for topic, right, wrong, kind in (("/number", 0, "idle", "numbers"), ("/word", "word 0", -1, "texts")):
        episodes = {"topic": topic, "between": [right]}
        source = opened(tmp_path / "a.mcap", given, {"episodes": episodes})
        assert [one.length for one in source.episodes] == [10]
        with pytest.raises(ConfigError, match=f"{wrong!r} is never a value of {topic}, which has {kind}"):
            opened(tmp_path / "a.mcap", given, {"episodes": {"topic": topic, "between": [right, wrong]}})
