"""Cameras to episodes: every row shows its frame, whatever falls behind, dies or is pulled out."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from ffenc import (
    ConfigError,
    DestinationError,
    FfencError,
    FfencWarning,
    ToolchainError,
    VideoReader,
    quantize_depth,
    reencode_dataset,
    verify_dataset,
)
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.depth import dequantize_depth
from ffenc.recording.cameras.test_pattern import TestPattern
from ffenc.recording.recorder import Recorder
from ffenc.recording.recover import recover
from tests.conftest import newest_program
from tests.recording.recording import (
    COLOUR,
    HEIGHT,
    WIDTH,
    assert_sound,
    depth_map,
    encoders_of,
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
from tests.support.read import open_below


def everything(root: Path) -> dict[str, str]:
    """What lies in a dataset: path -> checksum."""
    files = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_episodes_are_what_was_written_and_change_nothing_that_is_there(
    toolchain: Toolchain, tmp_path: Path
) -> None:
    root = tmp_path / "it's 100% data"
    with Recorder(robot(depth="mm", robot_type="arm"), root, task="pick it up") as recorder:
        for episode, length in enumerate((20, 7)):
            before = everything(root)
            recorder.start_episode(task="put it down" if episode else None)
            record(recorder, range(length), "mm")
            saved = recorder.save_episode()
            assert (saved.index, saved.rows, saved.dropped) == (episode, length, 0)
            kept = {path: sums for path, sums in everything(root).items() if path in before}
            changed = {path for path in kept if kept[path] != before[path]}
            listed = "episodes/chunk-000/file-000.parquet"
            assert changed <= {
                f"meta/{n}" for n in ("info.json", "stats.json", "tasks.parquet", "videos.sha256", listed)
            }
        recorder.start_episode()
        record(recorder, range(30, 40), "mm")
        recorder.discard_episode()
    assert_sound(root)
    assert [row["tasks"] for row in episodes(root)] == [["pick it up"], ["put it down"]]
    for episode, length in enumerate((20, 7)):
        assert shown(root, episode) == shown(root, episode, "deep") == list(range(length))
        assert states(root, episode) == list(range(length))
    values = [
        np.float32(row["action"][0] if isinstance(row["action"], list) else row["action"])
        for row in rows(root, 0)
    ]
    assert values == [np.float32(number / 3) for number in range(20)]
    info = json.loads((root / "meta/info.json").read_text())
    block = info["features"]["observation.images.top"]["info"]
    assert (block["video.codec"], block["video.crf"], block["video.preset"]) == ("h264", 18, "ultrafast")
    own = json.loads((root / "meta/ffenc.json").read_text())["cameras"]["observation.images.top"]
    assert own["video.encoder"]["ffmpeg_version"] == toolchain.version
    place = root / "videos/observation.images.deep/chunk-000/file-000.mp4"
    with VideoReader(place, decoder="pyav") as video:
        expected = dequantize_depth(quantize_depth(depth_map(3), invalid="keep"), invalid="keep")
        np.testing.assert_array_equal(video[3], expected)


def test_another_run_adds_episodes_but_not_with_other_settings(tmp_path: Path) -> None:
    root = tmp_path / "data"
    with Recorder(robot(), root) as recorder:
        recorder.start_episode()
        record(recorder, range(5))
        recorder.save_episode()
    before = everything(root)
    for other, text in (
        (robot(cameras=("top", "left")), "left"),
        (robot(depth="mm"), "deep"),
        (robot(fps=15), "fps"),
        (robot(colour=COLOUR.replace(crf=20)), "crf"),
        (robot(width=96), "96"),
        (robot(video=False), "image"),
    ):
        with pytest.raises((ConfigError, DestinationError), match=text), Recorder(other, root):
            pass
    assert everything(root) == before
    with Recorder(robot(), root) as recorder:
        recorder.start_episode()
        with pytest.raises(ConfigError, match="action"):
            recorder.write("top", picture(0))
            recorder.add_row(state=[1.0, 2.0])
        recorder.discard_episode()
        recorder.start_episode()
        record(recorder, range(5, 9))
        recorder.save_episode()
    assert_sound(root)
    assert [shown(root, 0), shown(root, 1)] == [list(range(5)), [5, 6, 7, 8]]


@pytest.mark.parametrize("on_full", ["drop", "repeat"])
def test_an_encoder_that_is_behind_costs_frames_but_never_a_row_without_one(
    on_full: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "data"
    with Recorder(robot(cameras=("top", "left"), on_full=on_full, queue_maxsize=4), root) as recorder:
        recorder.start_episode()
        record(recorder, range(3))
        [left] = encoders_of(root, "left")
        left.suspend()
        with caplog.at_level(logging.WARNING, "ffenc.recording"):
            lost = 0
            for number in range(3, 40):
                recorder.write("top", picture(number))
                recorder.write("left", picture(number))
                wait_for(lambda: not recorder.status().cameras["top"].queued)
                row = recorder.add_row(state=[float(number), 0.0], action=[0.0])
                assert row.dropped == (("left",) if row.number is None else ())
                lost += row.number is None
        status = recorder.status()
        left.resume()
        saved = recorder.save_episode()
    assert_sound(root)
    kept = states(root, 0)
    assert shown(root, 0) == kept
    beside = notes(root, 0)
    if on_full == "drop":
        assert shown(root, 0, "left") == kept
        assert lost == saved.dropped == status.dropped == len(beside["dropped"]) > 0
        assert len(kept) == 40 - lost
        missing = sorted(set(range(40)) - set(kept))
        assert [one["frame"] for one in beside["dropped"]] == missing
        assert all(one["cameras"] == ["left"] for one in beside["dropped"])
    else:
        repeated = beside["repeated"]["left"]
        assert kept == list(range(40))
        assert len(repeated) == saved.repeated["left"] == status.cameras["left"].repeated > 0
        expected: list[int] = []
        for row in range(40):
            expected.append(expected[-1] if row in repeated else row)
        assert shown(root, 0, "left") == expected
    assert len(caplog.records) == len(beside["dropped"]) + len(beside["repeated"].get("left", []))


def ended(process: psutil.Process) -> bool:
    """Whether all threads of a killed process are gone; who started it may have asked for its end by then."""
    try:
        threads = list(Path(f"/proc/{process.pid}/task").iterdir())
        return len(threads) == 1 and process.status() == psutil.STATUS_ZOMBIE
    except (FileNotFoundError, psutil.NoSuchProcess):
        return True


def test_an_encoder_that_cannot_be_started_leaves_no_file_open(tmp_path: Path) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text(f'#!/bin/sh\nexec {newest_program("ffmpeg")} "$@"\n')
    program.chmod(0o755)
    with Recorder(robot(cameras=("top", "left")), tmp_path / "data", ffmpeg=str(program)) as recorder:
        program.unlink()
        before = open_below(tmp_path)
        for _ in range(3):
            with pytest.raises(ToolchainError, match="cannot be started"):
                recorder.start_episode()
        assert open_below(tmp_path) == before


def test_a_killed_encoder_is_told_at_the_next_write_and_the_rest_is_kept(tmp_path: Path) -> None:
    root = tmp_path / "data"
    with Recorder(robot(cameras=("top", "left"), depth="mm"), root) as recorder:
        recorder.start_episode()
        record(recorder, range(50))
        wait_for(lambda: all(camera.bytes for camera in recorder.status().cameras.values()))
        [left] = encoders_of(root, "left")
        left.kill()
        wait_for(lambda: ended(left))
        recorder.write("top", picture(50))
        with pytest.raises(FfencError, match=r"(?s)camera left.*killed.*command: "):
            recorder.write("left", picture(50))
        with pytest.warns(FfencWarning, match="ffenc recover"), pytest.raises(FfencError, match="killed"):
            recorder.save_episode()
        [kept] = (root / ".recording").glob("*-*-*")
        with VideoReader(kept / "observation.images.top.mp4") as video:
            assert len(video) == 50
        recorder.start_episode()
        record(recorder, range(5))
        assert recorder.save_episode().index == 0
    [back] = recover(root).episodes
    assert back.index == 1
    assert back.frames["observation.images.top"] == back.recorded == 50
    assert 0 < back.rows == back.frames["observation.images.left"] < 50
    assert_sound(root)
    for camera in ("top", "left", "deep"):
        assert shown(root, 1, camera) == states(root, 1) == list(range(back.rows))
    assert notes(root, 1)["recovered"]["rows_lost"] == back.lost == 50 - back.rows


@pytest.mark.parametrize("on_full", ["block", "repeat"])
def test_an_encoder_that_hangs_is_given_up(on_full: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    preset = robot(on_full=on_full, queue_maxsize=2)
    with (
        pytest.warns(FfencWarning, match="ffenc recover"),
        pytest.raises(FfencError, match="hung"),
        Recorder(preset, root, stall_seconds=1) as recorder,
    ):
        recorder.start_episode()
        record(recorder, range(2))
        [top] = encoders_of(root)
        top.suspend()
        record(recorder, range(2, 60))
        recorder.save_episode()


RECORD = """
import sys
import threading
from pathlib import Path
from ffenc.recording.cameras.test_pattern import TestPattern
from ffenc.recording.recorder import Recorder
from tests.recording.recording import record, robot, wait_for
way = sys.argv[2]
fields = {"live": {}, "after": {"encode": "after"}, "images": {"video": False}}[way]
with Recorder(robot(depth="mm", **fields), Path(sys.argv[1])) as recorder:
    recorder.start_episode()
    record(recorder, range(10))
    recorder.save_episode()
    recorder.start_episode()
    record(recorder, range(50))
    if way == "live":
        wait_for(lambda: all(camera.bytes for camera in recorder.status().cameras.values()))
    else:
        wait_for(lambda: len(list(recorder.root.glob(".recording/*/*/frame-000009.png"))) == 2)
    print("recorded", flush=True)
    sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("toolchain", "way"),
    [
        ("newest", "live"),
        ("newest", "after"),
        ("newest", "images"),
        pytest.param("system", "live", marks=pytest.mark.long),
    ],
    indirect=["toolchain"],
)
def test_after_kill_9_of_everything_each_row_has_its_frame(
    way: str, toolchain: Toolchain, tmp_path: Path
) -> None:
    root = tmp_path / "it's 50%"
    run = subprocess.Popen(
        [sys.executable, "-c", RECORD, str(root), way],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert run.stdout is not None
    assert run.stdout.readline() == b"recorded\n"
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    for process in encoders_of(root):
        process.wait(10)
    before = everything(root)
    assert any("ffenc recover" in note.fix for note in verify_dataset(root).notes)
    [back] = recover(root).episodes
    assert (back.index, back.recorded) == (1, 50)
    assert back.rows >= 5
    assert_sound(root)
    after = everything(root)
    assert all(after[path] == sums for path, sums in before.items() if path.startswith(("data", "videos/")))
    assert states(root, 1) == list(range(back.rows))
    if way == "images":
        root, images = tmp_path / "encoded", root
        reencode_dataset(images, root, preset=robot(depth="mm"))
    for episode, length in enumerate((10, back.rows)):
        for camera in ("top", "deep"):
            assert shown(root, episode, camera) == list(range(length))


LOADED = """
import sys
from pathlib import Path
from ffenc.recording.recorder import Recorder
from tests.recording.recording import record, robot
with Recorder(robot(depth="mm"), Path(sys.argv[1])) as recorder:
    open = set(sys.modules)
    recorder.start_episode()
    record(recorder, range(3))
    recorder.save_episode()
print(*(set(sys.modules) - open))
"""


def test_no_module_is_loaded_while_frames_arrive(tmp_path: Path) -> None:
    """Loading those that make a table takes as long as several frames."""
    ran = subprocess.run(
        [sys.executable, "-c", LOADED, str(tmp_path / "data")], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == []


def test_a_range_that_does_not_fit_the_depth_is_said_at_the_first_frame(tmp_path: Path) -> None:
    preset = robot(depth="mm")
    deep = preset.cameras["deep"]
    preset.cameras["deep"] = deep.replace(encoder=deep.encoder.replace(depth_max=0.5))
    with Recorder(preset, tmp_path / "data") as recorder:
        recorder.start_episode()
        with pytest.warns(FfencWarning, match="100% of the depth is outside") as said:
            record(recorder, range(3))
        recorder.save_episode()
    assert len(said) == 1


UNLEFT = """
import sys
from pathlib import Path
from ffenc.recording.recorder import Recorder
from tests.recording.recording import record, robot
recorder = Recorder(robot(depth="mm"), Path(sys.argv[1])).__enter__()
for count in (10, 50):
    recorder.start_episode()
    record(recorder, range(count))
    if count == 10:
        recorder.save_episode()
raise ConnectionError("the robot is gone")
"""


def test_a_program_that_ends_without_leaving_the_block_keeps_every_frame(tmp_path: Path) -> None:
    """Frames that wait for an encoder reach it before Python ends its threads."""
    root = tmp_path / "unleft"
    ran = subprocess.run(
        [sys.executable, "-c", UNLEFT, str(root)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 1
    assert "an episode of 50 rows was not saved; it is kept in" in ran.stderr
    assert [(one.index, one.rows, one.lost) for one in recover(root).episodes] == [(1, 50, 0)]
    assert_sound(root)
    for camera in ("top", "deep"):
        assert shown(root, 1, camera) == states(root, 1) == list(range(50))


FIRST_ROWS = """
import sys, time
import numpy as np
from ffenc import DepthEncoderConfig, RobotPreset, VideoEncoderConfig
from ffenc.config.preset import CameraPreset
from ffenc.recording.recorder import Recorder
flushes = []
def watch(frame, event, called):
    if event == "c_call" and called.__name__ in ("fsync", "fdatasync"):
        flushes.append(called.__name__)
size = {"width": 64, "height": 48}
h264 = VideoEncoderConfig(vcodec="h264")
deep = {"live": np.ones((48, 64), np.uint16), "after": np.ones((48, 64), np.float32)}
for encode, depth in deep.items():
    unit = "mm" if encode == "live" else "m"
    top = CameraPreset(**size, encoder=h264)
    lens = CameraPreset(**size, depth=True, depth_unit=unit, encoder=DepthEncoderConfig())
    robot = RobotPreset(name="small", fps=30, encode=encode, cameras={"top": top, "deep": lens})
    with Recorder(robot, f"{sys.argv[1]}/{encode}") as recorder:
        recorder.start_episode()
        before = set(sys.modules)
        sys.setprofile(watch)
        for _ in range(3):
            recorder.write("top", np.zeros((48, 64, 3), np.uint8))
            recorder.write("deep", depth)
            recorder.add_row({"said": "go on"}, state=[0.5, 1], action=[1])
        while any(camera.queued for camera in recorder.status().cameras.values()):
            time.sleep(0.01)
        sys.setprofile(None)
        print(encode, sorted(set(sys.modules) - before), flushes)
        recorder.discard_episode()
"""


def test_the_first_rows_load_no_modules_and_do_not_wait_for_the_disk(tmp_path: Path) -> None:
    """Either would stop the robot's loop for a tenth of a second."""
    script = [sys.executable, "-c", FIRST_ROWS, str(tmp_path)]
    ran = subprocess.run(script, capture_output=True, text=True, check=False)
    assert ran.stdout.splitlines() == ["live [] []", "after [] []"], ran.stderr


def test_an_episode_is_brought_back_up_to_what_a_power_cut_has_left_empty(tmp_path: Path) -> None:
    root = tmp_path / "data"
    noise = np.random.default_rng(0).integers(0, 40, (HEIGHT, WIDTH, 3), np.uint8)
    with pytest.warns(FfencWarning, match="was not saved"), Recorder(robot(), root) as recorder:
        recorder.start_episode()
        for number in range(50):
            recorder.write("top", picture(number) + noise)
            recorder.add_row(state=[float(number), 0.0], action=[0.0])
    [video] = (root / ".recording").rglob("*.top.mp4")
    size = video.stat().st_size
    with video.open("r+b") as file:
        file.seek(size * 3 // 4)
        file.write(bytes(2000))
    [back] = recover(root).episodes
    assert back.recorded == 50
    assert 15 <= back.rows < 40
    assert_sound(root)
    assert states(root, 0) == list(range(back.rows))
    first, last = shown(root, 0)[0], shown(root, 0)[-1]
    assert last - first == back.rows - 1


@pytest.mark.parametrize("unit", ["mm", "m"])
@pytest.mark.parametrize("fields", [{"encode": "after"}, {"video": False}])
def test_frames_go_to_disk_first_or_stay_images(fields: dict[str, object], unit: str, tmp_path: Path) -> None:
    root = tmp_path / "data"
    with Recorder(robot(depth=unit, **fields), root) as recorder:
        for _ in range(2):
            recorder.start_episode()
            record(recorder, range(6), unit)
            recorder.save_episode()
    assert_sound(root)
    info = json.loads((root / "meta/info.json").read_text())["features"]["observation.images.deep"]
    assert info["info"]["depth_unit"] == unit
    if "video" in fields:
        assert info["dtype"] == "image"
        reencode_dataset(root, tmp_path / "videos", preset=robot(depth=unit))
        root = tmp_path / "videos"
    assert shown(root, 1) == list(range(6))
    video = root / "videos/observation.images.deep/chunk-000/file-000.mp4"
    with VideoReader(video, depth_output_unit=unit) as frames:
        codes = quantize_depth(depth_map(5, unit), invalid="keep")
        np.testing.assert_array_equal(frames[5], dequantize_depth(codes, output_unit=unit, invalid="keep"))


def test_images_that_stay_need_no_encoder_and_may_have_any_size(tmp_path: Path) -> None:
    colour = COLOUR.replace(vcodec="h264_nvenc", preset=None)
    with Recorder(robot(width=63, video=False, colour=colour), tmp_path / "data") as recorder:
        recorder.start_episode()
        recorder.write("top", picture(1)[:, :63])
        recorder.add_row()
        recorder.save_episode()
    assert_sound(tmp_path / "data")


def test_statistics_of_a_short_episode_are_of_all_its_frames(tmp_path: Path) -> None:
    """The holes of the test pattern are about one pixel of a hundred, which is a quantile of its own."""
    camera = TestPattern("deep", width=WIDTH, height=HEIGHT, depth=True)
    camera.open()
    with Recorder(robot(cameras=(), depth="mm"), tmp_path / "data") as recorder:
        recorder.start_episode()
        for _ in range(15):
            frames = camera.read(1.0)
            assert frames is not None
            recorder.write("deep", frames["deep"].data)
            recorder.add_row()
        recorder.save_episode()
    assert_sound(tmp_path / "data")


def test_jpeg_images_are_passed_on_as_they_are(tmp_path: Path) -> None:
    import io

    from PIL import Image

    root = tmp_path / "data"
    with Recorder(robot(), root, jpeg={"top"}) as recorder:
        recorder.start_episode()
        for number in range(40):
            image = io.BytesIO()
            Image.fromarray(picture(number)).save(image, format="JPEG", quality=95)
            recorder.write("top", image.getvalue(), timestamp=number / 30)
            recorder.add_row()
        with pytest.raises(ConfigError, match="JPEG"):
            recorder.write("top", picture(1))
        recorder.save_episode()
    assert_sound(root)
    assert shown(root, 0) == list(range(40))
    assert notes(root, 0)["timestamps"]["top"] == [number / 30 for number in range(40)]


FILL = """
import sys
import threading
from pathlib import Path
import numpy as np
from ffenc.recording.cameras.test_pattern import TestPattern
from ffenc.recording.recorder import Recorder
from tests.recording.recording import HEIGHT, WIDTH, record, robot
noise = np.random.default_rng(0)
with Recorder(robot(), Path(sys.argv[1])) as recorder:
    recorder.start_episode()
    record(recorder, range(5))
    recorder.save_episode()
    recorder.start_episode()
    for number in range(3000):
        recorder.write("top", noise.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8))
        recorder.add_row(state=[float(number), 0.0], action=[0.0])
"""


def test_a_full_disk_ends_the_episode_and_what_fits_is_brought_back(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    root = small / "data"
    python = [sys.executable, "-c", FILL, str(root)]
    copy = f"cp -r {root} {tmp_path}/copy"
    script = f"mount -t tmpfs -o size=2m tmpfs {small}; {shlex.join(python)} 2> {tmp_path}/said; {copy}"
    namespace = ["unshare", "--mount"]
    if os.geteuid() != 0:
        namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    subprocess.run([*namespace, "sh", "-c", script], check=True)
    said = (tmp_path / "said").read_text()
    assert re.search(r"(disk is full|No space left)", said), said
    assert "ffenc recover" in said
    copied = tmp_path / "copy"
    [back] = recover(copied).episodes
    assert back.rows > 100
    assert_sound(copied)
    assert shown(copied, 0) == list(range(5))
    assert states(copied, 1) == list(range(back.rows))


SHORT = """
import sys
from pathlib import Path
from ffenc.recording.recorder import Recorder
from tests.recording.recording import record, robot
with Recorder(robot(), Path(sys.argv[1])) as recorder:
    recorder.start_episode()
    record(recorder, range(5))
    recorder.save_episode()
"""


def test_a_container_without_proc_can_record(tmp_path: Path) -> None:
    script = (
        f"mount -t tmpfs tmpfs /proc; {shlex.join([sys.executable, '-c', SHORT, str(tmp_path / 'data')])}"
    )
    namespace = ["unshare", "--mount"]
    if os.geteuid() != 0:
        namespace = ["unshare", "--user", "--map-root-user", "--mount"]
    subprocess.run([*namespace, "sh", "-c", script], check=True)
    assert states(tmp_path / "data", 0) == list(range(5))
    assert_sound(tmp_path / "data")


def test_misuse_is_told_and_harms_nothing(tmp_path: Path) -> None:
    root = tmp_path / "data"
    recorder = Recorder(robot(depth="mm"), root)
    with pytest.raises(ConfigError, match="with statement"):
        recorder.start_episode()
    with recorder:
        with pytest.raises(ConfigError, match="start_episode"):
            recorder.write("top", picture(0))
        with pytest.raises(DestinationError, match="another run"), Recorder(robot(), root):
            pass
        recorder.start_episode()
        with pytest.raises(ConfigError, match="save it"):
            recorder.start_episode()
        for camera, frame, text in (
            ("side", picture(0), "no camera 'side'; there are top, deep"),
            (
                "top",
                picture(0)[:-1],
                r"got uint8 \(47, 64, 3\); expected a frame of shape \(48, 64, 3\), uint8",
            ),
            ("top", picture(0).astype(np.float32), "got float32"),
            ("top", b"\xff\xd8", "got bytes of 2 bytes"),
            ("top", None, "first row needs a frame"),
            ("deep", depth_map(0, "m"), r"uint16 \(mm; see depth_unit\)"),
        ):
            with pytest.raises(ConfigError, match=text):
                recorder.write(camera, frame)
        recorder.write("observation.images.top", picture(0))
        with pytest.raises(ConfigError, match="already has a frame for row 0"):
            recorder.write("top", picture(1))
        with pytest.raises(ConfigError, match="camera deep has no frame for row 0"):
            recorder.add_row(state=[1.0])
        recorder.write("deep", depth_map(0)[..., None])
        for row, text in (
            ({"index": 1}, "cannot have a value named 'index'"),
            ({"tactile": np.zeros((2, 2))}, "flatten"),
            ({"x": object()}, "not accepted"),
        ):
            with pytest.raises(ConfigError, match=text):
                recorder.add_row(row)
        with pytest.raises(ConfigError, match="has 'action', and action is given too"):
            recorder.add_row({"action": [1.0]}, state=[1.0, 2.0], action=[2.0])
        recorder.add_row({"note": "go", "next.done": False}, state=[1.0, 2.0])
        for row, text in (
            ({"note": "go"}, "has no next.done"),
            ({"note": 3, "next.done": True}, "note: int is not accepted; expected a text"),
            ({"note": "", "next.done": 0.5}, "next.done: float64 is not accepted; expected bool"),
        ):
            recorder.write("top", None) if not recorder.status().rows > 1 and text.startswith("has") else None
            if text.startswith("has"):
                recorder.write("deep", None)
            with pytest.raises(ConfigError, match=text):
                recorder.add_row(row, state=[1.0, 2.0])
        with pytest.raises(ConfigError, match="3 numbers are not accepted; expected 2"):
            recorder.add_row({"note": "", "next.done": True}, state=[1.0, 2.0, 3.0])
        for value in (np.nan, np.inf):
            with pytest.raises(ConfigError, match="spoil the statistics"):
                recorder.add_row({"note": "", "next.done": True}, state=[value, 2.0])
        recorder.add_row({"note": "stop", "next.done": True}, state=[3.0, 2.0])
        recorder.save_episode()
        with pytest.raises(ConfigError, match="no episode"):
            recorder.save_episode()
    with pytest.raises(ConfigError, match="with statement"):
        recorder.start_episode()
    assert not (root / ".recording").exists()
    table = pq.read_table(root / "data/chunk-000/file-000.parquet")
    assert table["note"].to_pylist() == ["go", "stop"]
    assert table["next.done"].to_pylist() == [False, True]
    assert shown(root, 0) == [0, 0]
    assert notes(root, 0)["repeated"] == {"top": [1], "deep": [1]}


def test_ctrl_c_at_any_moment_comes_between_rows(tmp_path: Path, ctrl_c: None) -> None:
    root = tmp_path / "data"
    with Recorder(robot(cameras=("top", "left")), root) as recorder:
        for attempt in range(4):
            recorder.start_episode()
            record(recorder, range(2))
            timer = threading.Timer(0.003 * attempt, os.kill, (os.getpid(), signal.SIGINT))
            with pytest.raises(KeyboardInterrupt):
                timer.start()
                for _ in range(400):
                    record(recorder, range(2, 52))
            timer.join()
            recorder.save_episode()
    assert_sound(root)
    for episode in range(4):
        expected = states(root, episode)
        assert shown(root, episode) == shown(root, episode, "left") == expected


def test_rows_of_a_discarded_first_episode_fix_nothing(tmp_path: Path) -> None:
    root = tmp_path / "data"
    with Recorder(robot(), root) as recorder:
        recorder.start_episode()
        recorder.write("top", picture(0))
        recorder.add_row({"misspelt": 1.0})
        recorder.discard_episode()
        recorder.start_episode()
        record(recorder, range(2))
        recorder.save_episode()
    assert_sound(root)
    assert states(root, 0) == [0, 1]


def test_a_recorder_that_saves_nothing_leaves_nothing(tmp_path: Path) -> None:
    root = tmp_path / "new" / "data"
    with Recorder(robot(), root) as recorder:
        recorder.start_episode()
        with pytest.raises(ConfigError, match="no rows"):
            recorder.save_episode()
    assert list(tmp_path.iterdir()) == []
