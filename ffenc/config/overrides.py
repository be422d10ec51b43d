"""LeRobot's command-line spelling of encoder settings: ``--dataset.camera_encoder.vcodec=h264``."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Sequence
from typing import Any

from ffenc.codecs.suggest import accepted
from ffenc.config.plain_yaml import KeyPath, value_of
from ffenc.config.preset import camera_name
from ffenc.config.source import lerobot_camera
from ffenc.errors import ConfigError, FfencWarning

# LeRobot's group names -> a preset's keys.
_GROUPS = {
    "camera_encoder": "camera_encoder",
    "rgb_encoder": "camera_encoder",
    "depth_encoder": "depth_encoder",
    "cameras": "cameras",
}
_SINGLE = ("fps", "encoder_threads")
_OF_CAMERAS = ("encoder", "source", "transform")
_CHANGES = ("crop", "rotate", "flip", "resize", "pad")  # fields of a transform

# LeRobot's flags for recording -> a preset's keys.
_STREAMING = "--dataset.streaming_encoding"
_CAMERAS = "--robot.cameras"
_RECORDING: dict[str, KeyPath] = {
    _STREAMING: ("encode",),
    "--dataset.encoder_queue_maxsize": ("queue_maxsize",),
    "--dataset.video": ("video",),
    "--dataset.vcodec": ("camera_encoder", "vcodec"),  # before LeRobot 0.5
    "--robot.type": ("robot_type",),
    _CAMERAS: ("cameras",),
}

# LeRobot's flags that are ignored, and what to do instead.
_NOT_OURS = {
    re.compile(
        r"--(teleop|policy)(\..+)?"
        r"|--robot\.(id|port|[a-z_]*(calibration|degrees|torque|max|left|right|ip|config)[\w.]*)"
    ): "ffenc records cameras, and does not move the robot",
    re.compile(r"--dataset\.(repo_id|push_to_hub|private|tags)"): "`ffenc push` uploads a dataset",
    re.compile(
        r"--dataset\.(num_image_writer_\w+|video_encoding_batch_size|rename_map)"
        r"|--(display|play)_\w+|--resume"
    ): "ffenc record shows the cameras' state, and adds episodes to an existing dataset",
}


def split_overrides(
    arguments: Sequence[str], *, recording: bool = False, own: Collection[str] = ()
) -> tuple[list[tuple[KeyPath, Any]], list[str]]:
    """Separate the settings in LeRobot's spelling from the other words of a command line.

    Both ``--a.b=value`` and ``--a.b value`` are read. A value is YAML, so numbers, ``null`` and ``'{"tune":
    "film"}'`` have their types. The prefix ``dataset.`` is optional.

    Args:
        arguments: the words of a command line, without the program.
        recording: also read the settings of LeRobot's record command: ``--dataset.streaming_encoding``,
            ``--dataset.encoder_queue_maxsize``, ``--dataset.video``, ``--dataset.vcodec``, ``--robot.type``,
            and ``--robot.cameras``, whose cameras replace the preset's. Its flags for the robot itself
            (``--robot.port``, ``--teleop.type``) are ignored.
        own: flags with a dot that the command reads itself: ``--dataset.root``.

    Returns:
        (key path, value) pairs for :func:`ffenc.load_preset`, and the other words.

    Raises:
        ConfigError: an unknown group, a missing value, or a value that is not YAML.

    Warns:
        FfencWarning: lists the flags that are ignored.
    """
    passed: dict[str, str] = {}
    overrides: list[tuple[KeyPath, Any]] = []
    rest: list[str] = []
    spelt: dict[KeyPath, str] = {}
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
            break
        flag, equals, text = word.partition("=")
        lerobots = "." in flag or (recording and _not_ours(flag))
        if not flag.startswith("--") or not lerobots or flag in own:
            rest.append(word)
            continue
        if not equals:
            following = next(words, None)
            if following is None or following.startswith("--"):
                raise ConfigError(f"{flag} needs a value: {flag}=VALUE")
            text = following
        if not text.strip():
            raise ConfigError(f"{flag} needs a value: {flag}=VALUE, or {flag}=null for none")
        if recording and (why := _not_ours(flag)):
            passed[flag] = why
            continue
        if recording and flag in _RECORDING:
            key, value = _RECORDING[flag], _recording_value(flag, text)
        else:
            if not recording and (flag in _RECORDING or (flag.startswith("--dataset.") and _not_ours(flag))):
                instead = "; use --camera_encoder.vcodec" if flag.endswith(".vcodec") else ""
                raise ConfigError(
                    f"{flag} is not known here: it is a flag for recording, with ffenc record{instead}"
                )
            more = [*_RECORDING, *sorted(own)] if recording else sorted(own)
            key, value = _key(flag, more), _value(flag, text)
        before = dict(overrides).get(key, value)
        if spelt.setdefault(key, flag) != flag and before != value:
            raise ConfigError(
                f"{spelt[key]} is {before}, {flag} is {value}: two names of one setting; pass one of them"
            )
        overrides.append((key, value))
    if passed:
        reasons = "; ".join(dict.fromkeys(passed.values()))
        warnings.warn(f"{', '.join(passed)}: ignored; {reasons}", FfencWarning, stacklevel=2)
    return overrides, rest


def _not_ours(flag: str) -> str | None:
    """Return what to do instead of one of LeRobot's flags that are ignored; None: another flag."""
    return next((why for flags, why in _NOT_OURS.items() if flags.fullmatch(flag)), None)


def _recording_value(flag: str, text: str) -> Any:
    if flag in ("--dataset.vcodec", "--robot.type"):
        return text
    value = _value(flag, text)
    if flag == _STREAMING:
        if not isinstance(value, bool):
            raise ConfigError(f"{flag}={text} is not accepted", expected="true or false")
        return "live" if value else "after"
    return _cameras(text, value) if flag == _CAMERAS else value


def _cameras(text: str, value: Any) -> dict[str, Any]:
    """Convert LeRobot's cameras to those of a preset."""
    if not isinstance(value, dict) or not value:
        raise ConfigError(
            f"{text!r} is not accepted",
            expected="cameras by name: "
            '"{front: {type: opencv, index_or_path: 0, width: 640, height: 480, fps: 30}}"',
            where=_CAMERAS,
        )
    cameras: dict[str, Any] = {}
    for name, fields in value.items():
        try:
            camera = lerobot_camera(str(name), fields)
        except ConfigError as error:
            raise ConfigError(f"{_CAMERAS}: {error}") from None
        settings = {
            "source": camera.source,
            "width": camera.width,
            "height": camera.height,
            "fps": camera.fps,
        }
        cameras[camera_name(str(name))] = {k: v for k, v in settings.items() if v is not None}
    return cameras


def _key(flag: str, more: Sequence[str]) -> KeyPath:
    parts = tuple(flag.removeprefix("--").removeprefix("dataset.").split("."))
    if parts[0] == "cameras" and parts[1:3] == ("observation", "images"):
        parts = (parts[0], *parts[3:])
    if parts[0] in _GROUPS and len(parts) > 1 and all(parts):
        # Short form of a key of a camera's transform; the camera's name may contain dots.
        if parts[0] == "cameras" and len(parts) > 2 and parts[-1] in _CHANGES and parts[-2] != "transform":
            parts = (*parts[:-1], "transform", parts[-1])
        if parts[0] == "cameras" and len(parts) > 4 and parts[-2] in _OF_CAMERAS:
            parts = (parts[0], ".".join(parts[1:-2]), *parts[-2:])
        if parts[0] == "cameras" and len(parts) > 3 and parts[2] not in _OF_CAMERAS:
            raise ConfigError(
                f"{flag} is not known; a camera's setting is --cameras.NAME.encoder.FIELD=VALUE, or "
                "--cameras.NAME.resize=WIDTHxHEIGHT, crop, rotate, flip or pad"
            )
        return (_GROUPS[parts[0]], *parts[1:])
    if len(parts) == 1 and parts[0] in _SINGLE:
        return parts
    names = [f"--dataset.{group}.FIELD" for group in _GROUPS] + [f"--dataset.{name}" for name in _SINGLE]
    raise ConfigError(f"{flag} is not known{accepted(flag, [*names, *more])}")


def _value(flag: str, text: str) -> Any:
    try:
        return value_of(text)
    except ConfigError as error:
        raise ConfigError(f"{flag}: {error}") from None
    except ValueError:
        raise ConfigError(
            f"{flag}: {text!r} is not a value (a number, a text, null or '{{key: value}}')"
        ) from None
