"""End of an episode: its files are finished, checked, and added to the dataset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from ffenc.config.encoder import DepthEncoderConfig
from ffenc.dataset.episode_columns import row_table
from ffenc.dataset.growing import GrowingDataset
from ffenc.dataset.model import Episode, FinishedVideo, Known
from ffenc.errors import VerificationError
from ffenc.ffmpeg.join import Joined, join_files
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.probe import StreamInfo, probe
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.clip import Clip
from ffenc.frames.decoded import decode_image
from ffenc.frames.depth import DepthQuantizer
from ffenc.frames.depth_images import DepthSamples, DepthStatistics
from ffenc.frames.encode import encode_frames, verify_encoded
from ffenc.frames.encoding import Encoding
from ffenc.frames.publish import published
from ffenc.frames.sources import FrameSource, ImageFiles
from ffenc.frames.statistics import RgbHistogram, Stats, sample_tap
from ffenc.frames.transcode import clip_statistics
from ffenc.frames.verify import verify_video
from ffenc.parallel.pool import run_units
from ffenc.recording.rows import Features, Rows
from ffenc.recording.samples import read_samples, sample_step
from ffenc.recording.unfinished import RecordedCamera, UnfinishedEpisode


class CameraResult(Struct, frozen=True):
    """A camera's contribution to the dataset.

    Attributes:
        stream: the finished file, or the images if they stay images.
        stats: its statistics.
    """

    stream: FinishedVideo | FrameSource
    stats: Stats


def statistics_of(
    camera: RecordedCamera, frames: int, *, step: int | None = None
) -> RgbHistogram | DepthStatistics:
    """Return an object that computes a camera's statistics.

    Args:
        camera: the camera.
        frames: number of frames.
        step: distance of the sampled frames; None: by LeRobot's rule.
    """
    tap = sample_tap(frames, *camera.stored_size)
    tap = replace(tap, step=step or tap.step)
    return DepthStatistics(tap, camera.unit) if camera.unit is not None else RgbHistogram(tap)


def recorded_statistics(
    episode: UnfinishedEpisode,
    camera: RecordedCamera,
    frames: int,
    stored: ImageFiles | tuple[Path, StreamInfo],
    toolchain: Toolchain,
) -> Stats:
    """Return the statistics of a camera whose frames were sampled while they arrived.

    Args:
        episode, camera: the episode and its camera.
        frames: number of frames.
        stored: its images, or its video with stream fields. If a power failure has destroyed samples, they
            are read from there.
        toolchain: the programs.

    Raises:
        SourceError: a frame is damaged.
    """
    path = episode.samples(camera)
    kept = read_samples(path, *camera.stored_size, camera.unit, frames)
    if kept is not None:
        return kept.statistics()
    statistics = statistics_of(camera, frames, step=sample_step(frames))
    if isinstance(stored, ImageFiles):
        for frame in stored:
            statistics.add(decode_image(frame.data, frame.name))
        return statistics.statistics()
    quantizer = None
    if isinstance(camera.config, DepthEncoderConfig) and camera.config.pix_fmt == "gray12le":
        quantizer = DepthQuantizer.from_config(camera.config)
    clip = Clip(*stored, 0, frames)
    clip_statistics(clip, statistics, quantizer=quantizer, toolchain=toolchain)
    return statistics.statistics()


def remux(
    episode: UnfinishedEpisode,
    camera: RecordedCamera,
    source: Path,
    info: StreamInfo,
    toolchain: Toolchain,
    verify: Callable[[Path], StreamInfo],
) -> tuple[Path, StreamInfo]:
    """Copy a camera's packets to the file for the dataset, with the index at the front.

    Args:
        episode, camera: the episode and its camera.
        source: the recorded file.
        info: its stream fields.
        toolchain: the programs.
        verify: verifies the new file.

    Raises:
        FfmpegError, VerificationError: copying failed, or the file is not what was requested.
    """
    result = episode.result(camera)
    with published(result) as temporary:
        part = Joined(source, info.frames, info.decode_delay)
        fps = episode.settings.fps
        join_files([part], temporary, fps=fps, tag=info.tag, toolchain=toolchain)
        return result, verify(temporary)


def finish_video(
    episode: UnfinishedEpisode,
    camera: RecordedCamera,
    rows: int,
    encoding: Encoding,
    samples: DepthSamples | None,
    read: Callable[[Path], StreamInfo] | None = None,
) -> tuple[Path, StreamInfo]:
    """Finish a video that was encoded during the recording.

    Args:
        episode, camera, rows, encoding, samples: the episode, its camera, and how the video was encoded.
        read: reads the stream fields of the finished file, with ``times``; None: ffprobe does.

    Raises:
        FfmpegError, VerificationError: it has other frames than were sent, or is not what was requested.
    """
    source = episode.video(camera)
    info = probe(source, times=True, ffprobe=encoding.toolchain.ffprobe)
    if info.frames != rows:
        raise VerificationError(f"{source} has {info.frames} frames, but the table has {rows} rows")
    sent = samples.sent if samples is not None else None
    return remux(
        *(episode, camera, source, info, encoding.toolchain),
        lambda path: verify_encoded(encoding, path, rows, sent, read=read),
    )


def verify_recovered(
    camera: RecordedCamera, episode: UnfinishedEpisode, path: Path, frames: int, toolchain: Toolchain
) -> StreamInfo:
    """Compare a file with its settings, if its encoding is no longer known."""
    width, height = camera.stored_size
    return verify_video(
        path,
        camera.config,
        width=width,
        height=height,
        fps=episode.settings.fps,
        frames=frames,
        depth=camera.depth,
        ffprobe=toolchain.ffprobe,
    )


def encode_images(
    episode: UnfinishedEpisode,
    camera: RecordedCamera,
    encoding: Encoding,
    images: ImageFiles,
    on_frames: Callable[[int], None] | None = None,
    cancellation: Cancellation | None = None,
) -> CameraResult:
    """Encode a camera's images, in the same way as a dataset of images.

    Raises:
        SourceError: an image is damaged; the text names it.
        FfmpegError, VerificationError: the encode failed, or its result is not what was requested.
    """
    result = episode.result(camera)
    samples = DepthSamples(encoding.config, camera.unit) if camera.depth else None
    statistics = statistics_of(camera, len(images))
    with published(result) as temporary:
        encode_frames(
            encoding,
            images,
            images.check(),
            temporary,
            depth=samples,
            statistics=statistics,
            on_frames=on_frames,
            cancellation=cancellation,
        )
        sent = samples.sent if samples is not None else None
        info = verify_encoded(encoding, temporary, len(images), sent, cancellation)
    return CameraResult(FinishedVideo(result, info), statistics.statistics())


def for_all(
    cameras: Iterable[RecordedCamera],
    work: Callable[[RecordedCamera], CameraResult],
    *,
    threads: int,
    stop: Callable[[], None] = lambda: None,
) -> dict[str, CameraResult]:
    """Call a function for several cameras at once; the first error ends all calls."""
    results = run_units(cameras, work, threads=threads, stop=stop)
    return {camera.key: result for camera, result in results}


def add_to_dataset(
    dataset: GrowingDataset,
    episode: UnfinishedEpisode,
    rows: Rows,
    features: Features,
    results: Mapping[str, CameraResult],
    notes: Mapping[str, object],
) -> int:
    """Add a finished episode to the dataset, completely or not at all.

    Returns:
        The index of the episode.

    Raises:
        DestinationError: the dataset cannot be written.
    """
    new = Episode(
        rows.count,
        row_table(rows.values, features),
        [episode.settings.task],
        streams={key: one.stream for key, one in results.items()},
        known=Known.of({key: one.stats for key, one in results.items()}),
        notes={**rows.notes(), **notes},
    )
    index = dataset.stage(episode.path, new)
    dataset.publish(episode.path)
    return index
