"""Sources that are arrays in a file: what HDF5 files and zarr stores have in common."""

from __future__ import annotations

import difflib
import fnmatch
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ffenc.config.mapping import CameraMapping, FeatureMapping, SourceMapping, TaskMapping, refuse_fields
from ffenc.config.preset import camera_key, chosen_cameras
from ffenc.dataset.columns import column_of, dtype_of
from ffenc.dataset.source import Camera, Episode
from ffenc.dataset.sources.plain import DEFAULT_TASK, PlainSource
from ffenc.errors import ConfigError, FfencWarning, SourceError
from ffenc.frames.images import MAX_FILE_BYTES, MAX_PIXELS, MAX_SIDE, ImageHeader, read_header, tiff_of
from ffenc.frames.sources import EncodedFrame, files_fingerprint

Array = npt.NDArray[Any]

_AT_ONCE = 8 << 20  # bytes of images that are read at once, where chunks are not larger
_MOST_AT_ONCE = 256 << 20  # of a chunk, which is decompressed as a whole
_MOST_NUMBERS = 1 << 30  # bytes of one feature of one episode
_ORDERS = {"rgb": "rgb24", "bgr": "bgr24", "rgba": "rgba", "bgra": "bgra", "gray": "gray"}
_CHANNELS = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4, "gray": 1}
_DEPTH_KINDS = ("uint16", "int16", "uint32", "int32", "float16", "float32", "float64")


@dataclass(frozen=True)
class ArrayInfo:
    """An array of a file.

    Attributes:
        path: from the file's root, without a slash in front.
        shape: sizes of its axes.
        dtype: of its values; ``object`` where each is bytes or a text of its own length.
        bytes: that it takes in the file.
        chunk: rows that are compressed together; 0: it is stored in one piece.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    bytes: int
    chunk: int = 0

    @property
    def rows(self) -> int:
        """The length of its first axis."""
        return self.shape[0] if self.shape else 0

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of numbers, decompressed."""
        return int(np.prod(self.shape[1:], dtype=np.float64)) * self.dtype.itemsize

    @property
    def encoded(self) -> bool:
        """Whether its rows can be encoded images: bytes, of one length or each of its own."""
        flat = len(self.shape) == 2 and self.dtype == np.uint8
        return flat or (len(self.shape) == 1 and self.dtype.kind in "OSV")

    @property
    def text(self) -> bool:
        """Whether its values can be texts."""
        return self.dtype.kind in "OSUT"

    def __str__(self) -> str:
        kind = "bytes or texts" if self.dtype.kind in "OT" else str(self.dtype)
        return f"{kind} {'x'.join(map(str, self.shape)) or 'scalar'}"


class ArrayReader(ABC):
    """An open file of arrays."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def arrays(self) -> list[ArrayInfo]:
        """All arrays, in a fixed order.

        Raises:
            SourceError: the file is damaged, or leads to another file.
        """

    @abstractmethod
    def find(self, path: str) -> ArrayInfo | None:
        """One array; None where there is none of that path.

        Raises:
            SourceError: as :meth:`arrays`.
        """

    @abstractmethod
    def read(self, path: str, first: int, stop: int) -> Array:
        """Some of an array's rows; of a scalar, its value in one dimension.

        Raises:
            SourceError: they are damaged, or compressed in a way that is not read here.
        """

    @abstractmethod
    def attributes(self, path: str) -> Mapping[str, Any]:
        """The attributes of a group or array, as plain values; none where it is not there."""

    @abstractmethod
    def missing_chunks(self, path: str) -> int:
        """How many of an array's chunks are not in the file: their values are those of an empty one."""

    @abstractmethod
    def subgroups(self, path: str) -> list[str]:
        """The names of the groups in a group; none where it is not there."""

    def groups(self, pattern: str) -> list[str]:
        """The groups that match a pattern such as ``data/demo_*``, in the order of their numbers."""
        found = [""]
        for part in pattern.strip("/").split("/"):
            below = [
                f"{place}/{name}".strip("/")
                for place in found
                for name in fnmatch.filter(self.subgroups(place), part)
            ]
            found = sorted(below, key=by_number)
        return found

    def array(self, path: str) -> ArrayInfo:
        """One array.

        Raises:
            SourceError: there is none of that path; the text names the nearest.
        """
        found = self.find(path)
        if found is None:
            names = [one.path for one in self.arrays()]
            near = difflib.get_close_matches(path, names, n=1, cutoff=0.5)
            question = f"; did you mean {near[0]!r}?" if near else f"; it has {_some(names)}"
            raise SourceError(f"{self.path}: there is no array {path!r}{question}")
        return found


@dataclass(frozen=True)
class ArrayFile(ABC):
    """A file of arrays that is opened when something is read of it.

    Attributes:
        path: where it is.
    """

    path: Path

    @abstractmethod
    def open(self) -> AbstractContextManager[ArrayReader]:
        """Open it.

        Raises:
            SourceError: it cannot be read.
        """

    def files(self, array: str) -> list[Path]:
        """The files on the disk that hold an array."""
        return [self.path]


@dataclass(frozen=True)
class Part:
    """One episode: some rows of arrays.

    Attributes:
        file: where they are.
        group: which the arrays' paths are in; "" for the root.
        first: the first row.
        length: how many.
    """

    file: ArrayFile
    group: str
    first: int
    length: int

    def place(self, path: str) -> str:
        """The path of an array from the file's root."""
        return "/".join(filter(None, (self.group, path.strip("/"))))

    def __str__(self) -> str:
        return f"{self.file.path}" + (f": {self.group}" if self.group else "")


@dataclass(frozen=True)
class Pixels:
    """How the rows of an array become images.

    Attributes:
        header: what they become.
        chw: the axis of colours comes first.
        white: of floats, the value that is white.
    """

    header: ImageHeader
    chw: bool = False
    white: float | None = None

    def rows(self, block: Array, names: Sequence[str]) -> Iterator[EncodedFrame]:
        """The rows of an array as images."""
        header = self.header
        if header.format not in ("raw", "tiff"):
            for name, row in zip(names, block, strict=True):
                yield EncodedFrame(name, _bytes(row), order=header.order)
            return
        block = block.reshape(len(block), header.channels, header.height, header.width) if self.chw else block
        block = np.moveaxis(block, 1, -1) if self.chw else block
        if header.depth:
            block = block.reshape(len(block), header.height, header.width)
            block = block.astype(np.float32) if block.dtype.kind == "f" else block
            for name, row in zip(names, block, strict=True):
                yield EncodedFrame(name, tiff_of(row))
            return
        if self.white is not None:
            block = np.rint(np.clip(block * (255 / self.white), 0, 255)).astype(np.uint8)
        for name, row in zip(names, block, strict=True):
            yield EncodedFrame(name, row.tobytes(), raw=header)


class ArrayFrames:
    """Rows of an array as a frame source; the file is open while it is iterated over.

    Args:
        part: the episode.
        path: the array's, in the episode.
        pixels: how its rows become images.
    """

    def __init__(self, part: Part, path: str, pixels: Pixels) -> None:
        self._part, self._place, self._pixels = part, part.place(path), pixels

    def __len__(self) -> int:
        return self._part.length

    def __iter__(self) -> Iterator[EncodedFrame]:
        part, place = self._part, self._place
        with part.file.open() as reader:
            step = _rows_at_once(reader.array(place), part.file.path)
            for first in range(0, part.length, step):
                count = min(step, part.length - first)
                start = part.first + first
                block = reader.read(place, start, start + count)
                names = [f"{part.file.path}: {place}, row {start + i}" for i in range(count)]
                yield from self._pixels.rows(block, names)

    def fingerprint(self) -> str:
        part, pixels = self._part, self._pixels
        return f"{files_fingerprint(part.file.files(self._place))} {self._place} {part.first} {pixels}"


def _rows_at_once(info: ArrayInfo, path: Path) -> int:
    if info.dtype.kind in "OT":
        return max(1, min(info.chunk or 16, 16))
    chunk = max(1, info.chunk)
    if chunk * info.row_bytes > _MOST_AT_ONCE and info.chunk:
        raise SourceError(
            f"{path}: {info.path}: {chunk:,} rows of {info.row_bytes:,} bytes are compressed together; at "
            "most "
            f"{_MOST_AT_ONCE >> 20} MB are read at once. Write it with smaller chunks, of one row best"
        )
    return max(1, _AT_ONCE // max(1, chunk * info.row_bytes)) * chunk


def _bytes(row: Any) -> bytes:
    if isinstance(row, (bytes, bytearray)):
        return bytes(row)
    return np.asarray(row).tobytes()


class ArraySource(PlainSource):
    """Arrays of numbers and images, a part of them an episode.

    Args:
        root: the file or folder.
        parts: the episodes.
        mapping: what the arrays are.
        what: the kind of source, for errors.
        fps: frames a second.
        task: the text of the task, which wins over the mapping's; None: not said.
        robot_type: LeRobot's name of the robot, or None.
        cameras: keys to read, with or without ``observation.images.``; None: all.

    Raises:
        SourceError: an array is missing or of another shape than in the first episode.
        ConfigError: an array cannot be what the mapping says.
    """

    def __init__(
        self,
        root: Path,
        parts: Sequence[Part],
        mapping: SourceMapping,
        *,
        what: str,
        fps: Fraction,
        task: str | None = None,
        robot_type: str | None = None,
        cameras: Sequence[str] | None = None,
    ) -> None:
        _check_mapping(mapping, what)
        keys = {camera_key(name): one for name, one in mapping.cameras.items()}
        if cameras is not None:
            keys = {key: keys[key] for key in chosen_cameras(list(keys), cameras)}
        self._mapping, self._keys = mapping, keys
        self.reading = {"mapping": mapping.plain()}
        self._parts, texts = [], []
        self._pixels: dict[str, Pixels] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._first: dict[str, ArrayInfo] = {}
        self._whole: set[tuple[str, ArrayFile]] = set()
        self._stored: dict[str, list[float]] = {key: [] for key in keys}
        for file, some in groupby(parts, key=lambda part: part.file):
            with file.open() as reader:
                for part in some:
                    whole = self._checked(part, reader)
                    self._parts.append(whole)
                    texts.append(_task_texts(whole, reader, mapping.task if task is None else None))
        numbers = {text: number for number, text in enumerate(dict.fromkeys(t for own in texts for t in own))}
        self._tasks_of = [np.array([numbers[text] for text in own], np.int64) for own in texts]
        super().__init__(
            root,
            fps=fps,
            cameras=[self._camera(key) for key in keys],
            lengths=[part.length for part in self._parts],
            features=self._described,
            tasks=list(numbers) if mapping.task is not None and task is None else [task or DEFAULT_TASK],
            robot_type=robot_type,
        )

    # ---- looking at what is there ----------------------------------------------------------------------

    def _checked(self, part: Part, reader: ArrayReader) -> Part:
        """Look at an episode's arrays, and return it with its length."""
        length = part.length
        first: str | None = None
        whole = self._whole
        for key, camera in self._keys.items():
            info = reader.array(part.place(camera.path))
            self._look_at_camera(key, camera, part, info, reader)
            if (info.path, part.file) not in whole and (missing := reader.missing_chunks(info.path)):
                warnings.warn(
                    f"{part.file.path}: {info.path}: {missing:,} chunks are not in the file; their frames "
                    "are "
                    "empty (black, where nothing else is said)",
                    FfencWarning,
                    stacklevel=4,
                )
            whole.add((info.path, part.file))
            self._stored[key].append(info.bytes / max(1, info.rows))
            length, first = _same_length(part, length, first, info)
        for name, feature in self._mapping.features.items():
            for path in feature.paths:
                info = reader.array(part.place(path))
                self._look_at_feature(name, path, feature, part, info)
                length, first = _same_length(part, length, first, info)
        if length < 1:
            raise SourceError(f"{part}: has no rows; leave it out, or restore it")
        return Part(part.file, part.group, part.first, length)

    def _look_at_camera(
        self, key: str, camera: CameraMapping, part: Part, info: ArrayInfo, reader: ArrayReader
    ) -> None:
        if key in self._pixels:
            other = self._first[key]
            if (info.encoded, info.encoded or (info.dtype, info.shape[1:])) != (
                other.encoded,
                other.encoded or (other.dtype, other.shape[1:]),
            ):
                raise SourceError(
                    f"{part}: {info.path} has rows of {_times(info.shape[1:])} {info.dtype}, those of other "
                    f"episodes are {_times(other.shape[1:])} {other.dtype}: the frames of one camera must "
                    "be alike"
                )
            return
        where = f"cameras.{key.removeprefix('observation.images.')}"
        self._first[key] = info
        if not info.rows:
            raise SourceError(f"{part}: {info.path} has no rows; leave it out, or restore it")
        if info.encoded:
            self._pixels[key] = _encoded_pixels(camera, part, info, reader, where)
        else:
            self._pixels[key] = _raw_pixels(camera, part, info, where)

    def _look_at_feature(
        self, name: str, path: str, feature: FeatureMapping, part: Part, info: ArrayInfo
    ) -> None:
        key = f"{name}\0{path}"
        shape = self._shapes.setdefault(key, info.shape[1:])
        if info.shape[1:] != shape:
            raise SourceError(
                f"{part}: {info.path} has rows of {_times(info.shape[1:])}, those of other episodes are "
                f"{_times(shape)}"
            )
        if len(shape) > 1 and not feature.flatten:
            raise ConfigError(
                f"features.{name}: {info.path} has rows of {_times(shape)} numbers; a feature has numbers "
                "in one "
                "dimension. Say flatten: true to take them one after another"
            )
        texts = feature.dtype == "string"
        if info.dtype.kind not in ("OSUT" if texts else "biuf"):
            wanted = "texts (dtype: string)" if texts else "numbers"
            raise ConfigError(f"features.{name}: {info.path} is {info}; expected {wanted}")
        if info.row_bytes * max(part.length, 1) > _MOST_NUMBERS or (
            not part.length and info.row_bytes * info.rows > _MOST_NUMBERS
        ):
            raise SourceError(
                f"{part}: {info.path} is {info}, more than {_MOST_NUMBERS >> 30} GB an episode; is it a "
                "camera?"
            )

    @cached_property
    def _described(self) -> dict[str, dict[str, Any]]:
        """The features of the columns."""
        part, described = self._parts[0], {}
        first = Part(part.file, part.group, part.first, 1)
        with part.file.open() as reader:
            for name, feature in self._mapping.features.items():
                values = self._values(name, feature, first, reader)
                width = values.shape[1] if values.ndim == 2 else 1
                if feature.names is not None and len(feature.names) != width:
                    raise ConfigError(
                        f"features.{name}.names: has {len(feature.names)} names, and there are {width} "
                        "numbers"
                    )
                texts = feature.dtype == "string"
                dtype = "string" if texts else dtype_of(pa.from_numpy_dtype(values.dtype))
                described[name] = {"dtype": dtype, "shape": [width], "names": feature.names}
        return described

    def _camera(self, key: str) -> Camera:
        header = self._pixels[key].header
        if not header.depth:
            return Camera(key, False, header)
        return Camera(key, True, header, self._keys[key].unit or header.unit)

    # ---- what a source gives ---------------------------------------------------------------------------

    def frames(self, camera: str, episode: Episode) -> ArrayFrames:
        return ArrayFrames(self._parts[episode.index], self._keys[camera].path, self._pixels[camera])

    def camera_bytes(self, camera: str, episodes: Sequence[Episode]) -> int:
        stored = self._stored[camera]
        return round(sum(stored[episode.index] * episode.length for episode in episodes))

    def check(self, episodes: Sequence[Episode]) -> None:
        """Look at the numbers of some episodes, so that one that cannot be stored is found before encoding.

        Raises:
            SourceError: one is not finite, or does not fit its feature's dtype; the text names the row.
        """
        for episode in episodes:
            part = self._parts[episode.index]
            with part.file.open() as reader:
                for name, feature in self._mapping.features.items():
                    values = self._values(name, feature, part, reader)
                    if values.dtype.kind != "f" or np.isfinite(values).all():
                        continue
                    wide = values.reshape(len(values), -1)
                    row, place = (int(n[0]) for n in np.nonzero(~np.isfinite(wide)))
                    raise SourceError(
                        f"{part}: {', '.join(feature.paths)}, row {row}: number {place} of {name} is "
                        f"{wide[row, place]}, where "
                        "finite "
                        "numbers are expected; restore the file, or leave the episode out with --episodes"
                    )

    def columns(self, episode: Episode) -> Mapping[str, Any]:
        part, columns = self._parts[episode.index], {}
        with part.file.open() as reader:
            for name, feature in self._mapping.features.items():
                values = self._values(name, feature, part, reader)
                columns[name] = column_of(values, self._described[name])
        return columns

    def task_numbers(self, episode: Episode) -> npt.NDArray[np.int64]:
        numbers = self._tasks_of[episode.index]
        if len(numbers) == episode.length:
            return numbers
        return np.full(episode.length, numbers[0] if len(numbers) else 0, np.int64)

    def notes(self, episode: Episode) -> Mapping[str, Any]:
        part = self._parts[episode.index]
        units = {name: one.unit for name, one in self._mapping.features.items() if one.unit is not None}
        return {
            "source": {"file": part.file.path.name, "group": part.group, "first_row": part.first},
            **({"units": units} if units else {}),
        }

    def _values(self, name: str, feature: FeatureMapping, part: Part, reader: ArrayReader) -> Array:
        """A feature's values of an episode, ``(N,)`` or ``(N, D)``."""
        arrays = []
        for path in feature.paths:
            block = reader.read(part.place(path), part.first, part.first + part.length)
            arrays.append(block.reshape(len(block), -1) if block.ndim > 2 else block)
        return mapped_values(name, feature, arrays, str(part))


def mapped_values(name: str, feature: FeatureMapping, arrays: Sequence[Array], where: str) -> Array:
    """Put numbers together as a mapping says.

    Args:
        name: the feature's.
        feature: what is said of it.
        arrays: of its paths, ``(N,)`` or ``(N, D)``.
        where: what they are of, for errors.

    Returns:
        shape ``(N,)`` for one value a row, else ``(N, D)``.

    Raises:
        SourceError: a number does not fit the feature's dtype; the text names the row.
        ConfigError: there are not the columns that are taken.
    """
    if feature.dtype == "string":
        if len(arrays) > 1 or arrays[0].ndim > 1:
            raise ConfigError(f"features.{name}: a text a row is expected of dtype string")
        return np.array([text_of(value) for value in arrays[0]], object)
    several = [array[:, None] if array.ndim == 1 else array for array in arrays]
    values = arrays[0] if len(arrays) == 1 else np.concatenate(several, 1)
    if feature.columns is not None:
        wide = values[:, None] if values.ndim == 1 else values
        values = wide[:, feature.chosen(wide.shape[1])]
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if feature.scale is not None:
        values = values * feature.scale
    wanted = np.dtype(feature.dtype or values.dtype.newbyteorder("="))
    if wanted == values.dtype:
        return values.astype(wanted, copy=False)
    with np.errstate(invalid="ignore", over="ignore"):
        changed = values.astype(wanted)
    # A float of fewer bits rounds; all else has to be the same number.
    lost = np.isinf(changed) & ~np.isinf(values) if wanted.kind == "f" else changed != values
    if lost.any():
        row = int(np.argmax(lost.reshape(len(lost), -1).any(1)))
        raise SourceError(
            f"{where}: {', '.join(feature.paths)}, row {row}: {values[row]} is not a number of dtype "
            f"{wanted}; "
            f"choose another dtype for features.{name}"
        )
    return changed


def text_of(value: Any) -> str:
    """A text of a file, whatever it is kept as."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "ui":
        value = value.tobytes()
    if isinstance(value, bytes):
        return value.rstrip(b"\0").decode("utf-8", "replace")
    return str(value)


def _check_mapping(mapping: SourceMapping, what: str) -> None:
    refuse_fields(mapping, (), ("fps", "episodes", "task", "cameras", "features"), what)
    for name, camera in mapping.cameras.items():
        taken = ("path", "channels", "axes", "depth", "unit", "white")
        refuse_fields(camera, ("cameras", name), taken, what)
    for name, feature in mapping.features.items():
        fields = ("path", "names", "columns", "dtype", "scale", "unit", "flatten")
        refuse_fields(feature, ("features", name), fields, what)
    if mapping.episodes is not None:
        refuse_fields(mapping.episodes, ("episodes",), ("groups", "ends"), what)


def _same_length(part: Part, length: int, first: str | None, info: ArrayInfo) -> tuple[int, str | None]:
    """The length that an episode's arrays have; where it is known before, they have to be as long."""
    if not length:
        return info.rows, info.path
    if first is None:  # rows of a longer array
        if info.rows < part.first + length:
            raise SourceError(
                f"{part}: {info.path} has {info.rows:,} rows, the episodes end at row "
                f"{part.first + length:,}; "
                "restore it"
            )
        return length, None
    if info.rows != length:
        raise SourceError(
            f"{part}: {info.path} has {info.rows:,} rows, {first} has {length:,}: all arrays of an episode "
            "have one row a frame"
        )
    return length, first


def _encoded_pixels(
    camera: CameraMapping, part: Part, info: ArrayInfo, reader: ArrayReader, where: str
) -> Pixels:
    for name in ("axes", "white"):
        if getattr(camera, name) is not None:
            raise ConfigError(f"{where}.{name}: has no meaning for encoded images, which {info.path} holds")
    if camera.channels not in (None, "rgb", "bgr"):
        raise ConfigError(
            f"{where}.channels: of encoded images rgb or bgr is accepted, not {camera.channels}"
        )
    if info.row_bytes > MAX_FILE_BYTES:
        raise SourceError(f"{part}: {info.path} has rows of {info.row_bytes:,} bytes; no image has so many")
    name = f"{part.file.path}: {info.path}, row {part.first}"
    header = read_header(_bytes(reader.read(info.path, part.first, part.first + 1)[0]), name)
    if header.depth != camera.depth:
        said = "says depth: true" if camera.depth else "does not say depth: true"
        raise ConfigError(f"{where}: {name} is a {header}, and the mapping {said}")
    order = "bgr" if camera.channels == "bgr" else ""
    return Pixels(
        ImageHeader(header.format, *_size(header), header.bits, header.channels, header.samples, order)
    )


def _size(header: ImageHeader) -> tuple[int, int]:
    return header.width, header.height


def _raw_pixels(camera: CameraMapping, part: Part, info: ArrayInfo, where: str) -> Pixels:
    shape, kind = info.shape[1:], info.dtype
    if camera.depth:
        if kind.name not in _DEPTH_KINDS:
            raise ConfigError(
                f"{where}: {info.path} is {info}; depth is 16- or 32-bit integers (millimetres) or floats "
                "(metres)"
            )
        wanted = [shape] if len(shape) == 2 else []
        wanted += [shape[:2]] if len(shape) == 3 and shape[2] == 1 else []
        wanted += [shape[1:]] if len(shape) == 3 and shape[0] == 1 else []
        if not wanted:
            raise ConfigError(f"{where}: {info.path} is {info}; depth maps have one number a pixel")
        height, width = wanted[0]
        bits = 32 if kind.kind == "f" else kind.itemsize * 8
        names: dict[str, Any] = {"u": "unsigned", "i": "signed", "f": "float"}
        return Pixels(_checked(ImageHeader("tiff", width, height, bits, 1, names[kind.kind]), part, info))
    floats = kind.kind == "f"
    if kind != np.uint8 and not floats:
        hint = "; say depth: true if it is depth" if kind.name in _DEPTH_KINDS else ""
        raise ConfigError(f"{where}: {info.path} is {info}; pixels are uint8, or floats{hint}")
    if floats and camera.white is None:
        raise ConfigError(
            f"{where}.white: is missing: {info.path} is {info}; say which value is white, such as 1 or 255"
        )
    if not floats and camera.white is not None:
        raise ConfigError(f"{where}.white: has no meaning for {info.path}, which is {info}")
    chw, (height, width, channels) = _axes(camera, info, where)
    order = camera.channels
    if order is None and channels != 1:
        raise ConfigError(
            f"{where}.channels: is missing: {info.path} holds raw pixels, and nothing in the file says "
            "whether "
            "they are rgb or bgr. ffenc inspect --sheet shows them"
        )
    order = order or "gray"
    if _CHANNELS[order] != channels:
        raise ConfigError(
            f"{where}.channels: {order} has {_CHANNELS[order]} values a pixel, {info.path} has {channels}"
        )
    header = ImageHeader("raw", width, height, 8, channels, order=_ORDERS[order])
    return Pixels(_checked(header, part, info), chw, camera.white)


def _axes(camera: CameraMapping, info: ArrayInfo, where: str) -> tuple[bool, tuple[int, int, int]]:
    """Whether colours come first, and height, width and colours."""
    shape = info.shape[1:]
    if len(shape) == 2:
        if camera.axes is not None:
            raise ConfigError(f"{where}.axes: has no meaning for {info.path}, which is {info}")
        return False, (shape[0], shape[1], 1)
    if len(shape) != 3:
        raise ConfigError(f"{where}: {info.path} is {info}; images are frames x height x width x colours")
    last, first = shape[2] in (1, 3, 4), shape[0] in (1, 3, 4)
    if camera.axes is None and last == first:
        raise ConfigError(
            f"{where}.axes: is missing: {info.path} is {info}; say hwc or chw, where its 1, 3 or 4 colours "
            "are"
        )
    chw = camera.axes == "chw" if camera.axes is not None else first
    height, width, channels = (shape[1], shape[2], shape[0]) if chw else shape
    return chw, (height, width, channels)


def _checked(header: ImageHeader, part: Part, info: ArrayInfo) -> ImageHeader:
    if (
        not (header.width and header.height)
        or max(_size(header)) > MAX_SIDE
        or (header.width * header.height > MAX_PIXELS)
    ):
        raise SourceError(
            f"{part}: {info.path} has frames of {header.width}x{header.height}; 1 to {MAX_SIDE} pixels a "
            "side "
            f"and {MAX_PIXELS:,} in all are read"
        )
    return header


def _task_texts(part: Part, reader: ArrayReader, task: TaskMapping | None) -> list[str]:
    """The text of an episode's task, or of each row's."""
    if task is None:
        return []
    if task.text is not None:
        return [task.text]
    if task.attribute is not None:
        for place in dict.fromkeys((part.group, "")):
            found = reader.attributes(place).get(task.attribute)
            if found is not None:
                return [text_of(found)]
        raise SourceError(f"{part}: has no attribute {task.attribute!r}, which task.attribute names")
    assert task.path is not None
    info = reader.array(part.place(task.path))
    if not info.text and info.dtype != np.uint8:
        raise ConfigError(f"task.path: {info.path} is {info}; expected texts")
    if info.rows <= 1:
        return [text_of(value) for value in reader.read(info.path, 0, 1)[:1]]
    if info.rows < part.first + part.length:
        raise SourceError(f"{part}: {info.path} has {info.rows} texts, the episode {part.length} rows")
    return [text_of(v) for v in reader.read(info.path, part.first, part.first + part.length)]


def parts_of(files: Sequence[ArrayFile], mapping: SourceMapping) -> list[Part]:
    """The episodes of some files: each file is one, or as the mapping says.

    Raises:
        SourceError: there are none, or their ends do not ascend.
    """
    parts: list[Part] = []
    for file in files:
        if mapping.episodes is None:
            parts.append(Part(file, "", 0, 0))
            continue
        with file.open() as reader:
            if (pattern := mapping.episodes.groups) is not None:
                groups = reader.groups(pattern)
                if not groups:
                    raise SourceError(f"{file.path}: no group matches episodes.groups, {pattern!r}")
                parts += [Part(file, group, 0, 0) for group in groups]
            elif mapping.episodes.ends is not None:
                parts += _by_ends(file, reader, mapping)
    return parts


def _by_ends(file: ArrayFile, reader: ArrayReader, mapping: SourceMapping) -> list[Part]:
    assert mapping.episodes is not None
    assert mapping.episodes.ends is not None
    info = reader.array(mapping.episodes.ends.strip("/"))
    if len(info.shape) != 1 or info.dtype.kind not in "iu" or not 0 < info.rows <= 10_000_000:
        raise SourceError(f"{file.path}: {info.path} is {info}; expected the row behind each episode's last")
    ends = reader.read(info.path, 0, info.rows).astype(np.int64)
    starts = np.concatenate([[0], ends[:-1]])
    if (wrong := np.flatnonzero(ends <= starts)).size:
        number = int(wrong[0])
        raise SourceError(
            f"{file.path}: {info.path}: episode {number} ends at row {ends[number]}, and begins at row "
            f"{starts[number]}; the ends have to ascend"
        )
    first = next(iter(mapping.cameras.values()))
    beyond = reader.array(first.path.strip("/")).rows - int(ends[-1])
    if beyond > 0:
        warnings.warn(
            f"{file.path}: {beyond:,} rows behind the last episode's end are in no episode, and left out",
            FfencWarning,
            stacklevel=3,
        )
    return [Part(file, "", int(a), int(b - a)) for a, b in zip(starts, ends, strict=True)]


def by_number(path: str) -> list[tuple[int, str]]:
    """A key for the order in which ``demo_2`` is before ``demo_10``."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path)]


def _times(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "1"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "none"
