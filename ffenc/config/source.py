"""The source of a camera's frames in a recording."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from msgspec import Struct

from ffenc.codecs.suggest import accepted
from ffenc.config.framerate import parse_fps
from ffenc.config.validation import Flag, SettingError, Settings, accepts, expected_of, field_names
from ffenc.errors import ConfigError
from ffenc.spelling import argument

SourceType = Literal["test", "folder", "v4l2", "realsense"]

# The fields of each type; required fields come first and are marked.
_FIELDS: dict[SourceType, tuple[str, ...]] = {
    "test": (),
    "folder": ("path!",),
    "v4l2": ("device!", "pixels"),
    "realsense": ("serial", "file", "use_depth"),
}


class CameraSource(Settings, frozen=True, kw_only=True):
    """The source of a camera's frames. Creating one does not access a device or file.

    Args:
        type: ``test``: a moving test pattern with the frame number. ``folder``: images in a folder. ``v4l2``:
            a Linux camera (USB, CSI), read by FFmpeg. ``realsense``: a RealSense camera or a recording of
            one.
        path: for ``folder``: the folder, with images named like ``frame-000000.png``.
        device: for ``v4l2``: a path such as ``/dev/video0``, or its number.
        pixels: for ``v4l2``: ``mjpeg``: the camera's JPEG images are used unchanged; ``raw``: FFmpeg converts
            the camera's pixel format to RGB.
        serial: for ``realsense``: serial number or name of the device; None: the first device.
        file: for ``realsense``: a recording (``.db3``, ``.bag``) instead of a device.
        use_depth: for ``realsense``: camera NAME also provides NAME_depth, aligned to the colour image.

    Raises:
        ConfigError: a wrong type or value, a field that the type does not have, or a missing one.
    """

    type: Annotated[SourceType, accepts("one of 'test', 'folder', 'v4l2', 'realsense'")]
    path: Annotated[str | None, accepts("a folder's path")] = None
    device: Annotated[int | str | None, accepts("a path such as /dev/video0, or its number")] = None
    pixels: Annotated[Literal["mjpeg", "raw"], accepts("'mjpeg' or 'raw'")] = "mjpeg"
    serial: Annotated[str | None, accepts("a text in quotes, such as '012345678901', or null")] = None
    file: Annotated[str | None, accepts("the path of a .db3 or .bag recording, or null")] = None
    use_depth: Flag = False

    def _check(self) -> None:
        fields = _FIELDS[self.type]
        names = [name.rstrip("!") for name in fields]
        for name in field_names(type(self)):
            if name != "type" and name in self.given and name not in names:
                takes = f"; accepted: {', '.join(names)}" if names else ", which takes none"
                raise SettingError((name,), f"is not a field of type: {self.type}{takes}")
        for field in fields:
            name = field.rstrip("!")
            if field != name and getattr(self, name) in (None, ""):
                expected = expected_of(type(self), name)
                raise SettingError((name,), f"is missing for type: {self.type}", expected or "a value")
        if isinstance(self.device, int) and self.device < 0:
            raise SettingError(("device",), f"{self.device} is not the number of a device")
        if self.serial is not None and self.file is not None:
            raise SettingError(
                ("serial",), "selects a device, but file selects a recording; keep one of them"
            )
        if self.file is not None and not self.file.endswith((".db3", ".bag")):
            raise SettingError(
                ("file",), f"{self.file!r} is not accepted", expected="a .db3 or .bag recording"
            )

    @property
    def device_path(self) -> str:
        """Path of a ``v4l2`` device."""
        text = str(self.device)
        return f"/dev/video{text}" if text.isdigit() else text


class LerobotCamera(Struct, frozen=True):
    """A camera of LeRobot's ``--robot.cameras``, translated to ffenc's fields.

    Attributes:
        source: fields of a :class:`CameraSource`, as in a preset.
        width, height: frame size in pixels; None: not specified.
        fps: frames per second; None: not specified.
    """

    source: dict[str, Any]
    width: int | None
    height: int | None
    fps: int | float | str | None


_BESIDE = ("width", "height", "fps")
# LeRobot's fields with the values that are the same as ffenc's behaviour.
_NO_EFFECT: dict[str, tuple[Any, ...]] = {
    "color_mode": (None, "rgb", "RGB"),
    "rotation": (None, 0, "NO_ROTATION"),
    "use_rgb": (None, True),
    "backend": (None, 0, 200, "ANY", "V4L2"),
    "exposure": (None,),
    "gain": (None,),
    "white_balance": (None,),
}
_INSTEAD = {
    "color_mode": "recordings hold RGB",
    "use_rgb": "depth without colour cannot be recorded",
    "backend": "cameras are read through V4L2",
    "exposure": "set it with realsense-viewer",
    "gain": "set it with realsense-viewer",
    "white_balance": "set it with realsense-viewer",
}
_OPENCV = ("index_or_path", "fourcc", "color_mode", "rotation", "warmup_s", "backend")
_REALSENSE = ("serial_number_or_name", "use_depth", "color_mode", "rotation", "warmup_s", "use_rgb") + (
    "exposure",
    "gain",
    "white_balance",
)
_OWN = tuple(_FIELDS)


def lerobot_camera(name: str, values: object) -> LerobotCamera:
    """Translate one entry of LeRobot's ``--robot.cameras``.

    ``type: opencv`` becomes ``v4l2`` and ``type: intelrealsense`` becomes ``realsense``. ffenc's own types
        are accepted too, with ``width``, ``height`` and ``fps`` in addition to their fields.

    Args:
        name: name of the camera, for errors.
        values: the entry, as read from YAML.

    Raises:
        ConfigError: an unknown field, or a value that is not supported; the text names camera and field.
    """
    if not isinstance(values, Mapping):
        raise SettingError(
            (name,), f"{values!r} is not accepted", expected="a mapping such as {type: opencv}"
        )
    kind = values.get("type")
    fields: tuple[str, ...]
    if kind == "opencv":
        fields, build = _OPENCV, _opencv
    elif kind == "intelrealsense":
        fields, build = _REALSENSE, _intelrealsense
    elif kind in _OWN:
        fields, build = field_names(CameraSource), _own
    else:
        found = "is missing" if kind is None else f"{kind!r} is not accepted"
        raise SettingError((name, "type"), f"{found}{accepted(kind, ('opencv', 'intelrealsense', *_OWN))}")
    known = ("type", *_BESIDE, *(field for field in fields if field != "type"))
    for key, value in values.items():
        if key not in known:
            raise SettingError((name, str(key)), f"unknown key of type: {kind}{accepted(key, known)}")
        # 1 == True and 0 == False, but they have different meanings here
        if key in _NO_EFFECT and not any(value == v and type(value) is type(v) for v in _NO_EFFECT[key]):
            turned = f"rotate the frames with {argument('rotate', 90, camera=name)}, 180 or 270"
            raise SettingError((name, str(key)), f"{value!r} is not accepted: {_INSTEAD.get(key, turned)}")
    try:
        source = build(values)
        CameraSource(**source)
    except SettingError as error:
        raise SettingError.of(error, name) from None
    size = {key: values.get(key) for key in ("width", "height")}
    for key, value in size.items():
        if value is not None and (type(value) is not int or value < 1):
            raise SettingError((name, key), f"{value!r} is not accepted", expected="a number of pixels")
    fps = values.get("fps")
    if fps is not None:
        try:
            parse_fps(fps)
        except ConfigError as error:
            raise SettingError.of(error, name, "fps") from None
    return LerobotCamera(source, size["width"], size["height"], fps)


def _own(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in _BESIDE}


def _opencv(values: Mapping[str, Any]) -> dict[str, Any]:
    device = values.get("index_or_path")
    if device is None:
        raise SettingError(
            ("index_or_path",), "is missing", expected="a number or a path such as /dev/video0"
        )
    if isinstance(device, str) and re.search(r"\.(mp4|mkv|avi|mov|webm)$", device):
        raise SettingError(
            ("index_or_path",), f"{device!r} is a video file, not a camera; ffenc encode reads video files"
        )
    source: dict[str, Any] = {"type": "v4l2", "device": device}
    fourcc = values.get("fourcc")
    if fourcc is not None:
        if not isinstance(fourcc, str) or len(fourcc) != 4:
            raise SettingError(
                ("fourcc",), f"{fourcc!r} is not accepted", expected="four letters such as MJPG"
            )
        source["pixels"] = "mjpeg" if fourcc.upper() in ("MJPG", "JPEG") else "raw"
    return source


def _intelrealsense(values: Mapping[str, Any]) -> dict[str, Any]:
    source: dict[str, Any] = {"type": "realsense"}
    serial = values.get("serial_number_or_name")
    if serial is not None:
        source["serial"] = str(serial) if type(serial) is int else serial
    if values.get("use_depth") is not None:
        source["use_depth"] = values["use_depth"]
    return source
