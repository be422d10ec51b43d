"""LeRobot's command-line spelling of encoder settings: ``--dataset.camera_encoder.vcodec=h264``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from ffenc.codecs.suggest import accepted
from ffenc.config.preset import KeyPath
from ffenc.errors import ConfigError

# LeRobot's group names -> a preset's keys.
_GROUPS = {
    "camera_encoder": "camera_encoder",
    "rgb_encoder": "camera_encoder",
    "depth_encoder": "depth_encoder",
    "cameras": "cameras",
}
_SINGLE = ("fps", "encoder_threads")


def split_overrides(arguments: Sequence[str]) -> tuple[list[tuple[KeyPath, Any]], list[str]]:
    """Take the settings in LeRobot's spelling out of a command line.

    Both ``--a.b=value`` and ``--a.b value`` are read; a value is YAML, so numbers, ``null`` and
    ``'{"tune": "film"}'`` mean what they say. The prefix ``dataset.`` may be left out.

    Args:
        arguments: the words of a command line, without the program.

    Returns:
        (key path, value) pairs for :func:`ffenc.load_preset`, and the words that were not of this kind.

    Raises:
        ConfigError: an unknown group, a missing value, or a value that is not YAML.
    """
    overrides: list[tuple[KeyPath, Any]] = []
    rest: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
            break
        flag, equals, text = word.partition("=")
        if not flag.startswith("--") or "." not in flag:
            rest.append(word)
            continue
        if not equals:
            following = next(words, None)
            if following is None or following.startswith("--"):
                raise ConfigError(f"{flag} needs a value: {flag}=VALUE")
            text = following
        overrides.append((_key(flag), _value(flag, text)))
    return overrides, rest


def _key(flag: str) -> KeyPath:
    parts = tuple(flag.removeprefix("--").removeprefix("dataset.").split("."))
    if parts[0] == "cameras" and parts[1:3] == ("observation", "images"):
        parts = (parts[0], *parts[3:])
    if parts[0] in _GROUPS and len(parts) > 1 and all(parts):
        if parts[0] == "cameras" and len(parts) > 4 and parts[-2] == "encoder":
            parts = (parts[0], ".".join(parts[1:-2]), *parts[-2:])  # a camera's name may hold points
        if parts[0] == "cameras" and len(parts) > 3 and parts[2] != "encoder":
            raise ConfigError(
                f"{flag} is not known; a camera's setting is --cameras.NAME.encoder.FIELD=VALUE"
            )
        return (_GROUPS[parts[0]], *parts[1:])
    if len(parts) == 1 and parts[0] in _SINGLE:
        return parts
    names = [f"--dataset.{group}.FIELD" for group in _GROUPS] + [f"--dataset.{name}" for name in _SINGLE]
    raise ConfigError(f"{flag} is not known{accepted(flag, names)}")


def _value(flag: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError):
        raise ConfigError(
            f"{flag}: {text!r} is not a value (a number, a text, null or '{{key: value}}')"
        ) from None
