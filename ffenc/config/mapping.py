"""Mapping of a source's arrays or topics to the cameras and features of a dataset."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from msgspec import Meta, field

from ffenc.arguments import check_kind, checked_path
from ffenc.codecs.suggest import accepted
from ffenc.config.framerate import parse_fps
from ffenc.config.plain_yaml import KeyPath, read_keys
from ffenc.config.texts import FILLED, is_filled
from ffenc.config.validation import (
    Finite,
    Flag,
    Positive,
    SettingError,
    Settings,
    accepts,
    default_of,
    field_names,
)
from ffenc.errors import ConfigError
from ffenc.layout import DEFAULT_FEATURES

IMAGE_PREFIX = "observation.images."

Channels = Literal["rgb", "bgr", "rgba", "bgra", "gray"]
Stamps = Literal["header", "received"]
OnGap = Literal["error", "repeat", "split", "drop-episode"]
Dtype = Literal[
    "float32",
    "float64",
    "float16",
    "bool",
    "string",
    "int8",
    "int16",
    "int32",
    "int64",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
]

_PATH = "the path of an array, such as /observations/qpos, or a topic"
_SLICE = re.compile(r"(-?\d+)?:(-?\d+)?", re.ASCII)

Model = TypeVar("Model", bound=Settings)


class CameraMapping(Settings, frozen=True, kw_only=True):
    """The mapping of a camera.

    Attributes:
        path: array or topic of its images.
        channels: order of the colour channels in raw pixels. For JPEG and PNG, which define it themselves,
            ``bgr`` if red and blue were swapped before encoding, as OpenCV does with RGB arrays. Not needed
            for a message with an encoding field.
        axes: order of an array's axes after the first: ``hwc`` or ``chw``; None: determined from the axis of
            length 1, 3 or 4.
        depth: the images are depth maps.
        unit: unit of depth, ``mm`` or ``m``; None: integers are millimetres, floats metres.
        white: value of white in an array of floats, such as 1 or 255.
        tolerance: greatest distance of a message from its frame's time, in seconds; None: that of ``time``.
    """

    path: Annotated[str, accepts(_PATH)]
    channels: Annotated[Channels | None, accepts("'rgb', 'bgr', 'rgba', 'bgra', 'gray' or null")] = None
    axes: Annotated[Literal["hwc", "chw"] | None, accepts("'hwc', 'chw' or null")] = None
    depth: Flag = False
    unit: Annotated[Literal["mm", "m"] | None, accepts("'mm', 'm' or null")] = None
    white: Annotated[Positive | None, accepts("a number above 0, such as 1 or 255, or null")] = None
    tolerance: Annotated[Positive | None, accepts("a number of seconds above 0, or null")] = None

    def _check(self) -> None:
        if self.unit is not None and not self.depth:
            raise SettingError(("unit",), "applies only to depth cameras (depth: true)")
        for name in ("channels", "white"):
            if self.depth and getattr(self, name) is not None:
                raise SettingError((name,), "does not apply to depth maps; leave it out")


class FeatureMapping(Settings, frozen=True, kw_only=True):
    """The mapping of a feature that is not a camera: one value or several numbers per row.

    Attributes:
        path: array or topic; a list: several, whose numbers are concatenated.
        field: field of a message that contains the numbers, such as ``position`` or ``pose.position``.
        names: names of the numbers. For a message that names its joints: the joints to take, in this order.
        columns: the numbers to take: their indices from 0, or a text such as ``"0:7"``.
        dtype: stored data type; None: that of the source.
        scale: factor of all numbers, such as 0.001 for millimetres to metres.
        unit: unit after scaling, which is noted in the dataset.
        flatten: flatten an array of several dimensions to one row of numbers.
        interpolate: for messages, interpolate linearly between the two around a frame's time; otherwise the
            nearest message is used.
        tolerance: greatest distance of a message from its row's time, in seconds; None: that of ``time``.
    """

    path: Annotated[str | list[str], accepts(f"{_PATH}, or a list of them")]
    field: Annotated[str | None, accepts("a name such as position, or null")] = None
    names: Annotated[list[str] | None, accepts("a list of texts, or null")] = None
    columns: Annotated[
        list[Annotated[int, Meta(ge=0)]] | str | None,
        accepts("a list of places from 0, a text such as '0:7', or null"),
    ] = None
    dtype: Annotated[Dtype | None, accepts("such as 'float32', or null")] = None
    scale: Annotated[Finite | None, accepts("a number, or null")] = None
    unit: Annotated[str | None, accepts("a text such as rad, or null")] = None
    flatten: Flag = False
    interpolate: Flag = False
    tolerance: Annotated[Positive | None, accepts("a number of seconds above 0, or null")] = None

    @property
    def paths(self) -> list[str]:
        """Paths of the arrays or topics."""
        return [self.path] if isinstance(self.path, str) else self.path

    def _check(self) -> None:
        if not self.paths:
            raise SettingError(("path",), "is empty", expected=f"{_PATH}")
        if isinstance(self.columns, str) and not _SLICE.fullmatch(self.columns):
            raise SettingError(
                ("columns",), f"{self.columns!r} is not accepted", expected="a text such as '0:7'"
            )
        if self.scale is not None and self.dtype in ("string", "bool"):
            raise SettingError(("scale",), f"does not apply to dtype {self.dtype}; leave it out")
        if self.columns is not None and self.dtype == "string":
            raise SettingError(("columns",), "does not apply to dtype string; leave it out")
        if self.interpolate and self.dtype is not None and not self.dtype.startswith("float"):
            raise SettingError(("interpolate",), f"gives fractions, but dtype is {self.dtype}")

    def chosen(self, width: int) -> list[int] | slice:
        """Return the indices of the numbers to take.

        Args:
            width: number of numbers in the source.

        Raises:
            SettingError: an index is out of range, or no number is selected.
        """
        if self.columns is None:
            return slice(None)
        if isinstance(self.columns, str):
            found = _SLICE.fullmatch(self.columns)
            assert found is not None
            ends = [int(text) if text else None for text in found.groups()]
            if any(end is not None and not -width <= end <= width for end in ends):
                raise SettingError(("columns",), f"{self.columns!r}: there are numbers 0 to {width - 1}")
            chosen = slice(*ends)
            if not range(width)[chosen]:
                raise SettingError(("columns",), f"{self.columns} selects none of {width} numbers")
            return chosen
        if not self.columns or max(self.columns) >= width:
            raise SettingError(("columns",), f"{self.columns}: there are numbers 0 to {width - 1}")
        return self.columns


class TaskMapping(Settings, frozen=True, kw_only=True):
    """Where the text of an episode's task comes from.

    Attributes:
        text: the text itself, for all episodes.
        attribute: name of an attribute of the episode's group or file.
        path: array or topic of texts: one per episode, or one per row.
    """

    text: Annotated[str | None, accepts("a text, or null")] = None
    attribute: Annotated[str | None, accepts("the name of an attribute, or null")] = None
    path: Annotated[str | None, accepts(f"{_PATH}, or null")] = None

    def _check(self) -> None:
        if sum(value is not None for value in (self.text, self.attribute, self.path)) != 1:
            raise ConfigError("needs exactly one of: text, attribute, path")
        if self.text is not None and not is_filled(self.text):
            raise SettingError(("text",), f"{self.text!r} is not accepted", expected=FILLED)


class EpisodeMapping(Settings, frozen=True, kw_only=True):
    """How a source is divided into episodes, if not one per file.

    Attributes:
        groups: pattern of the groups with one episode each, such as ``data/demo_*``; paths are relative to
            them.
        ends: array with the row after each episode's last, such as ``meta/episode_ends``.
        values: array with one value per row that is constant within an episode, such as its number. If the
            values are booleans, rows with false belong to no episode.
        last: array that is true, or not 0, in the last row of each episode.
        topic: topic with a value that is constant within an episode: a number, a boolean or a text.
        between: values of the topic between episodes, such as ``[-1]``, or ``[]`` if each value is an
            episode, also 0; None: false, 0 and empty values.
    """

    groups: Annotated[str | None, accepts("a pattern such as data/demo_*, or null")] = None
    ends: Annotated[str | None, accepts("the path of an array such as meta/episode_ends, or null")] = None
    values: Annotated[str | None, accepts("the path of an array of one value a row, or null")] = None
    last: Annotated[str | None, accepts("the path of an array of one truth value a row, or null")] = None
    topic: Annotated[str | None, accepts("a topic, or null")] = None
    between: Annotated[
        list[bool | int | float | str] | None, accepts("a list of values of the topic, or null")
    ] = None

    def _check(self) -> None:
        ways = [name for name in field_names(type(self)) if name != "between"]
        if sum(getattr(self, name) is not None for name in ways) != 1:
            raise ConfigError(f"needs exactly one of: {', '.join(ways)}")
        if self.between is not None and self.topic is None:
            raise ConfigError("between does not apply without a topic; leave it out")


class TimeMapping(Settings, frozen=True, kw_only=True):
    """How messages are assigned to the grid of frames.

    Attributes:
        stamps: ``header``: the times in the messages, if they have them; ``received``: the times of
            recording.
        tolerance: greatest distance of a message from its frame's time, in seconds; None: half a frame.
        on_gap: action if no message is near enough: ``error``; ``repeat`` the one before; ``split`` the
            episode there; ``drop-episode``.
        keep: also store, for each stream, the time of each row's message since the episode's first, in
            seconds.
    """

    stamps: Annotated[Stamps, accepts("'header' or 'received'")] = "header"
    tolerance: Annotated[Positive | None, accepts("a number of seconds above 0, or null")] = None
    on_gap: Annotated[OnGap, accepts("'error', 'repeat', 'split' or 'drop-episode'")] = "error"
    keep: Flag = False


class SourceMapping(Settings, frozen=True, kw_only=True):
    """The mapping of a source to a dataset.

    Attributes:
        fps: frames per second; None: that of the source or of the call.
        episodes: division into episodes; None: one per file.
        task: the text of an episode's task.
        cameras: by name, without ``observation.images.``.
        features: by name, such as ``observation.state`` and ``action``.
        time: how messages are assigned to the grid; None: the defaults.
    """

    fps: Annotated[int | float | str | None, accepts("a number, a text such as '30000/1001', or null")] = None
    episodes: Annotated[
        EpisodeMapping | None, accepts("a mapping with groups, ends or the like, or null")
    ] = None
    task: Annotated[TaskMapping | None, accepts("a text, a mapping with attribute or path, or null")] = None
    cameras: Annotated[dict[str, CameraMapping], accepts("a mapping of camera names to descriptions")]
    features: Annotated[dict[str, FeatureMapping], accepts("a mapping of feature names to descriptions")] = (
        field(default_factory=dict)
    )
    time: Annotated[TimeMapping | None, accepts("a mapping of stamps, tolerance, on_gap, keep, or null")] = (
        None
    )

    def _check(self) -> None:
        if self.fps is not None:
            self._checked("fps", parse_fps)

    def plain(self) -> dict[str, Any]:
        """Return the mapping as plain values, without fields that are not set."""
        return {name: value for name, value in self.as_plain(only_given=True).items() if value is not None}


def build_mapping(values: Mapping[str, Any], above: KeyPath = ()) -> SourceMapping:
    """Return the mapping of plain values.

    Args:
        values: as read from YAML.
        above: path of the key that contains them, for errors.

    Raises:
        SettingError: a key or value that is not accepted; it contains the whole key path.
    """
    built: dict[str, Any] = dict(values)
    if isinstance(built.get("task"), str):
        built["task"] = {"text": built["task"]}
    sections: dict[str, type[Settings]] = {
        "episodes": EpisodeMapping,
        "task": TaskMapping,
        "time": TimeMapping,
    }
    for name, model in sections.items():
        if built.get(name) is not None:
            built[name] = _made(model, built[name], (*above, name))
    each: dict[str, type[Settings]] = {"cameras": CameraMapping, "features": FeatureMapping}
    for name, model in each.items():
        found = built.get(name)
        if found is None:
            built.pop(name, None)
            continue
        if not isinstance(found, Mapping):
            raise SettingError((*above, name), f"{found!r} is not accepted", "a mapping")
        made: dict[str, Any] = {}
        for key, value in found.items():
            own = _checked_name(str(key), name, above)
            if own in made:
                raise SettingError((*above, name, str(key)), f"is defined twice, as {own} too; keep one")
            made[own] = _made(model, value, (*above, name, str(key)))
        built[name] = made
    mapping = _made(SourceMapping, built, above)
    if not mapping.cameras:
        raise SettingError((*above, "cameras"), "names no camera", "at least one")
    return mapping


def _made(model: type[Model], values: Any, key: KeyPath) -> Model:
    if not isinstance(values, Mapping):
        keys = ", ".join(field_names(model))
        raise SettingError(key, f"{values!r} is not accepted", f"a mapping with some of: {keys}")
    for name in values:
        if name not in field_names(model):
            raise SettingError((*key, str(name)), f"unknown key{accepted(name, field_names(model))}")
    try:
        return model(**values)
    except SettingError as error:
        raise SettingError.of(error, *key) from None


def _checked_name(name: str, section: str, above: KeyPath) -> str:
    if section == "cameras":
        name = name.removeprefix(IMAGE_PREFIX)
    elif name in DEFAULT_FEATURES or name.startswith(IMAGE_PREFIX):
        raise SettingError((*above, section, name), "is a name that LeRobot reserves; choose another")
    if not name or re.search(r"[/\\\x00-\x1f]", name) or name.startswith("."):
        raise SettingError(
            (*above, section, name), f"{name!r} cannot be a name: it must not contain / or begin with a dot"
        )
    return name


def load_mapping(path: str | Path) -> SourceMapping:
    """Read a mapping from a YAML file.

    Raises:
        ConfigError: not found, not readable, or a key or value that is not accepted; the text says file, line
            and key.
    """
    file = checked_path("path", path)
    if not file.is_file():
        raise ConfigError(f"mapping file {file} does not exist")
    values, places = read_keys(file, "a mapping")
    try:
        return build_mapping(values)
    except SettingError as error:
        key = error.key
        while key and key not in places:
            key = key[:-1]
        raise ConfigError(f"{places.get(key, str(file))}: {error}") from None


def as_mapping(mapping: SourceMapping | str | Path | None) -> SourceMapping | None:
    """Return a mapping, read from its file if it is a path.

    Raises:
        ConfigError: see :func:`load_mapping`, or neither a mapping nor a path.
    """
    if mapping is None:
        return None
    check_kind("mapping", mapping, (str, Path, SourceMapping), "a SourceMapping, or its file")
    return load_mapping(mapping) if isinstance(mapping, (str, Path)) else mapping


def refuse_fields(model: Settings, key: KeyPath, takes: Collection[str], what: str) -> None:
    """Refuse fields of a mapping that are set but not used by a kind of source.

    Args:
        model: a part of the mapping.
        key: its key path.
        takes: the fields that are used.
        what: the kind of source, for the error.

    Raises:
        SettingError: another field is set.
    """
    for name in model.given:
        if name not in takes and getattr(model, name) != default_of(type(model), name):
            raise SettingError((*key, name), f"does not apply to {what}{accepted(name, takes)}")
