"""Check whether a recording fits an existing dataset; all differences are listed with both values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from msgspec import Struct

from ffenc.codecs.table import CODECS
from ffenc.config.framerate import fps_number, parse_fps
from ffenc.dataset.info_block import ENCODER_FIELDS, same_settings
from ffenc.errors import DestinationError
from ffenc.frames.depth import Unit
from ffenc.frames.info_json import CORRECT, block_quantizer, feature_block
from ffenc.layout import (
    CAMERA_TYPES,
    DATA_PATH,
    DEFAULT_FEATURES,
    DEPTH_FIELDS,
    INFO,
    VIDEO_PATH,
    frame_size,
    says_depth,
)


class GrowingCamera(Struct, frozen=True):
    """A camera of a growing dataset.

    Attributes:
        key: its feature, such as ``observation.images.front``.
        width, height: frame size in pixels.
        unit: unit of depth, ``mm`` or ``m``; None for a colour camera.
        block: the fields of its ``info`` block that are not read from the file, see
            :func:`~ffenc.dataset.info_block.encoding_block`; None for a camera that stays images in the
            table.
        codec, pix_fmt: of the stream that will be written; None for images.
    """

    key: str
    width: int
    height: int
    unit: Unit | None = None
    block: Mapping[str, Any] | None = None
    codec: str | None = None
    pix_fmt: str | None = None

    @property
    def video(self) -> bool:
        """Whether it becomes video."""
        return self.block is not None

    @property
    def feature(self) -> dict[str, Any]:
        """Its feature in ``info.json``; for a video without the ``info`` block."""
        feature: dict[str, Any] = {
            "dtype": "video" if self.video else "image",
            "shape": [self.height, self.width, 1 if self.unit else 3],
            "names": ["height", "width", "channels"],
        }
        if self.unit is not None and not self.video:
            feature["info"] = {"is_depth_map": True, "depth_unit": self.unit}
        return feature


def recorded_features(info: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the features of an info.json except cameras and LeRobot's own numbering."""
    return {
        key: dict(feature)
        for key, feature in info["features"].items()
        if feature["dtype"] not in CAMERA_TYPES and key not in DEFAULT_FEATURES
    }


def check_fit(
    root: Path,
    info: Mapping[str, Any],
    *,
    fps: Fraction,
    robot_type: str | None,
    cameras: Sequence[GrowingCamera],
    features: Mapping[str, Mapping[str, Any]] | None,
) -> None:
    """Refuse a recording that does not fit the rest of a dataset.

    Encoder settings are compared as far as the dataset contains them; versions of encoders may differ.

    Args:
        root: the dataset.
        info: contents of its info.json.
        fps, robot_type, cameras, features: of the recording; None is not compared.

    Raises:
        DestinationError: lists all differences.
        SourceError: the dataset does not define the meaning of its depth.
    """
    differences = [
        *_general(info, fps, robot_type),
        *_features(info, features),
        *_cameras(root, info, cameras),
    ]
    if differences:
        listed = "\n".join(f"  {difference}" for difference in differences)
        raise DestinationError(
            f"{root}: the recording does not match the existing dataset:\n{listed}\n"
            "Use the dataset's settings, or record into another folder; ffenc merge joins the "
            "two if they are compatible"
        )


def _differs(what: str, there: Any, here: Any) -> str:
    return f"{what} is {there!r} in the dataset, {here!r} in the recording"


def _general(info: Mapping[str, Any], fps: Fraction, robot_type: str | None) -> Iterator[str]:
    if parse_fps(info["fps"]) != fps:
        yield _differs("fps", info["fps"], fps_number(fps))
    robot = info.get("robot_type")
    if robot and robot_type and robot != robot_type:
        yield _differs("robot_type", robot, robot_type)
    for name, usual in (("data_path", DATA_PATH), ("video_path", VIDEO_PATH)):
        said = info.get(name)
        if said is not None and said != usual:
            yield _differs(name, said, usual)


def _features(info: Mapping[str, Any], features: Mapping[str, Mapping[str, Any]] | None) -> Iterator[str]:
    if features is None:
        return
    there = recorded_features(info)
    for key in dict.fromkeys((*there, *features)):
        if key not in features:
            yield f"feature {key} is only in the dataset"
        elif key not in there:
            yield f"feature {key} is only in the recording"
        else:
            yield from _feature(key, there[key], features[key])


def _feature(key: str, there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[str]:
    if there["dtype"] != here["dtype"]:
        yield _differs(f"{key}: dtype", there["dtype"], here["dtype"])
    if list(there.get("shape") or ()) != list(here.get("shape") or ()):
        yield _differs(f"{key}: shape", there.get("shape"), here.get("shape"))
    # Features without names of joints do not contradict existing names.
    if here.get("names") is not None and there.get("names") != here["names"]:
        yield _differs(f"{key}: names", there.get("names"), here["names"])


def _cameras(root: Path, info: Mapping[str, Any], cameras: Sequence[GrowingCamera]) -> Iterator[str]:
    there = {key: f for key, f in info["features"].items() if f["dtype"] in CAMERA_TYPES}
    here = {camera.key: camera for camera in cameras}
    for key in dict.fromkeys((*there, *here)):
        if key not in here:
            yield f"camera {key} is only in the dataset"
        elif key not in there:
            yield f"camera {key} is only in the recording"
        else:
            yield from _camera(root, there[key], here[key], described=bool(info.get("total_episodes")))


def _camera(
    root: Path, feature: Mapping[str, Any], camera: GrowingCamera, *, described: bool
) -> Iterator[str]:
    """Compare a camera; without ``described``, it has no episode yet, and the first one defines its block."""
    key, own = camera.key, camera.feature
    if feature["dtype"] != own["dtype"]:
        yield _differs(f"{key}: dtype", feature["dtype"], own["dtype"])
        return
    size = frame_size(feature)
    if size != (camera.width, camera.height):
        yield _differs(f"{key}: width and height", size, (camera.width, camera.height))
    block = feature_block(feature)
    if not (block and described):
        return
    depth = says_depth(block)
    if depth != (camera.unit is not None):
        yield _differs(f"{key}: is_depth_map", depth, camera.unit is not None)
        return
    if depth and (block.get("depth_unit") or "mm") != camera.unit:
        yield _differs(f"{key}: depth_unit", block.get("depth_unit"), camera.unit)
    if camera.block is not None:
        yield from _video(root, block, camera)


def _video(root: Path, block: Mapping[str, Any], camera: GrowingCamera) -> Iterator[str]:
    key, own = camera.key, camera.block or {}
    for name, here in (("video.codec", camera.codec), ("video.pix_fmt", camera.pix_fmt)):
        there = block.get(name)
        if there is not None and here is not None and there != here:
            yield _differs(f"{key}: {name}", there, here)
    if block.get("video.transform") != own.get("video.transform"):
        yield _differs(f"{key}: transform", block.get("video.transform"), own.get("video.transform"))
    there, here = _encoder(block), _encoder(own)
    codec = CODECS.get(here or "")
    for name in ENCODER_FIELDS:
        if (
            name in block
            and name in own
            and not (
                same_settings(codec, name, block[name], own[name]) if codec else block[name] == own[name]
            )
            and (block[name], own[name]) != (None, {})
        ):
            yield _differs(f"{key}: {name}", block[name], own[name])
    if there is not None and here is not None and there != here:
        yield _differs(f"{key}: video.encoder: vcodec", there, here)
    if camera.unit is not None and block.get("video.pix_fmt", camera.pix_fmt) == "gray12le":
        # As a reader interprets them: LeRobot's blocks leave out defaults.
        was = block_quantizer(dict(block), f"{root / INFO}: {key}", CORRECT)
        new = block_quantizer(dict(own), key, CORRECT)
        for name in DEPTH_FIELDS:
            if getattr(was, name) != getattr(new, name):
                yield _differs(f"{key}: video.{name}", getattr(was, name), getattr(new, name))


def _encoder(block: Mapping[str, Any]) -> Any:
    encoder = block.get("video.encoder")
    return encoder.get("vcodec") if isinstance(encoder, Mapping) else None
