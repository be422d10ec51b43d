"""Putting ffenc into LeRobot, and taking it out again."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from lerobot.configs.video import DepthEncoderConfig, RGBEncoderConfig, VideoEncoderConfig
from lerobot.datasets import dataset_writer, video_utils

import ffenc.lerobot
from ffenc.config.preset import load_preset
from ffenc.errors import ConfigError
from ffenc.lerobot import seams
from ffenc.lerobot.options import settings_of
from ffenc.lerobot.seams import Use
from ffenc.lerobot.streaming import StreamingVideoEncoder

NAMES = (
    *("StreamingVideoEncoder", "encode_video_frames", "reencode_video", "concatenate_video_files"),
    *("get_video_info", "convert_image_to_video_dataset", "VALID_VIDEO_CODECS"),
    "_keep_episodes_from_video_with_av",
)


def everywhere() -> dict[tuple[str, str], object]:
    """What every module of LeRobot's has under the names that are replaced."""
    importlib.import_module("lerobot.scripts.lerobot_edit_dataset")  # imports some by their names
    modules = {name: module for name, module in sys.modules.items() if name.startswith("lerobot")}
    found: dict[tuple[str, str], object] = {
        (place, name): vars(module)[name]
        for place, module in modules.items()
        for name in NAMES
        if isinstance(module, ModuleType) and name in vars(module)
    }
    for owner in (VideoEncoderConfig, dataset_writer.DatasetWriter):
        found |= {(owner.__name__, name): value for name, value in vars(owner).items()}
    return found


def test_every_name_is_replaced_and_given_back() -> None:
    before = everywhere()
    with ffenc.lerobot.use():
        inside = everywhere()
        replaced = {name for (_, name), value in inside.items() if value is not before[_, name]}
        assert replaced >= {*NAMES, "resolve_vcodec", "validate", "add_frame", "save_episode"}
        assert all(value is not before[at] for at, value in inside.items() if at[1] in NAMES)
        assert issubclass(video_utils.StreamingVideoEncoder, StreamingVideoEncoder)
    after = everywhere()
    assert all(after[at] is value for at, value in before.items())


def test_once_at_a_time() -> None:
    with ffenc.lerobot.use(), pytest.raises(ConfigError, match="already active in LeRobot"):
        ffenc.lerobot.use()
    ffenc.lerobot.use().undo()


def test_another_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    before = everywhere()
    with monkeypatch.context() as patch:
        patch.setattr("lerobot.__version__", "0.5.1")
        with pytest.raises(ConfigError, match=r"LeRobot 0.5.1 is not supported, 0.6.0 or 0.6.1 or 0.6.2 is"):
            ffenc.lerobot.use()
    with monkeypatch.context() as patch:
        patch.setattr(video_utils, "reencode_video", lambda source, target: None)
        expected = r"video_utils.reencode_video is not the function that .*: it takes \(source target\)"
        with pytest.raises(ConfigError, match=expected):
            ffenc.lerobot.use()
    assert all(value is before[at] for at, value in everywhere().items())
    assert not seams.in_use()


def test_functions_can_be_pickled_by_their_names(used: Use) -> None:
    for function in (video_utils.encode_video_frames, dataset_writer._encode_video_worker):
        again = pickle.loads(pickle.dumps(function))
        assert again is function or again == function


def test_a_process_that_is_not_forked_gets_ffenc(used: Use, tmp_path: Path) -> None:
    worker = tmp_path / "worker"
    worker.write_bytes(pickle.dumps(dataset_writer._encode_video_worker))
    script = (
        "import pickle, sys, pathlib\n"
        f"worker = pickle.loads(pathlib.Path({str(worker)!r}).read_bytes())\n"
        "try: worker('cam', 0, pathlib.Path(sys.argv[1]), 30, None, None)\n"
        "except FileNotFoundError as error: print(error)\n"
        "from lerobot.datasets import dataset_writer as d; print(d.encode_video_frames)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "No images with suffix .png" in ran.stdout
    assert "_function" in ran.stdout or "encode_video_frames" in ran.stdout


@pytest.mark.parametrize(
    ("environment", "on_full", "is_"),
    [(None, None, "repeat"), ("block", None, "block"), ("block", "repeat", "repeat")],
)
def test_who_says_what_full_queues_do(
    monkeypatch: pytest.MonkeyPatch, environment: str | None, on_full: str | None, is_: str
) -> None:
    if environment:
        monkeypatch.setenv("FFENC_ON_FULL", environment)
    with ffenc.lerobot.use(on_full=on_full) as use:
        assert use.options.on_full == is_


def test_refused_values(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigError, match=r"on_full=drop is not possible in LeRobot, whose row would be kept"
    ):
        ffenc.lerobot.use(on_full="drop")
    monkeypatch.setenv("FFENC_ON_FULL", "wait")
    with pytest.raises(ConfigError, match=r"FFENC_ON_FULL='wait' is not accepted"):
        ffenc.lerobot.use()
    monkeypatch.delenv("FFENC_ON_FULL")
    with pytest.raises(ConfigError, match=r"transforms the frames of front"):
        ffenc.lerobot.use(preset="so101", overrides=[(("cameras", "front", "transform", "rotate"), 90)])
    with pytest.raises(ConfigError, match=r"need one"):
        ffenc.lerobot.use(overrides=[(("fps",), 30)])
    with ffenc.lerobot.use(), pytest.raises(ConfigError, match=r"encoder_queue_maxsize=0 is not accepted"):
        video_utils.StreamingVideoEncoder(30, queue_maxsize=0)
    assert not seams.in_use()


def test_lerobots_settings_are_ffencs() -> None:
    ours = settings_of(RGBEncoderConfig(vcodec="h264", g=10, crf=23, preset="fast", extra_options={"bf": 1}))
    assert (ours.vcodec, ours.g, ours.crf, ours.preset, ours.extra_options) == (
        "h264",
        10,
        23,
        "fast",
        {"bf": 1},
    )
    # LeRobot drops an option that a field has set, and limits fast_decode.
    ours = settings_of(RGBEncoderConfig(fast_decode=7, extra_options={"crf": 9}))
    assert (ours.crf, ours.fast_decode, ours.extra_options) == (30, 2, {})
    deep = settings_of(DepthEncoderConfig(depth_max=4.0, use_log=False))
    assert (deep.depth_max, deep.use_log, deep.invalid) == (4.0, False, "clip")
    assert deep.extra_options == {"x265-params": "lossless=1"}


class TestCodecs:
    def test_auto_is_what_runs(self, used: Use, caplog: pytest.LogCaptureFixture) -> None:
        """LeRobot takes the first hardware encoder that PyAV lists, whether there is a device or not."""
        from ffenc.codecs.table import AUTO_FALLBACK, AUTO_ORDER

        config = RGBEncoderConfig(vcodec="auto")
        assert config.vcodec in (*AUTO_ORDER, AUTO_FALLBACK)
        video_utils.StreamingVideoEncoder(30, config).close()
        assert DepthEncoderConfig(vcodec="auto").vcodec == "hevc"
        assert config.detect_available_encoders(["libsvtav1", "no_such"]) == ["libsvtav1"]

    def test_what_only_ffenc_knows(self, used: Use) -> None:
        deep = DepthEncoderConfig(vcodec="ffv1")
        assert settings_of(deep).extra_options != {"x265-params": "lossless=1"}
        with pytest.raises(ValueError, match="Invalid vcodec"):
            RGBEncoderConfig(vcodec="h265_magic")
        with pytest.raises(ValueError, match="vcodec=av1_vaapi: .*no_such_option"):
            RGBEncoderConfig(vcodec="av1_vaapi", extra_options={"no_such_option": 1})

    def test_without_it_is_refused_again(self) -> None:
        with pytest.raises(ValueError, match="Invalid vcodec"):
            DepthEncoderConfig(vcodec="ffv1")


def test_presets_say_each_cameras_settings() -> None:
    preset = load_preset("so101", [(("cameras", "wrist", "encoder", "crf"), 21)])
    with ffenc.lerobot.use(preset=preset) as use:
        lerobots = RGBEncoderConfig()
        assert use.options.settings("observation.images.wrist", lerobots).crf == 21
        assert (
            use.options.settings("observation.images.front", lerobots).crf
            == preset.cameras["front"].encoder.crf
        )
        assert use.options.settings("observation.images.other", lerobots) == preset.camera_encoder
        recorded = use.options.of_camera("observation.images.wrist", lerobots)
        assert (type(recorded), recorded.crf) == (RGBEncoderConfig, 21)
        with pytest.raises(ConfigError, match="camera wrist gives depth, but preset so101 has it as colours"):
            use.options.settings("observation.images.wrist", DepthEncoderConfig())
