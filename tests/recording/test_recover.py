"""What damage and interruptions leave of an episode comes back, or stays, and is never lost in silence."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from ffenc import ConfigError, FfencWarning, probe
from ffenc.config.framerate import time_scale
from ffenc.ffmpeg.toolchain import Toolchain, toolchains
from ffenc.recording.recorder import Recorder
from ffenc.recording.recover import recover
from ffenc.recording.unfinished import UnfinishedEpisode, interrupted_episodes
from tests.conftest import system_if_long
from tests.recording.recording import assert_sound, encoders_of, picture, record, robot, shown, states


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of one episode, and another of 40 rows that was not saved."""
    root = tmp_path_factory.mktemp("interrupted") / "data"
    with pytest.warns(FfencWarning, match="was not saved"), Recorder(robot(), root) as recorder:
        recorder.start_episode()
        record(recorder, range(3))
        recorder.save_episode()
        recorder.start_episode()
        record(recorder, range(40))
    return root


@pytest.fixture
def root(interrupted: Path, tmp_path: Path) -> Path:
    """A copy of it, to harm."""
    return shutil.copytree(interrupted, tmp_path / "data")


def folder_of(root: Path) -> Path:
    [folder] = (root / ".recording").glob("*-*-*")
    return folder


def test_episodes_of_one_second_are_in_the_order_of_their_starts(root: Path, tmp_path: Path) -> None:
    settings = UnfinishedEpisode.open(folder_of(root)).settings
    started = [UnfinishedEpisode.create(tmp_path / "new", settings).path for _ in range(12)]
    assert interrupted_episodes(tmp_path / "new") == started


@pytest.mark.parametrize(
    "line",
    [
        b"\0\0\0\n",
        b'{"values": {}}\n',
        b'{"values": {"observation.state": [1], "action": 1}}\n',
        b'{"values": {"observation.state": [1.0, 2.0], "action": 1.0}, "repeated": 5}\n',
        b'{"dropped": {}}\n',
    ],
)
def test_rows_end_at_a_line_that_is_none_and_what_is_behind_counts_as_lost(root: Path, line: bytes) -> None:
    rows = folder_of(root) / "rows.jsonl"
    lines = rows.read_bytes().splitlines(keepends=True)
    rows.write_bytes(b"".join([*lines[:20], line, *lines[21:]]))
    [back] = recover(root).episodes
    assert (back.index, back.rows, back.recorded, back.lost) == (1, 20, 40, 20)
    assert_sound(root)
    assert shown(root, 1) == states(root, 1) == list(range(20))


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "rows.jsonl").unlink(),
        lambda folder: (folder / "rows.jsonl").write_bytes(bytes(100)),
        lambda folder: (folder / "episode.json").unlink(),
        lambda folder: (folder / "episode.json").write_text('{"fps": "1/0", "cameras": []}'),
    ],
)
def test_frames_whose_rows_cannot_be_read_stay(root: Path, harm: Callable[[Path], object]) -> None:
    folder = folder_of(root)
    harm(folder)
    before = (folder / "observation.images.top.mp4").read_bytes()
    [back] = recover(root).episodes
    assert (back.index, back.folder) == (None, folder)
    assert back.error is not None
    assert (folder / "observation.images.top.mp4").read_bytes() == before
    with pytest.raises(ConfigError, match="partial=True would have no effect: discard=True deletes"):
        recover(root, discard=True, partial=True)
    assert recover(root, discard=True).discarded == [folder]
    assert_sound(root)


@system_if_long
def test_an_episode_of_an_older_version_comes_back_in_the_time_base_of_today(
    toolchain: Toolchain, root: Path, tmp_path: Path
) -> None:
    """Which had one tick a frame."""
    video = folder_of(root) / "observation.images.top.mp4"
    fps = probe(video).fps
    scale = ["-video_track_timescale", str(fps), "-movie_timescale", str(fps)]
    flags = ["-movflags", "+empty_moov+delay_moov+default_base_moof", "-frag_duration", "500000"]
    command = [toolchain.ffmpeg, "-v", "error", "-i", str(video), "-c", "copy", *scale, *flags]
    subprocess.run([*command, str(tmp_path / "old.mp4")], check=True)
    (tmp_path / "old.mp4").replace(video)
    assert probe(video).time_base == 1 / fps
    [back] = recover(root).episodes
    assert (back.index, back.rows, back.lost) == (1, 40, 0)
    assert_sound(root)
    assert shown(root, 1) == states(root, 1) == list(range(40))
    scales = {probe(path).time_base for path in root.glob("videos/*/*/*.mp4")}
    assert scales == {Fraction(1, time_scale(fps))}


def test_a_video_that_this_ffmpeg_cannot_decode_stays_for_another(tmp_path: Path) -> None:
    root = tmp_path / "data"
    with pytest.warns(FfencWarning, match="was not saved"), Recorder(robot(), root) as recorder:
        recorder.start_episode()
        record(recorder, range(10))
    program = tmp_path / "ffmpeg"
    real = toolchains()[0].ffmpeg
    program.write_text(f'#!/bin/sh\ncase "$*" in *.recording*) exit 1;; esac\nexec {real} "$@"\n')
    program.chmod(0o755)
    before = (folder_of(root) / "observation.images.top.mp4").read_bytes()
    [kept] = recover(root, ffmpeg=str(program)).episodes
    assert "cannot be decoded" in str(kept.error)
    assert (kept.folder / "observation.images.top.mp4").read_bytes() == before
    [back] = recover(root).episodes
    assert (back.rows, back.lost) == (10, 0)
    assert_sound(root)


def test_ctrl_c_leaves_nothing_running(tmp_path: Path, ctrl_c: None) -> None:
    with Recorder(robot(), tmp_path / "data") as recorder:
        for seconds in (0.0, 0.01, 0.02, 0.05, 0.1):
            timer = threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):
                timer.start()
                while True:
                    recorder.start_episode()
                    recorder.discard_episode()
            timer.join()
            if recorder.status().recording:
                recorder.discard_episode()
        names = [thread.name for thread in threading.enumerate()]
        assert not [name for name in names if name.startswith(("ffenc-feed", "ffenc-sync"))]
        assert encoders_of(tmp_path) == []


def test_what_an_interruption_leaves_of_a_beginning_or_of_a_deletion_is_no_episode(root: Path) -> None:
    folder = folder_of(root)
    begun = folder.with_name("20260101-000000-abcdef")
    (begun / "finished").mkdir(parents=True)
    folder.rename(folder.with_name(f"{folder.name}.deleted"))
    own = root / ".recording" / "my-own-notes"
    own.mkdir()
    found = recover(root)
    assert (found.completed, found.episodes) == (0, [])
    assert {path.name for path in (root / ".recording").iterdir()} == {"lock", own.name}


def test_values_that_could_not_be_saved_are_refused_at_their_row(tmp_path: Path) -> None:
    root = tmp_path / "data"
    for task in ("\ud800", "", " "):
        with pytest.raises(ConfigError, match="task: .* expected a text that is not empty"):
            Recorder(robot(), root, task=task)
    with Recorder(robot(), root) as recorder:
        with pytest.raises(ConfigError, match="task: '' is not accepted"):
            recorder.start_episode("")
        recorder.start_episode()
        recorder.write("top", picture(0))
        for first, text in (
            ({"note": "\ud800"}, "UTF-8"),
            ({"\ud800": 1}, "a text"),
            ({3: 1}, "a text"),
            ({"observation.images.top": 1.0}, "cannot be called"),
            ({"number": 2**63}, "beyond the range of int64"),
            ({"pair": [[1], [1, 2]]}, "different lengths"),
        ):
            with pytest.raises(ConfigError, match=text):
                recorder.add_row(first)  # type: ignore[arg-type]
        recorder.add_row({"number": np.uint8(1), "speed": 1.5})
        recorder.write("top", picture(1))
        with pytest.raises(ConfigError, match="beyond the range of float32"):
            recorder.add_row({"number": 2, "speed": 1e300})
        recorder.add_row({"number": 2, "speed": 0.5})
        recorder.save_episode()
    assert_sound(root)
    assert shown(root, 0) == [0, 1]


def test_settings_that_no_machine_or_folder_can_do_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="MiB of memory"), Recorder(robot(queue_maxsize=10**9), tmp_path):
        pass
    with pytest.raises(ConfigError, match="line break"):
        Recorder(robot(), tmp_path / "a\nb")
    assert list(tmp_path.iterdir()) == []


def test_an_episode_that_would_lose_much_stays_until_that_is_asked_for(tmp_path: Path) -> None:
    root = tmp_path / "data"
    preset = robot(cameras=("top", "left"))
    with pytest.warns(FfencWarning, match="was not saved"), Recorder(preset, root) as recorder:
        recorder.start_episode()
        for number in range(200):
            for name in preset.cameras:
                recorder.write(name, picture(number % 40))
            recorder.add_row(state=[float(number), 0.0])
    video = folder_of(root) / "observation.images.left.mp4"
    with video.open("r+b") as file:
        file.truncate(video.stat().st_size // 5)
    [stays] = recover(root).episodes
    assert stays.error is not None
    assert re.search(
        r"of 200 rows can be recovered: observation.images.left .*partial=True", str(stays.error)
    )
    [back] = recover(root, partial=True).episodes
    assert (back.index, back.recorded) == (0, 200)
    assert 0 < back.rows < 50
    assert_sound(root)
