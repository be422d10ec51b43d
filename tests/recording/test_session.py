"""The recording loop: what ends an episode, what is told, and what becomes of cameras that fail."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from pathlib import Path

import pytest

from ffenc import RobotPreset, VideoEncoderConfig, VideoReader
from ffenc.config.source import CameraSource
from ffenc.errors import CameraError, ConfigError, FfencWarning
from ffenc.recording.cameras import Camera, CapturedFrame, Newest, NoFrame, open_camera, read_number
from ffenc.recording.cameras.camera import CameraStream
from ffenc.recording.control import Control
from ffenc.recording.events import (
    EpisodeDiscarded,
    EpisodeEncoding,
    EpisodeEnded,
    EpisodeSaved,
    EpisodeSaving,
    EpisodeStarted,
    Event,
    FrameRepeated,
    RowDropped,
    SessionEnded,
    SessionStarted,
    SessionSummary,
    Status,
)
from ffenc.recording.recorder import Recorder
from ffenc.recording.recover import recover
from ffenc.recording.session import record_episodes
from ffenc.recording.setup import choose_cameras, open_cameras, parse_source
from tests.recording.recording import FPS, assert_sound, episodes, notes, robot

pytestmark = pytest.mark.usefixtures("no_ffmpeg_left")


class Source:
    """Test pictures that come otherwise than the test camera's.

    Args:
        live: they come when they come, ``every`` so many seconds.
        paced: whether the loop keeps the frame rate.
        length: how many there are in an episode; then the source ends, or with ``error`` it fails.
    """

    def __init__(
        self,
        *,
        size: tuple[int, int] = (64, 48),
        live: bool = False,
        paced: bool = False,
        every: float = 0.0,
        length: int | None = None,
        error: CameraError | None = None,
    ) -> None:
        self._pictures = pictures(size)
        self.streams: Sequence[CameraStream] = self._pictures.streams
        self.live, self.paced = live, paced
        self._every, self._length, self._error = every, length, error
        self._given = 0
        self._closed = threading.Event()

    def open(self) -> None:
        pass

    def rewind(self) -> None:
        if not self.live:
            self._pictures.rewind()
            self._given = 0

    def read(self, timeout: float) -> Mapping[str, CapturedFrame] | None:
        if self._every:
            self._closed.wait(min(self._every, timeout))
        if self._given == self._length:
            if self._error is not None:
                raise self._error
            return None
        self._given += 1
        return self._pictures.read(timeout)

    def close(self) -> None:
        self._closed.set()


def pictures(size: tuple[int, int] = (64, 48)) -> Camera:
    return open_camera("top", CameraSource(type="test"), width=size[0], height=size[1], fps=Fraction(FPS))


def session(
    root: Path,
    camera: Camera,
    *,
    preset: RobotPreset | None = None,
    seconds: float = 10 / FPS,
    episodes: int = 1,
    when: Mapping[int, Callable[[Control], None]] | None = None,
    **options: object,
) -> tuple[list[Event], SessionSummary]:
    """Record; ``when``: what is asked for at the n-th row that is recorded, of all episodes."""
    control, events, rows = Control(), [], [0]

    def on_event(event: Event) -> None:
        events.append(event)
        if isinstance(event, Status):
            rows[0] += 1
            (when or {}).get(rows[0], lambda _: None)(control)

    preset = preset or robot()
    with Recorder(preset, root) as recorder:
        summary = record_episodes(
            recorder,
            [camera],
            episodes=episodes,
            seconds=seconds,
            control=control,
            on_event=on_event,
            status_seconds=0.0,
            **options,  # type: ignore[arg-type]
        )
    return events, summary


def numbers(root: Path, episode: int) -> list[int]:
    """What the pictures of an episode say."""
    row = episodes(root)[episode]
    key = "observation.images.top"
    with VideoReader(
        root / f"videos/{key}/chunk-000/file-{row[f'videos/{key}/file_index']:03d}.mp4"
    ) as video:
        return [read_number(frame) for frame in video]


def kinds(events: Sequence[Event]) -> list[str]:
    return [event.kind for event in events if not isinstance(event, Status)]


def test_episodes_have_their_length_at_the_frame_rate_and_begin_with_the_first_picture(tmp_path):
    events, summary = session(tmp_path / "d", pictures(), episodes=2)
    assert [saved.rows for saved in summary.episodes] == [10, 10]
    assert [numbers(tmp_path / "d", i) for i in range(2)] == [list(range(10))] * 2
    assert kinds(events) == [
        "session_started",
        *["episode_started", "episode_ended", "episode_saving", "episode_saved"] * 2,
        "session_ended",
    ]
    started = events[0]
    assert isinstance(started, SessionStarted)
    assert started.fields()["cameras"]["top"] | {"encoder": ""} == {
        "width": 64,
        "height": 48,
        "depth": False,
        "codec": "h264",
        "pix_fmt": "yuv420p",
        "encoder": "",
    }
    status = [event for event in events if isinstance(event, Status)]
    assert [one.rows for one in status] == [*range(1, 11)] * 2
    assert status[0].seconds_left == pytest.approx(9 / FPS, abs=0.01)
    assert_sound(tmp_path / "d")


def test_what_is_asked_for_ends_repeats_and_stops(tmp_path):
    asked = {3: Control.rerecord, 7: Control.end_episode, 13: Control.stop}
    events, summary = session(tmp_path / "d", pictures(), episodes=5, seconds=60, when=asked)
    assert kinds(events)[1:3] == ["episode_started", "episode_discarded"]
    assert [event.rows for event in events if isinstance(event, EpisodeDiscarded)] == [3]
    assert [(saved.index, saved.rows) for saved in summary.episodes] == [(0, 4), (1, 6)]
    assert (summary.discarded, summary.interrupted) == (1, False)
    assert numbers(tmp_path / "d", 0) == list(range(4))
    assert_sound(tmp_path / "d")


def test_until_the_scene_is_set_anew_an_episode_can_be_taken_back(tmp_path):
    control = Control()
    asked = iter([control.rerecord, control.end_episode])
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        if isinstance(event, EpisodeEnded) and event.reset_seconds:
            threading.Timer(0.05, next(asked)).start()

    with Recorder(robot(), tmp_path / "d") as recorder:
        record_episodes(
            *(recorder, [pictures()]),
            episodes=2,
            seconds=3 / FPS,
            reset_seconds=60,
            control=control,
            on_event=on_event,
        )
    saved = [event.episode for event in events if isinstance(event, EpisodeSaved)]
    assert saved == [0, 1]
    assert kinds(events).count("episode_discarded") == 1
    assert_sound(tmp_path / "d")


def test_what_is_asked_for_between_two_phases_is_of_neither(tmp_path):
    """A key that is pressed twice, while an episode is saved, or before the next has a row."""
    control = Control()
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        if isinstance(event, (EpisodeStarted, EpisodeSaving, EpisodeSaved)):
            control.end_episode()
            control.rerecord()
        if isinstance(event, Status) and event.rows == 2:
            for _ in range(3):  # the first ends it
                control.end_episode()

    with Recorder(robot(), tmp_path / "d") as recorder:
        record_episodes(
            *(recorder, [pictures()]),
            episodes=2,
            seconds=4 / FPS,
            reset_seconds=0.2,
            control=control,
            on_event=on_event,
            status_seconds=0.0,
        )
    assert [event.rows for event in events if isinstance(event, EpisodeSaved)] == [2, 2]
    assert kinds(events)[1:-1] == ["episode_started", "episode_ended", "episode_saving", "episode_saved"] * 2


@pytest.mark.parametrize("phase", [EpisodeStarted, EpisodeSaving, EpisodeSaved])
def test_the_end_of_all_makes_no_episode_of_one_row(tmp_path, phase):
    control = Control()
    events: list[Event] = []

    def on_event(event: Event) -> None:
        events.append(event)
        if isinstance(event, phase) and event.episode == (1 if phase is EpisodeStarted else 0):
            control.stop()

    with Recorder(robot(), tmp_path / "d") as recorder:
        summary = record_episodes(
            *(recorder, [pictures()]), episodes=3, seconds=4 / FPS, control=control, on_event=on_event
        )
    assert [saved.rows for saved in summary.episodes] == [4]
    assert not summary.interrupted
    assert_sound(tmp_path / "d")


def test_time_to_set_up_the_scene_and_attempts_are_told(tmp_path):
    asked = {2: Control.rerecord, 4: Control.rerecord}
    events, _ = session(
        tmp_path / "d", pictures(), episodes=2, seconds=3 / FPS, when=asked, reset_seconds=0.05
    )
    started = [
        (event.episode, event.number, event.attempt) for event in events if isinstance(event, EpisodeStarted)
    ]
    assert started == [(0, 1, 1), (0, 1, 2), (0, 1, 3), (1, 2, 1)]
    discarded = [event for event in events if isinstance(event, EpisodeDiscarded)]
    assert [(event.episode, event.attempt, event.reset_seconds) for event in discarded] == [
        (0, 1, 0.05),
        (0, 2, 0.05),
    ]
    assert [event.reset_seconds for event in events if isinstance(event, EpisodeEnded)] == [0.05, 0.0]
    assert events[0].fields()["task"] == "unspecified"


def test_a_file_is_recorded_as_fast_as_it_goes_and_its_end_is_the_episodes(tmp_path):
    events, summary = session(tmp_path / "d", Source(length=40), seconds=60, episodes=2)
    assert [saved.rows for saved in summary.episodes] == [40, 40]
    assert numbers(tmp_path / "d", 1) == list(range(40))
    rates = [event.fps for event in events if isinstance(event, Status)]
    assert max(rates) > FPS


def test_a_live_camera_without_a_new_frame_repeats_the_one_before(tmp_path):
    camera = Source(live=True, paced=True, every=2.5 / FPS)
    events, summary = session(tmp_path / "d", camera, seconds=15 / FPS)
    camera.close()
    repeated = [event.row for event in events if isinstance(event, FrameRepeated)]
    shown = numbers(tmp_path / "d", 0)
    assert repeated == [i for i in range(1, 15) if shown[i] == shown[i - 1]]
    assert summary.episodes[0].repeated == {"top": len(repeated)}
    assert len(repeated) >= 3
    assert notes(tmp_path / "d", 0)["repeated"] == {"top": repeated}


@pytest.mark.parametrize("on_full", ["drop", "repeat"])
def test_what_an_encoder_that_is_behind_costs_is_told_row_by_row(tmp_path, on_full):
    slow = VideoEncoderConfig(vcodec="h264", preset="veryslow", crf=18)
    preset = robot(colour=slow, width=640, on_full=on_full, queue_maxsize=2)
    events, summary = session(tmp_path / "d", Source(size=(640, 48), length=60), preset=preset, seconds=60)
    [saved] = summary.episodes
    noted = notes(tmp_path / "d", 0)
    if on_full == "drop":
        dropped = [event for event in events if isinstance(event, RowDropped)]
        assert saved.dropped == len(dropped) > 0
        assert saved.rows == 60 - saved.dropped
        assert [(one.row, one.frame, one.cameras) for one in dropped] == [
            (one["row"], one["frame"], one["cameras"]) for one in noted["dropped"]
        ]
        lost = {one.frame for one in dropped}
        assert numbers(tmp_path / "d", 0) == [i for i in range(60) if i not in lost]
    else:
        repeated = [event.row for event in events if isinstance(event, FrameRepeated)]
        assert noted["repeated"] == {"top": repeated}
        assert saved.rows == 60
        assert len(repeated) == saved.repeated["top"] > 0


def test_encoding_after_an_episode_tells_how_far_it_is(tmp_path):
    source = Source(paced=False, length=20)
    events, _ = session(tmp_path / "d", source, preset=robot(encode="after"), seconds=60)
    told = [(event.frames, event.of) for event in events if isinstance(event, EpisodeEncoding)]
    assert told
    assert told == sorted(told)
    assert all(0 <= frames <= of == 20 for frames, of in told)
    assert numbers(tmp_path / "d", 0) == list(range(20))


def test_what_was_recorded_of_an_episode_whose_camera_fails_is_kept(tmp_path):
    camera = Source(paced=True, length=8, error=CameraError("top: unplugged"))
    events: list[Event] = []
    with (
        pytest.warns(FfencWarning, match="ffenc recover"),
        pytest.raises(CameraError, match="unplugged"),
        Recorder(robot(), tmp_path / "d") as recorder,
    ):
        record_episodes(recorder, [camera], episodes=2, seconds=60, on_event=events.append)
    ended = events[-1]
    assert isinstance(ended, SessionEnded)
    assert (ended.error, ended.episodes) == ("top: unplugged", 0)
    [back] = recover(tmp_path / "d").episodes
    assert (back.rows, back.lost) == (8, 0)
    assert numbers(tmp_path / "d", 0) == list(range(8))


@pytest.mark.parametrize(
    ("fails", "said"), [(True, "the cable is loose"), (False, "top: the camera does not answer")]
)
def test_a_camera_that_hangs_hides_no_other_error_and_the_session_ends(tmp_path, monkeypatch, fails, said):
    monkeypatch.setattr("ffenc.recording.session.Newest", partial(Newest, timeout=0.1))
    monkeypatch.setattr("ffenc.recording.cameras.newest._CLOSE_SECONDS", 0.1)
    free = threading.Event()

    class Hanging(Source):
        def read(self, timeout: float) -> Mapping[str, CapturedFrame] | None:
            if self._given == 5:
                free.wait(60)
            return super().read(timeout)

    error = CameraError("the cable is loose")
    second = Source(live=True, every=1 / FPS, length=15 if fails else None, error=error)
    cameras = [Hanging(live=True, every=1 / FPS), second]
    second._pictures = open_camera("other", CameraSource(type="test"), width=64, height=48, fps=Fraction(FPS))
    second.streams = second._pictures.streams
    events: list[Event] = []
    preset = robot(cameras=("top", "other"), on_full="repeat")
    kept = pytest.warns(FfencWarning, match="was not saved") if fails else contextlib.nullcontext()
    try:
        with kept, Recorder(preset, tmp_path / "d") as recorder, pytest.raises(CameraError, match=said):
            seconds = 90 / FPS if fails else 8 / FPS
            record_episodes(recorder, cameras, episodes=1, seconds=seconds, on_event=events.append)
    finally:
        free.set()
    assert isinstance(events[-1], SessionEnded)
    assert said in (events[-1].error or "")
    assert events[-1].episodes == (0 if fails else 1)


class Silent(Source):
    """A live camera that gives no more frames after some."""

    def read(self, timeout: float) -> Mapping[str, CapturedFrame] | None:
        if self._given == self._length:
            self._closed.wait(timeout)
            raise NoFrame("top: the camera", timeout, "plug it in again")
        return super().read(timeout)


@pytest.mark.parametrize("asked", ["stop", "signal"])
def test_a_camera_without_a_first_frame_delays_no_end(tmp_path, monkeypatch, asked):
    monkeypatch.setattr("ffenc.recording.session._FIRST_SECONDS", 60)
    monkeypatch.setattr("ffenc.recording.session.Newest", partial(Newest, timeout=60))
    control, camera, before = Control(), Silent(live=True, paced=True, length=0), set(threading.enumerate())
    request = partial(os.kill, os.getpid(), signal.SIGINT) if asked == "signal" else control.stop
    ends = pytest.raises(KeyboardInterrupt) if asked == "signal" else contextlib.nullcontext()
    timer = threading.Timer(0.3, request)
    since = time.monotonic()
    with ends, Recorder(robot(), tmp_path / "d") as recorder:
        timer.start()
        record_episodes(recorder, [camera], episodes=1, seconds=60, control=control)
    assert time.monotonic() - since < 30
    timer.join()
    begun = {thread.name for thread in threading.enumerate() if thread not in before}
    assert begun <= {"ffenc-start"}  # which starts programs, and ends with the process
    assert list(tmp_path.iterdir()) == []


def test_a_camera_that_becomes_silent_delays_no_end(tmp_path, monkeypatch):
    monkeypatch.setattr("ffenc.recording.session.Newest", partial(Newest, timeout=60))
    camera = Silent(live=True, paced=True, every=1 / FPS, length=5)
    since = time.monotonic()
    _, summary = session(tmp_path / "d", camera, seconds=60, when={12: Control.stop})
    assert time.monotonic() - since < 30
    assert summary.episodes[0].rows >= 12


def test_a_silent_camera_has_failed_after_the_time_for_it():
    camera = Silent(live=True, length=0)
    newest = Newest(camera, timeout=0.3)
    try:
        with pytest.raises(CameraError, match=r"top: the camera gave no frame in 0\.3 s: plug it in again"):
            newest.take(20)
    finally:
        newest.close()


def test_a_length_that_is_no_number_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="nan s"):
        session(tmp_path / "d", Source(paced=False, length=1), seconds=float("nan"))
    assert list(tmp_path.iterdir()) == []


# ---- which cameras -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("test", {"type": "test"}),
        ("2", {"type": "v4l2", "device": "/dev/video2"}),
        ("/dev/v4l/by-id/usb-cam", {"type": "v4l2", "device": "/dev/v4l/by-id/usb-cam"}),
        ("realsense", {"type": "realsense"}),
        ("realsense:0123+depth", {"type": "realsense", "serial": "0123", "use_depth": True}),
        ("a b/c.db3", {"type": "realsense", "file": "a b/c.db3"}),
        ("c.bag+depth", {"type": "realsense", "file": "c.bag", "use_depth": True}),
    ],
)
def test_a_source_is_read_as_it_is_written(text, source):
    assert parse_source(text) == source


def test_a_folder_is_a_source_where_it_exists(tmp_path):
    assert parse_source(str(tmp_path)) == {"type": "folder", "path": str(tmp_path)}
    with pytest.raises(ConfigError, match="neither an existing folder"):
        parse_source(str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="realsense"):
        parse_source(f"{tmp_path}+depth")


def test_cameras_without_a_source_are_told_left_out_or_test_pictures(tmp_path):
    path = tmp_path / "robot.yaml"
    path.write_text(
        "cameras: {a: {width: 64, height: 48}, b: {source: {type: test}}, "
        "b_depth: {depth: true, depth_unit: m}}\n"
    )
    with pytest.raises(ConfigError, match=r"is set for a, b_depth; pass sources={'a': '/dev/video0'}"):
        choose_cameras(path)
    assert list(choose_cameras(path, sources={"new": {"type": "test"}}).preset.cameras) == ["b", "new"]
    chosen = choose_cameras(path, test=True)
    with open_cameras(chosen) as opened:
        sizes = {name: (one.width, one.height) for name, one in opened.preset.cameras.items()}
        assert sizes == {"a": (64, 48), "b": (640, 480), "b_depth": (640, 480)}
        assert opened.paced
        assert [camera.streams[0].depth_unit for camera in opened.cameras] == [None, None, "m"]
    both = choose_cameras(path, sources={"b": {"type": "realsense", "use_depth": True}})
    assert list(both.preset.cameras) == ["b", "b_depth"]
    assert both.preset.cameras["b_depth"].source is None


def test_test_pictures_replace_every_source_that_the_preset_names(tmp_path):
    path = tmp_path / "robot.yaml"
    path.write_text(
        "cameras: {head: {source: {type: realsense, serial: '12', use_depth: true}}, "
        "side: {width: 64, height: 48, source: {type: v4l2, device: /dev/video9}}}\n"
    )
    with open_cameras(choose_cameras(path, test=True)) as opened:
        cameras = opened.preset.cameras
        assert {name: one.source.type for name, one in cameras.items()} == dict.fromkeys(
            ("head", "side", "head_depth"), "test"
        )
        assert cameras["head_depth"].depth
    taken = choose_cameras(path, test=True, sources={"head": {"type": "realsense", "use_depth": True}})
    assert [
        name for name, one in taken.preset.cameras.items() if one.source and one.source.type == "test"
    ] == ["side"]
