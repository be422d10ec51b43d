"""What could not be saved is refused when it is given; what other programs do to a recording is noticed."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ffenc import ConfigError, DestinationError, FfencError, FfencWarning, SourceError
from ffenc.config.preset import CameraPreset
from ffenc.config.source import CameraSource
from ffenc.config.transform import Transform
from ffenc.recording.cameras import open_camera
from ffenc.recording.recorder import Recorder
from ffenc.recording.recover import recover
from ffenc.recording.results import AddedRow
from ffenc.recording.session import record_episodes
from tests.recording.recording import (
    COLOUR,
    FPS,
    HEIGHT,
    WIDTH,
    assert_sound,
    episodes,
    notes,
    picture,
    record,
    robot,
    rows,
    shown,
    states,
    wait_for,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of one episode."""
    root = tmp_path_factory.mktemp("made") / "data"
    with Recorder(robot(), root) as recorder:
        recorder.start_episode()
        record(recorder, range(3))
        recorder.save_episode()
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "data"))


# ---- values ------------------------------------------------------------------------------------------------


def test_timestamps_are_any_finite_number_and_nothing_else(tmp_path: Path) -> None:
    given = (1, 1.5, np.float32(2.5), np.int64(3), np.array(4.0), Fraction(9, 2), Decimal("5.5"), True, None)
    refused = (
        *([1.0], np.array([1.0]), "1.0", b"1", 10**400, -(10**5000), float("nan"), np.inf, 1j, object()),
        *({}, np.datetime64("2026-01-01")),
    )
    with Recorder(robot(), tmp_path / "data") as recorder:
        recorder.start_episode()
        for row, stamp in enumerate(given):
            for bad in refused:
                with pytest.raises(ConfigError, match="camera top: timestamp=.* finite number of seconds"):
                    recorder.write("top", picture(row), timestamp=bad)  # type: ignore[arg-type]
            recorder.write("top", picture(row), timestamp=stamp)  # type: ignore[arg-type]
            recorder.add_row(state=[float(row)])
        recorder.save_episode()
    assert_sound(tmp_path / "data")
    assert notes(tmp_path / "data", 0)["timestamps"]["top"] == [1, 1.5, 2.5, 3, 4, 4.5, 5.5, 1, None]
    assert shown(tmp_path / "data", 0) == list(range(len(given)))


class _Odd:
    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("is on another device")


def test_every_value_is_converted_or_refused_at_its_row(tmp_path: Path) -> None:
    kinds = {
        "half": ("float16", [2]),
        "double": ("float64", [1]),
        "byte": ("uint8", [3]),
        "huge": ("uint64", [1]),
        "flag": ("bool", [2]),
        "note": ("string", [1]),
    }
    features = {name: {"dtype": kind, "shape": shape, "names": None} for name, (kind, shape) in kinds.items()}
    good: dict[str, Any] = {
        "half": np.array([1.5, 60000], np.float64),
        "double": np.float32(0.5),
        "byte": [0, 127, 255],
        "huge": 2**64 - 1,
        "flag": (True, np.bool_(False)),
        "note": "grüß dich\n\0",
    }
    refused = (
        ("half", [1.0, 70000.0], "beyond the range of float16"),
        ("half", [1.0, None], "object is not accepted"),
        ("half", [[1.0], 2.0], "different lengths|not accepted"),
        ("half", _Odd(), "another device"),
        ("double", 10**400, "object is not accepted"),
        ("double", float("nan"), "spoil"),
        ("double", "1", "is not accepted"),
        ("double", -1e200, "beyond 1e.150"),
        ("double", 1 + 1j, "complex128 is not accepted"),
        ("byte", [0, 1, 256], "beyond the range of uint8"),
        ("byte", [0, 1, -1], "beyond the range of uint8"),
        ("byte", [0.0, 1.0, 2.0], "float64 is not accepted"),
        ("byte", [0, 1], "2 numbers are not accepted; expected 3"),
        ("huge", -1, "beyond the range of uint64"),
        ("flag", [0, 1], "int64 is not accepted"),
        ("note", "\ud800", "UTF-8"),
        ("note", b"bytes", "expected a text"),
        ("note", ["a"], "expected a text"),
    )
    with Recorder(robot(), tmp_path / "data", features=features) as recorder:
        recorder.start_episode()
        recorder.write("top", picture(0))
        for row in (5, "row", [("a", 1)]):
            with pytest.raises(ConfigError, match="a row is a mapping"):
                recorder.add_row(row)  # type: ignore[arg-type]
        for name, value, text in refused:
            with pytest.raises(ConfigError, match=f"{name}: .*({text})"):
                recorder.add_row({**good, name: value})
        assert recorder.add_row(good) == AddedRow(0)
        recorder.save_episode()
    assert_sound(tmp_path / "data")
    [row] = rows(tmp_path / "data", 0)
    assert {name: row[name] for name in good} == {
        **{"half": [1.5, 60000.0], "double": 0.5, "byte": [0, 127, 255], "huge": 2**64 - 1},
        **{"flag": [True, False], "note": "grüß dich\n\0"},
    }


def _jpeg(width: int, height: int, mode: str = "RGB") -> bytes:
    image = io.BytesIO()
    Image.new(mode, (width, height)).save(image, format="JPEG")
    return image.getvalue()


def test_a_jpeg_of_another_size_or_kind_is_refused_at_its_row(tmp_path: Path) -> None:
    good = _jpeg(WIDTH, HEIGHT)
    with Recorder(robot(), tmp_path / "data", jpeg={"top"}) as recorder:
        recorder.start_episode()
        for name in ("tpo", None, 0):
            with pytest.raises(ConfigError, match=f"no camera {name!r}; there are top"):
                recorder.write(name, good)  # type: ignore[arg-type]
        for frame, text in (
            (_jpeg(WIDTH // 2, HEIGHT), "got a 32x48 8-bit JPEG; expected a whole JPEG image of 64x48"),
            (good[:-20], "cut short"),
            (good[:30], "cut short"),
            (_jpeg(WIDTH, HEIGHT, "CMYK"), "4 channels"),
            (b"\xff\xd8\xff" + bytes(100), "cut short or damaged"),
        ):
            with pytest.raises(ConfigError, match=f"camera top: .*{text}"):
                recorder.write("top", frame)
        for frame in (good, good + bytes(9), _jpeg(WIDTH, HEIGHT, "L")):  # some cameras fill up with zeros
            recorder.write("top", frame)
            recorder.add_row()
        assert recorder.save_episode().rows == 3
    assert_sound(tmp_path / "data")


@pytest.mark.parametrize(
    ("feature", "said"),
    [
        ({"dtype": "date32", "shape": [1]}, "dtype 'date32' of x is not recorded; accepted: float32"),
        ({"dtype": "language", "shape": [1]}, "dtype 'language'"),
        ({"dtype": "float32", "shape": [2, 3]}, r"shape \[2, 3\] of x"),
        ({"dtype": "float32", "shape": []}, r"shape \[\] of x"),
        ({"dtype": "string", "shape": [2]}, r"shape \[2\] of x"),
        ({"dtype": "float32", "shape": [0]}, "such as float32"),
        ({"dtype": "float32", "shape": [1], "names": ["\ud800"]}, "as JSON"),
        ({"dtype": "float32", "shape": [1], "names": {1, 2}}, "as JSON"),
        (["float32"], "such as float32"),
    ],
)
def test_columns_that_are_not_recorded_are_refused_before_anything(
    tmp_path: Path, feature: Any, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        Recorder(robot(), tmp_path / "data", features={"x": feature})
    with pytest.raises(ConfigError, match="robot_type"):
        Recorder(robot(robot_type="\ud800"), tmp_path / "data")
    for seconds in (-1, 0, float("nan"), float("inf"), "x", None, True):
        with pytest.raises(ConfigError, match="stall_seconds=.* number of seconds above 0"):
            Recorder(robot(), tmp_path / "data", stall_seconds=seconds)  # type: ignore[arg-type]
    same = CameraPreset(
        width=WIDTH, height=HEIGHT, encoder=COLOUR, transform=Transform(resize=(WIDTH, HEIGHT))
    )
    with pytest.raises(ConfigError, match="would have no effect, top already is like that; leave it out"):
        Recorder(robot().replace(cameras={"top": same}), tmp_path / "data")
    with pytest.raises(ConfigError, match="jpeg: 'top' is not accepted; expected a list of cameras"):
        Recorder(robot(), tmp_path / "data", jpeg="top")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


# ---- datasets that do not take them ------------------------------------------------------------------------


def test_rows_that_a_dataset_does_not_have_are_refused_at_the_first(tmp_path: Path) -> None:
    root = tmp_path / "data"
    with Recorder(robot(), root) as recorder:  # cameras alone
        recorder.start_episode()
        recorder.write("top", picture(0))
        recorder.add_row()
        recorder.save_episode()
    with Recorder(robot(), root) as recorder:
        recorder.start_episode()
        recorder.write("top", picture(0))
        with pytest.raises(
            ConfigError, match="the row has action, observation.state; all rows have no values"
        ):
            recorder.add_row(state=[1.0], action=[1.0])
        recorder.add_row()
        recorder.save_episode()
    assert_sound(root)


def test_cameras_alone_are_not_recorded_into_a_dataset_of_rows(root: Path) -> None:
    camera = open_camera("top", CameraSource(type="test"), width=WIDTH, height=HEIGHT, fps=Fraction(FPS))
    with (
        pytest.raises(DestinationError, match=r"have values of observation.state, action.* another folder"),
        Recorder(robot(), root) as recorder,
    ):
        record_episodes(recorder, [camera], episodes=1, seconds=1)


def _rewritten(place: str, change: Callable[[pa.Table], pa.Table]) -> Callable[[Path], None]:
    def harm(root: Path) -> None:
        [path] = root.glob(place)
        table = pq.read_table(path)
        pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)

    return harm


def _feature(name: str, **fields: Any) -> Callable[[Path], None]:
    def harm(root: Path) -> None:
        path = root / "meta/info.json"
        info = json.loads(path.read_text())
        info["features"].setdefault(name, {}).update(fields)
        path.write_text(json.dumps(info))

    return harm


TOP = "observation.images.top"
DATA, LIST = "data/*/*.parquet", "meta/episodes/*/*.parquet"


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (_rewritten(DATA, lambda t: t.append_column("extra", pa.array([1] * len(t)))), "column extra, which"),
        (_rewritten(DATA, lambda t: t.drop_columns("action")), "no column action, which"),
        (
            _rewritten(DATA, lambda t: t.set_column(0, t.column_names[0], pa.array(["x"] * len(t)))),
            "observation.state has rows of",
        ),
        (_feature("observation.state", shape=[1, 2]), r"shape \[1, 2\] of observation.state"),
        (_feature("observation.state", dtype="string", shape=[1]), "observation.state"),
        (
            _rewritten(
                LIST, lambda t: t.append_column("stats/action/q05", pa.array([[0.0]], pa.list_(pa.float64())))
            ),
            "stats/action/q05",
        ),
        (
            _rewritten(LIST, lambda t: t.set_column(t.column_names.index("tasks"), "tasks", pa.array([7]))),
            "column tasks is int64",
        ),
        (
            _rewritten("meta/tasks.parquet", lambda t: t.append_column("more", pa.array([pa.scalar(1)]))),
            None,  # it stays null
        ),
    ],
)
def test_a_dataset_that_takes_no_more_is_refused_before_anything_is_recorded(
    root: Path, harm: Callable[[Path], None], said: str | None
) -> None:
    harm(root)
    if said is None:
        with Recorder(robot(), root) as recorder:
            recorder.start_episode("another task")
            record(recorder, range(2))
            assert recorder.save_episode().index == 1
        return
    with pytest.raises((ConfigError, SourceError, DestinationError), match=said), Recorder(robot(), root):
        pass
    assert not (root / ".recording").exists()


# ---- other programs ----------------------------------------------------------------------------------------

FORK = """
import os, sys
from pathlib import Path
from ffenc.recording.recorder import Recorder
from ffenc.recording.results import AddedRow
from tests.recording.recording import picture, record, robot
from tests.support.forked import refused_here
with Recorder(robot(), Path(sys.argv[1])) as recorder:
    for way in ("exit", "return", "stay"):
        recorder.start_episode()
        record(recorder, range(10))
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writing)
            refused_here(
                lambda: recorder.write("top", picture(1)),
                recorder.add_row,
                recorder.save_episode,
                recorder.discard_episode,
                recorder.start_episode,
            )
            if way == "exit":
                sys.exit(7)
            if way == "stay":
                os.read(reading, 1)
            break
        os.close(reading)
        if way != "stay":
            status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert status == {"exit": 7, "return": 0}[way], status
        record(recorder, range(10, 20))
        recorder.save_episode()
        os.close(writing)
    else:
        os.wait()
        print("parent")
"""


def test_a_fork_leaves_the_recording_to_its_parent(tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FORK, str(tmp_path / "data")], capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "parent\n", "")
    assert_sound(tmp_path / "data")
    for episode in range(3):
        assert shown(tmp_path / "data", episode) == states(tmp_path / "data", episode) == list(range(20))


def test_a_fork_that_lives_longer_than_a_recording_does_not_keep_its_dataset_locked(tmp_path: Path) -> None:
    """Such as the worker of a data loader."""
    reading, writing = os.pipe()
    with pytest.warns(FfencWarning, match="not saved"), Recorder(robot(), tmp_path / "data") as recorder:
        recorder.start_episode()
        record(recorder, range(10))
        child = os.fork()
        if child == 0:
            os.write(writing, b"x")
            signal.pause()
        os.read(reading, 1)
    try:
        [recovered] = recover(tmp_path / "data").episodes
        assert recovered.rows == 10
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)
    assert_sound(tmp_path / "data")


def test_a_recorder_that_is_not_open_says_so(tmp_path: Path) -> None:
    recorder = Recorder(robot(), tmp_path / "data")
    for _ in range(2):
        for call in (recorder.start_episode, recorder.add_row, recorder.save_episode):
            with pytest.raises(ConfigError, match="the recorder is not open: use it in a with statement"):
                call()
        with recorder:
            pass


def test_a_program_may_change_its_folder_while_it_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    with Recorder(robot(), "data") as recorder:
        for number in range(2):
            recorder.start_episode()
            record(recorder, range(10))
            monkeypatch.chdir(tmp_path / "other")
            assert recorder.save_episode().index == number
    assert list((tmp_path / "other").iterdir()) == []
    assert_sound(tmp_path / "data")


@pytest.mark.parametrize("end", ["save_episode", "discard_episode"])
def test_what_another_thread_writes_while_an_episode_ends_is_refused_at_once(
    tmp_path: Path, end: str
) -> None:
    root = tmp_path / "data"
    longest, refused, ended = 0.0, set(), threading.Event()

    def write() -> None:
        nonlocal longest
        number = 10
        while not ended.is_set():
            began = time.monotonic()
            try:
                recorder.write("top", picture(number % 50))
                recorder.add_row(state=[float(number), 0.0], action=[0.0])
                number += 1
            except ConfigError as error:
                refused.add(str(error).partition(":")[0])
            longest = max(longest, time.monotonic() - began)

    with Recorder(robot(), root, stall_seconds=20) as recorder:
        recorder.start_episode()
        record(recorder, range(10))
        thread = threading.Thread(target=write)
        thread.start()
        while recorder.status().rows < 40:
            assert thread.is_alive()
        getattr(recorder, end)()
        deadline = time.monotonic() + 20  # a busy machine may not have let the thread run meanwhile
        while not refused and time.monotonic() < deadline:
            assert thread.is_alive()
        ended.set()
        thread.join()
        assert refused
        assert longest < 5
        recorder.start_episode()
        record(recorder, range(3))
        recorder.save_episode()
    assert_sound(root)
    for episode, row in enumerate(episodes(root)):
        assert [n % 50 for n in states(root, episode)] == shown(root, episode)
        assert row["length"] >= (40 if end == "save_episode" and not episode else 3)


@pytest.mark.parametrize(
    ("place", "change"),
    [
        ("meta/info.json", lambda path: path.write_text(path.read_text() + "\n")),
        ("meta/stats.json", lambda path: path.write_text("{}")),
        ("meta/tasks.parquet", lambda path: path.unlink()),
        ("meta/info.json", lambda path: shutil.rmtree(path.parents[1])),
        ("meta/info.json", lambda path: path.parents[1].rename(path.parents[2] / "away")),
    ],
    ids=["edited", "emptied", "deleted", "all deleted", "moved"],
)
def test_what_others_change_between_two_episodes_is_not_overwritten(
    root: Path, place: str, change: Callable[[Path], object]
) -> None:
    own = root / place
    with Recorder(robot(), root) as recorder:
        recorder.start_episode()
        record(recorder, range(4))
        recorder.save_episode()
        change(own)
        after = own.read_bytes() if own.exists() else None
        with pytest.raises(DestinationError, match=r"another program|deleted or moved"):
            recorder.start_episode()
        assert (own.read_bytes() if own.exists() else None) == after
    assert not (root / ".recording").exists()


def test_what_others_change_during_an_episode_is_not_overwritten_and_the_episode_is_kept(root: Path) -> None:
    info = root / "meta/info.json"
    with Recorder(robot(), root) as recorder:
        recorder.start_episode()
        record(recorder, range(4))
        text = info.read_text().replace('"robot_type": null', '"robot_type": "arm"')
        info.write_text(text)
        with (
            pytest.warns(FfencWarning, match="ffenc recover"),
            pytest.raises(DestinationError, match=r"info.json was changed by another program"),
        ):
            recorder.save_episode()
        assert info.read_text() == text
    assert [one.index for one in recover(root).episodes] == [1]
    assert_sound(root)
    assert json.loads(info.read_text())["robot_type"] == "arm"
    assert states(root, 1) == [0, 1, 2, 3]


@pytest.mark.parametrize("what", [".recording", "."])
@pytest.mark.parametrize("encode", ["live", "after"])
def test_an_episode_that_is_deleted_while_it_is_recorded_is_said_at_once(
    root: Path, tmp_path: Path, what: str, encode: str
) -> None:
    with Recorder(robot(encode=encode), root) as recorder:
        recorder.start_episode()
        record(recorder, range(4))
        (root / what).resolve().rename(tmp_path / "gone")  # at once, whatever an encoder just writes
        wait_for(
            lambda: (
                not shutil.rmtree(tmp_path / "gone", ignore_errors=True) and not (tmp_path / "gone").exists()
            )
        )
        with pytest.raises(DestinationError, match="deleted or moved during the recording"):
            for _ in range(2):
                recorder.write("top", picture(4))
                recorder.add_row(state=[4.0, 0.0], action=[0.0])
        with pytest.raises(DestinationError, match="deleted"):
            recorder.save_episode()
    assert (root / "meta/info.json").exists() == (what == ".recording")


@pytest.mark.parametrize("encode", ["live", "after"])
def test_an_episode_that_is_moved_before_it_is_saved_is_an_error(
    root: Path, tmp_path: Path, encode: str
) -> None:
    with Recorder(robot(encode=encode), root) as recorder:
        recorder.start_episode()
        record(recorder, range(4))
        wait_for(lambda: any(root.glob(f".recording/*/{TOP}{'.mp4' if encode == 'live' else '/*.png'}")))
        (root / ".recording").rename(tmp_path / "gone")
        with pytest.raises(FfencError, match="deleted or moved"):
            recorder.save_episode()
    assert_sound(root)
    assert len(episodes(root)) == 1


def test_a_new_dataset_that_is_deleted_before_its_first_episode_ends_is_an_error(tmp_path: Path) -> None:
    root = tmp_path / "data"
    with Recorder(robot(), root) as recorder:
        shutil.rmtree(root)
        with pytest.raises(DestinationError, match="deleted or moved"):
            recorder.start_episode()
    assert list(tmp_path.iterdir()) == []


def test_no_episode_is_started_while_another_thread_saves_one(tmp_path: Path) -> None:
    refused = []
    with Recorder(robot(encode="after"), tmp_path / "data") as recorder:
        recorder.start_episode()
        record(recorder, range(3))

        def started(*_: int) -> None:
            with pytest.raises(ConfigError) as error:
                recorder.start_episode()
            refused.append(str(error.value))

        assert recorder.save_episode(started).rows == 3
        assert set(refused) == {"the last episode is still being saved or discarded; wait for that"}
        recorder.start_episode()
        recorder.discard_episode()
