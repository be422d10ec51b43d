"""LeRobot records with ffenc's encoder."""

from __future__ import annotations

import json
import logging
import pickle
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import DEPTH, FEATURES, FPS, RGB, create, depth, info_of, opened, picture, row, sound
from lerobot.configs.video import DepthEncoderConfig
from lerobot.datasets import VideoEncodingManager
from lerobot.datasets.depth_utils import quantize_depth
from lerobot.datasets.lerobot_dataset import LeRobotDataset

import ffenc.lerobot
from ffenc import VideoReader, probe, recover
from ffenc.errors import DestinationError
from ffenc.lerobot.seams import Use
from ffenc.recording.unfinished import UnfinishedEpisode

LENGTHS = (12, 9)


def record(root: Path) -> Any:
    dataset = create(root)
    for length in LENGTHS:
        for number in range(length):
            dataset.add_frame(row(number))
        dataset.save_episode()
    dataset.finalize()
    return dataset


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same recording by LeRobot alone, and with ffenc."""
    folder = tmp_path_factory.mktemp("both")
    record(folder / "alone")
    with ffenc.lerobot.use():
        record(folder / "ours")
    return folder / "alone", folder / "ours"


def test_statistics_and_fields_are_lerobots(both: tuple[Path, Path]) -> None:
    alone, ours = both
    assert info_of(ours) == info_of(alone)
    stats = [json.loads((root / "meta/stats.json").read_text()) for root in both]
    assert stats[1].keys() == stats[0].keys()
    for key, one in stats[0].items():
        assert stats[1][key].keys() == one.keys()
        for name, value in one.items():
            # LeRobot has sums of float32, and quantiles of a histogram of 5,000 steps.
            step = np.ptp([one["min"], one["max"]]) / 1000 if name.startswith("q") else 1e-6
            assert np.shape(stats[1][key][name]) == np.shape(value)
            np.testing.assert_allclose(stats[1][key][name], value, rtol=1e-4, atol=max(step, 1e-6))
    episodes = [pq.read_table(root / "meta/episodes") for root in both]
    assert set(episodes[1].column_names) == set(episodes[0].column_names)


def test_what_lerobot_reads_back(both: tuple[Path, Path]) -> None:
    dataset = opened(both[1])
    theirs = opened(both[0])
    assert len(dataset) == sum(LENGTHS)
    for index in range(len(dataset)):
        item = dataset[index]
        number = int(item["frame_index"])
        shown = (item[RGB].numpy().transpose(1, 2, 0) * 255).round()
        assert np.abs(shown - picture(number)).mean() < 2
        assert item["action"].tolist() == [number, -number]
        assert (item[DEPTH] == theirs[index][DEPTH]).all()  # LeRobot's codes, to the last one


def test_files(both: tuple[Path, Path]) -> None:
    assert sound(both[1]) == (2, 21)
    assert not (both[1] / ".recording").exists()
    for number, length in enumerate(LENGTHS):  # an episode's files are whole when it is saved
        for key in (RGB, DEPTH):
            info = probe(both[1] / f"videos/{key}/chunk-000/file-{number:03d}.mp4", times=True)
            assert info.frames == length
            assert [time * info.time_base * FPS for time in info.times] == list(range(length))
    own = json.loads((both[1] / "meta/ffenc.json").read_text())["cameras"]
    assert own[RGB]["video.encoder"]["vcodec"] == "libsvtav1"
    assert own[DEPTH]["video.invalid"] == "clip"


def test_a_recording_is_resumed(both: tuple[Path, Path], used: Use) -> None:
    root = both[1].with_name("resumed")
    subprocess.run(["cp", "-r", str(both[1]), str(root)], check=True)
    dataset = LeRobotDataset.resume("local/resumed", root=root, streaming_encoding=True)
    for number in range(5):
        dataset.add_frame(row(number))
    dataset.save_episode()
    dataset.finalize()
    assert sound(root, deep=False) == (3, 26)
    assert len([opened(root)[index] for index in range(26)]) == 26


def test_full_queues_repeat_and_are_reported(
    tmp_path: Path, used: Use, caplog: pytest.LogCaptureFixture
) -> None:
    """The encoder is started by the first frame; the others come faster than any program starts."""
    features = {name: FEATURES[name] for name in (RGB, "action")}
    dataset = create(tmp_path / "fast", features=features, encoder_queue_maxsize=2)
    with caplog.at_level(logging.WARNING, "ffenc.lerobot"):
        for number in range(30):
            dataset.add_frame({name: value for name, value in row(number).items() if name != DEPTH})
        dataset.save_episode()
    dataset.finalize()
    said = [one.getMessage() for one in caplog.records if "Episode finished" in one.getMessage()]
    assert len(said) == 1
    assert f"{RGB} repeats " in said[0]
    assert " of 30 frames, at rows " in said[0]
    assert sound(tmp_path / "fast") == (1, 30)


def test_a_depth_range_that_does_not_fit_is_reported_once(
    tmp_path: Path, used: Use, caplog: pytest.LogCaptureFixture
) -> None:
    for unfit in (False, True):
        caplog.clear()
        encoder = DepthEncoderConfig(depth_max=1.0) if unfit else DepthEncoderConfig()
        dataset = create(tmp_path / f"{unfit}", depth_encoder=encoder)
        with caplog.at_level(logging.WARNING, "ffenc.lerobot"):
            for _ in range(2):
                for number in range(3):
                    dataset.add_frame(row(number))
                dataset.save_episode()
        dataset.finalize()
        said = [one.getMessage() for one in caplog.records if "of the depth is outside" in one.getMessage()]
        assert len(said) == unfit
        assert all(one.startswith(f"{DEPTH}: in the first frames") for one in said)


def test_block_waits(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with ffenc.lerobot.use(on_full="block"), caplog.at_level(logging.WARNING, "ffenc.lerobot"):
        dataset = create(tmp_path / "slow", encoder_queue_maxsize=1)
        for number in range(20):
            dataset.add_frame(row(number))
        dataset.save_episode()
        dataset.finalize()
    assert not [one for one in caplog.records if one.name == "ffenc.lerobot"]
    shown = [(opened(tmp_path / "slow")[n][RGB][0].mean() * 255).item() for n in range(20)]
    np.testing.assert_allclose(shown, [picture(n)[..., 0].mean() for n in range(20)], atol=2)


def test_an_episode_that_is_recorded_again_leaves_nothing(tmp_path: Path, used: Use) -> None:
    root = tmp_path / "again"
    dataset = create(root)
    for number in range(6):
        dataset.add_frame(row(number))
    dataset.clear_episode_buffer()
    assert not [path for path in root.rglob("*") if path.suffix == ".mp4"]
    for number in range(4):
        dataset.add_frame(row(number))
    dataset.save_episode()
    dataset.finalize()
    assert sound(root, deep=False) == (1, 4)
    assert not (root / ".recording").exists()


def test_what_was_just_recorded_can_be_read(tmp_path: Path, used: Use) -> None:
    """By the same object, while it goes on recording."""
    dataset = create(tmp_path / "read")
    for count in (4, 3):
        for number in range(count):
            dataset.add_frame(row(number))
        dataset.save_episode()
        assert len(dataset.meta.episodes) == dataset.num_episodes
        assert dataset.meta.episodes[-1]["length"] == count
    dataset.finalize()
    assert list(dataset.meta.episodes["length"]) == [4, 3]
    assert dataset.meta.episodes.filter(lambda one: one["length"] == 3)["episode_index"] == [1]
    assert pickle.loads(pickle.dumps(dataset.meta.episodes))[0]["length"] == 4
    assert dataset[5]["action"].tolist() == [1, -1]


@pytest.mark.parametrize(
    "image",
    [np.zeros((48, 64), np.uint8), np.zeros((24, 32, 3), np.uint8), np.full((48, 64, 3), 200, np.int64)],
    ids=["one channel", "another size", "64-bit integers"],
)
def test_what_is_no_frame_is_refused(tmp_path: Path, used: Use, image: np.ndarray) -> None:
    from lerobot.datasets.video_utils import StreamingVideoEncoder

    encoder = StreamingVideoEncoder(FPS)
    encoder.start_episode([RGB], tmp_path)
    encoder.feed_frame(RGB, picture(0))
    with pytest.raises(RuntimeError, match=r"Encoder for observation.images.front crashed: .*\(\d+, \d+"):
        encoder.feed_frame(RGB, image)
    encoder.close()
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_cannot_run_is_named(tmp_path: Path, used: Use) -> None:
    """LeRobot takes an option it does not know; the encoder's own words come back with the episode."""
    from lerobot.configs import RGBEncoderConfig
    from lerobot.datasets.video_utils import StreamingVideoEncoder

    encoder = StreamingVideoEncoder(FPS, RGBEncoderConfig(extra_options={"no_such_option": 1}))
    encoder.start_episode([RGB], tmp_path)
    with pytest.raises(RuntimeError, match="no_such_option"):
        for number in range(2000):
            encoder.feed_frame(RGB, picture(number))
            time.sleep(0.01)
    with pytest.raises(RuntimeError, match="no_such_option"):
        encoder.finish_episode()
    encoder.close()


def test_the_loop_waits_for_no_disk(tmp_path: Path, used: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = threading.Event()
    make = UnfinishedEpisode.create

    def slow(root: Path, settings: Any) -> UnfinishedEpisode:
        assert answers.wait(60), "add_frame has waited for the episode's folder"
        return make(root, settings)

    monkeypatch.setattr(UnfinishedEpisode, "create", slow)
    dataset = create(tmp_path / "slow")
    for number in range(8):
        dataset.add_frame(row(number))
    answers.set()
    dataset.save_episode()
    dataset.finalize()
    assert sound(tmp_path / "slow") == (1, 8)

    def full(root: Path, settings: Any) -> UnfinishedEpisode:
        raise DestinationError(f"{root}: cannot be written: No space left on device")

    monkeypatch.setattr(UnfinishedEpisode, "create", full)
    dataset = create(tmp_path / "full")
    with pytest.raises(RuntimeError, match=r"camera front.*full: cannot be written: No space left"):
        for number in range(2000):
            dataset.add_frame(row(number))
            time.sleep(0.01)
    dataset.writer.cancel_pending_videos()


def test_frames_in_lerobots_other_shapes(tmp_path: Path, used: Use) -> None:
    from lerobot.datasets.video_utils import StreamingVideoEncoder

    encoder = StreamingVideoEncoder(FPS)
    encoder.start_episode([RGB, DEPTH], tmp_path, depth_video_keys=[DEPTH])
    for number in range(3):
        encoder.feed_frame(RGB, picture(number).transpose(2, 0, 1).astype(np.float32) / 255)
        encoder.feed_frame(DEPTH, depth(number)[..., 0].astype(np.float32) / 1000)
    results = encoder.finish_episode()
    path, stats = results[RGB]
    assert path.parent != results[DEPTH][0].parent  # LeRobot deletes each with its folder
    assert stats is not None
    pixels = np.stack([picture(n) for n in range(3)]).reshape(-1, 3)
    np.testing.assert_allclose(stats["mean"], pixels.mean(0), atol=1)
    assert stats["count"].tolist() == [len(pixels)]
    assert results[DEPTH][1]["max"].shape == (1,)
    assert results[DEPTH][1]["max"][0] == pytest.approx(depth(2).max() / 1000)
    encoder.close()
    with VideoReader(results[DEPTH][0], depth=False) as video:
        expected = quantize_depth(depth(1)[..., 0].astype(np.float32) / 1000, video_backend=None)
        assert (np.asarray(video[1]).reshape(expected.shape) == expected).all()


# --- interruptions ------------------------------------------------------------------------------------------

# LeRobot takes ten seconds of a processor to start: one start is the process that is killed while it saves,
# the one that an error ends, and the one that is killed while it records.
KILLED = """
import os, sys, time
sys.path.insert(0, {folder!r})
import ffenc.lerobot
ffenc.lerobot.use()
from pathlib import Path
from conftest import create, row

def saving(dataset):
    for count in (6, 7):
        for number in range(count):
            dataset.add_frame(row(number))
        if count == 7:
            dataset.meta.save_episode = lambda *a, **k: os._exit(9)
        dataset.save_episode()

folder = Path(sys.argv[1])
for name in ("saving", "failing", "recording"):
    if name == "recording" or not (child := os.fork()):
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
dataset = create(folder / name)
if name == "saving":
    saving(dataset)
for number in range(8):
    dataset.add_frame(row(number))
dataset.save_episode()
if name == "failing":
    for number in range(40):
        dataset.add_frame(row(number))
    raise ConnectionError("the robot is gone")
for number in range(61):
    dataset.add_frame(row(number))
    time.sleep(1 / 60)
print("recording", flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what was being saved or recorded when the process was killed, or an error ended it."""
    folder = tmp_path_factory.mktemp("killed")
    script = KILLED.format(folder=str(Path(__file__).parent))
    with subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        stdout=subprocess.PIPE,
        text=True,
        stderr=subprocess.DEVNULL,
    ) as program:
        assert program.stdout is not None
        assert [program.stdout.readline() for _ in range(2)] == ["9\n", "1\n"]
        assert program.stdout.readline() == "recording\n"
        while True:  # until both encoders have written a part that can be read, however busy the machine is
            parts = (folder / "recording").glob(".recording/*/*.mp4")
            written = [path.read_bytes().count(b"moof") for path in parts]
            if len(written) == 2 and min(written) > 1:
                break
            assert program.poll() is None
            time.sleep(0.05)
        program.send_signal(signal.SIGKILL)
    return folder


def test_a_killed_recording_comes_back(killed: Path) -> None:
    root = killed / "recording"
    assert sound(root, deep=False) == (1, 8)  # the saved one is whole
    (back,) = recover(root).episodes
    assert back.error is None
    assert back.index == 1
    assert back.rows > 20
    assert sound(root) == (2, 8 + back.rows)
    dataset = opened(root)
    for index in range(8, len(dataset)):
        item = dataset[index]
        number = index - 8
        assert item["action"].tolist() == [number, -number]
        assert np.abs((item[RGB][0].numpy() * 255) - picture(number)[..., 0]).mean() < 2
    assert item["task"] == "lift"


def test_a_kill_while_lerobot_saves(killed: Path) -> None:
    """Rows are written, videos are in place, and the episode is not in the list."""
    root = killed / "saving"
    assert len(opened(root)) == 6
    assert [(one.index, one.rows, one.lost) for one in recover(root).episodes] == [(1, 7, 0)]
    with ffenc.lerobot.use():  # what the kill has left is in nobody's way
        dataset = LeRobotDataset.resume("local/saving", root=root, streaming_encoding=True)
        for number in range(3):
            dataset.add_frame(row(number))
        dataset.save_episode()
        dataset.finalize()
    dataset = opened(root)
    assert [dataset[n]["action"].tolist()[0] for n in range(16)] == [*range(6), *range(7), *range(3)]
    assert not list((root / "data").rglob(".*"))


def test_an_error_that_nothing_handles_keeps_the_episode(killed: Path) -> None:
    """No VideoEncodingManager is around the loop, and waiting frames are passed on before threads end."""
    root = killed / "failing"
    assert sound(root, deep=False) == (1, 8)
    assert [(one.index, one.rows, one.lost) for one in recover(root).episodes] == [(1, 40, 0)]
    assert sound(root) == (2, 48)
    assert [opened(root)[8 + n]["action"].tolist() for n in range(40)] == [[n, -n] for n in range(40)]


def test_a_dataset_that_is_finalised_keeps_an_unsaved_episode(
    tmp_path: Path, used: Use, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "unsaved"
    dataset = create(root)
    for count in (5, 7):
        for number in range(count):
            dataset.add_frame(row(number))
        if count == 5:
            dataset.save_episode()
    dataset.finalize()
    assert "the episode was not saved; 7 rows are kept in" in caplog.text
    assert sound(root, deep=False) == (1, 5)
    assert [(one.index, one.rows, one.lost) for one in recover(root).episodes] == [(1, 7, 0)]
    assert sound(root) == (2, 12)


def test_an_error_while_saving_leaves_the_dataset_as_it_was(tmp_path: Path, used: Use) -> None:
    root = tmp_path / "failed"
    dataset = create(root)
    for number in range(5):
        dataset.add_frame(row(number))
    dataset.save_episode()
    for number in range(4):
        dataset.add_frame(row(number))
    encoder = dataset.writer._streaming_encoder
    encoder._take.cancellation.cancel()  # the encoders are killed
    with pytest.raises(RuntimeError, match="Encoder failed"):
        dataset.save_episode()
    dataset.finalize()
    assert sound(root) == (1, 5)
    assert not list((root / "data").rglob(".*"))


def test_an_error_in_the_loop_keeps_the_episode(tmp_path: Path, used: Use) -> None:
    root = tmp_path / "error"
    dataset = create(root)
    with pytest.raises(ConnectionError), VideoEncodingManager(dataset):
        for number in range(5):
            dataset.add_frame(row(number))
        dataset.save_episode()
        for number in range(7):
            dataset.add_frame(row(number))
        raise ConnectionError("the robot is gone")
    assert sound(root, deep=False) == (1, 5)
    assert [(one.index, one.rows, one.lost) for one in recover(root).episodes] == [(1, 7, 0)]
    assert sound(root) == (2, 12)
    assert [opened(root)[5 + n]["action"].tolist() for n in range(7)] == [[n, -n] for n in range(7)]


def test_the_first_episode_of_a_dataset_comes_back(tmp_path: Path, used: Use) -> None:
    root = tmp_path / "first"
    dataset = create(root)
    with pytest.raises(ConnectionError), VideoEncodingManager(dataset):
        for number in range(7):
            dataset.add_frame(row(number))
        raise ConnectionError("the robot is gone")
    assert [(one.index, one.rows, one.lost) for one in recover(root).episodes] == [(0, 7, 0)]
    assert len(opened(root)) == 7
    assert sound(root) == (1, 7)
