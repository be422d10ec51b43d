import re

import pytest

from ffenc.config.overrides import split_overrides
from ffenc.config.preset import load_preset
from ffenc.config.source import CameraSource
from ffenc.errors import ConfigError, FfencWarning


@pytest.mark.parametrize(
    ("flag", "key"),
    [
        ("--dataset.camera_encoder.vcodec", ("camera_encoder", "vcodec")),
        ("--camera_encoder.vcodec", ("camera_encoder", "vcodec")),
        ("--dataset.rgb_encoder.vcodec", ("camera_encoder", "vcodec")),
        ("--rgb_encoder.vcodec", ("camera_encoder", "vcodec")),
        ("--dataset.depth_encoder.use_log", ("depth_encoder", "use_log")),
        ("--depth_encoder.depth_max", ("depth_encoder", "depth_max")),
        ("--dataset.camera_encoder.extra_options.tune", ("camera_encoder", "extra_options", "tune")),
        ("--cameras.wrist.encoder.crf", ("cameras", "wrist", "encoder", "crf")),
        ("--dataset.cameras.wrist.encoder.crf", ("cameras", "wrist", "encoder", "crf")),
        ("--cameras.wrist.source.device", ("cameras", "wrist", "source", "device")),
        ("--cameras.wrist.width", ("cameras", "wrist", "width")),
        ("--cameras.wrist", ("cameras", "wrist")),
        ("--dataset.fps", ("fps",)),
        ("--dataset.encoder_threads", ("encoder_threads",)),
    ],
)
def test_every_spelling_means_a_key_of_a_preset(flag, key):
    assert split_overrides([f"{flag}=5"]) == ([(key, 5)], [])
    assert split_overrides([flag, "5"]) == ([(key, 5)], [])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("h264", "h264"),
        ("23", 23),
        ("-1", -1),
        ("22.5", 22.5),
        ("null", None),
        ("~", None),
        ("1e-2", 0.01),
        ("1e3", 1000.0),
        ("010", "010"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("{deblock: 1:1, refs: 3}", {"deblock": "1:1", "refs": 3}),
        ("true", True),
        ("30000/1001", "30000/1001"),
        ("'12'", "12"),
        ("a=b", "a=b"),
        ('{"tune": "film", "profile:v": "high", "bf": 2}', {"tune": "film", "profile:v": "high", "bf": 2}),
        ("{tune: film, bf: 2}", {"tune": "film", "bf": 2}),
        ('{"x265-params": "lossless=1:pools=2"}', {"x265-params": "lossless=1:pools=2"}),
        ("{}", {}),
    ],
)
def test_a_value_is_read_as_yaml_or_json(text, value):
    (_, found), *_ = split_overrides([f"--camera_encoder.x={text}"])[0]
    assert found == value
    assert type(found) is type(value)


def test_other_words_are_left_in_their_order():
    words = ["so101", "--json", "--camera", "front", "--fps=30", "-h", "a.b=c", "-x.y", "plain.yaml"]
    mixed = [*words[:3], "--camera_encoder.crf", "20", *words[3:6], "--dataset.fps=25", *words[6:]]
    assert split_overrides(mixed) == ([(("camera_encoder", "crf"), 20), (("fps",), 25)], words)


def test_settings_keep_the_order_they_were_given_in():
    words = ["--camera_encoder.crf=20", "--cameras.a.encoder.crf=30", "--camera_encoder.crf=25"]
    keys = [("camera_encoder", "crf"), ("cameras", "a", "encoder", "crf"), ("camera_encoder", "crf")]
    assert split_overrides(words)[0] == list(zip(keys, [20, 30, 25], strict=True))


def test_nothing_after_two_dashes_is_a_setting():
    words = ["--camera_encoder.crf=20", "--", "--camera_encoder.crf=25"]
    assert split_overrides(words) == ([(("camera_encoder", "crf"), 20)], ["--", "--camera_encoder.crf=25"])


def test_no_words_are_no_settings():
    assert split_overrides([]) == ([], [])


@pytest.mark.parametrize(
    "flag",
    [
        "--dataset.encoder.crf",
        "--dataset.video.vcodec",
        "--camera_encodr.crf",
        "--dataset.camera_encoder",
        "--camera_encoder.",
        "--camera_encoder..crf",
        "--dataset.",
        "--dataset.fps.x",
        "--dataset.fsp",
        "--policy.path",
    ],
)
def test_an_unknown_group_is_refused_with_the_spellings_there_are(flag):
    with pytest.raises(ConfigError) as caught:
        split_overrides([f"{flag}=5"])
    text = str(caught.value)
    assert f"{flag} is not known" in text
    assert "--dataset.camera_encoder.FIELD" in text
    assert "--dataset.fps" in text


def test_a_misspelt_group_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean '--dataset.camera_encoder.FIELD'"):
        split_overrides(["--dataset.camera_encodr.crf=3"])


def test_a_camera_setting_outside_its_encoder_is_refused_with_the_right_spelling():
    with pytest.raises(ConfigError, match=r"--cameras\.NAME\.encoder\.FIELD=VALUE") as caught:
        split_overrides(["--cameras.wrist.encodr.crf=3"])
    assert "--cameras.wrist.encodr.crf" in str(caught.value)


def test_a_setting_without_a_value_is_refused():
    with pytest.raises(ConfigError, match=r"--camera_encoder\.crf needs a value"):
        split_overrides(["so101", "--camera_encoder.crf"])
    for words in (["--camera_encoder.crf="], ["--dataset.encoder_threads", ""], ["--robot.type= "]):
        with pytest.raises(ConfigError, match=r"--\S+ needs a value: --\S+=VALUE, or --\S+=null for none"):
            split_overrides(words, recording=True)


@pytest.mark.parametrize("text", ["[[[", "{a: b", "'open", "a: b: c", "!!python/object:os.system {}", "\x01"])
def test_a_value_that_is_not_yaml_is_refused_by_name(text):
    with pytest.raises(ConfigError, match=r"--camera_encoder\.crf") as caught:
        split_overrides([f"--camera_encoder.crf={text}"])
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize("text", ["2024-99-99", "0x_", "!!int abc", "!!bool maybe", "!!timestamp x"])
def test_a_value_that_looks_like_a_number_or_date_and_is_none_is_refused_by_name(text):
    with pytest.raises(ConfigError, match=r"--camera_encoder\.crf"):
        split_overrides([f"--camera_encoder.crf={text}"])


# ---- recording -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "setting"),
    [
        ("--dataset.streaming_encoding=true", (("encode",), "live")),
        ("--dataset.streaming_encoding=false", (("encode",), "after")),
        ("--dataset.encoder_queue_maxsize=60", (("queue_maxsize",), 60)),
        ("--dataset.encoder_threads=2", (("encoder_threads",), 2)),
        ("--dataset.video=false", (("video",), False)),
        ("--dataset.fps=15", (("fps",), 15)),
        ("--dataset.vcodec=h264", (("camera_encoder", "vcodec"), "h264")),
        ("--dataset.rgb_encoder.crf=20", (("camera_encoder", "crf"), 20)),
        ("--robot.type=so101_follower", (("robot_type",), "so101_follower")),
    ],
)
def test_a_recording_takes_lerobots_flags(word, setting):
    assert split_overrides([word], recording=True) == ([setting], [])
    assert split_overrides(word.split("="), recording=True) == ([setting], [])


def test_what_lerobot_is_told_of_the_robot_is_passed_over_and_said():
    line = (
        "--robot.port=/dev/ttyACM0 --robot.id=me --teleop.type=so101_leader --teleop.port /dev/ttyACM1 "
        "--dataset.repo_id=me/data --dataset.fps=30 --display_data=true --resume=true"
    )
    with pytest.warns(
        FfencWarning,
        match=r"--robot\.port, .*--teleop\.port, --dataset\.repo_id, .*--resume: ignored;.*ffenc push",
    ):
        assert split_overrides(line.split(), recording=True) == ([(("fps",), 30)], [])
    with pytest.raises(ConfigError, match=r"did you mean '--robot\.cameras'"):
        split_overrides(["--robot.camera={}"], recording=True)


def test_only_a_recording_takes_them():
    with pytest.raises(ConfigError, match=r"--robot\.type is not known"):
        split_overrides(["--robot.type=so101_follower"])
    with pytest.raises(ConfigError, match=r"did you mean '--dataset\.encoder_queue_maxsize'"):
        split_overrides(["--dataset.encoder_queue_maxsiz=3"], recording=True)


def test_what_a_command_reads_itself_is_left_to_it():
    words = ["--dataset.root", "out", "--dataset.fps=5", "--dataset.root=out"]
    expected = ([(("fps",), 5)], ["--dataset.root", "out", "--dataset.root=out"])
    assert split_overrides(words, recording=True, own={"--dataset.root"}) == expected


@pytest.mark.parametrize(
    "text",
    [
        "{ front: {type: opencv, index_or_path: 0, width: 640, height: 480, fps: 15}, "
        "head: {type: intelrealsense, serial_number_or_name: 012345670, use_depth: true}}",
        '{"front": {"type": "opencv", "index_or_path": 0, "width": 640, "height": 480, "fps": 15}, '
        '"observation.images.head": {"type": "intelrealsense", "serial_number_or_name": "012345670", '
        '"use_depth": true}}',
    ],
)
def test_lerobots_cameras_take_the_place_of_the_presets(tmp_path, text):
    path = tmp_path / "robot.yaml"
    path.write_text("camera_encoder: {vcodec: h264}\ncameras: {front: {encoder: {crf: 7}}, wrist: {}}\n")
    overrides, _ = split_overrides([f"--robot.cameras={text}", "--dataset.fps=15"], recording=True)
    preset = load_preset(path, overrides)
    front, head = preset.cameras["front"], preset.cameras["head"]
    assert list(preset.cameras) == ["front", "head"]
    assert front.source == CameraSource(type="v4l2", device=0)
    assert (front.width, front.height, front.encoder.crf) == (640, 480, 7)
    assert head.source == CameraSource(type="realsense", serial="012345670", use_depth=True)
    with pytest.raises(ConfigError, match=r"cameras\.front\.fps: 15 is not the recording's 30"):
        load_preset(path, overrides[:1])


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("--dataset.streaming_encoding=1", "expected true or false"),
        ("--robot.cameras=front", "expected cameras by name"),
        ("--robot.cameras={}", "expected cameras by name"),
        ("--robot.cameras={front: {type: opencv, index_or_pth: 0}}", "front.index_or_pth: unknown key"),
        ("--robot.cameras={front: {type: opencv", "is not a value"),
    ],
)
def test_a_recording_flag_that_cannot_be_is_refused_by_name(word, text):
    with pytest.raises(ConfigError, match=re.escape(text)) as caught:
        split_overrides([word], recording=True)
    assert word.partition("=")[0] in str(caught.value)
