"""Robot presets: one YAML file per robot, found by name or path."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import Meta, field

from ffenc.arguments import listed
from ffenc.codecs.options import MOST_THREADS
from ffenc.codecs.suggest import accepted
from ffenc.config.encoder import DepthEncoderConfig, VideoEncoderConfig
from ffenc.config.framerate import parse_fps
from ffenc.config.layers import Merged, override, pairs, plain, read_preset
from ffenc.config.limits import MOST_CPUS, MOST_PIXELS
from ffenc.config.mapping import IMAGE_PREFIX, SourceMapping, build_mapping
from ffenc.config.plain_yaml import KeyPath
from ffenc.config.source import CameraSource
from ffenc.config.transform import Transform
from ffenc.config.validation import Flag, SettingError, Settings, accepts, default_of, field_names
from ffenc.errors import ConfigError
from ffenc.spelling import argument


def camera_name(key: str) -> str:
    """Return a camera's short name: ``observation.images.top`` and ``top`` are the same camera."""
    return key.removeprefix(IMAGE_PREFIX)


def camera_key(name: str) -> str:
    """Return a camera's feature key: ``observation.images.top`` for ``top``."""
    return name if name.startswith(IMAGE_PREFIX) else IMAGE_PREFIX + name


def chosen_cameras(keys: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the keys of cameras, named with or without ``observation.images.``, in the order of ``keys``.

    Raises:
        ConfigError: an unknown name.
    """
    names = listed("cameras", names)
    wanted = {camera_name(name) for name in names}
    known = {camera_name(key) for key in keys}
    for name in names:
        if camera_name(name) not in known:
            raise ConfigError(f"there is no camera {name!r}{accepted(name, map(camera_name, keys))}")
    return [key for key in keys if camera_name(key) in wanted]


Size = Annotated[int, Meta(ge=1, le=MOST_PIXELS)]


TRANSFORM = "a mapping of crop, rotate, flip, resize and pad, or null"


class CameraPreset(Settings, frozen=True, kw_only=True):
    """The settings of a camera of a robot.

    Attributes:
        width, height: frame size of recordings, in pixels; existing frames have their own size.
        depth: a depth camera, encoded with the preset's ``depth_encoder``.
        depth_unit: unit of a depth camera's frames when they are recorded: ``mm`` (uint16 millimetres) or
            ``m`` (float32 metres).
        source: source of the frames when they are recorded; None: a program that calls the recorder, or not
            specified.
        encoder: encoder settings: the preset's, with the camera's own overrides.
        transform: changes of the frames before encoding: the preset's, with the camera's own values; None: no
            change.
    """

    width: Annotated[Size | None, accepts(f"a number of pixels, 1 to {MOST_PIXELS}")] = None
    height: Annotated[Size | None, accepts(f"a number of pixels, 1 to {MOST_PIXELS}")] = None
    depth: Flag = False
    depth_unit: Annotated[Literal["mm", "m"], accepts("'mm' or 'm'")] = "mm"
    source: Annotated[CameraSource | None, accepts("a mapping with a type, such as {type: test}")] = None
    encoder: Annotated[VideoEncoderConfig, accepts("a mapping of encoder settings")]
    transform: Annotated[Transform | None, accepts(TRANSFORM)] = None

    def _check(self) -> None:
        if "depth_unit" in self.given and not self.depth:
            raise SettingError(("depth_unit",), "applies only to depth cameras (depth: true)")


class RobotPreset(Settings, frozen=True, kw_only=True):
    """The cameras of a robot and their encoder settings.

    Attributes:
        name: the preset's name.
        robot_type: LeRobot's name of the robot, stored in datasets that are made from other sources.
        fps: frames per second: a number, or a text such as ``"30000/1001"``.
        camera_encoder, depth_encoder: settings of cameras without settings of their own.
        encoder_threads: number of threads of an encoder; None: ffenc decides.
        on_full: action if a camera's encoder cannot keep up with a recording: ``block`` waits, ``drop`` drops
            the whole row, ``repeat`` encodes the previous frame again.
        queue_maxsize: greatest number of frames that wait for a camera's encoder before that.
        encode: ``live``: during the episode; ``after``: frames are stored as PNG files and encoded when the
            episode is saved.
        video: True: cameras become video; False: images.
        encoder_niceness: by how much the priority of a recording's encoders is lower than that of this
            process, 0..19.
        encoder_cpus: the processors that a recording's encoders may run on; None: all.
        transform: changes of all cameras' frames before encoding.
        source: mapping of this robot's arrays or topics, for sources that are not datasets.
        cameras: by name, without the ``observation.images.`` prefix.
    """

    name: str
    robot_type: Annotated[str | None, accepts("a text or null")] = None
    fps: Annotated[int | float | str, accepts("a number, or a text such as '30000/1001'")] = 30
    camera_encoder: VideoEncoderConfig = field(default_factory=VideoEncoderConfig)
    depth_encoder: DepthEncoderConfig = field(default_factory=DepthEncoderConfig)
    encoder_threads: Annotated[
        Annotated[int, Meta(ge=1, le=MOST_THREADS)] | None,
        accepts(f"a whole number from 1 to {MOST_THREADS}, or null"),
    ] = None
    on_full: Annotated[Literal["block", "drop", "repeat"], accepts("'block', 'drop' or 'repeat'")] = "block"
    queue_maxsize: Annotated[int, accepts("a whole number of 1 or more", ge=1)] = 30
    encode: Annotated[Literal["live", "after"], accepts("'live' or 'after'")] = "live"
    video: Flag = True
    encoder_niceness: Annotated[int, accepts("a whole number from 0 to 19", ge=0, le=19)] = 5
    encoder_cpus: Annotated[
        Annotated[list[Annotated[int, Meta(ge=0, lt=MOST_CPUS)]], Meta(min_length=1, max_length=MOST_CPUS)]
        | None,
        accepts(f"a list of processors' numbers, from 0 to {MOST_CPUS - 1}, or null"),
    ] = None
    transform: Annotated[Transform | None, accepts(TRANSFORM)] = None
    source: Annotated[SourceMapping | None, accepts("a mapping of cameras and features, or null")] = None
    cameras: Annotated[dict[str, CameraPreset], accepts("a mapping of camera names to their settings")] = (
        field(default_factory=dict)
    )

    def _check(self) -> None:
        self._checked("fps", parse_fps)

    def encoder_for(self, camera: str, *, depth: bool = False) -> VideoEncoderConfig:
        """Return the encoder settings of a camera, named with or without ``observation.images.``.

        A camera that is not in the preset gets ``camera_encoder``, or ``depth_encoder`` for depth.
        """
        known = self.cameras.get(camera_name(camera))
        if known is not None and known.depth == depth:
            return known.encoder
        return self.depth_encoder if depth else self.camera_encoder

    def transform_for(self, camera: str) -> Transform | None:
        """Return a camera's transform, or None; named with or without ``observation.images.``."""
        known = self.cameras.get(camera_name(camera))
        return self.transform if known is None else known.transform


def preset_folder() -> Path:
    """Return the folder of ffenc's presets: in the wheel, or beside the source tree."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "presets"
    return installed if installed.is_dir() else package.parent / "presets"


def preset_names() -> list[str]:
    """Return the names of ffenc's presets, sorted."""
    return sorted(path.stem for path in preset_folder().glob("*.yaml"))


def load_preset(
    name_or_path: str | Path | None, overrides: Sequence[tuple[KeyPath, Any]] = ()
) -> RobotPreset:
    """Load a robot preset.

    Args:
        name_or_path: name of one of ffenc's presets, or path of a YAML file; None: only the defaults.
        overrides: (key path, value) pairs that take precedence over the file, such as
            ``(("depth_encoder", "vcodec"), "ffv1")``. Overrides of ``camera_encoder`` or ``depth_encoder``
            apply to all cameras, also to those with settings of their own. An override of ``cameras``
            replaces all cameras; those with the same names keep their encoder settings.

    Raises:
        ConfigError: not found, not readable, or with a key or value that is not accepted; the text names
            file, line and key.

    Example:
        >>> preset = load_preset("aloha", [(("camera_encoder", "vcodec"), "h264")])
        >>> preset.encoder_for("cam_high").vcodec
        'h264'
    """
    if name_or_path is None:
        merged = Merged()
        name = "defaults"
    else:
        path = _find(str(name_or_path))
        merged = read_preset(path, _find)
        name = path.stem
    values = plain(merged.values)
    values.pop("extends", None)
    try:
        for key, value in pairs(overrides):
            merged.override(key)
            override(values, key, value)
        return _build(name, values, [key for key, _ in overrides])
    except SettingError as error:
        raise ConfigError(f"{merged.place(error)}: {error}") from None


def is_path(name: str) -> bool:
    """Return whether a preset is given by its path, not by its name."""
    return name.endswith((".yaml", ".yml")) or "/" in name


def _find(name: str, beside: Path | None = None) -> Path:
    looks_like_path = is_path(name)
    path = (beside / name if beside else Path(name)) if looks_like_path else preset_folder() / f"{name}.yaml"
    with contextlib.suppress(OSError):  # the name is too long for a file name
        if path.is_file() or (looks_like_path and path.exists()):
            return path
    if looks_like_path:
        raise ConfigError(f"preset file {path} does not exist")
    raise ConfigError(
        f"there is no preset {name!r}{accepted(name, preset_names())} (or give the path of a YAML file)"
    )


def _settings_of(values: Mapping[str, Any], key: KeyPath) -> dict[str, Any]:
    found = values.get(key[-1])
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise SettingError(key, f"{found!r} is not accepted", expected="a mapping")
    return found


def _built(
    model: type[VideoEncoderConfig],
    values: Mapping[str, Any],
    key: KeyPath,
    overridden: Collection[str],
    *,
    check: bool = False,
) -> VideoEncoderConfig:
    """Return encoder settings.

    Args:
        model: their class.
        values: the fields.
        key: their key path.
        overridden: fields that are not those of the files. With another codec, fields of the files without
            effect are left out.
        check: refuse values that the codec does not accept.
    """
    try:
        config = model(**values)
        if "vcodec" in overridden:
            config = config.fitted(overridden)
        if check and config.vcodec != "auto":
            config.get_codec_options()
        return config
    except ConfigError as error:
        raise SettingError.of(error, *key) from None


def _transform(values: Mapping[str, Any], key: KeyPath) -> Transform | None:
    """Return the transform of plain values; None if all of them are None."""
    try:
        return Transform(**values) if values else None
    except SettingError as error:
        raise SettingError.of(error, *key) from None


def _check_rate(camera: Any, preset: Any, place: KeyPath) -> None:
    """Check that a camera's frame rate, if given, is that of the preset: all cameras have one rate."""
    try:
        same = parse_fps(camera) == parse_fps(preset)
    except ConfigError as error:
        raise SettingError((*place, "fps"), str(error)) from None
    if not same:
        raise SettingError(
            (*place, "fps"),
            f"{camera} is not the recording's {preset}: a dataset has one frame rate; set it with fps "
            f"(or {argument('dataset.fps')})",
        )


def _build(name: str, values: dict[str, Any], overridden: Sequence[KeyPath]) -> RobotPreset:
    """Apply each camera's overrides and validate all values.

    Args:
        name: the preset's name.
        values: its values.
        overridden: keys whose values are not those of the files.
    """
    fields = {
        group: {key[1] for key in overridden if len(key) > 1 and key[0] == group}
        for group in ("camera_encoder", "depth_encoder")
    }
    encoding = (*((group,) for group in fields), ("cameras",))
    as_in_files = not any(
        key[:1] in encoding and key[2:3] not in (("source",), ("transform",), ("width",), ("height",))
        for key in overridden
    )
    keys = ["extends", *(key for key in field_names(RobotPreset) if key != "name")]
    for key in values:
        if key not in keys:
            raise SettingError((key,), f"unknown key{accepted(key, keys)}")
    camera_values = _settings_of(values, ("camera_encoder",))
    depth_values = _settings_of(values, ("depth_encoder",))
    built = dict(values)
    built["camera_encoder"] = _built(
        VideoEncoderConfig, camera_values, ("camera_encoder",), fields["camera_encoder"]
    )
    built["depth_encoder"] = _built(
        DepthEncoderConfig, depth_values, ("depth_encoder",), fields["depth_encoder"]
    )
    common = _settings_of(values, ("transform",))
    built["transform"] = _transform(common, ("transform",))
    if values.get("source") is not None:
        built["source"] = build_mapping(_settings_of(values, ("source",)), ("source",))
    cameras = {}
    for camera, found in _settings_of(values, ("cameras",)).items():
        if found is None:  # removes a camera of the extended preset
            continue
        place: KeyPath = ("cameras", camera)
        if re.search(r"[/\\\x00-\x1f]", camera) or not camera.strip("."):
            raise SettingError(place, f"{camera!r} cannot be the name of a camera")
        own = dict(_settings_of({camera: found}, place))
        model, base, group = (
            (DepthEncoderConfig, depth_values, "depth_encoder")
            if own.get("depth") is True
            else (VideoEncoderConfig, camera_values, "camera_encoder")
        )
        encoder = base | _settings_of(own, (*place, "encoder"))
        here = {key[3] for key in overridden if key[:3] == (*place, "encoder") and len(key) > 3}
        own["encoder"] = _built(model, encoder, (*place, "encoder"), fields[group] | here, check=as_in_files)
        if isinstance(own.get("source"), dict):
            try:
                own["source"] = CameraSource(**own["source"])
            except SettingError as error:
                raise SettingError.of(error, *place, "source") from None
        if "transform" not in own or own["transform"] is not None:
            changes = common | _settings_of(own, (*place, "transform"))
            own["transform"] = _transform(changes, (*place, "transform"))
        if "fps" in own:
            _check_rate(own.pop("fps"), values.get("fps", default_of(RobotPreset, "fps")), place)
        try:
            cameras[camera] = CameraPreset(**own)
        except SettingError as error:
            raise SettingError.of(error, *place) from None
    built["cameras"] = cameras
    return RobotPreset(name=name, **built)
