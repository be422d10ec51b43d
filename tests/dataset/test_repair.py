"""Of a damaged dataset comes a sound one, whose rows and frames are those of the undamaged."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ffenc import (
    ConfigError,
    FfencError,
    FfencWarning,
    SourceError,
    VideoReader,
    edit_dataset,
    repair_dataset,
    verify_dataset,
)
from ffenc.dataset.repair.salvage import Salvage
from ffenc.dataset.repair.salvage_files import SalvagedFiles
from ffenc.dataset.restat import restate
from ffenc.dataset.verify.faults import KINDS
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.report.contact import write_contact_page
from ffenc.tune.compare import compare_sources
from ffenc.tune.footage import open_footage
from tests.conftest import (
    ANGLE,
    DATASET,
    DEPTH,
    LENGTHS,
    TOP,
    everything_in,
    newest_program,
    newest_programs,
    psnr,
    starts,
)
from tests.recording.recording import wait_for
from tests.support.command_line import CommandLine, process
from tests.support.damage import (
    ALL,
    DATA,
    DEEP,
    IMAGES,
    LIST,
    LOST,
    VIDEO,
    WHOLE,
    Case,
    Damage,
    all_of,
    column,
    ffmpeg,
    file_of,
    flip,
    flip_rows,
    info,
    nan_action,
    order,
    set_at,
    swapped_statistics,
    video_file,
)
from tests.support.read import contents


@pytest.fixture
def video(tmp_path: Path, two_cameras: Path) -> Path:
    return Path(shutil.copytree(two_cameras, tmp_path / "source"))


def rows_of(root: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted((root / "data").rglob("*.parquet")))


def frames_of(root: Path, key: str) -> list[np.ndarray]:
    """All frames of a camera in the order of the rows; of depth its codes."""
    names = "length", f"videos/{key}/file_index", f"videos/{key}/from_timestamp"
    listed = pq.read_table(next((root / "meta/episodes").rglob("*.parquet")), columns=list(names))
    files: dict[int, np.ndarray] = {}
    frames: list[np.ndarray] = []
    for length, number, start in zip(*(listed[name].to_pylist() for name in names), strict=True):
        if number not in files:
            files[number] = decoded(root / f"videos/{key}/chunk-000/file-{number:03d}.mp4", key)
        first = round(start * 30)
        frames += list(files[number][first : first + length])
        assert len(files[number]) >= first + length
    return frames


_DECODED: dict[tuple[str, str], np.ndarray] = {}


def decoded(path: Path, key: str) -> np.ndarray:
    """All frames of a file of a dataset; the same bytes that are described alike are decoded once."""
    described = json.loads((path.parents[3] / "meta/info.json").read_text())["features"][key]
    known = hashlib.sha256(path.read_bytes()).hexdigest(), json.dumps(described)
    if known not in _DECODED:
        with VideoReader(path, depth=False if key == DEPTH else None, decoder="pyav") as reader:
            frames = reader[:]
        if len(_DECODED) == 12:
            del _DECODED[next(iter(_DECODED))]
        _DECODED[known] = frames
    return _DECODED[known]


@pytest.fixture(scope="module")
def undamaged() -> dict[str, list[np.ndarray]]:
    return {key: frames_of(VIDEO, key) for key in (ANGLE, DEPTH)}


def check(
    root: Path,
    undamaged: dict[str, list[np.ndarray]],
    kept: Sequence[tuple[int, int]],
    cameras: Collection[str],
) -> None:
    """The dataset holds the first rows of these episodes of the sample, each with its frames."""
    rows = [starts()[episode] + number for episode, length in kept for number in range(length)]
    before, after = pq.read_table(VIDEO / DATA).take(rows), rows_of(root)
    for name in ("action", "observation.state", "task_index"):
        assert after[name].to_pylist() == before[name].to_pylist()
    described = json.loads(after.schema.metadata[b"huggingface"])["info"]["features"]
    assert list(described) == after.column_names
    numbers = [number for _, length in kept for number in range(length)]
    assert after["frame_index"].to_pylist() == numbers
    assert after["index"].to_pylist() == list(range(len(rows)))
    assert after["episode_index"].to_pylist() == [i for i, (_, n) in enumerate(kept) for _ in range(n)]
    np.testing.assert_allclose(after["timestamp"].to_numpy(), np.array(numbers) / 30, atol=1e-5)
    texts = pq.read_table(VIDEO / LIST)["tasks"].to_pylist()
    listed = pq.read_table(next((root / "meta/episodes").rglob("*.parquet")))
    assert listed["tasks"].to_pylist() == [texts[episode] for episode, _ in kept]
    for key in cameras:
        found = frames_of(root, key)
        assert len(found) == len(rows)
        assert all((frame == undamaged[key][row]).all() for frame, row in zip(found, rows, strict=True)), key


def kinds_of(root: Path, case: Case) -> set[str]:
    """What verify calls a damage."""
    found = verify_dataset(root, deep=case.kind in DEEP, **newest_programs())
    return {one.kind for one in (*found.faults, *found.notes)}


def test_there_is_a_case_for_every_kind_of_fault() -> None:
    tested = {case.kind for case in (*WHOLE.values(), *LOST.values(), *IMAGES.values())}
    faults = {name for name, kind in KINDS.items() if kind.severity == "fault"}
    assert faults - tested == {"differs", "depth-error"}  # which only a comparison with the source finds


@pytest.mark.parametrize("name", WHOLE)
def test_each_damage_is_called_by_its_kind(name: str, video: Path) -> None:
    WHOLE[name].damage(video)
    assert WHOLE[name].kind in kinds_of(video, WHOLE[name])


# Damages of different places, which one repair takes away together; each other one has a repair of its own.
TOGETHER = (
    ("totals", "drifted times", "index"),
    ("templates", "swapped times", "frame_index of all"),
    ("shape and names", "constant offset", "clock times", "statistics of other rows"),
    ("splits", "no times", "no timestamp", "orphans"),
    ("stream fields", "file that is not there", "no index", "another time scale"),
    ("no info block", "no tasks in the list", "a column more", "one frame_index for all"),
    ("depth is not marked", "another task in the list", "off the grid", "statistics of numbering"),
    ("depth for another reader", "list out of order", "schema metadata", "frame_index of another row"),
    ("wrong lengths", "text of tasks as a column", "another average rate"),
    ("no column of places", "rows of a task that is not there", "other bytes"),
    ("rows out of order", "no tasks table", "a link that leads out"),
    ("doubled rows", "statistics of other pictures"),
    ("an episode doubled", "statistics of pictures that cannot be"),
)
ALONE = [(name,) for name in WHOLE if all(name not in names for names in TOGETHER)]


@pytest.mark.parametrize("names", [*TOGETHER, *ALONE], ids=", ".join)
def test_what_is_only_described_wrongly_comes_back_whole(
    names: tuple[str, ...], video: Path, tmp_path: Path, undamaged: dict[str, list[np.ndarray]]
) -> None:
    cases = [WHOLE[name] for name in names]
    for case in cases:
        case.damage(video)
    before = everything_in(video)
    done = repair_dataset(video, tmp_path / "out", follow_links=any(case.links for case in cases))
    assert [(one.result, one.why) for one in done.episodes] == [(0, ""), (1, ""), (2, "")]
    assert done.result is not None
    assert done.result.faults == []
    lossy = {key for case in cases for key in case.lossy}
    check(tmp_path / "out", undamaged, ALL, {ANGLE, DEPTH} - lossy)
    for key in lossy:
        for found, wanted in zip(frames_of(tmp_path / "out", key), undamaged[key], strict=True):
            assert psnr(found, wanted) > 27
    assert everything_in(video) == before
    assert {path.name for path in tmp_path.iterdir()} - {"away.mp4"} == {"out", "source"}


@pytest.mark.parametrize("name", LOST)
def test_what_is_lost_is_dropped_or_cut(
    name: str, video: Path, tmp_path: Path, undamaged: dict[str, list[np.ndarray]]
) -> None:
    dropped, trimmed = LOST[name].kept, LOST[name].trimmed
    assert trimmed is not None
    LOST[name].damage(video)
    assert LOST[name].kind in kinds_of(video, LOST[name])
    plan = repair_dataset(video, tmp_path / "a", dry_run=True)
    assert not (tmp_path / "a").exists()
    done = repair_dataset(video, tmp_path / "a")
    assert (plan.episodes, plan.actions) == (done.episodes, done.actions)
    assert [one.number for one in done.episodes if one.result is None] == [
        one.number for one in done.episodes if one.number not in dict(dropped)
    ]
    assert [one.number for one in done.episodes if one.result is not None] == [n for n, _ in dropped]
    assert all(one.why for one in done.episodes if one.result is None)
    check(tmp_path / "a", undamaged, dropped, [ANGLE, DEPTH])
    same = trimmed == dropped  # its plan is enough then
    cut = repair_dataset(video, tmp_path / "b", on_damage="trim", dry_run=same)
    assert [(one.number, one.kept) for one in cut.episodes if one.result is not None] == trimmed
    assert all(one.kept < one.rows for one in cut.episodes if one.why)
    if not same:
        check(tmp_path / "b", undamaged, trimmed, [DEPTH])


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda root: ffmpeg(root, ANGLE, "-c", "copy", "-frames:v", "40"), "ends before its first frame"),
        (lambda root: video_file(root, ANGLE, 0).unlink(), "is missing"),
        (lambda root: video_file(root, ANGLE, 0).write_bytes(b"damaged"), "cannot be used"),
    ],
    ids=["cut", "deleted", "overwritten"],
)
def test_why_an_episode_has_no_frames_is_said(
    damage: Damage, why: str, two_cameras: Path, tmp_path: Path
) -> None:
    source = Path(shutil.copytree(two_cameras, tmp_path / "source"))
    damage(source)
    left = Salvage(source, without=[], task=None, ffprobe=None, scratch=tmp_path / "scratch")
    place = video_file(source, ANGLE, 0).relative_to(source)
    assert left.episodes[2].damage == f"{ANGLE}: its video, {place}, {why}"


def test_the_list_is_read_as_often_for_many_episodes_as_for_one(two_cameras: Path, tmp_path: Path) -> None:
    """Of 50,000 episodes, reading a column of the list for each would take minutes."""

    class Counted(Salvage):
        read = 0

        def _column(self, name: str) -> list[Any]:
            self.read += 1
            return super()._column(name)

    one = Path(shutil.copytree(two_cameras, tmp_path / "one"))
    order(LIST, [0])(one)
    order(DATA, list(range(LENGTHS[0])))(one)
    found = [
        Counted(root, without=[], task=None, ffprobe=None, scratch=tmp_path / root.name)
        for root in (one, two_cameras)
    ]
    assert [len(left.episodes) for left in found] == [1, 3]
    assert found[0].read == found[1].read


def test_totals_that_are_corrected_are_said(video: Path, tmp_path: Path) -> None:
    def wrong(said: dict[str, Any]) -> None:
        said.update(total_frames=7)
        del said["total_episodes"]

    info(wrong)(video)
    plan = repair_dataset(video, tmp_path / "out", dry_run=True)
    assert [action.what for action in plan.actions] == [
        "total_episodes is missing; 3 are left in the rows, and it is counted again",
        "total_frames is 7; 72 are left in the rows, and it is counted again",
    ]


def test_cameras_of_an_episode_whose_last_rows_are_missing_get_statistics_of_its_frames(
    video: Path, tmp_path: Path
) -> None:
    order(DATA, range(sum(LENGTHS) - 3))(video)
    repair_dataset(video, tmp_path / "out")
    listed = pq.read_table(next((tmp_path / "out/meta/episodes").rglob("*.parquet")))
    assert listed["length"].to_pylist() == [24, 17, 28]
    for key in (ANGLE, DEPTH):
        assert listed[f"stats/{key}/count"].to_pylist() == [[24], [17], [28]]


def noted(text: str) -> Damage:
    """Notes of episode 1."""

    def write(root: Path) -> None:
        path = root / "meta/recording/episode_000001.json"
        path.parent.mkdir()
        path.write_text(text)

    return write


@pytest.mark.parametrize(
    ("damage", "camera", "episode", "rows", "said"),
    [
        (all_of(flip(ANGLE, 30), noted('{"dropped_rows": 3}')), ANGLE, 1, range(6, 8), "rows 6 to 7"),
        (all_of(flip(DEPTH, 33), flip(DEPTH, 36), noted("{")), DEPTH, 1, None, "row"),
        (
            lambda root: ffmpeg(root, ANGLE, "-c", "copy", "-frames:v", "60"),
            *(ANGLE, 2, range(19, 31), "rows 19 to 30"),
        ),
    ],
    ids=["a damaged frame", "damaged depth", "missing frames"],
)
def test_damaged_frames_can_show_the_frame_before(
    damage: Damage,
    camera: str,
    episode: int,
    rows: range | None,
    said: str,
    video: Path,
    tmp_path: Path,
    undamaged: dict[str, list[np.ndarray]],
) -> None:
    damage(video)
    done = repair_dataset(video, tmp_path / "out", on_damage="repeat")
    assert [one.result for one in done.episodes] == [0, 1, 2]
    assert [one.why != "" for one in done.episodes] == [one == episode for one in range(3)]
    why = done.episodes[episode].why
    assert f"{camera}: the previous frame is repeated in {said}" in why
    notes = json.loads((tmp_path / f"out/meta/recording/episode_{episode:06d}.json").read_text())
    listed = notes.pop("repeated_rows")[camera]
    assert notes == ({"dropped_rows": 3} if camera == ANGLE and episode == 1 else {})
    lost = [action for action in done.actions if "only the repeated rows are noted" in str(action)]
    assert [action.episode for action in lost] == ([1] if camera == DEPTH else [])
    repeated = [row for first, last in listed for row in range(first, last + 1)]
    if rows is not None:
        assert repeated == list(rows)
    check(tmp_path / "out", undamaged, ALL, [key for key in (ANGLE, DEPTH) if key != camera])
    frames = frames_of(tmp_path / "out", camera)
    assert len(frames) == sum(LENGTHS)
    first = starts()[episode]
    last = first
    for row in range(sum(LENGTHS)):
        if not first <= row < first + LENGTHS[episode]:
            assert (frames[row] == undamaged[camera][row]).all()
            continue
        if row - first not in repeated:
            last = row
        if camera == DEPTH:
            assert (frames[row] == undamaged[camera][last]).all()
        else:
            assert psnr(frames[row], undamaged[camera][last]) > 33


@pytest.mark.parametrize("on_damage", ["trim", "repeat"])
def test_a_file_that_ends_within_a_frame_keeps_those_before_it(
    video: Path, tmp_path: Path, on_damage: Any
) -> None:
    """In H.264, of which a part of a frame cannot be copied, with B-frames, which are stored out of order."""
    keys = ",".join(str(start / 30) for start in starts())
    words = f"-c:v libx264 -preset veryfast -bf 2 -g 60 -force_key_frames {keys} -movflags +faststart"
    ffmpeg(video, ANGLE, *words.split())
    path = file_of(video, ANGLE)
    whole = decoded(path, ANGLE)
    query = "-v error -select_streams v:0 -show_entries packet=pts,size,pos -of csv=p=0"
    command = [newest_program("ffprobe"), *query.split(), path]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    packets = [[int(number) for number in line.split(",")[:3]] for line in listed]
    times = sorted(pts for pts, _, _ in packets)
    stored = [times.index(pts) for pts, _, _ in packets]  # frames in stored order
    cut = next(number for number in range(50, 60) if stored[number] > stored[number + 1])
    kept = max(count for count in range(cut + 1) if sorted(stored[:count]) == list(range(count)))
    _, size, at = packets[cut]
    path.write_bytes(path.read_bytes()[: at + size // 2])
    done = repair_dataset(video, tmp_path / "out", on_damage=on_damage)
    first = starts()[2]
    assert [one.kept for one in done.episodes] == [24, 17, kept - first if on_damage == "trim" else 31]
    frames = frames_of(tmp_path / "out", ANGLE)
    for number, frame in enumerate(frames[:kept]):
        if on_damage == "trim" or number < first:  # copied
            assert (frame == whole[number]).all()
        assert psnr(frame, whole[number]) > 28
    for frame in frames[kept:]:
        assert psnr(frame, frames[kept - 1]) > 28


@pytest.mark.parametrize("frame", [25, 26, 27, 28])
def test_frames_just_before_the_damage_are_read(video: Path, tmp_path: Path, frame: int) -> None:
    """The decoder has read on, and ended at the damage, before it shows them."""
    ffmpeg(video, ANGLE, *"-c:v libx264 -preset ultrafast -g 2".split())
    whole = decoded(file_of(video, ANGLE), ANGLE)
    flip(ANGLE, frame)(video)
    done = repair_dataset(video, tmp_path / "out", on_damage="repeat")
    assert [one.kept for one in done.episodes] == list(LENGTHS)
    [notes] = (tmp_path / "out/meta/recording").iterdir()
    rows = [first + 24 for first, _ in json.loads(notes.read_text())["repeated_rows"][ANGLE]]
    assert rows == [frame]
    frames = frames_of(tmp_path / "out", ANGLE)
    for number in range(24, 41):
        shown = frame - 1 if number == frame or (number == frame + 1 and frame % 2 == 0) else number
        assert psnr(frames[number], whole[shown]) > 28


@pytest.mark.parametrize(("frame", "on_damage"), [(2, "drop-episode"), (6, "trim"), (10, "drop-episode")])
def test_other_episodes_of_a_damaged_file_are_copied(
    video: Path, tmp_path: Path, frame: int, on_damage: Any
) -> None:
    """FFmpeg decodes some packets of a file that it opens, and reports damage in them, even if it copies."""
    keys = ",".join(str(start / 30) for start in starts())
    words = f"-c:v libsvtav1 -preset 12 -g 8 -force_key_frames {keys} -fps_mode passthrough"
    ffmpeg(video, ANGLE, *words.split())
    whole = decoded(file_of(video, ANGLE), ANGLE)
    flip(ANGLE, frame)(video)
    done = repair_dataset(video, tmp_path / "out", on_damage=on_damage)
    first = 0 if on_damage == "drop-episode" else frame
    assert [one.kept for one in done.episodes] == [first, 17, 31]
    frames = frames_of(tmp_path / "out", ANGLE)
    assert all((a == b).all() for a, b in zip(frames, [*whole[:first], *whole[24:]], strict=True))


def test_a_first_frame_that_is_damaged_has_none_before_it(video: Path, tmp_path: Path) -> None:
    flip(ANGLE, 24)(video)
    done = repair_dataset(video, tmp_path / "out", on_damage="repeat")
    assert [one.result for one in done.episodes] == [0, None, 1]


def test_damage_that_spans_two_episodes_is_of_both(
    video: Path, tmp_path: Path, undamaged: dict[str, list[np.ndarray]]
) -> None:
    all_of(flip(ANGLE, 40), flip(ANGLE, 41))(video)
    done = repair_dataset(video, tmp_path / "out")
    assert [one.result for one in done.episodes] == [0, None, None]
    check(tmp_path / "out", undamaged, [ALL[0]], [ANGLE])


def test_which_side_of_a_swap_is_right_is_not_guessed(
    video: Path, tmp_path: Path, undamaged: dict[str, list[np.ndarray]]
) -> None:
    swapped_statistics(video)
    done = repair_dataset(video, tmp_path / "out", on_damage="trim")
    assert [one.result for one in done.episodes] == [0, None, None]
    assert "it and episode 2 have each other's statistics" in done.episodes[1].why
    assert "it and episode 1 have each other's statistics" in done.episodes[2].why
    check(tmp_path / "out", undamaged, [ALL[0]], [ANGLE, DEPTH])


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache without records of decoded files; what is known of the programs is in it, as it always is."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("FFENC_CACHE", str(folder))
    return folder


def kept_records(folder: Path) -> dict[Path, str]:
    """The records of decoded files in a cache."""
    texts = {path: path.read_text() for path in folder.glob("ffenc-*.json")}
    return {path: text for path, text in texts.items() if '\\"damage\\"' in text or '\\"shown\\"' in text}


def test_a_killed_repair_is_taken_up_and_gives_the_same_bytes(
    video: Path, tmp_path: Path, ffenc: CommandLine, records: Path
) -> None:
    """It decodes, puts one file on the grid and repeats frames in another: each is believed by its record."""
    all_of(WHOLE["off the grid"].damage, flip(DEPTH, 33))(video)
    out, whole = tmp_path / "new/out", tmp_path / "whole"
    settings = ["--on-damage", "repeat"]
    unbroken = ffenc.done("repair", str(video), str(whole), *settings, "--json").json
    assert unbroken["resumed"] == 0
    for record in kept_records(records):
        record.unlink()
    words = ["repair", str(video), str(out), *settings]
    hidden = tmp_path / "new/.out.ffenc"
    for reached in (
        lambda: list(hidden.glob("pieces/made/*.json")),
        lambda: kept_records(records),
        lambda: list(hidden.glob("dataset/meta/info.json")),
    ):
        with subprocess.Popen([sys.executable, "-m", "ffenc", "-q", *words, "--resume"]) as child:
            wait_for(reached)
            child.kill()
        assert not out.exists()
    assert "Continue with --resume, or delete that folder" in ffenc.refused(*words)
    assert [one.kind for one in verify_dataset(whole).notes] == []
    made = sorted(hidden.glob("pieces/made/*.mp4"))
    kept = len(list(hidden.glob("pieces/**/*.json"))) + len(kept_records(records))
    assert len(made) == 4
    made[0].write_bytes(made[0].read_bytes()[:-1])
    record, text = min(kept_records(records).items())
    record.write_text(text[:-20])
    resumed = ffenc.done(*words, "--resume", "--json").json
    assert 0 < resumed["resumed"] <= kept - 2
    for same in ("actions", "episodes"):
        assert resumed[same] == unbroken[same]
    assert contents(out) == contents(whole)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]
    again = ffenc.done(*words, "--resume")
    assert "already completed by an earlier run of this job" in again.out
    assert "another job" in ffenc.refused("repair", str(video), str(out), "--resume")


def test_what_cannot_be_repaired_leaves_nothing_to_take_up(video: Path, tmp_path: Path) -> None:
    for frame in (0, 24, 41):
        flip(ANGLE, frame)(video)
    with pytest.raises(SourceError, match="no episode is complete"):
        repair_dataset(video, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_dry_run_leaves_no_folder(video: Path, tmp_path: Path) -> None:
    repair_dataset(video, tmp_path / "a/b/out", dry_run=True)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


UNREADABLE = {
    "data": ["data/chunk-000/file-000.parquet"],
    "list": ["meta/episodes/chunk-000"],
    "video": [f"videos/{ANGLE}/chunk-000/file-000.mp4"],
    "others": ["labels", "README.md"],
}


@pytest.mark.parametrize("what", UNREADABLE)
def test_what_this_user_may_not_read_is_not_taken_for_damage_nor_left_out(
    video: Path, tmp_path: Path, what: str
) -> None:
    (video / "labels").mkdir()
    (video / "README.md").write_text("a")
    for place in UNREADABLE[what]:
        mode = (video / place).stat().st_mode
        (video / place).chmod(0)
        said = f"{video / place}: cannot be read: Permission denied"
        for words in (["repair", video, tmp_path / "out"], ["verify", video]):
            outcome = process(*words, modest=True)
            assert outcome.status == 1
            assert said in outcome.err
        if what == "others":
            outcome = process("edit", video, tmp_path / "out", "--exclude-episodes", "1", modest=True)
            assert outcome.status == 1
            assert said in outcome.err
        (video / place).chmod(mode)
        assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_what_the_system_has_no_files_left_to_read_is_not_taken_for_damage(
    two_cameras: Path, tmp_path: Path
) -> None:
    files = SalvagedFiles(two_cameras, {}, tmp_path, lambda action: None)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        with pytest.raises(FfencError, match=r"file-000\.parquet: cannot be read: .*Too many open files"):
            list(files.numbers())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_lost_camera_is_left_out_if_that_is_said(
    video: Path, tmp_path: Path, undamaged: dict[str, list[np.ndarray]]
) -> None:
    path = file_of(video, ANGLE)
    empty = path.with_name("empty.mp4")
    words = ["-v", "error", "-ss", "1000", "-i", path, "-c", "copy", empty]
    subprocess.run([newest_program("ffmpeg"), *words], check=True)
    without_frames = empty.read_bytes()
    empty.unlink()
    for data in (without_frames, b"no video"):
        path.write_bytes(data)
        with pytest.raises(
            SourceError, match=r"no episode is complete .*leave the camera out with without_cameras='angle'"
        ):
            repair_dataset(video, tmp_path / "out")
        assert [path.name for path in tmp_path.iterdir()] == ["source"]
    repair_dataset(video, tmp_path / "out", without_cameras=["angle"])
    check(tmp_path / "out", undamaged, ALL, [DEPTH])
    assert ANGLE not in json.loads((tmp_path / "out/meta/info.json").read_text())["features"]


def test_images_that_are_damaged_cost_their_episode_alone(dataset_copy: Path, tmp_path: Path) -> None:
    IMAGES["an image is damaged"].damage(dataset_copy)
    column(DATA, "index", lambda v: [n + 5 for n in v])(dataset_copy)
    others = ["README.md", "meta/subtasks.parquet", "notes/of a day.txt"]
    for name in others:
        (dataset_copy / name).parent.mkdir(exist_ok=True)
        (dataset_copy / name).write_text(name)
    done = repair_dataset(dataset_copy, tmp_path / "out")
    assert [(tmp_path / "out" / name).read_text() for name in others] == others
    assert [one.result for one in done.episodes] == [0, None, 1]
    assert "row 30" in done.episodes[1].why or "damaged" in done.episodes[1].why
    rows = rows_of(tmp_path / "out")
    described = json.loads(rows.schema.metadata[b"huggingface"])["info"]["features"]
    kept = [*range(24), *range(41, 72)]
    for key in (TOP, ANGLE, DEPTH):
        assert described[key] == {"_type": "Image"}
        found = [image["bytes"] for image in rows[key].to_pylist()]
        assert found == [i["bytes"] for i in pq.read_table(DATASET / DATA).take(kept)[key].to_pylist()]
    assert verify_dataset(tmp_path / "out", deep=True).faults == []


def test_both_programs_repair(toolchain: Toolchain, video: Path, tmp_path: Path, undamaged: Any) -> None:
    WHOLE["drifted times"].damage(video)
    WHOLE["off the grid"].damage(video)
    repair_dataset(video, tmp_path / "out")
    check(tmp_path / "out", undamaged, ALL, [ANGLE, DEPTH])


def test_what_cannot_be_told_is_asked_for(video: Path, two_cameras: Path, tmp_path: Path) -> None:
    (video / "meta/tasks.parquet").unlink()
    shutil.rmtree(video / "meta/episodes")
    with pytest.raises(SourceError, match="the task of episode 0 cannot be derived .*task=TEXT"):
        repair_dataset(video, tmp_path / "out")
    with pytest.raises(ConfigError, match="task: '' is not accepted; expected a text that is not empty"):
        repair_dataset(video, tmp_path / "out", task="")
    with pytest.raises(ConfigError, match="without_cameras: 'top' is not accepted; expected a list of names"):
        repair_dataset(video, tmp_path / "out", without_cameras="top")
    repair_dataset(video, tmp_path / "out", task="lift it")
    assert pq.read_table(tmp_path / "out/meta/tasks.parquet")["task"].to_pylist() == ["lift it"]
    for damage, said in (
        (lambda root: (root / "meta/info.json").write_text("{"), "is not JSON"),
        (info(lambda i: i.update(codebase_version="v2.1")), "only v3.0 can be repaired"),
        (lambda root: shutil.rmtree(root / "data"), "no rows of any episode are left"),
        (lambda root: shutil.rmtree(root / "videos" / ANGLE), "No video of angle is left; leave the camera"),
        (
            all_of(order(DATA, range(3, 72)), lambda root: shutil.rmtree(root / "meta/episodes")),
            r"no episode is complete \(episode 0: .*\)$",
        ),
    ):
        broken = Path(shutil.copytree(two_cameras, tmp_path / said[:4].strip()))
        damage(broken)
        with pytest.raises(SourceError, match=said):
            repair_dataset(broken, tmp_path / "none")


def test_a_file_of_another_rate_is_encoded_onto_the_grid(video: Path, tmp_path: Path) -> None:
    ffmpeg(video, ANGLE, "-c", "copy", "-bsf:v", "setts=ts=N*0.04/TB:duration=0.04/TB")
    done = repair_dataset(video, tmp_path / "out")
    assert any("encoded with its own settings" in action.what for action in done.actions)
    for found, wanted in zip(frames_of(tmp_path / "out", ANGLE), frames_of(VIDEO, ANGLE), strict=True):
        assert psnr(found, wanted) > 30


# Damage of episode 1 alone.
OF_ONE: dict[str, Damage] = {
    "a row is missing": order(DATA, [*range(30), *range(31, 72)]),
    "a row is doubled": set_at(DATA, "frame_index", 30, 5),
    "a time is another": set_at(DATA, "timestamp", 30, 77.0),
    "a task that is not there": set_at(DATA, "task_index", 30, 9),
    "a number is NaN": column(DATA, "action", nan_action),
    "actions that cannot be read": flip_rows("action"),
    "numbers that cannot be read": flip_rows("frame_index"),
    "no length in the list": set_at(LIST, "length", 1, None),
    "no data file in the list": set_at(LIST, "data/file_index", 1, None),
    "no video in the list": set_at(LIST, f"videos/{ANGLE}/file_index", 1, None),
    "no start in the list": set_at(LIST, f"videos/{ANGLE}/from_timestamp", 1, float("nan")),
    "another length in the list": set_at(LIST, "length", 1, 18),
    "a start that no frame has": set_at(LIST, f"videos/{ANGLE}/from_timestamp", 1, 24 / 30 + 0.011),
    "a file that is not there": set_at(LIST, f"videos/{ANGLE}/file_index", 1, 7),
    "a frame that cannot be decoded": flip(ANGLE, 30),
}


@pytest.mark.parametrize("name", OF_ONE)
def test_other_episodes_can_be_taken_from_a_damaged_dataset(
    name: str, video: Path, two_cameras: Path, tmp_path: Path, undamaged: dict[str, list[np.ndarray]]
) -> None:
    OF_ONE[name](video)
    edit_dataset(video, tmp_path / "out", episodes="0,2")
    check(tmp_path / "out", undamaged, [ALL[0], ALL[2]], [ANGLE, DEPTH])
    compared = verify_dataset(two_cameras, against=video)
    assert {fault.episode for fault in compared.faults} <= {1}
    assert all(camera.compared is not None for camera in compared.cameras)
    if name != "a frame that cannot be decoded":  # which a copy of packets takes along
        with pytest.raises(SourceError, match="episode 1|file-007|cannot be read|row 1 has no"):
            edit_dataset(video, tmp_path / "all", episodes="0-1")
    assert not (tmp_path / "all").exists()


@pytest.mark.parametrize("name", ["a row is missing", "no start in the list", "a file that is no video"])
def test_pictures_of_other_episodes_are_shown_and_measured(
    name: str, video: Path, two_cameras: Path, tmp_path: Path
) -> None:
    (OF_ONE[name] if name in OF_ONE else LOST[name].damage)(video)
    with ExitStack() as closing:
        compared = compare_sources(two_cameras, [video], closing, cameras=["angle"], episodes=[0, 2])
        assert [side.quality.keys() for side in compared.cameras["angle"]] == [{0, 2}]
        with pytest.raises(SourceError, match=r"repair_dataset\(.*edit_dataset\(.* exclude_episodes='1'\)`$"):
            open_footage(video, closing)
        with pytest.raises(SourceError, match="exclude_episodes='1'"):
            open_footage(video, closing, episodes=[1])
        left_out: dict[int, str] = {}
        footage = open_footage(video, closing, on_damage=left_out.__setitem__)
        assert [(one.episodes.keys(), left_out.keys()) for one in footage] == 2 * [({0, 2}, {1})]
    write_contact_page(tmp_path / "page.html", video, title="", intro=[])
    page = (tmp_path / "page.html").read_text()
    assert "No frames of episode 1 are shown: " in page
    assert page.count("data:image") >= 2 * 2 * 3


def test_statistics_of_rows_need_no_video_and_are_of_no_damaged_page(video: Path, two_cameras: Path) -> None:
    whole = restate(two_cameras).stats["action"]
    unreadable = Path(shutil.copytree(video, video.with_name("unreadable")))
    LOST["a video is missing"].damage(video)
    np.testing.assert_allclose(restate(video).stats["action"]["q99"], whole["q99"])
    with pytest.raises(SourceError, match="is missing"):
        restate(video, cameras=True)
    flip_rows("action")(unreadable)
    with pytest.raises(SourceError, match="cannot be read"):
        restate(unreadable)


def test_what_ffmpeg_failed_at_is_decoded_by_the_next_run(
    two_cameras: Path, tmp_path: Path, records: Path
) -> None:
    """A failure of FFmpeg itself, such as a lack of memory, is not recorded as damage of the frames."""
    programs = newest_programs()
    broken, mark = tmp_path / "ffmpeg", tmp_path / "mark"
    broken.write_text(
        f'#!/bin/sh\ncase "$*" in *rgb24*) [ -e {mark} ] && exit 71;; esac\nexec {programs["ffmpeg"]} "$@"\n'
    )
    broken.chmod(0o755)
    mark.touch()
    options: Any = {"deep": True, "ffmpeg": str(broken), "ffprobe": programs["ffprobe"]}
    with pytest.warns(FfencWarning, match="FFmpeg failed to output them"):
        found = verify_dataset(two_cameras, **options)
    assert not found.faults
    assert len(kept_records(records)) == 3  # the damage of both, and what depth shows
    mark.unlink()
    assert verify_dataset(two_cameras, **options).recorded == 1
    assert len(kept_records(records)) == 4


def test_a_file_that_was_decoded_is_not_decoded_again(
    two_cameras: Path, tmp_path: Path, records: Path, ffenc: CommandLine
) -> None:
    """A record is of a file's bytes: of a copy too, of a changed one no more."""
    log = tmp_path / "starts"
    watched = tmp_path / "ffmpeg"
    watched.write_text(f'#!/bin/sh\necho "$*" >>{log}\nexec {newest_programs()["ffmpeg"]} "$@"\n')
    watched.chmod(0o755)
    words = ["--deep", "--ffmpeg", str(watched), "--ffprobe", newest_programs()["ffprobe"]]

    def decodes() -> int:
        lines = [line for line in log.read_text().splitlines() if "-i" in line]
        count = sum(" -version" not in line and "-c copy" not in line for line in lines)
        log.write_text("")
        return count

    assert "by an earlier run" not in ffenc.done("verify", str(two_cameras), *words).out
    assert decodes() > 0
    kept = kept_records(records)
    copy = Path(shutil.copytree(two_cameras, tmp_path / "copy"))
    info(lambda content: content["features"][ANGLE]["info"].update({"video.crf": 7}))(copy)
    out = ffenc.done("verify", str(copy), *words).out
    assert "every frame decoded (2 files by an earlier run; --again decodes them again)" in out
    assert decodes() == 0
    assert kept_records(records) == kept
    again = ffenc.done("verify", str(copy), *words, "--again", "--json").json
    assert (again["recorded"], again["deep"]) == (0, True)
    assert decodes() > 0
    flip(DEPTH, 33)(copy)
    broken = ffenc.run("verify", str(copy), *words, "--json").json
    assert (broken["recorded"], [one["kind"] for one in broken["faults"]]) == (1, ["damaged-frame"])
    assert decodes() > 0
    repair_dataset(copy, tmp_path / "out", dry_run=True, ffmpeg=str(watched))
    assert decodes() > 0  # the parts of the damaged file that are copied
    dry = repair_dataset(copy, tmp_path / "out", dry_run=True, ffmpeg=str(watched))
    assert decodes() == 0
    assert dry.resumed == 2
    assert "--again would have no effect" in ffenc.refused("verify", str(copy), "--again")
