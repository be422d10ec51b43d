"""Which arrays or topics of a source become which cameras and features of a dataset."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, field_validator, model_validator
from typing_extensions import Self

from ffenc.codecs.suggest import accepted
from ffenc.config.framerate import parse_fps
from ffenc.config.plain_yaml import KeyPath, read_keys
from ffenc.config.validation import SettingError, Settings
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
_SLICE = re.compile(r"(-?\d*):(-?\d*)")

Model = TypeVar("Model", bound=Settings)


class CameraMapping(Settings):
    """One camera.

    Attributes:
        path: of the array or topic that its images are in.
        channels: the order of the colours in raw pixels. Of JPEG and PNG, which say it themselves, ``bgr``
            where red and blue were swapped when they were encoded, as OpenCV does with RGB arrays. A message
            that says its encoding needs none.
        axes: order of an array's axes behind the first: ``hwc`` or ``chw``; None: by where the 1, 3 or 4 is.
        depth: its images are depth maps.
        unit: what depth is in, ``mm`` or ``m``; None: integers are millimetres, floats metres.
        white: of an array of floats, the value that is white, such as 1 or 255.
        tolerance: how far a message may be from its frame's time, in seconds; None: that of ``time``.
    """

    path: str = Field(description=_PATH)
    channels: Channels | None = Field(None, description="'rgb', 'bgr', 'rgba', 'bgra', 'gray' or null")
    axes: Literal["hwc", "chw"] | None = Field(None, description="'hwc', 'chw' or null")
    depth: bool = Field(False, description="true or false")
    unit: Literal["mm", "m"] | None = Field(None, description="'mm', 'm' or null")
    white: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, strict=False, description="a number above 0, such as 1 or 255, or null"
    )
    tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, strict=False, description="a number of seconds above 0, or null"
    )

    @model_validator(mode="after")
    def _fields_of_depth(self) -> Self:
        if self.unit is not None and not self.depth:
            raise SettingError(("unit",), "applies only to depth cameras (depth: true)")
        for name in ("channels", "white"):
            if self.depth and getattr(self, name) is not None:
                raise SettingError((name,), "does not apply to depth maps; leave it out")
        return self


class FeatureMapping(Settings):
    """One feature beside the cameras: a value, or several numbers, a row.

    Attributes:
        path: of the array or topic; a list: of several whose numbers follow each other.
        field: of a message, where its numbers are, such as ``position`` or ``pose.position``.
        names: of the numbers. Of joints in a message that names them, which are taken, and in this order.
        columns: which of the numbers are taken: their places from 0, or a text such as ``"0:7"``.
        dtype: what they are stored as; None: as they are.
        scale: what they are multiplied by, such as 0.001 to make metres of millimetres.
        unit: what they are in then, which is noted beside the dataset.
        flatten: take the numbers of an array of several dimensions a row one after another.
        interpolate: of messages, the values at a frame's time lie on the line between the two around it;
            else they are those of the nearest message.
        tolerance: how far a message may be from its row's time, in seconds; None: that of ``time``.
    """

    path: str | list[str] = Field(description=f"{_PATH}, or a list of them")
    field: str | None = Field(None, description="a name such as position, or null")
    names: list[str] | None = Field(None, description="a list of texts, or null")
    columns: list[Annotated[int, Field(ge=0)]] | str | None = Field(
        None, description="a list of places from 0, a text such as '0:7', or null"
    )
    dtype: Dtype | None = Field(None, description="such as 'float32', or null")
    scale: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        None, strict=False, description="a number, or null"
    )
    unit: str | None = Field(None, description="a text such as rad, or null")
    flatten: bool = Field(False, description="true or false")
    interpolate: bool = Field(False, description="true or false")
    tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, strict=False, description="a number of seconds above 0, or null"
    )

    @property
    def paths(self) -> list[str]:
        """The arrays or topics."""
        return [self.path] if isinstance(self.path, str) else self.path

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not self.paths:
            raise SettingError(("path",), "is empty", expected=f"{_PATH}")
        if isinstance(self.columns, str) and not _SLICE.fullmatch(self.columns):
            raise SettingError(
                ("columns",), f"{self.columns!r} is not accepted", expected="a text such as '0:7'"
            )
        if self.scale is not None and self.dtype in ("string", "bool"):
            raise SettingError(("scale",), f"does not apply to dtype {self.dtype}; leave it out")
        if self.interpolate and self.dtype is not None and not self.dtype.startswith("float"):
            raise SettingError(("interpolate",), f"gives fractions, but dtype is {self.dtype}")
        return self

    def chosen(self, width: int) -> list[int] | slice:
        """The places of the numbers that are taken.

        Args:
            width: how many there are.

        Raises:
            SettingError: there are not so many, or none is taken.
        """
        if self.columns is None:
            return slice(None)
        if isinstance(self.columns, str):
            found = _SLICE.fullmatch(self.columns)
            assert found is not None
            chosen = slice(*(int(text) if text else None for text in found.groups()))
            if not range(width)[chosen]:
                raise SettingError(("columns",), f"{self.columns} selects none of {width} numbers")
            return chosen
        if not self.columns or max(self.columns) >= width:
            raise SettingError(("columns",), f"{self.columns}: there are numbers 0 to {width - 1}")
        return self.columns


class TaskMapping(Settings):
    """Where the text of an episode's task is.

    Attributes:
        text: the text itself, for all episodes.
        attribute: an attribute of the episode's group or file.
        path: an array or a topic of texts: one for the episode, or one a row.
    """

    text: str | None = Field(None, description="a text, or null")
    attribute: str | None = Field(None, description="the name of an attribute, or null")
    path: str | None = Field(None, description=f"{_PATH}, or null")

    @model_validator(mode="after")
    def _says_one(self) -> Self:
        if sum(value is not None for value in (self.text, self.attribute, self.path)) != 1:
            raise ConfigError("needs exactly one of: text, attribute, path")
        return self


class EpisodeMapping(Settings):
    """What an episode is, where it is not a file.

    Attributes:
        groups: a pattern of the groups that hold one each, such as ``data/demo_*``; paths are in them.
        ends: an array of the rows behind each episode's last, such as ``meta/episode_ends``.
        values: an array of one value a row, which is constant within an episode, such as its number. Of truth
            values, rows that are false are in no episode.
        last: an array that is true, or not 0, in the last row of each episode.
        topic: a topic whose value is constant within an episode: a number, a truth value or a text.
        between: values of the topic that are between episodes, such as ``[-1]``, or ``[]`` where each value
            is an episode, 0 too; None: those that are false, 0 or empty.
    """

    groups: str | None = Field(None, description="a pattern such as data/demo_*, or null")
    ends: str | None = Field(None, description="the path of an array such as meta/episode_ends, or null")
    values: str | None = Field(None, description="the path of an array of one value a row, or null")
    last: str | None = Field(None, description="the path of an array of one truth value a row, or null")
    topic: str | None = Field(None, description="a topic, or null")
    between: list[bool | int | float | str] | None = Field(
        None, description="a list of values of the topic, or null"
    )

    @model_validator(mode="after")
    def _says_one(self) -> Self:
        ways = [name for name in type(self).model_fields if name != "between"]
        if sum(getattr(self, name) is not None for name in ways) != 1:
            raise ConfigError(f"needs exactly one of: {', '.join(ways)}")
        if self.between is not None and self.topic is None:
            raise ConfigError("between does not apply without a topic; leave it out")
        return self


class TimeMapping(Settings):
    """How messages are put on the grid of frames.

    Attributes:
        stamps: ``header``: the times in the messages, where they have them; ``received``: when they were
            recorded.
        tolerance: how far a message may be from its frame's time, in seconds; None: half a frame.
        on_gap: what is done where no message is near enough: ``error``; ``repeat`` the one before; ``split``
            the episode there; ``drop-episode``.
        keep: also store, for each stream, the time of each row's message since the episode's first, in
            seconds.
    """

    stamps: Stamps = Field("header", description="'header' or 'received'")
    tolerance: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = Field(
        None, strict=False, description="a number of seconds above 0, or null"
    )
    on_gap: OnGap = Field("error", description="'error', 'repeat', 'split' or 'drop-episode'")
    keep: bool = Field(False, description="true or false")


class SourceMapping(Settings):
    """What of a source becomes what of a dataset.

    Attributes:
        fps: frames a second; None: as the source says, or as asked for.
        episodes: what an episode is; None: a file is one.
        task: the text of an episode's task.
        cameras: by name, without ``observation.images.``.
        features: by name, such as ``observation.state`` and ``action``.
        time: how messages are put on the grid; None: the defaults.
    """

    fps: int | float | str | None = Field(None, description="a number, a text such as '30000/1001', or null")
    episodes: EpisodeMapping | None = Field(
        None, description="a mapping with groups, ends or the like, or null"
    )
    task: TaskMapping | None = Field(None, description="a text, a mapping with attribute or path, or null")
    cameras: dict[str, CameraMapping] = Field(description="a mapping of camera names to descriptions")
    features: dict[str, FeatureMapping] = Field(
        default_factory=dict, description="a mapping of feature names to descriptions"
    )
    time: TimeMapping | None = Field(
        None, description="a mapping of stamps, tolerance, on_gap, keep, or null"
    )

    @field_validator("fps")
    @classmethod
    def _is_rate(cls, value: int | float | str | None) -> int | float | str | None:
        if value is not None:
            parse_fps(value)
        return value

    def plain(self) -> dict[str, Any]:
        """The mapping as plain values, without what is not set."""
        return {
            name: value for name, value in self.model_dump(exclude_unset=True).items() if value is not None
        }


def build_mapping(values: Mapping[str, Any], above: KeyPath = ()) -> SourceMapping:
    """Return a mapping of plain values.

    Args:
        values: as YAML has them.
        above: the keys that it stands under, for errors.

    Raises:
        SettingError: a key or value that is not accepted; it has the whole key.
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
        built[name] = {
            _checked_name(str(key), name, above): _made(model, value, (*above, name, str(key)))
            for key, value in found.items()
        }
    mapping = _made(SourceMapping, built, above)
    if not mapping.cameras:
        raise SettingError((*above, "cameras"), "names no camera", "at least one")
    return mapping


def _made(model: type[Model], values: Any, key: KeyPath) -> Model:
    if not isinstance(values, Mapping):
        keys = ", ".join(model.model_fields)
        raise SettingError(key, f"{values!r} is not accepted", f"a mapping with some of: {keys}")
    for name in values:
        if name not in model.model_fields:
            raise SettingError((*key, str(name)), f"unknown key{accepted(name, model.model_fields)}")
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
    file = Path(path)
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


def refuse_fields(model: Settings, key: KeyPath, takes: Collection[str], what: str) -> None:
    """Refuse fields of a mapping that are set and mean nothing to a kind of source.

    Args:
        model: a part of the mapping.
        key: where it stands.
        takes: the fields that mean something.
        what: the kind of source, for the error.

    Raises:
        SettingError: such a field is set.
    """
    for name in model.model_fields_set:
        if name not in takes and getattr(model, name) != type(model).model_fields[name].default:
            raise SettingError((*key, name), f"does not apply to {what}{accepted(name, takes)}")
