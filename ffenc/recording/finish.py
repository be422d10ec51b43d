"""What is done with an episode that has ended: its files are made, checked, and put into the dataset."""

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
from ffenc.jobs.pool import run_units
from ffenc.recording.rows import Features, Rows
from ffenc.recording.samples import read_samples, sample_step
from ffenc.recording.unfinished import RecordedCamera, UnfinishedEpisode


class CameraResult(Struct, frozen=True):
    """What a camera gives to the dataset.

    Attributes:
        stream: the finished file, or the images where these are kept.
        stats: its statistics.
    """

    stream: FinishedVideo | FrameSource
    stats: Stats


def statistics_of(
    camera: RecordedCamera, frames: int, *, step: int | None = None
) -> RgbHistogram | DepthStatistics:
    """Return what counts a camera's statistics.

    Args:
        camera: the camera.
        frames: how many there are.
        step: every how many-th is counted; None: as LeRobot's rule says for so many.
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
    """Return the statistics of a camera whose frames were counted while they came.

    Args:
        episode, camera: whose.
        frames: how many there are.
        stored: its images, or its video and the fields of it: the same frames are counted in there where a
            power cut has taken what was kept of them.
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
    """Copy a camera's packets into the file that goes into the dataset, index in front.

    Args:
        episode, camera: whose.
        source: where they are.
        info: its fields.
        toolchain: the programs.
        verify: compares the new file with what it has to be.

    Raises:
        FfmpegError, VerificationError: it did not work, or the file is not what was asked for.
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
    """Finish a video that was encoded while it was recorded.

    Args:
        episode, camera, rows, encoding, samples: whose, and how it was made.
        read: reads the finished file's fields, with ``times``; None: ffprobe does.

    Raises:
        FfmpegError, VerificationError: it has other frames than were sent, or is not what was asked for.
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
    """Compare a file with its settings, where the encoding itself is gone."""
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
    """Encode a camera's images, as a dataset of images is encoded.

    Raises:
        SourceError: an image is damaged; the text names it.
        FfmpegError, VerificationError: the encode failed, or its result is not what was asked for.
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
    """Do something for several cameras at the same time; the first error ends it."""
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
    """Put a finished episode into the dataset, whole or not at all.

    Returns:
        its number.

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
