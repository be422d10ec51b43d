"""Write the frames of videos as PNG files, colour images of depth, or numpy arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import replace

from ffenc.arguments import checked_path
from ffenc.config.preset import camera_name
from ffenc.dataset.decoded_files import PngWriter, check_free, published_frames, save_array
from ffenc.dataset.remote import source_path
from ffenc.dataset.videos import episode_videos
from ffenc.errors import ConfigError, SourceError
from ffenc.ffmpeg.probe import probe
from ffenc.ffmpeg.toolchain import find_ffprobe
from ffenc.frames.depth import DepthQuantizer, Invalid, Unit
from ffenc.frames.info_json import recorded_fields, stored_quantizer
from ffenc.frames.pictures import DepthHistogram, DepthPicture
from ffenc.frames.reader import VideoReader
from ffenc.frames.stream import DEPTH_FORMATS
from ffenc.frames.trim import warn_of_others, warn_of_rotation
from ffenc.layout import INFO
from ffenc.paths import check_tree
from ffenc.spelling import argument

Format = Literal["png", "npy"]


class DepthOptions(Struct, frozen=True):
    """How depth is read and shown; without effect on RGB.

    Attributes:
        unit: ``mm`` or ``m``.
        codes: return the stored samples unchanged.
        fields: fields of the quantiser, instead of those in ``info.json``.
        invalid: read code 0 as no depth (``keep``) or as depth (``clip``); None: that of ``info.json``.
        colormap: draw colour images.
        near_far: range of the colours in metres; None: that of the frames.
    """

    unit: Unit = "mm"
    codes: bool = False
    fields: Mapping[str, Any] | None = None
    invalid: Invalid | None = None
    colormap: bool = False
    near_far: tuple[float, float] | None = None


class FrameRange(Struct, frozen=True):
    """A range ``start:stop:step`` as in Python, which has to be inside the video.

    Attributes:
        start: the first frame, 0 or more.
        stop: the frame after the last; None: the end.
        step: distance of the frames, 1 or more.
    """

    start: int = 0
    stop: int | None = None
    step: int = 1

    def within(self, count: int, where: str) -> range:
        """Return the frame indices in a video with ``count`` frames.

        Raises:
            SourceError: the video is too short.
        """
        stop = count if self.stop is None else self.stop
        if stop > count or self.start >= count:
            asked = f"{self.start}:{'' if self.stop is None else self.stop}"
            raise SourceError(f"{where}: has {count} frames (0:{count}), but frames {asked} were requested")
        return range(self.start, stop, self.step)


class _Part(Struct, frozen=True):
    """Frames of a file for one folder or array.

    Attributes:
        path: the file.
        place: folder in the destination, ``.`` for the destination itself.
        first: index in the file of the episode's first frame.
        frames: the selected frames, relative to ``first``.
    """

    path: Path
    place: str
    first: int
    frames: range


class DecodePlan(Struct, frozen=True):
    """The frames to write, and where.

    Attributes:
        destination: the folder, or the ``.npy`` file.
        frames: number of frames.
    """

    destination: Path
    format: Format
    depth: DepthOptions
    overwrite: bool
    programs: tuple[str | None, str | None]
    cameras: tuple[tuple[_Part, ...], ...]
    frames: int


class DecodeSummary(Struct, frozen=True):
    """The written frames.

    Attributes:
        destination: the folder or file.
        files, frames, bytes: their numbers and total size.
        ranges: camera folder (or file) -> range of its colours in metres.
    """

    destination: Path
    files: int
    frames: int
    bytes: int
    ranges: dict[str, tuple[float, float]]


def plan_decode(
    source: str | Path,
    destination: str | Path,
    *,
    frames: FrameRange | None = None,
    format: Format | None = None,
    cameras: Sequence[str] | None = None,
    episodes: Sequence[int] | None = None,
    depth: DepthOptions | None = None,
    overwrite: bool = False,
    follow_links: bool = False,
    ffmpeg: str | None = None,
    ffprobe: str | None = None,
) -> DecodePlan:
    """Check a decode as far as possible without decoding, and return its plan.

    Args:
        source: a video file, or a LeRobot v3.0 video dataset.
        destination: a folder to create, or a file ending in ``.npy`` for a single video.
        frames: the frames of each video or episode; None: all.
        format: ``png`` (16-bit gray for depth) or ``npy``; None: determined by the destination's name.
        cameras, episodes: for a dataset, those to decode; None: all.
        depth: how depth is read and shown.
        overwrite: replace the result of an earlier run.
        follow_links: follow symbolic links that lead out of the source; otherwise they are refused.
        ffmpeg, ffprobe: programs to use instead of those that are found.

    Raises:
        SourceError: not a video, or fewer frames than requested.
        ConfigError: options that do not fit together or the source.
        DestinationError: the destination exists.
    """
    target = checked_path("destination", destination)
    root, options = source_path(source), depth or DepthOptions()
    single = target.suffix.lower() == ".npy"
    kind: Format = format or ("npy" if single else "png")
    _check_format(kind, target, options, single=single, dataset=root.is_dir())
    if options.near_far is not None:
        DepthPicture(*options.near_far, 64)
    check_free(target, single=single, overwrite=overwrite)
    chosen = frames or FrameRange()
    plan = DecodePlan(target, kind, options, overwrite, (ffmpeg, ffprobe), (), 0)
    parts: list[tuple[_Part, ...]] = []
    found_depth = quantised = False
    if not root.is_dir():
        if root.exists() and (cameras is not None or episodes is not None):
            raise ConfigError(f"{root} is one file; cameras and episodes can only be selected in a dataset")
        with _opened(root, plan) as reader:
            found_depth |= reader.is_depth
            quantised |= reader.info.pix_fmt == "gray12le"
            parts.append((_Part(root, ".", 0, chosen.within(len(reader), str(root))),))
    else:
        if not (root / INFO).is_file():
            raise SourceError(f"{root}: is neither a video file nor a LeRobot dataset (no meta/info.json)")
        check_tree(root, follow_links=follow_links)
        by_camera: dict[str, list[_Part]] = {}
        with _Readers(plan) as readers:
            for video in episode_videos(root, cameras=cameras, episodes=episodes):
                reader = readers.of(video.path)
                name = camera_name(video.camera)
                where = f"{root}: episode {video.episode} of {name}"
                first = reader.index_at(video.start)
                if first + video.frames > len(reader):
                    raise SourceError(
                        f"{where} has {video.frames} frames from {video.start:.3f} s on, but "
                        f"{video.path} ends after {len(reader) - first}; the video is cut short"
                    )
                place = f"{name}/episode_{video.episode:06d}"
                part = _Part(video.path, place, first, chosen.within(video.frames, where))
                by_camera.setdefault(name, []).append(part)
                found_depth |= reader.is_depth
                quantised |= reader.info.pix_fmt == "gray12le"
        parts = [tuple(found) for found in by_camera.values()]
    _check_depth_options(options, kind, root, depth=found_depth, quantised=quantised)
    return replace(plan, cameras=tuple(parts), frames=sum(len(p.frames) for c in parts for p in c))


def run_decode(plan: DecodePlan, *, on_frames: Callable[[int], None] | None = None) -> DecodeSummary:
    """Write the frames of a plan. The destination appears complete, or not at all.

    Args:
        plan: from :func:`plan_decode`.
        on_frames: called with the number of frames written so far.

    Raises:
        SourceError: a video is damaged; the text names the frame.
        DestinationError: the destination was created in the meantime, or cannot be written.
    """
    report = on_frames or (lambda _: None)
    done = 0
    ranges: dict[str, tuple[float, float]] = {}
    files: list[Path] = []
    single = plan.destination.suffix.lower() == ".npy"
    with (
        published_frames(plan.destination, overwrite=plan.overwrite) as folder,
        PngWriter() as pngs,
        _Readers(plan) as readers,
    ):
        for parts in plan.cameras:
            picture: DepthPicture | None = None
            if plan.depth.colormap:
                reader = readers.of(parts[0].path)
                if reader.is_depth:
                    near_far = plan.depth.near_far or _depths(parts, readers)
                    picture = DepthPicture(*near_far, reader.height)
                    ranges[parts[0].place.partition("/")[0]] = near_far
            for part in parts:
                place = folder if single else folder / part.place
                if plan.format == "npy":
                    path = place if single else place.with_suffix(".npy")
                    path.parent.mkdir(parents=True, exist_ok=True)
                    frames = _counted(readers.frames(part), report, done)
                    save_array(path, frames, len(part.frames))
                    files.append(path)
                else:
                    place.mkdir(parents=True, exist_ok=True)
                    shown = _counted(readers.frames(part), report, done)
                    for number, frame in zip(part.frames, shown, strict=True):
                        path = place / f"frame-{number:06d}.png"
                        pngs.save(path, frame, picture)
                        files.append(path)
                done += len(part.frames)
        pngs.wait()
        size = sum(path.stat().st_size for path in files)
    return DecodeSummary(plan.destination, len(files), done, size, ranges)


def _check_format(kind: Format, target: Path, depth: DepthOptions, *, single: bool, dataset: bool) -> None:
    if kind == "png" and single:
        raise ConfigError(f"{target}: PNG files are written to a folder; choose a name without .npy")
    if kind == "npy" and single and dataset:
        raise ConfigError(
            f"{target}: a dataset is written to a folder; name one, and pass {argument('format', 'npy')}"
        )
    if kind == "npy" and not single and not dataset:
        raise ConfigError(
            f"{target}: the frames of one file become one array; choose a name that ends in .npy"
        )
    if kind == "npy" and depth.colormap:
        raise ConfigError(f"{argument('colormap', True)} writes PNG files; leave out npy")
    if depth.codes and (depth.colormap or depth.fields or depth.invalid or depth.unit == "m"):
        raise ConfigError(
            f"{argument('codes', True)} writes the stored samples; leave out unit, colours and quantiser"
        )


def _check_depth_options(
    options: DepthOptions, kind: Format, root: Path, *, depth: bool, quantised: bool
) -> None:
    """Refuse options of depth that the selected cameras give no effect.

    Args:
        options: the options.
        kind: format of the files to write.
        root: the source, for errors.
        depth: whether there is a depth camera.
        quantised: whether there is one whose depth is stored as codes.
    """
    quantiser = [f"depth_encoder.{name}" for name in options.fields or ()]
    quantiser += ["invalid"] if options.invalid is not None else []
    asked = [name for name in ("colormap", "codes") if getattr(options, name)]
    asked += ["unit"] if options.unit == "m" else []
    if (asked or quantiser) and not depth:
        raise ConfigError(
            f"{root}: {argument([*asked, *quantiser][0])} is for depth, but no depth camera was selected"
        )
    if quantiser and not quantised:
        raise ConfigError(
            f"{root}: {argument(quantiser[0])} would have no effect: the depth is stored in millimetres, not "
            "quantised; leave it out"
        )
    if kind == "png" and not options.colormap and options.unit == "m":
        raise ConfigError(
            f"depth in metres is float32, which no PNG file holds: pass {argument('unit', 'mm')}, "
            f"or {argument('format', 'npy')} "
            "(for one file: a name that ends in .npy)"
        )


def _opened(path: Path, plan: DecodePlan) -> VideoReader:
    """Return a reader of a file, with the requested quantiser."""
    options = plan.depth
    ffmpeg, ffprobe = plan.programs
    info = probe(path, ffprobe=find_ffprobe(ffprobe))
    warn_of_others(path, info)
    warn_of_rotation(path, info)
    stored = info.pix_fmt
    if stored not in DEPTH_FORMATS:
        return VideoReader(path, ffmpeg=ffmpeg, ffprobe=ffprobe)
    depth: DepthQuantizer | Literal[False] | None = False if options.codes else None
    if stored == "gray12le" and not options.codes and (options.fields or options.invalid):
        quantizer = _stored_or_default(path) if options.fields else stored_quantizer(path)
        changes = dict(options.fields or {})
        _check_fields(path, changes)
        if options.invalid is not None:
            if changes.get("invalid", options.invalid) != options.invalid:
                raise ConfigError(
                    f"{argument('invalid', options.invalid)} and "
                    f"{argument('depth_encoder.invalid', changes['invalid'])} are the same setting; pass one"
                )
            changes["invalid"] = options.invalid
        depth = replace(quantizer, **changes) if quantizer is not None else None
    return VideoReader(path, depth=depth, depth_output_unit=_unit(options), ffmpeg=ffmpeg, ffprobe=ffprobe)


def _check_fields(path: Path, asked: Mapping[str, Any]) -> None:
    """Refuse another quantiser than that of a file's dataset: depth would be read wrongly.

    How pixels without depth are read (``invalid``) may be chosen, as LeRobot's metadata does not contain it.
    """
    recorded = recorded_fields(path)
    for name, value in asked.items():
        if name != "invalid" and recorded.get(name, value) != value:
            raise ConfigError(
                f"{path}: {argument(f'depth_encoder.{name}', value)} was asked for, but its dataset's {INFO} "
                f"says that its depth is quantised with {name}={recorded[name]}; leave it out, or correct "
                "the dataset if it is wrong"
            )


def _unit(options: DepthOptions) -> Unit:
    return "mm" if options.colormap else options.unit


def _stored_or_default(path: Path) -> DepthQuantizer:
    try:
        return stored_quantizer(path) or DepthQuantizer()
    except SourceError:  # it advises to give the quantiser, which is done here
        return DepthQuantizer()


class _Readers:
    """Opens each file once for all its episodes: listing the frame times of a long file takes a while."""

    def __init__(self, plan: DecodePlan) -> None:
        self._plan = plan
        self._reader: VideoReader | None = None

    def __enter__(self) -> _Readers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._reader is not None:
            self._reader.close()

    def of(self, path: Path) -> VideoReader:
        if self._reader is None or self._reader.path != path:
            self.__exit__()
            self._reader = _opened(path, self._plan)
        return self._reader

    def frames(self, part: _Part) -> Iterator[npt.NDArray[Any]]:
        """Yield a part's selected frames."""
        chosen = part.frames
        return self.of(part.path).each(
            slice(part.first + chosen.start, part.first + chosen.stop, chosen.step)
        )


def _counted(
    frames: Iterator[npt.NDArray[Any]], report: Callable[[int], None], done: int
) -> Iterator[npt.NDArray[Any]]:
    for number, frame in enumerate(frames, 1):
        yield frame
        report(done + number)


def _depths(parts: Sequence[_Part], readers: _Readers) -> tuple[float, float]:
    """Return the depth range of a camera's selected frames, which are decoded once more for it."""
    histogram = DepthHistogram(readers.of(parts[0].path).quantizer)
    for part in parts:
        for frame in readers.frames(part):
            histogram.add(frame)
    return histogram.range()
