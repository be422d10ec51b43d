"""The recording loop: reads cameras at the frame rate and passes frames to a recorder."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from msgspec import Struct

from ffenc.config.framerate import parse_fps
from ffenc.errors import CameraError, ConfigError, DestinationError, FfencError
from ffenc.recording.cameras import Camera, CapturedFrame, Newest
from ffenc.recording.control import Asked, Control, End, signals_to
from ffenc.recording.events import (
    CameraSettings,
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
from ffenc.recording.results import SavedEpisode

_READ_SECONDS = 5.0  # timeout for the next frame of a file
_FIRST_SECONDS = 10.0  # timeout for the first frame of a device
_STEP_SECONDS = 0.1  # longest single wait for a camera: a signal only puts a request
_STATUS_SECONDS = 1.0
_RATE_SECONDS = 0.95
_MOST_WAITING = 64  # frames in a device and the pipe behind it


def record_episodes(
    recorder: Recorder,
    cameras: Sequence[Camera],
    *,
    episodes: int,
    seconds: float,
    reset_seconds: float = 0.0,
    control: Control | None = None,
    on_event: Callable[[Event], None] = lambda _: None,
    status_seconds: float = _STATUS_SECONDS,
    keep_on_interrupt: bool = True,
) -> SessionSummary:
    """Record episodes from cameras, at the preset's frame rate.

    A row is due at every i / fps; a missed row is counted, and not added later. A camera without a new frame
    repeats its previous one. If all cameras are files, the loop does not wait for the clock. An episode ends
    after its duration, when a file ends, or on a request of ``control``. It is saved after the time for
    resetting the scene, and can be recorded again until then.

    Args:
        recorder: open, with the streams of all cameras.
        cameras: open cameras; they are not closed.
        episodes: number of episodes to save.
        seconds: duration of each; it has seconds * fps rows.
        reset_seconds: time between two episodes.
        control: requests of a person.
        on_event: called with each event, in the loop's thread, or in others while an episode is encoded; must
            not block.
        status_seconds: interval of :class:`Status`.
        keep_on_interrupt: whether the episode is saved or deleted when Ctrl-C or another signal ends the
            session.

    Raises:
        CameraError: a camera has failed.
        FfencError: an encoder has failed, or the dataset cannot be written. The recorded part of the episode
            is kept for :func:`ffenc.recover`.
        KeyboardInterrupt: the session was interrupted; raised after all files are complete.
    """
    control = control or Control()
    with signals_to(control):
        session = _Session(
            recorder,
            cameras,
            episodes,
            seconds,
            reset_seconds,
            control,
            on_event,
            status_seconds,
            keep_on_interrupt,
        )
        session.run()
    return session.summary()


class _Session(Struct, dict=True):
    recorder: Recorder
    cameras: Sequence[Camera]
    episodes: int
    seconds: float
    reset_seconds: float
    control: Control
    on_event: Callable[[Event], None]
    status_seconds: float
    keep_on_interrupt: bool

    def __post_init__(self) -> None:
        names = [stream.name for camera in self.cameras for stream in camera.streams]
        if sorted(names) != sorted(self.recorder.cameras):
            raise ConfigError(
                f"the cameras give {', '.join(names)}; the recorder takes {', '.join(self.recorder.cameras)}"
            )
        values = self.recorder.features
        if values:
            raise DestinationError(
                f"{self.recorder.root}: its rows have values of {', '.join(values)}, but a "
                "recording of cameras alone has none; record into another folder, or from the "
                "robot's loop with ffenc.Recorder"
            )
        if not (math.isfinite(self.seconds) and math.isfinite(self.reset_seconds)):
            raise ConfigError(
                f"episodes of {self.seconds} s with {self.reset_seconds} s between them",
                expected="finite numbers",
            )
        self._fps = parse_fps(self.recorder.preset.fps)
        self._rows = max(1, round(self.seconds * self._fps))
        self._paced = any(camera.paced for camera in self.cameras)
        self._newest: dict[int, Newest] = {}  # of live cameras, by index
        self._saved: list[SavedEpisode] = []
        self._discarded = self._late = 0
        self._attempt = 1  # of the next episode
        self._ending: End | None = None  # stop or interrupt, after a request

    def summary(self) -> SessionSummary:
        return SessionSummary(list(self._saved), self._discarded, self._late, self._ending == "interrupt")

    def run(self) -> None:
        error: str | None = None
        hung: CameraError | None = None
        self._started()
        try:
            self._newest = {i: Newest(camera) for i, camera in enumerate(self.cameras) if camera.live}
            while self._ending is None and len(self._saved) < self.episodes:
                self._episode()
                self._ending = self._ending or self.control.stopped()
        except FfencError as found:
            error = str(found)
            raise
        except BaseException as found:
            error = type(found).__name__
            raise
        finally:
            for newest in self._newest.values():
                try:
                    newest.close()
                except CameraError as found:
                    hung = hung or found
            error = error or (str(hung) if hung is not None else None)
            rows = sum(one.rows for one in self._saved)
            root = str(self.recorder.root)
            interrupted = self._ending == "interrupt"
            self.on_event(SessionEnded(root, len(self._saved), rows, interrupted, error))
        if hung is not None:  # an earlier error is raised instead
            raise hung

    def _started(self) -> None:
        cameras = {}
        preset = self.recorder.preset
        for name, camera in self.recorder.cameras.items():
            kept = camera.way == "images"
            library = camera.block.get("video.encoder") or {}
            cameras[name] = CameraSettings(
                camera.width,
                camera.height,
                camera.depth,
                "png" if kept else camera.codec,
                None if kept else camera.pix_fmt,
                "" if kept else f"{library.get('encoder', '')} {library.get('encoder_version', '')}".strip(),
            )
        encode = preset.encode if preset.video else "never"
        root = str(self.recorder.root)
        fps = float(self._fps)
        task, seconds = self.recorder.task, self._rows / fps
        self.on_event(SessionStarted(root, task, fps, self.episodes, seconds, encode, cameras))

    def _episode(self) -> None:
        """Record one episode, and save or discard it."""
        index = self.recorder.status().episode
        take = _Take(index, len(self._saved) + 1, self.episodes, self._attempt)
        end = self._record(take)
        if end in ("stop", "interrupt"):
            self._ending = end
        if not take.rows or end == "rerecord" or (end == "interrupt" and not self.keep_on_interrupt):
            pause = self.reset_seconds if self._ending is None else 0.0
            self._discard(take, pause)
            self._reset(pause)
            return
        pause = self.reset_seconds if self._ending is None and take.number < self.episodes else 0.0
        self.control.begin(listens=pause > 0)
        self.on_event(EpisodeEnded(take.episode, take.rows, pause))
        if self._reset(pause) == "rerecord":
            self._discard(take, 0.0)
            return
        self.control.begin(listens=False)
        self.on_event(EpisodeSaving(take.episode))
        reported = 0.0

        def on_frames(frames: int, of: int) -> None:
            nonlocal reported
            if time.monotonic() - reported >= self.status_seconds:
                reported = time.monotonic()
                self.on_event(EpisodeEncoding(take.episode, frames, of))

        saved = self.recorder.save_episode(on_frames)
        self._saved.append(saved)
        self._attempt = 1
        self.on_event(
            EpisodeSaved(
                *(saved.index, saved.rows, round(saved.seconds, 3), saved.dropped, take.late),
                *(saved.repeated, saved.bytes),
            )
        )

    def _discard(self, take: _Take, pause: float) -> None:
        self.recorder.discard_episode()
        self._discarded += 1
        self._attempt += 1
        self.control.begin(listens=pause > 0)
        self.on_event(EpisodeDiscarded(take.episode, take.rows, take.attempt, pause))

    def _reset(self, seconds: float) -> Asked | None:
        """Wait while the scene is reset."""
        if not seconds:
            return None
        asked = self.control.take(seconds)
        if asked in ("stop", "interrupt"):
            self._ending = asked
        return asked

    def _record(self, take: _Take) -> End:
        """Record an episode's rows; return what has ended it."""
        self.control.begin(listens=False)
        for camera in self.cameras:
            camera.rewind()
        self.recorder.start_episode()
        self.on_event(EpisodeStarted(take.episode, take.number, take.episodes, take.attempt))
        for newest in self._newest.values():
            self._empty(newest, float(1 / self._fps) / 4)
        frames = self._frames(first=True)
        stopped = self.control.stopped()
        if stopped is not None:
            return stopped
        if frames is None:
            raise CameraError(f"{self._names(self.cameras)}: a file has no frame")
        self.control.begin(listens=True)
        clock = _Clock(self._fps)
        rate = _Rate(clock.began)
        while frames is not None:
            self._row(take, frames)
            now = time.monotonic()
            if now - rate.when >= self.status_seconds:
                self._status(take, rate.rate(now, take.rows))
            if take.rows == self._rows:
                return "full"
            asked = self.control.take(clock.left() if self._paced else 0.0)
            if asked is not None:
                return asked
            if self._paced:
                missed = clock.next()
                take.late += missed
                self._late += missed
            frames = self._frames(first=not take.rows)
        return self.control.take() or "source"

    def _empty(self, newest: Newest, seconds: float) -> None:
        """Drop frames that were taken before and are buffered: those that arrive without any wait."""
        for _ in range(_MOST_WAITING):
            began = time.monotonic()
            self._first(newest, _FIRST_SECONDS)
            if time.monotonic() - began >= seconds or self.control.asked:
                return

    def _first(self, newest: Newest, seconds: float) -> Mapping[str, CapturedFrame] | None:
        """Return a live camera's first frames; None: none came in time, or before a request."""
        until = time.monotonic() + seconds
        while True:
            left, ended = until - time.monotonic(), newest.ended
            found = newest.take(max(0.0, min(left, _STEP_SECONDS)))
            if found is not None or ended or left <= 0 or self.control.asked:
                return found

    def _frames(self, *, first: bool) -> Mapping[str, CapturedFrame | None] | None:
        """Read every camera.

        Args:
            first: there is no row yet, so every live camera has to give a frame. Otherwise all of them
                together are waited for half a frame.

        Returns:
            Each stream's frame, None for one without a new frame; or None: a file has ended, or a request
            came before the first frame.
        """
        # Wait half a frame: a camera whose frames arrive at about their due times would otherwise be
        # alternately early and late, and every other frame would be repeated.
        seconds = _FIRST_SECONDS if first else float(1 / self._fps) / 2
        until = time.monotonic() + seconds
        frames: dict[str, CapturedFrame | None] = {}
        for i, camera in enumerate(self.cameras):
            newest = self._newest.get(i)
            if newest is None:
                found = camera.read(_READ_SECONDS)
                if found is None:
                    return None
                frames |= found
                continue
            left = max(0.0, until - time.monotonic())
            found = self._first(newest, left) if first else newest.take(left)
            if found is None and first and self.control.asked:
                return None
            if found is None and (newest.ended or first):
                why = "delivers no more frames" if newest.ended else f"no frame has come in {seconds:.0f} s"
                raise CameraError(f"{self._names([camera])}: {why}")
            frames |= found if found is not None else dict.fromkeys(s.name for s in camera.streams)
        return frames

    def _row(self, take: _Take, frames: Mapping[str, CapturedFrame | None]) -> None:
        """Pass a row's frames to the recorder, and report what it did not store."""
        for name, frame in frames.items():
            if frame is None:
                self.recorder.write(name, None)
            else:
                self.recorder.write(name, frame.data, frame.timestamp)
        row = self.recorder.add_row()
        if row.number is None:
            self.on_event(RowDropped(take.episode, take.rows + take.dropped, take.rows, list(row.dropped)))
            take.dropped += 1
            return
        for name in row.repeated:
            self.on_event(FrameRepeated(take.episode, row.number, name))
        take.rows += 1

    def _status(self, take: _Take, fps: float) -> None:
        self.on_event(
            Status(
                take.episode,
                take.number,
                take.episodes,
                take.rows,
                take.dropped,
                take.late,
                round(fps, 2),
                round(float((self._rows - take.rows) / self._fps), 2),
                self.recorder.status().cameras,
            )
        )

    @staticmethod
    def _names(cameras: Sequence[Camera]) -> str:
        return ", ".join(stream.name for camera in cameras for stream in camera.streams)


class _Take(Struct):
    """The episode that is being recorded."""

    episode: int
    number: int
    episodes: int
    attempt: int
    rows: int = 0
    dropped: int = 0
    late: int = 0


class _Clock:
    """The times at which rows are due: i / fps after the first, by the monotonic clock.

    Args:
        fps: rows per second.
    """

    def __init__(self, fps: Fraction) -> None:
        self._fps = fps
        self._tick = 1
        self.began = time.monotonic()

    def left(self) -> float:
        """Return the seconds until the next row is due, 0 if it is late."""
        return max(0.0, self.began + float(self._tick / self._fps) - time.monotonic())

    def next(self) -> int:
        """Advance to the next due time; return how many were missed, which are skipped."""
        passed = int((time.monotonic() - self.began) * self._fps)
        missed = max(0, passed - self._tick)
        self._tick += missed + 1
        return missed


class _Rate:
    """Rows per second, over about the last second.

    Args:
        when: time of the first row.
    """

    def __init__(self, when: float) -> None:
        self.when = when  # time of the last call
        self._past = deque([(when, 0)])

    def rate(self, now: float, rows: int) -> float:
        """Record the number of rows, and return the rate."""
        self.when = now
        self._past.append((now, rows))
        while len(self._past) > 2 and now - self._past[1][0] >= _RATE_SECONDS:
            self._past.popleft()
        then, before = self._past[0]
        return (rows - before) / max(now - then, 1e-9)
