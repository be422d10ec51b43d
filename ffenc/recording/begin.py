"""Start of an episode: its folder, and an encoder for each camera."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from ffenc.compiler.frames import SampleTap
from ffenc.compiler.images import compile_images
from ffenc.config.preset import RobotPreset
from ffenc.config.transform import Geometry
from ffenc.errors import DestinationError
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.process import FfmpegProcess
from ffenc.frames.depth_images import Depth, DepthSamples, changed
from ffenc.recording.feed import Feed, Sink, TiffFolder
from ffenc.recording.flush import Flusher
from ffenc.recording.rows import (
    RowLog,
)
from ffenc.recording.samples import SampleLog, samples_tap
from ffenc.recording.take import Channel, Take, Track, close
from ffenc.recording.unfinished import (
    Settings,
    UnfinishedEpisode,
    delete_episode,
)

FRAGMENT_SECONDS = 0.5  # lost in a power failure, in addition to the encoder's lookahead


def begun(
    root: Path, settings: Settings, channels: Mapping[str, Channel], robot: RobotPreset, stall_seconds: float
) -> Take:
    """Create an episode's folder and start its encoders.

    Args:
        root: the dataset.
        settings: settings of the episode.
        channels: the cameras.
        robot: determines how encoders run, and what happens if one is too slow.
        stall_seconds: greatest time in which an encoder neither accepts a frame nor ends.

    Raises:
        DestinationError: the folder cannot be written.
        ToolchainError: an encoder cannot be started.
    """
    episode = UnfinishedEpisode.create(root, settings)
    cancellation = Cancellation()
    tracks: dict[str, Track] = {}
    log: RowLog | None = None
    try:
        for name, channel in channels.items():
            tracks[name] = _track(channel, episode, cancellation, robot, stall_seconds)
        log = RowLog(episode.rows)
        flusher = Flusher(episode)
    except BaseException as error:
        cancellation.cancel()
        for track in tracks.values():
            close(track)
        if log is not None:
            log.close()
        with contextlib.suppress(OSError):
            delete_episode(episode.path)
        if isinstance(error, OSError):
            raise DestinationError(f"{episode.path}: cannot be written: {error.strerror}") from None
        raise
    return Take(episode, log, tracks, cancellation, flusher)


def _track(
    channel: Channel,
    episode: UnfinishedEpisode,
    cancellation: Cancellation,
    robot: RobotPreset,
    stall_seconds: float,
) -> Track:
    camera, encoding = channel.camera, channel.encoding
    live = camera.way == "live"
    samples = DepthSamples(encoding.config, camera.unit) if camera.depth and live else None
    # For frames that are encoded after the episode, statistics are computed during that encode.
    size, geometry = camera.stored_size, encoding.geometry
    counted = None if camera.way == "after" else SampleLog(episode.samples(camera), *size, camera.unit)
    # Arrays are counted here, which is cheaper; frames that FFmpeg decodes or transforms are counted there.
    there = channel.frames == "jpeg" or (geometry is not None and not camera.depth)
    decoded = counted if there else None
    convert = (lambda depth: samples.of(changed(depth, geometry)).data) if samples is not None else None
    with contextlib.ExitStack() as opened:
        if counted is not None:
            opened.callback(counted.close)
        command = storing_command(channel, episode, samples_tap(*size) if decoded is not None else None)
        sink: Sink
        if command is None:
            sink = TiffFolder(episode.images(camera), (camera.height, camera.width))
        else:
            sink = FfmpegProcess(
                command,
                on_output=decoded.feed if decoded is not None else None,
                cancellation=cancellation,
                stall_seconds=stall_seconds,
                niceness=robot.encoder_niceness,
                cpus=robot.encoder_cpus,
                pipe_bytes=channel.ring.pipe_bytes,
            )
        channel.ring.reset()
        feed = Feed(
            channel.name,
            channel.ring,
            sink,
            on_full=robot.on_full,
            observe=_observer(counted, geometry) if decoded is None else None,
            convert=convert,
            wait_seconds=stall_seconds * 1.5,
        )
        opened.pop_all()  # the track closes it
    return Track(channel, feed, samples, counted)


def storing_command(channel: Channel, episode: UnfinishedEpisode, tap: SampleTap | None) -> list[str] | None:
    """Return the command that stores a camera's frames as they arrive; None: no program (depth in metres)."""
    camera, encoding = channel.camera, channel.encoding
    if camera.way == "live":
        return encoding.command(episode.video(camera), tap, fragment_seconds=FRAGMENT_SECONDS)
    if camera.unit == "m":
        return None
    return compile_images(
        width=camera.width,
        height=camera.height,
        frames="gray16le" if camera.depth else channel.frames,
        output=str(episode.images(camera) / episode.image_name(camera)),
        fps=episode.settings.fps,
        compressed=camera.way == "images",
        tap=tap,
        program=encoding.toolchain.ffmpeg,
    )


def _observer(counted: SampleLog | None, geometry: Geometry | None) -> Callable[[Depth], None] | None:
    """Return the function that counts a camera's frames as they arrive."""
    if counted is None:
        return None
    return counted.add if geometry is None else lambda frame: counted.add(changed(frame, geometry))
