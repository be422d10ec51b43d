"""Packets of video: B-frames are shown in their order, and what refers to a lost packet is not shown."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ffenc import (
    FfencWarning,
    SourceError,
    contact_sheet,
    reencode_dataset,
    verify_dataset,
)
from ffenc.config.mapping import build_mapping
from ffenc.dataset.job.piece import PieceTask
from ffenc.dataset.sources.kind import Opening
from ffenc.dataset.sources.registry import open_source
from ffenc.dataset.sources.ros import RosSource
from ffenc.ffmpeg.toolchain import toolchains
from tests.conftest import newest_program, psnr
from tests.support.read import frames_of
from tests.support.recorded import _Messages, samples, video_packets, write_mcap

BEGIN, STEP, LATE = 1_700_000_000_000_000_000, 100_000_000, 4_000_000
COUNT, GROUP = 13, 5
CAM: dict[str, Any] = {"fps": 10, "cameras": {"cam": {"path": "/cam"}}}


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    return samples(COUNT)[0].angle


def reordered(pictures: np.ndarray, codec: str, **options: Any) -> tuple[list[bytes], list[int]]:
    """Packets with B-frames, and the number of the picture in each, which is found by decoding."""
    group = GROUP + bool(options)  # of six, so that a B-frame is behind a key frame and shown before it
    packets = video_packets(pictures, codec, group, bframes=3, **options)
    return packets, packet_order(packets, codec, pictures)


def packet_order(packets: list[bytes], codec: str, pictures: np.ndarray) -> list[int]:
    """Which picture each packet holds, by PyAV, whose decoder hands a packet's number on to its frame."""
    import av

    context = av.CodecContext.create("hevc" if codec == "h265" else codec, "r")
    found = {}
    frames = []
    for number, data in enumerate(packets):
        packet = av.Packet(data)
        packet.pts = packet.dts = number
        frames += context.decode(packet)
    frames += context.decode(None)
    for place, frame in enumerate(frames):
        found[frame.pts] = place
    assert len(found) == len(pictures)
    return [found[number] for number in range(len(packets))]


def written(path: Path, packets: list[bytes], stamps: list[int], codec: str = "h264") -> Path:
    make = _Messages()
    messages = [
        ("/cam", BEGIN + i * STEP + LATE, make.video(stamp, packet, codec))
        for i, (stamp, packet) in enumerate(zip(stamps, packets, strict=True))
    ]
    return write_mcap(path, messages)


def opened(path: Path, values: dict[str, Any] = CAM, **options: Any) -> RosSource:
    source = open_source(path, Opening(mapping=build_mapping(values), **options))
    assert isinstance(source, RosSource)
    return source


def shown(source: RosSource, episode: int = 0) -> np.ndarray:
    frames = source.frames("observation.images.cam", source.episodes[episode])
    header = source.cameras[0].stored
    shape = (header.height, header.width, 3)
    return np.stack([np.frombuffer(frame.data, np.uint8).reshape(shape) for frame in frames])


def alike(frames: np.ndarray, wanted: np.ndarray) -> None:
    """Each frame is the picture that is wanted, and nearer to it than to any other."""
    assert len(frames) == len(wanted)
    assert min(psnr(one, other) for one, other in zip(frames, wanted, strict=True)) > 33


def test_video_of_a_bag_is_read_by_the_program_that_is_named(
    pictures: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packets, order = reordered(pictures, "h264")
    path, out = tmp_path / "a.mcap", tmp_path / "out"
    written(path, packets, [BEGIN + place * STEP for place in order])
    monkeypatch.setenv("FFENC_FFMPEG", str(tmp_path / "another"))
    monkeypatch.setenv("FFENC_FFPROBE", str(tmp_path / "another"))
    programs: dict[str, Any] = {name: newest_program(name) for name in ("ffmpeg", "ffprobe")}
    fast = [(("camera_encoder", "vcodec"), "h264"), (("camera_encoder", "crf"), 8)]
    reencode_dataset(path, out, mapping=build_mapping(CAM), task="x", overrides=fast, **programs)
    assert verify_dataset(out, against=path, **programs).sound
    assert contact_sheet(path, tmp_path / "sheet.png", mapping=build_mapping(CAM), **programs) == []


@pytest.mark.parametrize(("codec", "opened_groups"), [("h264", False), ("h265", False), ("h265", True)])
def test_b_frames_are_shown_in_their_order_whichever_order_their_stamps_have(
    pictures: np.ndarray, tmp_path: Path, codec: str, opened_groups: bool
) -> None:
    packets, order = reordered(pictures, codec, **({"opened": True} if opened_groups else {}))
    assert order != sorted(order)
    path, out = tmp_path / "a.mcap", tmp_path / "out"
    stamps = [BEGIN + place * STEP for place in order]  # each packet has its picture's
    source = opened(written(path, packets, stamps, codec))
    assert source.episodes[0].length == COUNT
    alike(shown(source), pictures)
    notes = source.notes(source.episodes[0])
    assert isinstance(notes, dict)
    assert notes["stamps_ns"]["cam"] == sorted(stamps)
    sent = pickle.loads(pickle.dumps(source.frames("observation.images.cam", source.episodes[0])))
    assert [frame.name for frame in sent] == [f"{path}: /cam, message {n}" for n in np.argsort(order)]
    fast = [(("camera_encoder", "vcodec"), "h264"), (("camera_encoder", "crf"), 8)]
    reencode_dataset(path, out, mapping=build_mapping(CAM), task="x", overrides=fast)
    alike(frames_of(out, "cam"), pictures)
    assert verify_dataset(out, against=path).sound
    if codec == "h265":
        return
    ascending = [BEGIN + i * STEP for i in range(COUNT)]  # stamped when they left the encoder
    with pytest.warns(FfencWarning, match="/cam: has B-frames, and timestamps in rec"):
        alike(shown(opened(written(path, packets, ascending))), pictures)
    with pytest.warns(FfencWarning, match="/cam: has B-frames, and timestamps"):
        received = opened(written(path, packets, stamps), {**CAM, "time": {"stamps": "received"}})
    alike(shown(received), pictures)
    with pytest.raises(SourceError, match="has B-frames, and its timestamps ascend neither in display order"):
        opened(written(path, packets, stamps[::-1]))


@pytest.mark.parametrize("codec", ["h264", "h265"])
def test_what_refers_to_a_lost_packet_is_missing_and_not_made_up(
    pictures: np.ndarray, tmp_path: Path, codec: str
) -> None:
    packets = video_packets(pictures, codec, GROUP)
    stamps = [BEGIN + i * STEP for i in range(COUNT)]
    path = written(tmp_path / "a.mcap", packets[:7] + packets[8:], stamps[:7] + stamps[8:], codec)
    with (
        pytest.warns(FfencWarning, match="/cam: 2 packets that refer to a lost one cannot be decoded"),
        pytest.raises(
            SourceError, match="/cam has no message within 0.05 s of frame 7 .* nor of 2 more frames"
        ),
    ):
        opened(path)
    with pytest.warns(FfencWarning):
        source = opened(path, on_gap="repeat")
    alike(shown(source), pictures[[*range(7), 6, 6, 6, 10, 11, 12]])
    notes = source.notes(source.episodes[0])
    assert isinstance(notes, dict)
    assert notes["streams"][0]["packets that refer to a lost one"] == 2
    with pytest.warns(FfencWarning):
        split = opened(path, on_gap="split")
    assert [episode.length for episode in split.episodes] == [7, 3]
    assert (
        split.video("observation.images.cam", split.episodes[1]).start == 0.7
    )  # copied from behind the rest
    out = tmp_path / "out"
    with pytest.warns(FfencWarning):
        result = reencode_dataset(path, out, mapping=build_mapping(CAM), task="x", on_gap="split")
    assert result.copied == 2
    alike(frames_of(out, "cam"), pictures[[*range(7), 10, 11, 12]])


@pytest.mark.parametrize(("codec", "bframes"), [("h264", 0), ("h265", 0), ("h264", 3)])
def test_a_lost_key_frame_takes_its_group_with_it(
    pictures: np.ndarray, tmp_path: Path, codec: str, bframes: int
) -> None:
    packets = video_packets(pictures, codec, GROUP, bframes=bframes)
    order = packet_order(packets, codec, pictures)
    stamps = [BEGIN + place * STEP for place in order]
    path = written(tmp_path / "a.mcap", packets[:5] + packets[6:], stamps[:5] + stamps[6:], codec)
    with pytest.warns(FfencWarning) as said:
        source = opened(path, on_gap="repeat")
    lost = re.search(r"/cam: (\d+) packets that refer to a lost one cannot be decoded", str(said[0].message))
    assert lost is not None
    assert int(lost[1]) == 4 if not bframes else int(lost[1]) >= 4
    notes = source.notes(source.episodes[0])
    assert isinstance(notes, dict)
    again = notes["repeated"]["cam"]
    assert set(range(5, 10)) <= set(again)
    wanted = list(range(COUNT))
    for frame in again:
        wanted[frame] = wanted[frame - 1]
    alike(shown(source), pictures[wanted])


def test_a_camera_that_paused_has_lost_nothing(pictures: np.ndarray, tmp_path: Path) -> None:
    packets = video_packets(pictures, "h264", GROUP)
    stamps = [BEGIN + (i + 2 * (i > 6)) * STEP for i in range(COUNT)]
    with pytest.warns(FfencWarning, match="2 frames repeat the previous message"):
        source = opened(written(tmp_path / "a.mcap", packets, stamps), on_gap="repeat")
    alike(shown(source), pictures[[*range(7), 6, 6, *range(7, COUNT)]])


def test_open_groups_at_the_start_lack_what_they_refer_to(pictures: np.ndarray, tmp_path: Path) -> None:
    packets, order = reordered(pictures, "h265", opened=True)
    key = next(i for i in range(4, COUNT) if b"\0\0\1\x2a" in packets[i])  # CRA: an open group begins
    stamps = [BEGIN + place * STEP for place in order]
    with pytest.warns(FfencWarning, match="/cam: .* cannot be decoded"):
        source = opened(written(tmp_path / "a.mcap", packets[key:], stamps[key:], "h265"))
    alike(shown(source), pictures[order[key] :])


def test_a_job_with_packets_is_taken_up_where_it_ended(pictures: np.ndarray, tmp_path: Path) -> None:
    packets = video_packets(pictures, "h264", GROUP)
    path = written(tmp_path / "a.mcap", packets, [BEGIN + i * STEP for i in range(COUNT)])
    out, options = tmp_path / "out", {"mapping": build_mapping(CAM), "task": "x"}
    encode = {"overrides": [(("camera_encoder", "vcodec"), "h264"), (("camera_encoder", "crf"), 20)]}

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ffenc.dataset.job.run.JobTables.write", stop)
        with pytest.raises(KeyboardInterrupt):
            reencode_dataset(path, out, **options, **encode)
    assert not out.exists()
    assert reencode_dataset(path, out, **options, **encode, resume=True).resumed == 1
    assert reencode_dataset(path, out, **options, **encode, resume=True).complete_before


def test_decoded_packets_are_read_with_the_programs_of_the_machine_that_reads_them(
    pictures: np.ndarray, tmp_path: Path
) -> None:
    packets, order = reordered(pictures, "h264")
    path = written(tmp_path / "a.mcap", packets, [BEGIN + place * STEP for place in order])
    real = toolchains(newest_program("ffmpeg"), newest_program("ffprobe"))[0]
    links = [tmp_path / "ffmpeg", tmp_path / "ffprobe"]
    for link, program in zip(links, (real.ffmpeg, real.ffprobe), strict=True):
        link.symlink_to(program)
    source = opened(path, programs=(str(links[0]), str(links[1])))
    [camera], [episode] = source.cameras, source.episodes
    frames = source.frames(camera.key, episode)
    for link in links:
        link.unlink()  # as on a machine where they are at another path
    task = PieceTask(
        *(camera.key, episode, frames, source.fps, camera.header, None, None, False, None, None, real),
        folder=tmp_path,
    )
    there = pickle.loads(pickle.dumps(task)).using(real)
    assert [len(frame.data) for frame in there.frames] == [pictures[0].nbytes] * COUNT


def test_packets_without_start_codes_are_refused(tmp_path: Path) -> None:
    said = "/cam: has no key frame in packets with start codes .Annex B., so nothing"
    with pytest.raises(SourceError, match=said):
        opened(written(tmp_path / "a.mcap", [b"\0\0\0\4\x65abc"], [BEGIN]))
