"""Compare videos with the frames that they were encoded from, frame by frame."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct, field

from ffenc.arguments import checked_path
from ffenc.compiler.colour import rgb_conversion
from ffenc.compiler.decode import Compared
from ffenc.compiler.quality import compile_rgb
from ffenc.config.mapping import SourceMapping
from ffenc.config.transform import Transform
from ffenc.dataset.choice import Episodes
from ffenc.dataset.job.finished import source_mapping
from ffenc.errors import ConfigError, SourceError, ToolchainError
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.toolchain import how_to_get, toolchains
from ffenc.fields import plain_fields
from ffenc.frames.clip import Clip
from ffenc.frames.depth import DepthQuantizer
from ffenc.frames.depth_images import changed
from ffenc.frames.pictures import rgb_pictures
from ffenc.parallel.pool import run_units, share_cores
from ffenc.parallel.progress import FrameCount
from ffenc.quality.compare import quality_of
from ffenc.quality.depth import DepthError, DepthErrors
from ffenc.quality.measure import METRICS, Gauge, Quality, gauges, plain
from ffenc.spelling import argument
from ffenc.tune.footage import Footage, is_video_file, open_footage

_NAMED = 5  # number of worst frames


class Against(Struct):
    """The comparison of one video, or one camera of a dataset, with its reference.

    Attributes:
        path: the dataset or file.
        reference, video: the frames of both.
        transform: changes of the reference's frames before the comparison.
        quality: episode -> values of its frames; empty for depth.
        depth: for depth, the errors over all frames.
        off: for depth, episode -> greatest error of each frame in millimetres.
        range: for depth, the stored range in millimetres; values outside are not compared.
    """

    path: Path
    reference: Footage
    video: Footage
    transform: Transform | None = None
    quality: dict[int, Quality] = field(default_factory=dict)
    depth: DepthError | None = None
    off: dict[int, list[float]] = field(default_factory=dict)
    range: tuple[float, float] = (0.0, math.inf)

    def together(self) -> Quality:
        """Return the values of all frames, episode by episode."""
        episodes = [self.quality[number] for number in sorted(self.quality)]
        total = episodes[0]
        for one in episodes[1:]:
            total = total + one
        return total

    def places(self) -> list[tuple[int, int]]:
        """Return episode and frame of each value of :meth:`together`, or of ``off``."""
        held: dict[int, Any] = self.quality or self.off
        return [(number, frame) for number in sorted(held) for frame in range(len(held[number]))]

    def badness(self, metric: str) -> list[float]:
        """Return a number for each frame in that order; the greater, the worse."""
        if self.off:
            return [value for number in sorted(self.off) for value in self.off[number]]
        return [-value for value in self.together().values[metric]]

    def ranked(self, metric: str) -> list[int]:
        """Return positions in :meth:`places`, the worst frame first."""
        bad = self.badness(metric)
        return sorted(range(len(bad)), key=lambda at: -bad[at])


class CompareResult(Struct):
    """The result of a comparison.

    Attributes:
        reference: the dataset or file that the others were encoded from.
        others: the compared datasets or files.
        metric: the metric that frames are ranked by.
        cameras: camera -> one entry for each of the others that has it, in their order.
        left_out: cameras that only some of them have.
    """

    reference: Path
    others: list[Path]
    gauge: Gauge
    cameras: dict[str, list[Against]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    @property
    def metric(self) -> str:
        return self.gauge.main.name


def compare_sources(
    reference: str | Path,
    others: Sequence[str | Path],
    closing: ExitStack,
    *,
    cameras: Sequence[str] | None = None,
    episodes: Episodes | None = None,
    fps: int | float | str | Fraction | None = None,
    mapping: str | Path | SourceMapping | None = None,
    follow_links: bool = False,
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
    on_frames: Callable[[int, int], None] | None = None,
) -> CompareResult:
    """Measure every frame of videos against the frames that they were encoded from.

    Args:
        reference: a dataset, a tree of frames, or a video file.
        others: datasets of video or video files with the same frames. Cameras are paired by name, episodes
            by index; a source with one camera is paired with another such source regardless of names.
        closing: closes the opened sources.
        cameras, episodes: those to compare, for datasets and recordings; None: all.
        fps: frame rate of a tree of frames or a recording, and of video files whose frames are not evenly
            spaced.
        mapping: meaning of the arrays or topics of ``reference``, or a YAML file with it; None: the mapping
            that the first of the others was created with.
        follow_links: see :func:`~ffenc.paths.check_tree`.
        ffmpeg, ffprobe: programs to use instead of those that are found.
        on_frames: called with the number of frames measured so far, and of all frames.

    Raises:
        SourceError: the frames are not the same, or one side is damaged; the text names it.
        ConfigError: an unknown camera or episode, or a selection of them among video files.
        ToolchainError: no FFmpeg on this machine can do it.
    """
    for name, selection in (("cameras", cameras), ("episodes", episodes)):
        if selection is not None and all(is_video_file(Path(one)) for one in (reference, *others)):
            raise ConfigError(
                f"{argument(name)} would have no effect: {reference} and the others are video files; leave "
                "it out"
            )
    chosen = gauges(toolchains(ffmpeg, ffprobe))
    if not chosen:
        raise ToolchainError(f"no ffmpeg here has the filters ssim and psnr; {how_to_get()}")
    options: dict[str, Any] = {"follow_links": follow_links, "ffmpeg": ffmpeg, "ffprobe": ffprobe}
    source = checked_path("reference", reference)
    compared = [checked_path("others", other) for other in others]
    stored = next(filter(None, map(source_mapping, compared)), None)
    meaning: dict[str, Any] = {"mapping": mapping, "usual_mapping": stored}
    first = _opened(source, closing, fps=fps, cameras=cameras, episodes=episodes, **meaning, **options)
    result = CompareResult(source, compared, chosen[0])
    missing: dict[str, None] = {}
    for path in result.others:
        rate = fps if is_video_file(path) else None
        second = _opened(path, closing, fps=rate, cameras=cameras, episodes=episodes, **options)
        pairs = _paired(source, first, path, second, missing)
        for one, other in pairs:
            result.cameras.setdefault(one.name, []).append(_against(path, one, other))
    result.left_out = list(missing)
    _measure(result, chosen, on_frames)
    return result


def _opened(path: Path, closing: ExitStack, **options: Any) -> list[Footage]:
    if is_video_file(path):
        options |= {"cameras": None, "episodes": None}  # they select from the other sources
    return open_footage(path, closing, **options)


def _paired(
    source: Path, first: list[Footage], path: Path, second: list[Footage], missing: dict[str, None]
) -> list[tuple[Footage, Footage]]:
    if len(first) == len(second) == 1:
        return [(first[0], second[0])]
    by_name = {one.name: one for one in second}
    pairs = [(one, by_name[one.name]) for one in first if one.name in by_name]
    if not pairs:
        names = [", ".join(one.name for one in side) for side in (first, second)]
        raise SourceError(
            f"{path} has the cameras {names[1]}, {source} has {names[0]}: they have none in "
            f"common; select one with {argument('cameras')}, or compare a video file of each"
        )
    both = {one.name for one, _ in pairs}
    missing |= dict.fromkeys(one.name for one in (*first, *second) if one.name not in both)
    return pairs


def _against(path: Path, reference: Footage, video: Footage) -> Against:
    where = f"{path}: {video.name}"
    if video.header is not None:
        raise SourceError(
            f"{where} contains images; pass the images first, and then the videos made from them"
        )
    if reference.depth != video.depth:
        kinds = ["depth" if one.depth else "colours" for one in (video, reference)]
        raise SourceError(f"{where} holds {kinds[0]}, {reference.key} of the first source {kinds[1]}")
    lacking = sorted(set(reference.episodes) ^ set(video.episodes))
    if lacking:
        sides = [path, "the first source"]
        who, other = sides if lacking[0] not in video.episodes else reversed(sides)
        camera = "" if is_video_file(path) else f" of {video.name}"
        raise SourceError(
            f"{who} has no episode {lacking[0]}{camera}, but {other} has it, and the same frames have to be "
            f"compared; select common episodes with {argument('episodes')}"
        )
    transform = Transform.from_block(video.block)
    same = Transform.from_block(reference.block) == transform
    return Against(path, reference, video, None if same else transform)


def _measure(
    result: CompareResult, chosen: Sequence[Gauge], on_frames: Callable[[int, int], None] | None
) -> None:
    sides = [side for camera in result.cameras.values() for side in camera]
    units = [
        (side, number) for side in sides if not side.reference.depth for number in side.reference.episodes
    ]
    frames = FrameCount(sum(sum(side.reference.episodes.values()) for side in sides), on_frames)
    cancellation = Cancellation()

    def work(unit: tuple[Against, int]) -> Quality:
        side, number = unit
        clip = side.video.frames(number)
        assert isinstance(clip, Clip)
        return quality_of(
            clip,
            side.reference.frames(number),
            chosen,
            header=side.reference.header,
            transform=side.transform,
            on_frames=frames.counter(),
            cancellation=cancellation,
        )

    threads, _ = share_cores(len(units), None, None)
    for (side, number), quality in run_units(units, work, threads=threads, stop=cancellation.cancel):
        side.quality[number] = quality
    for side in sides:
        if side.reference.depth:
            _measure_depth(side, frames)


def _measure_depth(side: Against, frames: FrameCount) -> None:
    clip = next(iter(side.video.episodes))
    stored = side.video.frames(clip)
    quantizer = None
    if isinstance(stored, Clip) and stored.info.pix_fmt == "gray12le":
        quantizer = DepthQuantizer.from_video_info(side.video.block)
    errors = DepthErrors(quantizer)
    side.range = errors.range
    geometry = None
    if side.transform is not None:
        geometry = side.transform.of(side.reference.width, side.reference.height)
    for number, length in side.reference.episodes.items():
        if (found := side.video.episodes[number]) != length:
            raise SourceError(
                f"{side.path}: episode {number} of {side.video.key} has {found} frames, the first source "
                f"{length}"
            )
        shown = side.video.read(number, 0, length)
        given = side.reference.read(number, 0, length)
        off = []
        for one, other in zip(given, shown, strict=True):
            wanted = changed(one, geometry)
            if wanted.shape != other.shape:
                raise SourceError(
                    f"{side.path}: {side.video.key} is {other.shape[1]}x{other.shape[0]}, the first "
                    f"source {wanted.shape[1]}x{wanted.shape[0]}"
                )
            off.append(errors.add(wanted, other))
            frames.add(1)
        side.off[number] = off
    side.depth = errors.result()


def pictures(
    side: Against, episode: int, frame: int, program: str
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return a frame of the reference, after its changes, and of the video: RGB, or millimetres.

    Args:
        side: the comparison.
        episode, frame: the frame.
        program: the ffmpeg that changes it.
    """
    wanted, shown = (
        np.asarray(next(iter(footage.read(episode, frame, 1)))) for footage in (side.reference, side.video)
    )
    if side.transform is None:
        return wanted, shown
    geometry = side.transform.of(side.reference.width, side.reference.height)
    if side.reference.depth:
        return changed(wanted, geometry), shown
    size = (side.reference.width, side.reference.height)
    raw = Compared(
        "pipe:0", rgb_conversion("rgb24", None, None), images="rgb24", size=size, geometry=geometry
    )
    command, sent = compile_rgb(raw, program=program), [np.ascontiguousarray(wanted).data.cast("B")]
    return rgb_pictures(command, sent, 1, width=geometry.width, height=geometry.height)[0], shown


# ---- for JSON ------------------------------------------------------------------------------------------


def comparison_fields(result: CompareResult) -> dict[str, Any]:
    """Return the result as plain values; infinity, for identical frames in dB, is None."""
    return {
        "reference": str(result.reference),
        "others": [str(path) for path in result.others],
        "metric": result.metric,
        "metrics": result.gauge.metric_fields(),
        "left_out": result.left_out,
        "cameras": [
            {
                "camera": name,
                "depth": sides[0].reference.depth,
                "bytes_per_frame": round(sides[0].reference.bytes_per_frame, 1),
                "stored": sides[0].reference.stored,
                "frames": sum(sides[0].reference.episodes.values()),
                "results": [_side_fields(side, result.metric) for side in sides],
            }
            for name, sides in result.cameras.items()
        ],
    }


def _side_fields(side: Against, metric: str) -> dict[str, Any]:
    places, bad = side.places(), side.badness(metric)
    worst = [
        {"episode": places[at][0], "frame": places[at][1], "value": plain(bad[at] if side.off else -bad[at])}
        for at in side.ranked(metric)[:_NAMED]
    ]
    fields: dict[str, Any] = {
        "path": str(side.path),
        "stored": side.video.stored,
        "bytes_per_frame": round(side.video.bytes_per_frame, 1),
        "transform": None if side.transform is None else str(side.transform),
        "worst": worst,
        "episodes": {str(number): length for number, length in side.reference.episodes.items()},
    }
    if side.off:
        assert side.depth is not None
        bands = [{"from": low, "to": high} | plain_fields(errors) for low, high, errors in side.depth.bands]
        off = {str(number): [round(value, 2) for value in values] for number, values in side.off.items()}
        return fields | {"error_mm": plain_fields(side.depth) | {"bands": bands}, "largest_mm": off}
    together = side.together()
    quality = {}
    for name in METRICS:
        if name in together.values:
            one = together.summary(name)
            episode, frame = places[one.frame]
            quality[name] = {
                **{"mean": plain(one.mean), "p5": plain(one.p5), "worst": plain(one.worst)},
                "worst_frame": {"episode": episode, "frame": frame},
            }
    values = {
        name: {
            str(number): [plain(v) for v in side.quality[number].values[name]]
            for number in sorted(side.quality)
        }
        for name in quality
    }
    return fields | {"quality": quality, "values": values}
