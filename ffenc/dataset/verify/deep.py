"""Decode every frame of a dataset, and compute what the frames of each episode show."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from msgspec import Struct
from msgspec.structs import replace

from ffenc.compiler.colour import rgb_conversion
from ffenc.compiler.decode import Pixels, compile_decode
from ffenc.dataset.checksums import file_checksum
from ffenc.dataset.verify.faults import Faults
from ffenc.dataset.verify.layout import Floats, Layout, Listing
from ffenc.dataset.verify.records import DecodeRecords, Shown
from ffenc.dataset.verify.videos import Seen, VideoFile, frame_times, frames_at, is_depth
from ffenc.errors import ConfigError, FfencWarning, FfmpegError, SourceError
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.machine import file_identity, machine_facts
from ffenc.ffmpeg.process import FfmpegProcess
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.fields import plain_fields
from ffenc.frames.check import Damage, check_decoding
from ffenc.frames.decoded import check_image, decode_image
from ffenc.frames.depth import MAX_CODE, DepthQuantizer, Unit
from ffenc.frames.depth_images import DepthStatistics, depth_unit, millimetres
from ffenc.frames.header import ImageHeader
from ffenc.frames.images import read_header, require_alike
from ffenc.frames.parquet import RowRange, read_images
from ffenc.frames.parquet_pages import NoImageError
from ffenc.frames.statistics import RgbHistogram, sample_tap
from ffenc.parallel.progress import FrameCount


def decode_video(
    video: VideoFile,
    seen: Seen,
    faults: Faults,
    *,
    layout: Layout | None,
    listing: Listing | None,
    candidates: Sequence[Toolchain],
    count: FrameCount,
    cancellation: Cancellation,
    records: DecodeRecords,
    checksum: str | None = None,
) -> Shown:
    """Decode a file; return what its episodes show if it is sound.

    If its ``checksum`` is known, it is compared too, as decoders do not detect all damage. Files in the
    ``records`` are not decoded again.

    Raises:
        ToolchainError: no decoder for the file.
    """
    digest = file_checksum(video.path)
    spans = _spans(video, frame_times(seen.info), listing)
    meaning = None
    if spans and seen.whole and layout and listing and video.camera in listing.stats:
        meaning = _meaning(video.camera, seen, layout)
    showing = None if meaning is None else _Showing(seen, meaning, spans, count)
    if checksum is not None and digest != checksum:
        faults.add("checksum", "is not what was written", file=video.place, camera=video.camera)

    def find() -> list[Damage]:
        return check_decoding(
            video.path,
            seen.info,
            viewer=showing,
            on_frames=count.counter(),
            cancellation=cancellation,
            candidates=candidates,
        )

    programs = [*(file_identity(one.ffmpeg) for one in candidates), machine_facts()]
    damage, recorded = records.damage(digest, programs, find)
    count.add(seen.info.frames if recorded else 0)
    for one in damage:
        stretch = f"frame {one.first}" if one.first == one.last else f"frames {one.first} to {one.last}"
        alone = one.first == one.last
        where: dict[str, Any] = {"file": video.place, "camera": video.camera}
        owners = []
        for at, (first, end) in spans.items():
            begin, stop = max(one.first, first), min(one.last + 1, end)
            if listing is not None and begin < stop:
                owners.append((int(listing.index[at]), begin - first, stop - begin))
        for episode, frame, frames in owners:
            what = f"{stretch} of the file cannot be decoded: {one.reason}"
            faults.add("damaged-frame", what, episode=episode, frame=frame, frames=frames, **where)
        if not owners:
            verb = "cannot be decoded" if alone else f"to {one.last} cannot be decoded"
            faults.add("damaged-frame", f"{verb}: {one.reason}", frame=one.first, **where)
    if damage or meaning is None or showing is None:
        return Shown(recorded=recorded)

    def show(_: Faults) -> Shown:
        if showing.shown is not None:
            return showing.shown
        return _video_statistics(video, showing, candidates[0], cancellation)

    parts = [sorted(spans.items()), plain_fields(meaning), *programs]
    shown, known = records.shown(digest, parts, faults, show)
    count.add(seen.info.frames if known else 0)
    return replace(shown, recorded=recorded and known)


def _spans(video: VideoFile, times: Floats, listing: Listing | None) -> dict[int, tuple[int, int]]:
    """Return position in the list -> the episode's first frame in the file, and the frame after its last."""
    if listing is None or video.camera is None:
        return {}
    places = listing.videos[video.camera]
    found = {}
    for at in video.episodes:
        if math.isfinite(places.start[at]):
            first = frames_at(times, places.start[at])
            found[at] = (first, first + int(listing.length[at]))
    return found


class _Meaning(Struct, frozen=True):
    """How to interpret a camera's samples.

    Attributes:
        unit: of depth; None: colours.
        quantizer: of depth codes; None: the samples are millimetres.
    """

    unit: Unit | None = None
    quantizer: DepthQuantizer | None = None


def _meaning(key: str, seen: Seen, layout: Layout) -> _Meaning | None:
    """Return how to interpret a camera's samples; None if info.json is wrong, which is reported elsewhere."""
    if not is_depth(layout, key):
        return _Meaning()
    block = layout.block(key)
    try:
        quantizer = DepthQuantizer.from_video_info(block) if seen.info.pix_fmt == "gray12le" else None
    except (ConfigError, TypeError):
        return None
    return _Meaning("m" if block.get("depth_unit") == "m" else "mm", quantizer)


def _video_statistics(
    video: VideoFile, showing: _Showing, toolchain: Toolchain, cancellation: Cancellation
) -> Shown:
    """Decode a sound file; return what its episodes show."""
    pixels = showing.pixels
    command = compile_decode(
        str(video.path),
        pix_fmt=pixels.pix_fmt,
        conversion=pixels.conversion,
        tap=pixels.tap,
        program=toolchain.ffmpeg,
    )
    try:
        with FfmpegProcess(command, pull=True, cancellation=cancellation) as process:
            showing.read(process)
            process.finish()
    except FfmpegError as error:
        if error.unable:
            raise
        warnings.warn(
            f"{video.path}: all frames are sound, but FFmpeg failed to output them, so they are "
            f"not compared with their statistics: {error.cause}",
            FfencWarning,
            stacklevel=2,
        )
        return Shown(failed=True)
    showing.done()
    assert showing.shown is not None
    return showing.shown


class _Showing:
    """Computes the statistics of a file's episodes from decoded frames.

    Args:
        seen: the file's fields.
        meaning: how to interpret its samples.
        spans: position in the list -> the episode's first frame in the file, and the frame after its last.
        count: counts every frame.

    Attributes:
        pixels: format of the samples.
        shown: what the episodes show; None until all frames are read.
    """

    def __init__(
        self, seen: Seen, meaning: _Meaning, spans: Mapping[int, tuple[int, int]], count: FrameCount
    ) -> None:
        info = seen.info
        self._frames, self._meaning, self._count = info.frames, meaning, count
        self._taps = {
            at: sample_tap(end - first, info.width, info.height) for at, (first, end) in spans.items()
        }
        self._owners = sorted((first, end, at) for at, (first, end) in spans.items())
        self.shown: Shown | None = None
        self._counts: dict[int, RgbHistogram | DepthStatistics] = {}
        if meaning.unit is not None:
            self.pixels = Pixels(info.pix_fmt)
            self._frame = np.empty((info.height, info.width), "<u2")
        else:
            size = next(iter(self._taps.values()))
            conversion = rgb_conversion(info.pix_fmt, info.color_space, info.color_range)
            self.pixels = Pixels("rgb24", conversion, replace(size, step=1))
            self._frame = np.empty((size.height, size.width, 3), np.uint8)

    def read(self, process: FfmpegProcess) -> None:
        """Read all frames from a program's standard output."""
        unit, quantizer = self._meaning.unit, self._meaning.quantizer
        self._counts = {
            at: RgbHistogram(tap) if unit is None else DepthStatistics(tap, unit)
            for at, tap in self._taps.items()
        }
        frame, owners = self._frame, self._owners
        buffer = frame.reshape(-1).view(np.uint8).data
        report = self._count.counter()
        place = 0
        for number in range(self._frames):
            if process.read_into(buffer) < frame.nbytes:
                break
            while place < len(owners) and number >= owners[place][1]:
                place += 1
            report(number + 1)
            if place == len(owners) or number < owners[place][0]:
                continue
            own = self._counts[owners[place][2]]
            if isinstance(own, DepthStatistics):
                if own.picks_next:
                    own.add(_depth(frame, quantizer, own.unit))
                else:
                    own.pass_over()
            elif (number - owners[place][0]) % own.tap.step == 0:
                own.feed(frame.tobytes())
        while process.read_into(buffer):  # surplus frames: read them, or the program would not end
            pass

    def done(self) -> None:
        """Set the result, once all frames that were read are known to be sound."""
        self.shown = _shown(self._counts, self._ends())

    def _ends(self) -> tuple[int, int] | None:
        """Return the depths of the lowest and highest stored sample in whole millimetres; None: colours."""
        unit, quantizer = self._meaning.unit, self._meaning.quantizer
        if unit is None:
            return None
        samples = np.array([[0, MAX_CODE if quantizer is not None else 65535]], np.uint16)
        low, high = millimetres(_depth(samples, quantizer, unit), unit)[0].tolist()
        return low, high


def _shown(
    counts: Mapping[int, RgbHistogram | DepthStatistics], ends: tuple[int, int] | None = None
) -> Shown:
    shown = Shown()
    for at, own in counts.items():
        try:
            shown.stats[at] = own.statistics()
        except ValueError:
            continue  # none of its frames was counted
        if ends is not None and isinstance(own, DepthStatistics):
            shown.measured[at] = [
                own.quantiles_without(left, shown.stats[at]) for left in (ends[:1], ends[1:], ends)
            ]
        shown.values = own.values() if shown.values is None else shown.values + own.values()
    return shown


def _depth(samples: npt.NDArray[Any], quantizer: DepthQuantizer | None, unit: Unit) -> npt.NDArray[Any]:
    if quantizer is not None:
        return quantizer.dequantize(samples, output_unit=unit)
    return samples / np.float32(1000) if unit == "m" else samples


# --- images -----------------------------------------------------------------------------------------------


def decode_images(
    layout: Layout,
    listing: Listing,
    key: str,
    place: str,
    episodes: Sequence[int],
    faults: Faults,
    count: FrameCount,
    cancellation: Cancellation,
) -> Shown:
    """Decode every image of a column in one file; return what its episodes show."""
    path = layout.root / place
    try:
        rows = int(pq.read_metadata(path).num_rows)
    except (pa.ArrowException, OSError):
        return Shown()  # reported by the check of its rows
    aligned = rows == int(listing.length[list(episodes)].sum())
    owner = np.repeat(np.array(episodes), listing.length[list(episodes)]) if aligned else np.full(rows, -1)
    start = dict(zip(episodes, np.cumsum([0, *listing.length[list(episodes)][:-1]]).tolist(), strict=True))
    counts: dict[int, RgbHistogram | DepthStatistics] = {}
    damaged: set[int] = set()
    first: ImageHeader | None = None
    for row, data in _each_image(path, key, rows, place, faults):
        cancellation.check()
        at = int(owner[row])
        try:
            header = read_header(data, f"row {row}")
            first = first or header
            require_alike(header, first, f"row {row}", "the file's first image")
            own = counts.get(at)
            image = None
            if at >= 0 and (own is None or own.picks_next):
                image = decode_image(data, f"row {row}")
            else:
                check_image(data, f"row {row}")
        except SourceError as error:
            where: dict[str, Any] = {"file": place, "camera": key}
            if at >= 0:
                where |= {"episode": int(listing.index[at]), "frame": row - start[at]}
            faults.add("image", error.described, **where)
            damaged.add(at)
            count.add(1)
            continue
        if image is not None:
            if own is None:
                tap = sample_tap(int(listing.length[at]), image.shape[1], image.shape[0])
                unit = layout.block(key).get("depth_unit") or depth_unit(image)
                own = counts[at] = RgbHistogram(tap) if image.ndim == 3 else DepthStatistics(tap, unit)
            own.add(image)
        elif own is not None:
            own.pass_over()
        count.add(1)
    return _shown({at: own for at, own in counts.items() if at not in damaged})


def _each_image(path: Path, key: str, rows: int, place: str, faults: Faults) -> Iterator[tuple[int, bytes]]:
    """Yield each row that has an image, with the image; other rows are already reported."""
    at = 0
    while at < rows:
        try:
            for data in read_images(RowRange(path, at, rows - at), key):
                yield at, data
                at += 1
        except NoImageError:
            at += 1
        except SourceError as error:
            faults.add("image", f"row {at} cannot be read: {error.what}", file=place, camera=key)
            return
