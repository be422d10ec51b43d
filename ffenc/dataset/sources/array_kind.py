"""Open sources whose files contain arrays, and suggest a mapping for their arrays."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ffenc.config.mapping import SourceMapping, build_mapping
from ffenc.dataset.sources.array_parts import parts_of
from ffenc.dataset.sources.array_source import ArraySource, check_mapping
from ffenc.dataset.sources.arrays import ArrayFile, ArrayInfo, ArrayReader
from ffenc.dataset.sources.contents import Contents, Held, rate_of
from ffenc.dataset.sources.kind import Opening, SourceKind, warn_of_left_out
from ffenc.errors import ConfigError, SourceError
from ffenc.frames.header import ImageHeader
from ffenc.frames.images import read_header
from ffenc.paths import check_tree
from ffenc.spelling import argument, call

_ABOUT = ("episode_ends", "episode_lengths", "compress_len")  # arrays that describe others
_MOST_NUMBERS = 1000  # values per row of a suggested feature
_TASKS = ("task", "language_instruction", "instruction", "language")
_IMAGE_ENDINGS = re.compile(r"_(image|images|rgb|img|depth)$")
# LeRobot's names for ALOHA's observations.
_STATES = {"qpos": "observation.state", "qvel": "observation.velocity", "effort": "observation.effort"}
_ACTIONS = ("action", "actions")
# robomimic's and UMI's states; the poses at which UMI's episodes begin and end are not states.
_STATE = re.compile(r"robot(?!.*_demo_(start|end)_pose).*")
_NEXT = {"rewards": "next.reward", "reward": "next.reward", "dones": "next.done", "done": "next.done"}


def array_kind(
    what: str,
    several: str,
    *,
    recognises: Callable[[Path], bool],
    files: Callable[[Path], Sequence[ArrayFile]],
) -> SourceKind:
    """Return a kind of source whose files contain arrays.

    Args:
        what, several, recognises: see :class:`SourceKind`.
        files: returns the files of a path, which is a file or a folder of files.
    """

    def open_it(path: Path, opening: Opening) -> ArraySource:
        if path.is_dir():
            check_tree(path, follow_links=opening.follow_links)
        found = files(path)
        mapping = opening.mapping or opening.usual_mapping or _known(path, found[0], what)
        check_mapping(mapping, several)
        warn_of_left_out(_left_out(path, found))
        return ArraySource(
            path,
            parts_of(found, mapping),
            mapping,
            fps=opening.rate(path, what, mapping.fps),
            task=opening.task,
            robot_type=opening.robot_type,
            cameras=opening.cameras,
        )

    def look(path: Path) -> Contents:
        found = files(path)
        with found[0].open() as reader:
            contents = suggest(reader, what)
        contents.files = len(found)
        return contents

    return SourceKind(what, several, recognises, open_it, frozenset(["task", "mapping"]), look)


def _known(path: Path, file: ArrayFile, what: str) -> SourceMapping:
    """Return the mapping of a known layout.

    Raises:
        ConfigError: the layout is unknown.
    """
    with file.open() as reader:
        found = suggest(reader, what)
    if found.layout is None:
        raise ConfigError(
            f"{path} is {what} with an unknown layout (known are ALOHA, robomimic, Diffusion "
            f"Policy and UMI): describe its arrays with {argument('mapping', 'FILE')}. "
            f"{call('inspect_source', path=path)} suggests one"
        )
    return build_mapping(found.mapping)


def _left_out(path: Path, files: Sequence[ArrayFile]) -> list[Path]:
    """Return the files and folders in a folder that are not read."""
    if not path.is_dir() or files[0].path == path:
        return []
    known = {file.path for file in files}
    return sorted(one for one in path.iterdir() if one not in known and one.name[0] != ".")


def suggest(reader: ArrayReader, what: str) -> Contents:
    """Return a file's contents, with a mapping suggested from names, types and first values of its arrays.

    Args:
        reader: the file.
        what: its kind.

    Raises:
        SourceError: the file is damaged.
    """
    arrays = reader.arrays()
    paths = {info.path for info in arrays}
    values: dict[str, Any] = {}
    layout, group = None, ""
    demos = reader.groups("data/demo_*")
    ends = next((p for p in ("meta/episode_ends", "episode_ends") if p in paths), None)
    if demos:
        layout, group = "robomimic", demos[0]
        values["episodes"] = {"groups": "data/demo_*"}
    elif ends is not None:
        layout = "UMI" if "data/robot0_demo_start_pose" in paths else "Diffusion Policy"
        values["episodes"] = {"ends": ends}
    elif any(p.startswith("observations/images/") for p in paths) and "action" in paths:
        layout = "ALOHA"
    own = [_within(info, group) for info in arrays if _is_within(info.path, group)]
    others = set(demos[1:])  # data/demo_1, ...
    held = [
        Held(f"/{one.path}", str(one), one.rows, one.bytes)
        for one in arrays
        if "/".join(one.path.split("/")[:2]) not in others
    ]
    found = Contents(reader.path, what, layout, held, values)
    if len(demos) > 1:
        found.remarks.append(f"of {len(demos)} groups data/demo_*, the first is shown")
    if (rate := _rate(reader)) is not None:
        values["fps"] = rate
    for name in _TASKS:
        if any(name in reader.attributes(place) for place in dict.fromkeys((group, ""))):
            values["task"] = {"attribute": name}
            break
        text = next((i for i in own if i.path.rpartition("/")[2] == name and i.text), None)
        if text is not None:
            values["task"] = {"path": text.path}
            break
    cameras, rest = _cameras(reader, own, group, found)
    values["cameras"] = cameras
    values["features"] = _features(rest, layout, found)
    if layout == "ALOHA" and any("channels" not in camera for camera in cameras.values()):
        found.remarks.append(
            "ALOHA's recorder passes RGB to OpenCV, which expects BGR: check whether red and blue are right "
            f"({call('contact_sheet', path='FILE', output='PNG')} shows them), else write channels: bgr"
        )
    if not cameras:
        found.layout = None
        found.remarks.append("no array looks like images: add the cameras")
    return found


def _is_within(path: str, group: str) -> bool:
    return not group or path.startswith(f"{group}/")


def _within(info: ArrayInfo, group: str) -> ArrayInfo:
    path = info.path[len(group) + 1 :] if group else info.path
    return ArrayInfo(path, info.shape, info.dtype, info.bytes, info.chunk)


def _rate(reader: ArrayReader) -> int | float | None:
    """Return the frame rate in a file; robomimic stores it in the arguments of its simulator."""
    for place in ("", "data", "meta"):
        attributes = reader.attributes(place)
        for name in ("fps", "frequency", "control_freq"):
            if (rate := rate_of(attributes.get(name))) is not None:
                return rate
        try:
            arguments = json.loads(str(attributes.get("env_args", "")))
            rate = rate_of(arguments.get("env_kwargs", {}).get("control_freq"))
        except (ValueError, AttributeError):
            continue
        if rate is not None:
            return rate
    return None


def _cameras(
    reader: ArrayReader, arrays: Sequence[ArrayInfo], group: str, found: Contents
) -> tuple[dict[str, Any], list[ArrayInfo]]:
    """Return the cameras among some arrays, and the other arrays."""
    cameras: dict[str, Any] = {}
    rest: list[ArrayInfo] = []
    for info in arrays:
        if info.path.startswith("next_obs/"):
            continue
        camera = None if info.rows < 1 else _camera(reader, info, f"{group}/{info.path}".strip("/"), found)
        if camera is None:
            rest.append(info)
            continue
        name = info.path.rpartition("/")[2]
        short = _IMAGE_ENDINGS.sub("", name)
        if camera.get("depth"):
            short += "_depth"
        if short in cameras:
            short = name
        cameras[short] = camera
    return cameras, rest


def _camera(reader: ArrayReader, info: ArrayInfo, place: str, found: Contents) -> dict[str, Any] | None:
    """Return the mapping of an array with images; None for any other array."""
    shape, kind = info.shape[1:], info.dtype.name
    path = f"/{info.path}"
    if info.encoded and len(info.shape) <= 2:
        header = _first_header(reader, place)
        if header is None:
            return None
        return {"path": path, "depth": True} if header.depth else {"path": path}
    square = len(shape) >= 2 and sorted(n for n in shape if n > 4)[:2] and min(sorted(shape)[-2:]) >= 16
    if not square or len(shape) > 3:
        return None
    colours = len(shape) == 3 and (shape[2] in (3, 4) or shape[0] in (3, 4))
    if colours and (kind == "uint8" or kind.startswith("float")):
        camera: dict[str, Any] = {"path": path, "channels": "rgb" if 3 in (shape[0], shape[2]) else "rgba"}
        found.remarks.append(
            f"{path}: the file does not state the channel order; check whether the colours are right "
            f"({call('contact_sheet', path='FILE', output='PNG')} shows them), "
            "else write channels: bgr"
        )
        if kind != "uint8":
            first = reader.read(place, 0, 1)
            camera["white"] = 255 if float(first.max()) > 1.5 else 1
            found.remarks.append(f"{path}: white is taken to be {camera['white']}, by the first frame")
        if shape[0] in (1, 3, 4) and shape[2] in (1, 3, 4):
            camera["axes"] = "hwc"
        return camera
    flat = len(shape) == 2 or 1 in (shape[0], shape[2])
    if flat and kind == "uint8":
        return {"path": path, "channels": "gray"}
    if flat and kind in ("uint16", "float32", "uint32"):
        found.remarks.append(
            f"{path}: read as depth in {'m' if kind == 'float32' else 'mm'}; if that is wrong, set unit"
        )
        return {"path": path, "depth": True, "unit": "m" if kind == "float32" else "mm"}
    return None


def _first_header(reader: ArrayReader, place: str) -> ImageHeader | None:
    try:
        value = reader.read(place, 0, 1)[0]
        data = value if isinstance(value, bytes) else getattr(value, "tobytes", lambda: b"")()
        return read_header(data, place) if isinstance(data, bytes) else None
    except SourceError:
        return None


def _features(arrays: Sequence[ArrayInfo], layout: str | None, found: Contents) -> dict[str, Any]:
    """Return the features among arrays that are not images."""
    rows = _usual_rows(arrays)
    features: dict[str, Any] = {}
    state: list[str] = []
    for info in arrays:
        name = info.path.rpartition("/")[2]
        if name in _ABOUT or info.path.startswith("next_obs/"):
            continue
        numbers = info.dtype.kind in "biuf" and info.rows == rows and 0 not in info.shape
        if not numbers or math.prod(info.shape[1:]) > _MOST_NUMBERS:
            found.remarks.append(f"/{info.path} is left out: {info}")
            continue
        one: dict[str, Any] = {"path": f"/{info.path}"}
        if len(info.shape) > 2:
            one["flatten"] = True
        if info.dtype.name in ("float64", "float16"):
            one["dtype"] = "float32"
        if name in _ACTIONS and "action" not in features:
            features["action"] = one
        elif name in _NEXT and layout == "robomimic":
            features[_NEXT[name]] = {**one, "dtype": "bool"} if "done" in _NEXT[name] else one
        elif name in _STATES or name == "state":
            features[_STATES.get(name, "observation.state")] = one
        elif _STATE.fullmatch(name) and info.dtype.kind == "f":
            state.append(one["path"])
        elif layout == "robomimic" and not info.path.startswith("obs/"):
            key = re.sub(r"\W+", "_", info.path)
            found.remarks.append(f"/{info.path} is left out; to keep it, name it under features, as {key}")
        else:
            features[f"observation.{re.sub(r'[^A-Za-z0-9_.]+', '_', name)}"] = one
    if state and "observation.state" not in features:
        features["observation.state"] = {"path": state, "dtype": "float32"}
    if "action" not in features:
        what = (
            "UMI stores no actions; its training uses the following poses. Otherwise add the array "
            "that has them"
        )
        found.remarks.append(
            what if layout == "UMI" else "no array is called action: add the one that contains the actions"
        )
    first = [key for key in ("observation.state", "action") if key in features]
    return {key: features[key] for key in (*first, *(key for key in features if key not in first))}


def _usual_rows(arrays: Sequence[ArrayInfo]) -> int:
    """Return the most frequent number of rows of some arrays."""
    counts: dict[int, int] = {}
    for info in arrays:
        counts[info.rows] = counts.get(info.rows, 0) + 1
    return max(counts, key=lambda rows: (counts[rows], rows)) if counts else 0
