"""Add a recorded episode to the dataset: the files of its cameras are finished, several at once."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from ffenc.config.preset import RobotPreset, camera_name
from ffenc.dataset.growing import GrowingDataset
from ffenc.dataset.model import FinishedVideo
from ffenc.errors import DestinationError
from ffenc.frames.sources import image_files
from ffenc.parallel.pool import share_cores
from ffenc.parallel.progress import FrameCount
from ffenc.recording.finish import (
    CameraResult,
    add_to_dataset,
    encode_images,
    finish_video,
    for_all,
    recorded_statistics,
)
from ffenc.recording.rows import Features, read_rows
from ffenc.recording.take import Take, stored_bytes
from ffenc.recording.unfinished import RecordedCamera


class InDataset(Struct, frozen=True):
    """An episode that was added to the dataset.

    Attributes:
        index: its index.
        rows: number of rows.
        sizes: camera -> size of its file, or of its images, in bytes.
    """

    index: int
    rows: int
    sizes: dict[str, int]


def put_into_dataset(
    take: Take,
    dataset: GrowingDataset,
    preset: RobotPreset,
    features: Features,
    on_frames: Callable[[int, int], None] | None,
) -> InDataset:
    """Finish the files of an episode whose encoders have ended, and add it to the dataset.

    Args:
        take: the episode.
        dataset: the dataset.
        preset: preset of the robot, for the notes.
        features: features of the rows.
        on_frames: called with the number of frames encoded so far, and of all, from any thread.

    Raises:
        FfencError: a file is not what was requested, or the dataset cannot be written.
    """
    done = FrameCount(take.rows * len(take.tracks), on_frames)
    live = next(iter(take.tracks.values())).channel.camera.way == "live"
    results = for_all(
        [track.channel.camera for track in take.tracks.values()],
        lambda camera: _finished(take, camera, done),
        threads=len(take.tracks) if live else share_cores(len(take.tracks), None, 1)[0],
        stop=take.cancellation.cancel,
    )
    sizes = {
        camera_name(key): one.stream.path.stat().st_size
        if isinstance(one.stream, FinishedVideo)
        else stored_bytes(take, take.tracks[camera_name(key)])
        for key, one in results.items()
    }
    rows = read_rows(take.log.path)
    notes = {"rows": rows.count, "encode": preset.encode, "on_full": preset.on_full}
    index = add_to_dataset(dataset, take.episode, rows, features, results, notes)
    return InDataset(index, rows.count, sizes)


def _finished(take: Take, camera: RecordedCamera, done: FrameCount) -> CameraResult:
    """Return a camera's contribution to the dataset."""
    track = take.tracks[camera_name(camera.key)]
    if camera.way == "live":
        encoding = track.channel.encoding
        video = finish_video(take.episode, camera, take.rows, encoding, track.samples)
        statistics = recorded_statistics(take.episode, camera, take.rows, video, encoding.toolchain)
        return CameraResult(FinishedVideo(*video), statistics)
    images = image_files(take.episode.images(camera))
    if len(images) != take.rows:
        raise DestinationError(
            f"{take.episode.images(camera)} has {len(images)} images, but the table has {take.rows} rows"
        )
    if camera.way == "images":
        toolchain = track.channel.encoding.toolchain
        statistics = recorded_statistics(take.episode, camera, take.rows, images, toolchain)
        return CameraResult(images, statistics)
    encoding, cancellation = track.channel.encoding, take.cancellation
    return encode_images(take.episode, camera, encoding, images, done.counter(), cancellation)
