"""One camera of LeRobot's streaming encoder: its frames, its encoder and the thread that connects them."""

from __future__ import annotations

import logging
import threading
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ffenc.codecs.pixel_formats import pixel_format
from ffenc.codecs.table import codec_for
from ffenc.compiler.frames import SampleTap, raw_format
from ffenc.config.encoder import VideoEncoderConfig
from ffenc.config.preset import RobotPreset, camera_name
from ffenc.config.validation import default_of
from ffenc.dataset.info_block import encoding_block
from ffenc.errors import ConfigError, FfencError
from ffenc.ffmpeg.index import PieceReader
from ffenc.ffmpeg.process import Buffer, FfmpegProcess
from ffenc.frames.depth import Unit
from ffenc.frames.depth_images import DepthSamples, DepthStatistics, depth_unit
from ffenc.frames.depth_loss import range_problem
from ffenc.frames.encoding import Encoding
from ffenc.frames.prepare import Absent, prepare
from ffenc.frames.statistics import RgbHistogram
from ffenc.lerobot.notes import remember_encoder
from ffenc.lerobot.options import is_depth
from ffenc.recording.begin import FRAGMENT_SECONDS
from ffenc.recording.channels import check_memory
from ffenc.recording.feed import Feed, FrameRing
from ffenc.recording.samples import SampleLog
from ffenc.recording.trial import trial_frames
from ffenc.recording.unfinished import (
    RecordedCamera,
)

if TYPE_CHECKING:
    from ffenc.lerobot.streaming import StreamingVideoEncoder
    from ffenc.lerobot.take import StreamedTake

_log = logging.getLogger("ffenc.lerobot")
_STALL_SECONDS = 60.0
_NICENESS: int = default_of(RobotPreset, "encoder_niceness")


class Encodings:
    """Prepared settings for frames of each size, tested once for all episodes.

    Args:
        fps: frames per second.
        threads: number of threads of an encoder.
    """

    def __init__(self, fps: Fraction, threads: int | None) -> None:
        self._fps, self._threads = fps, threads
        self._known: dict[tuple[str, int, int], Encoding] = {}
        self._absent: Absent = {}
        self._readers: dict[str, PieceReader] = {}
        self._lock = threading.Lock()

    def of(self, config: VideoEncoderConfig, width: int, height: int) -> Encoding:
        key = (repr(config), width, height)
        with self._lock:  # cameras with equal settings wait for one trial
            if key not in self._known:
                frames = raw_format(config)
                self._known[key] = prepare(
                    config,
                    trial_frames(width, height, frames),
                    width=width,
                    height=height,
                    fps=self._fps,
                    frames=frames,
                    encoder_threads=self._threads,
                    absent=self._absent,
                )
            return self._known[key]

    def reader(self, ffprobe: str) -> PieceReader:
        """Return the reader of finished files, shared by all episodes: only a first file needs ffprobe."""
        with self._lock:
            return self._readers.setdefault(ffprobe, PieceReader(ffprobe))


class StreamedCamera:
    """One camera in one episode.

    Args:
        key: its feature.
        owner: the encoder that it belongs to.
        video_encoder: LeRobot's encoder settings.

    Attributes:
        frames: number of frames fed.
        repeated: indices of the rows that repeat the previous frame.
    """

    def __init__(self, key: str, owner: StreamingVideoEncoder, video_encoder: Any) -> None:
        self.key, self.video_encoder = key, video_encoder
        self.encoder_threads = owner._encoder_threads
        self.depth = is_depth(video_encoder)
        self.frames = 0
        self.repeated: list[int] = []
        self.sink: _Sink | None = None
        self._owner = owner
        self._feed: Feed | None = None

    def feed(self, image: npt.NDArray[Any], take: StreamedTake) -> bool:
        """Queue a frame for encoding; return whether the previous frame is repeated instead.

        Raises:
            FfencError: the frame does not fit this camera, or the encoder has failed.
        """
        frame = self._checked(image)
        if self._feed is None:
            self._start(frame, take)
        assert self._feed is not None
        assert self.sink is not None
        if frame.shape != self.sink.shape or frame.dtype != self.sink.dtype:
            raise ConfigError(
                f"frame {self.frames} is {frame.dtype} {frame.shape}, the first was {self.sink.dtype} "
                f"{self.sink.shape}"
            )
        self._feed.write(frame)
        repeated = self._feed.repeated
        self._feed.commit()
        if repeated:
            self.repeated.append(self.frames)
        self.frames += 1
        return repeated

    def _checked(self, image: Any) -> npt.NDArray[Any]:
        """Return a frame as it is encoded: ``(H, W, 3)`` uint8, or ``(H, W)`` depth.

        Raises:
            ConfigError: it is neither.
        """
        frame = np.asarray(image)
        if frame.ndim == 3 and frame.shape[0] in (1, 3):  # LeRobot's rule for channels first
            frame = frame.transpose(1, 2, 0)
        if self.depth:
            if frame.ndim == 3 and frame.shape[2] == 1:
                frame = frame[..., 0]
            if frame.ndim != 2 or frame.dtype.kind not in "iuf":
                raise ConfigError(
                    f"{frame.dtype} {np.shape(image)} is not a depth map; pass numbers of shape (H, W)"
                )
            return frame
        # Other integers would overflow when they are multiplied by 255, as LeRobot does with all but uint8.
        if frame.ndim != 3 or frame.shape[2] != 3 or not (frame.dtype == np.uint8 or frame.dtype.kind == "f"):
            raise ConfigError(
                f"{frame.dtype} {np.shape(image)} is not an RGB frame; pass uint8 of shape (H, W, 3), or "
                "floats from 0 to 1"
            )
        return frame if frame.dtype == np.uint8 else (frame * 255).astype(np.uint8)

    def _start(self, frame: npt.NDArray[Any], take: StreamedTake) -> None:
        owner = self._owner
        ring = owner._rings.get(self.key)
        if ring is None or ring.slots.shape[1:] != frame.shape or ring.slots.dtype != frame.dtype:
            size = owner.queue_maxsize * frame.nbytes
            check_memory(f"encoder_queue_maxsize={owner.queue_maxsize}", size)
            # The ring's megabytes are allocated with the first frames: LeRobot's loop is waiting here.
            owner._rings[self.key] = ring = FrameRing(
                frame.shape, frame.dtype, owner.queue_maxsize, at_once=False
            )
        ring.reset()
        self.sink = _Sink(self, owner, take, frame, ring.pipe_bytes)
        self._feed = Feed(
            camera_name(self.key),
            ring,
            self.sink,
            on_full=owner.options.on_full,
            observe=self.sink.observe,
            convert=self.sink.samples_of if self.depth else None,
        )

    def close(self) -> None:
        """Let the encoder process the queued frames, and end it."""
        if self._feed is not None:
            self._feed.close()
        if self.sink is not None:
            self.sink.close()

    @property
    def error(self) -> FfencError | None:
        """The error of its encoder; None if it has not failed."""
        return self._feed.error if self._feed is not None else None


class _Sink:
    """The destination of a camera's frames: its ffmpeg, which is chosen and started with the first frame.

    This takes time if the encoder has to be tested, so it happens on the camera's thread, without delaying
    LeRobot's loop.
    """

    def __init__(
        self,
        camera: StreamedCamera,
        owner: StreamingVideoEncoder,
        take: StreamedTake,
        frame: npt.NDArray[Any],
        pipe: int,
    ) -> None:
        self.shape, self.dtype = frame.shape, frame.dtype
        self.unit: Unit | None = depth_unit(frame) if camera.depth else None
        self._camera, self._owner, self._take, self._pipe = camera, owner, take, pipe
        self._config = owner.options.settings(camera.key, camera.video_encoder)
        self.depth = DepthSamples(self._config, self.unit) if camera.depth else None
        # LeRobot's rule, which depends on the longer side.
        height, width = self.shape[:2]
        longer = max(width, height)
        self._step = int(longer / 150) if longer >= 300 else 1
        thin = frame[:: self._step, :: self._step]
        self.pixels = thin.shape[0] * thin.shape[1]
        tap = SampleTap(step=1, width=thin.shape[1], height=thin.shape[0])
        self.statistics = RgbHistogram(tap) if self.unit is None else DepthStatistics(tap, self.unit)
        self.recorded: RecordedCamera | None = None
        self.encoding: Encoding | None = None
        self._process: FfmpegProcess | None = None
        self._samples: SampleLog | None = None

    @property
    def reader(self) -> PieceReader:
        assert self.encoding is not None
        return self._owner._encodings.reader(self.encoding.toolchain.ffprobe)

    @property
    def ended(self) -> bool:
        return self._process is not None and self._process.ended

    def write(self, data: Buffer) -> bool:
        return self._running().write(data)

    def lend(self, data: Buffer) -> bool:
        return self._running().lend(data)

    def finish(self) -> object:
        return self._process.finish() if self._process is not None else None

    def observe(self, frame: npt.NDArray[Any]) -> None:
        """Add a frame to the statistics; LeRobot uses every frame."""
        if self.unit is not None and self._camera.key not in self._owner._examined:
            self._owner._examined.add(self._camera.key)
            problem = range_problem(self._config, [frame], self.unit)
            if problem is not None:
                _log.warning("%s: %s", self._camera.key, problem)
        self.statistics.add(frame[:: self._step, :: self._step])
        self._running()
        assert self._samples is not None
        self._samples.add(frame)

    def samples_of(self, frame: npt.NDArray[Any]) -> Buffer:
        assert self.depth is not None
        return self.depth.of(frame).data

    def close(self) -> None:
        if self._samples is not None:
            self._samples.close()

    def _running(self) -> FfmpegProcess:
        if self._process is not None:
            return self._process
        take, preset, key = self._take, self._owner.options.preset, self._camera.key
        height, width = self.shape[:2]
        self.encoding = encoding = self._owner._encodings.of(self._config, width, height)
        take.cancellation.check()
        block = encoding_block(encoding, self.unit)
        remember_encoder(take.root, key, block)
        config = encoding.config
        self.recorded = camera = RecordedCamera(
            *(key, width, height, self.unit, "live", config, block),
            codec_for(config.vcodec).stream,
            pixel_format(config.pix_fmt).stored,
        )
        self._samples = SampleLog(take.episode.samples(camera), width, height, self.unit)
        self._process = FfmpegProcess(
            encoding.command(take.episode.video(camera), fragment_seconds=FRAGMENT_SECONDS),
            cancellation=take.cancellation,
            stall_seconds=_STALL_SECONDS,
            niceness=_NICENESS if preset is None else preset.encoder_niceness,
            cpus=preset.encoder_cpus if preset is not None else None,
            pipe_bytes=self._pipe,
        )
        take.started()
        return self._process
