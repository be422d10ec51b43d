"""Arrays as episodes: the common part of HDF5 files and zarr stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from ffenc.dataset.model import Camera, EpisodeRef
from ffenc.dataset.sources.array_parts import MOST_ROWS, Part, warn_of_missing_chunks
from ffenc.dataset.sources.array_pixels import ArrayFrames, Pixels, pixels_of
from ffenc.dataset.sources.arrays import Array, ArrayFile, ArrayInfo, ArrayReader, times
from ffenc.dataset.sources.mapped import check_finite, mapped_values, text_of
from ffenc.dataset.sources.plain import DEFAULT_TASK, PlainSource
from ffenc.errors import ConfigError, SourceError

_MOST_NUMBERS = 1 << 30  # bytes of one feature of one episode


class ArraySource(PlainSource):
    """Arrays of numbers and images; each part of them is an episode.

    Args:
        root: the file or folder.
        parts: the episodes.
        mapping: the meaning of the arrays.
        fps: frames per second.
        task: text of the task, which overrides the mapping's; None: as in the mapping.
        robot_type: LeRobot's name for the robot, or None.
        cameras: keys to read, with or without ``observation.images.``; None: all.

    Raises:
        SourceError: an array is missing, or its shape differs from the first episode's.
        ConfigError: an array does not fit the mapping.
    """

    def __init__(
        self,
        root: Path,
        parts: Sequence[Part],
        mapping: SourceMapping,
        *,
        fps: Fraction,
        task: str | None = None,
        robot_type: str | None = None,
        cameras: Sequence[str] | None = None,
    ) -> None:
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
        ends = mapping.episodes is not None and mapping.episodes.groups is None
        said = mapping.task if task is None else None
        for file, some in groupby(parts, key=lambda part: part.file):
            with file.open() as reader:
                whole = [self._checked(part, reader) for part in some]
                self._parts += whole
                if said is not None and said.path is not None:
                    for part in whole:
                        info = reader.array(part.place(said.path))
                        self._look_for_chunks(
                            part, info, reader, "texts are the fill value (empty by default)"
                        )
                texts += [_task_texts(whole, n, reader, said, ends=ends) for n in range(len(whole))]
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

    # ---- checks -------------------------------------------------------------------------------------------

    def _checked(self, part: Part, reader: ArrayReader) -> Part:
        """Check an episode's arrays, and return the episode with its length."""
        length = part.length
        first: str | None = None
        for key, camera in self._keys.items():
            info = reader.array(part.place(camera.path))
            self._look_at_camera(key, camera, part, info, reader)
            self._look_for_chunks(part, info, reader, "frames have the fill value (black by default)")
            self._stored[key].append(info.bytes / max(1, info.rows))
            length, first = _same_length(part, length, first, info)
        for name, feature in self._mapping.features.items():
            for path in feature.paths:
                info = reader.array(part.place(path))
                self._look_at_feature(name, path, feature, part, info)
                self._look_for_chunks(part, info, reader, "rows have the fill value (0 by default)")
                length, first = _same_length(part, length, first, info)
            if feature.flatten and all(len(self._shapes[f"{name}\0{path}"]) < 2 for path in feature.paths):
                raise ConfigError(
                    f"features.{name}.flatten: does not apply to {', '.join(feature.paths)}, which has one "
                    "dimension a row; leave it out"
                )
        if length < 1:
            raise SourceError(f"{part}: has no rows; leave it out, or restore it")
        if length > MOST_ROWS:
            raise SourceError(f"{part}: has {length:,} rows; at most {MOST_ROWS:,} per episode are read")
        return Part(part.file, part.group, part.first, length)

    def _look_for_chunks(self, part: Part, info: ArrayInfo, reader: ArrayReader, what: str) -> None:
        """Warn once of the chunks of an array that are not stored."""
        if (info.path, part.file) in self._whole:
            return
        self._whole.add((info.path, part.file))
        warn_of_missing_chunks(info, reader, what, stacklevel=5)

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
                    f"{part}: {info.path} has rows of {times(info.shape[1:])} {info.dtype}, those of other "
                    f"episodes are {times(other.shape[1:])} {other.dtype}: the frames of one camera must "
                    "be alike"
                )
            return
        where = f"cameras.{key.removeprefix('observation.images.')}"
        self._first[key] = info
        if not info.rows:
            raise SourceError(f"{part}: {info.path} has no rows; leave it out, or restore it")
        self._pixels[key] = pixels_of(camera, part, info, reader, where)

    def _look_at_feature(
        self, name: str, path: str, feature: FeatureMapping, part: Part, info: ArrayInfo
    ) -> None:
        key = f"{name}\0{path}"
        shape = self._shapes.setdefault(key, info.shape[1:])
        if info.shape[1:] != shape:
            raise SourceError(
                f"{part}: {info.path} has rows of {times(info.shape[1:])}, those of other episodes are "
                f"{times(shape)}"
            )
        if len(shape) > 1 and not feature.flatten:
            raise ConfigError(
                f"features.{name}: {info.path} has rows of {times(shape)} numbers; a feature has "
                "one dimension. Write flatten: true to flatten them"
            )
        if 0 in shape:
            raise ConfigError(f"features.{name}: {info.path} is {info}, which has no numbers; leave it out")
        texts = feature.dtype == "string"
        if info.dtype.kind not in ("OSUT" if texts else "biuf"):
            wanted = "texts (dtype: string)" if texts else "numbers"
            raise ConfigError(f"features.{name}: {info.path} is {info}", expected=f"{wanted}")
        if info.row_bytes * max(part.length, 1) > _MOST_NUMBERS or (
            not part.length and info.row_bytes * info.rows > _MOST_NUMBERS
        ):
            raise SourceError(
                f"{part}: {info.path} is {info}, more than {_MOST_NUMBERS >> 30} GB an episode; is it a "
                "camera?"
            )

    @cached_property
    def _described(self) -> dict[str, dict[str, Any]]:
        """Return the descriptions of the columns as features."""
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

    # ---- the source's interface ---------------------------------------------------------------------------

    def frames(self, camera: str, episode: EpisodeRef) -> ArrayFrames:
        return ArrayFrames(self._parts[episode.index], self._keys[camera].path, self._pixels[camera])

    def camera_bytes(self, camera: str, episodes: Sequence[EpisodeRef]) -> int:
        stored = self._stored[camera]
        return round(sum(stored[episode.index] * episode.length for episode in episodes))

    def check(self, episodes: Sequence[EpisodeRef]) -> None:
        for episode in episodes:
            part = self._parts[episode.index]
            with part.file.open() as reader:
                for name, feature in self._mapping.features.items():
                    values = self._values(name, feature, part, reader)
                    check_finite(name, values, f"{part}: {', '.join(feature.paths)}")

    def columns(self, episode: EpisodeRef) -> Mapping[str, Any]:
        part, columns = self._parts[episode.index], {}
        with part.file.open() as reader:
            for name, feature in self._mapping.features.items():
                values = self._values(name, feature, part, reader)
                columns[name] = column_of(values, self._described[name])
        return columns

    def task_numbers(self, episode: EpisodeRef) -> npt.NDArray[np.int64]:
        numbers = self._tasks_of[episode.index]
        if len(numbers) == episode.length:
            return numbers
        return np.full(episode.length, numbers[0] if len(numbers) else 0, np.int64)

    def notes(self, episode: EpisodeRef) -> Mapping[str, Any]:
        part = self._parts[episode.index]
        units = {name: one.unit for name, one in self._mapping.features.items() if one.unit is not None}
        return {
            "source": {"file": part.file.path.name, "group": part.group, "first_row": part.first},
            **({"units": units} if units else {}),
        }

    def _values(self, name: str, feature: FeatureMapping, part: Part, reader: ArrayReader) -> Array:
        """Return a feature's values in an episode, ``(N,)`` or ``(N, D)``."""
        arrays = []
        for path in feature.paths:
            block = reader.read(part.place(path), part.first, part.first + part.length)
            arrays.append(block.reshape(len(block), -1) if block.ndim > 2 else block)
        return mapped_values(name, feature, arrays, str(part))


def check_mapping(mapping: SourceMapping, what: str) -> None:
    """Refuse fields of a mapping that arrays do not have.

    Args:
        mapping: the mapping.
        what: the kind of source, for the error.

    Raises:
        SettingError: such a field is set.
    """
    refuse_fields(mapping, (), ("fps", "episodes", "task", "cameras", "features"), what)
    for name, camera in mapping.cameras.items():
        taken = ("path", "channels", "axes", "depth", "unit", "white")
        refuse_fields(camera, ("cameras", name), taken, what)
    for name, feature in mapping.features.items():
        fields = ("path", "names", "columns", "dtype", "scale", "unit", "flatten")
        refuse_fields(feature, ("features", name), fields, what)
    if mapping.episodes is not None:
        refuse_fields(mapping.episodes, ("episodes",), ("groups", "ends", "values", "last"), what)


def _same_length(part: Part, length: int, first: str | None, info: ArrayInfo) -> tuple[int, str | None]:
    """Return the length of an episode, and the array that determined it; check an array against it."""
    if not length:
        return info.rows, info.path
    if first is None:  # the length comes from the ends of episodes, and the array may be longer
        if info.rows < part.first + length:
            raise SourceError(
                f"{part}: {info.path} has {info.rows:,} rows, the episodes end at row "
                f"{part.first + length:,}; "
                "restore it"
            )
        return length, None
    if info.rows != length:
        raise SourceError(
            f"{part}: {info.path} has {info.rows:,} rows, {first} has {length:,}: all arrays of "
            "an episode must have one row per frame"
        )
    return length, first


def _task_texts(
    parts: Sequence[Part], number: int, reader: ArrayReader, task: TaskMapping | None, *, ends: bool
) -> list[str]:
    """Return the text of an episode's task, or of each row's task.

    Args:
        parts: all episodes of the file.
        number: index of the episode.
        reader: the open file.
        task: where the text is; None: nowhere.
        ends: the episodes are ranges of rows of the same arrays.
    """
    part = parts[number]
    if task is None:
        return []
    if task.text is not None:
        return [task.text]
    if task.attribute is not None:
        for place in dict.fromkeys((part.group, "")):
            found = reader.attributes(place).get(task.attribute)
            if found is not None:
                return [text_of(found, f"{part}: attribute {task.attribute}")]
        raise SourceError(f"{part}: has no attribute {task.attribute!r}, which task.attribute names")
    assert task.path is not None
    info = reader.array(part.place(task.path))
    if not info.text and not (info.dtype == np.uint8 and len(info.shape) == 2):
        raise ConfigError(f"task.path: {info.path} is {info}", expected="texts")
    if info.rows <= 1:
        return [text_of(value, f"{part}: {info.path}") for value in reader.read(info.path, 0, 1)[:1]]
    if not part.group and info.rows == len(parts):  # a text for each of the file's episodes
        texts = reader.read(info.path, number, number + 1)
        return [text_of(texts[0], f"{part}: {info.path}, row {number}")]
    end = part.first + part.length
    rows = end if part.group else parts[-1].first + parts[-1].length
    if info.rows < rows or (info.rows > rows and not ends):  # rows after the last end are in no episode
        each = "one for all rows" if part.group or not ends else f"{len(parts):,}, one for each episode"
        raise SourceError(
            f"has {info.rows:,} texts",
            expected=f"{each}, or {rows:,}, one for each row",
            where=f"{part}: {info.path}",
        )
    texts = reader.read(info.path, part.first, end)
    return [text_of(text, f"{part}: {info.path}, row {part.first + i}") for i, text in enumerate(texts)]
