"""Of a damaged dataset comes a sound one, whose rows and frames are those of the undamaged."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ffenc import SourceError, VideoReader, edit_dataset, repair_dataset, verify_dataset
from ffenc.ffmpeg.toolchain import Toolchain
from tests.conftest import (
    ANGLE,
    DATASET,
    DEPTH,
    FIXTURES,
    LENGTHS,
    TOP,
    everything_in,
    newest_program,
    psnr,
    starts,
)
from tests.recording.recording import wait_for

pytestmark = pytest.mark.newest_ffprobe

VIDEO = FIXTURES / "aloha_video_v30"
DATA, LIST = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"
Damage = Callable[[Path], None]


@pytest.fixture
def video(tmp_path: Path, two_cameras: Path) -> Path:
    return Path(shutil.copytree(two_cameras, tmp_path / "source"))


def file_of(root: Path, key: str) -> Path:
    return next((root / "videos" / key).rglob("*.mp4"))


def change_table(root: Path, place: str, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(root / place)), root / place)


def column(place: str, name: str, change: Callable[[list[Any]], list[Any]]) -> Damage:
    def changed(table: pa.Table) -> pa.Table:
        at = table.column_names.index(name)
        values = pa.array(change(table[name].to_pylist()), table.schema.field(name).type)
        return table.set_column(at, name, values)

    return lambda root: change_table(root, place, changed)


def info(change: Callable[[dict[str, Any]], None]) -> Damage:
    def damage(root: Path) -> None:
        path = root / "meta/info.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return damage


def without(place: str, *names: str) -> Damage:
    return lambda root: change_table(root, place, lambda table: table.drop_columns(list(names)))


def order(place: str, rows: Sequence[int]) -> Damage:
    return lambda root: change_table(root, place, lambda table: table.take(list(rows)))


def all_of(*damages: Damage) -> Damage:
    def damage(root: Path) -> None:
        for one in damages:
            one(root)

    return damage


def ffmpeg(root: Path, key: str, *words: str) -> None:
    """Make a camera's file again."""
    path = file_of(root, key)
    new = path.with_name("new.mp4")
    program = newest_program("ffmpeg")
    subprocess.run([program, "-v", "error", "-i", path, *words, new], check=True)
    new.replace(path)


def start_of(key: str, change: Callable[[list[Any]], list[Any]]) -> Damage:
    return column(LIST, f"videos/{key}/from_timestamp", change)


def text_as_column(root: Path) -> None:
    path = root / "meta/tasks.parquet"
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata(None), path)


def without_footer(cut: int = 0) -> Damage:
    """As a recording of LeRobot that was killed: a row group for each episode, no footer, no episode list."""

    def damage(root: Path) -> None:
        table = pq.read_table(root / DATA)
        with pq.ParquetWriter(root / DATA, table.schema) as writer:
            for start, length in zip(starts(), LENGTHS, strict=True):
                writer.write_table(table.slice(start, length))
        data = (root / DATA).read_bytes()
        (root / DATA).write_bytes(data[: -8 - int.from_bytes(data[-8:-4], "little") - cut])
        shutil.rmtree(root / "meta/episodes")
        folder = root / "images" / ANGLE / "episode-000003"
        folder.mkdir(parents=True)
        (folder / "frame-000000.png").write_bytes(b"")

    return damage


# Damage that takes nothing away: everything comes back.
WHOLE: dict[str, Damage] = {
    "totals": info(lambda i: i.update(total_frames=7, total_episodes=9)),
    "templates": info(
        lambda i: i.update(
            video_path="videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
        )
    ),
    "shape and names": info(
        lambda i: (i["features"]["timestamp"].update(shape=[]), i["features"][ANGLE].update(names=None))
    ),
    "splits": info(lambda i: i.update(splits={"train": "0:99"})),
    "stream fields": info(
        lambda i: i["features"][ANGLE]["info"].update({"video.codec": "h264", "video.height": 9})
    ),
    "drifted times": start_of(ANGLE, lambda v: [t + 0.013 * i for i, t in enumerate(v)]),
    "swapped times": start_of(ANGLE, lambda v: [v[0], v[2], v[1]]),
    "constant offset": start_of(DEPTH, lambda v: [t + 5 / 30 for t in v]),
    "no times": start_of(ANGLE, lambda v: [None] * len(v)),
    "file that is not there": column(LIST, f"videos/{ANGLE}/file_index", lambda v: [7] * len(v)),
    "data file that is not there": column(LIST, "data/file_index", lambda v: [3] * len(v)),
    "no column of places": without(LIST, f"videos/{ANGLE}/chunk_index", "length", "dataset_from_index"),
    "wrong lengths": column(LIST, "length", lambda v: [n + 1 for n in v]),
    "list out of order": order(LIST, [2, 0, 1]),
    "list with a hole": order(LIST, [0, 2]),
    "no list": lambda root: shutil.rmtree(root / "meta/episodes"),
    "damaged list": lambda root: (root / LIST).write_bytes((root / LIST).read_bytes()[:3000]),
    "gaps in numbers": all_of(
        column(LIST, "episode_index", lambda v: [3 * n for n in v]),
        column(DATA, "episode_index", lambda v: [3 * n for n in v]),
    ),
    "index": column(DATA, "index", lambda v: [n + 1000 for n in v]),
    "frame_index of all": column(DATA, "frame_index", lambda v: list(range(len(v)))),
    "rows out of order": order(DATA, [*range(24), *range(40, 23, -1), *range(41, 72)]),
    "doubled rows": order(DATA, [*range(30), 29, 29, *range(30, 72)]),
    "clock times": column(DATA, "timestamp", lambda v: [1e5 + 1.7 * t for t in v]),
    "no timestamp": without(DATA, "timestamp"),
    "no index": without(DATA, "index", "frame_index"),
    "a column more": lambda root: change_table(
        root, DATA, lambda table: table.append_column("extra", table["action"])
    ),
    "text of tasks as a column": text_as_column,
    "no tasks table": lambda root: (root / "meta/tasks.parquet").unlink(),
    "rows of a task that is not there": column(DATA, "task_index", lambda v: [n + 9 for n in v]),
    "no statistics": all_of(
        lambda root: (root / "meta/stats.json").unlink(),
        without(LIST, f"stats/{ANGLE}/mean", "stats/action/max"),
    ),
    "a recording that was killed": without_footer(),
    "orphans": lambda root: shutil.copy(root / DATA, root / "videos/chunk.parquet"),
    "off the grid": lambda root: ffmpeg(
        root,
        ANGLE,
        "-c",
        "copy",
        "-video_track_timescale",
        "1000",
        "-bsf:v",
        "setts=ts=TS+mod(N\\,2)*0.002/TB",
    ),
}


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
            path = root / f"videos/{key}/chunk-000/file-{number:03d}.mp4"
            with VideoReader(path, depth=False if key == DEPTH else None) as reader:
                files[number] = reader[:]
        first = round(start * 30)
        frames += list(files[number][first : first + length])
        assert len(files[number]) >= first + length
    return frames


@pytest.fixture(scope="module")
def undamaged() -> dict[str, list[np.ndarray]]:
    return {key: frames_of(VIDEO, key) for key in (ANGLE, DEPTH)}


def check(
    root: Path,
    undamaged: dict[str, list[np.ndarray]],
    kept: Sequence[tuple[int, int]],
    cameras: Sequence[str],
) -> None:
    """The dataset holds the first rows of these episodes of the sample, each with its frames."""
    rows = [starts()[episode] + number for episode, length in kept for number in range(length)]
    before, after = pq.read_table(VIDEO / DATA).take(rows), rows_of(root)
    for name in ("action", "observation.state", "task_index"):
        assert after[name].to_pylist() == before[name].to_pylist()
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


ALL = list(enumerate(LENGTHS))


@pytest.mark.parametrize("name", WHOLE)
def test_what_is_only_described_wrongly_comes_back_whole(
    name: str, video: Path, tmp_path: Path, undamaged: dict[str, list[np.ndarray]]
) -> None:
    WHOLE[name](video)
    before = everything_in(video)
    done = repair_dataset(video, tmp_path / "out")
    assert [
        (one.number % 2 if name == "gaps in numbers" else one.result, one.why) for one in done.episodes
    ] == [
        (0, ""),
        (1, ""),
        (0 if name == "gaps in numbers" else 2, ""),
    ]
    assert done.result is not None
    assert done.result.faults == []
    check(tmp_path / "out", undamaged, ALL, [ANGLE, DEPTH])
    assert everything_in(video) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "source"]


def flip(key: str, frame: int) -> Damage:
    def damage(root: Path) -> None:
        path = file_of(root, key)
        query = "-v error -select_streams v:0 -show_entries packet=pos,size -of csv=p=0"
        listed = subprocess.run(
            [newest_program("ffprobe"), *query.split(), path], check=True, capture_output=True, text=True
        ).stdout.split()
        size, at = map(int, listed[frame].split(",")[:2])
        data = bytearray(path.read_bytes())
        for place in range(at + size // 3, at + size // 3 + 8):
            data[place] ^= 0xFF
        path.write_bytes(data)

    return damage


def nan_action(values: list[Any]) -> list[Any]:
    values[30][2] = float("nan")
    return values


# What is lost: the damage, what is kept of episodes that are dropped, and where they are trimmed.
LOST: dict[str, tuple[Damage, list[tuple[int, int]], list[tuple[int, int]]]] = {
    "a frame cannot be decoded": (flip(ANGLE, 30), [ALL[0], ALL[2]], [ALL[0], (1, 6), ALL[2]]),
    "rows are missing": (
        order(DATA, [*range(50), *range(53, 72)]),
        [ALL[0], ALL[1]],
        [ALL[0], ALL[1], (2, 9)],
    ),
    "the last frames are missing": (
        lambda root: ffmpeg(root, ANGLE, "-c", "copy", "-frames:v", "60"),
        [ALL[0], ALL[1]],
        [ALL[0], ALL[1], (2, 19)],
    ),
    "a recording that was killed in a row group": (
        without_footer(cut=100),
        [ALL[0], ALL[1]],
        [ALL[0], ALL[1]],
    ),
    "a number is NaN": (column(DATA, "action", nan_action), [ALL[0], ALL[2]], [ALL[0], ALL[2]]),
}


@pytest.mark.parametrize("name", LOST)
def test_what_is_lost_is_dropped_or_cut(
    name: str, video: Path, tmp_path: Path, undamaged: dict[str, list[np.ndarray]]
) -> None:
    damage, dropped, trimmed = LOST[name]
    damage(video)
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
    cut = repair_dataset(video, tmp_path / "b", on_damage="trim")
    assert [(one.number, one.kept) for one in cut.episodes if one.result is not None] == trimmed
    check(tmp_path / "b", undamaged, trimmed, [DEPTH])


@pytest.mark.parametrize(
    ("damage", "camera", "episode", "rows", "said"),
    [
        (flip(ANGLE, 30), ANGLE, 1, range(6, 8), "rows 6 to 7"),
        (all_of(flip(DEPTH, 33), flip(DEPTH, 36)), DEPTH, 1, None, "row"),
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
    assert f"{camera}: the frame before is shown in {said}" in why
    notes = json.loads((tmp_path / f"out/meta/recording/episode_{episode:06d}.json").read_text())
    listed = notes["repeated_rows"][camera]
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
    def swapped(table: pa.Table) -> pa.Table:
        names = [name for name in table.column_names if name.startswith(f"stats/{ANGLE}/")]
        other = table.take([0, 2, 1])
        for name in names:
            table = table.set_column(table.column_names.index(name), name, other[name])
        return table

    change_table(video, LIST, swapped)
    done = repair_dataset(video, tmp_path / "out", on_damage="trim")
    assert [one.result for one in done.episodes] == [0, None, None]
    assert "it and episode 2 have each other's statistics" in done.episodes[1].why
    assert "it and episode 1 have each other's statistics" in done.episodes[2].why
    check(tmp_path / "out", undamaged, [ALL[0]], [ANGLE, DEPTH])


def test_a_kill_leaves_nothing_that_the_next_run_does_not_clear(video: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "ffenc", "-q", "repair", str(video), str(tmp_path / "new/out")]
    for marks in ("dataset/meta/info.json", "result"):
        with subprocess.Popen(words) as child:
            wait_for(lambda marks=marks: list((tmp_path / "new").glob(f".*.partial/{marks}")))
            child.kill()
        assert not (tmp_path / "new/out").exists()
    subprocess.run(words, check=True)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]


def test_a_dry_run_leaves_no_folder(video: Path, tmp_path: Path) -> None:
    repair_dataset(video, tmp_path / "a/b/out", dry_run=True)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_lost_camera_is_left_out_if_that_is_said(
    video: Path, tmp_path: Path, undamaged: dict[str, list[np.ndarray]]
) -> None:
    file_of(video, ANGLE).write_bytes(b"no video")
    with pytest.raises(SourceError, match=r"no episode is whole .*leave it out with --without-camera angle"):
        repair_dataset(video, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    repair_dataset(video, tmp_path / "out", without_cameras=["angle"])
    check(tmp_path / "out", undamaged, ALL, [DEPTH])
    assert ANGLE not in json.loads((tmp_path / "out/meta/info.json").read_text())["features"]


def test_images_that_are_damaged_cost_their_episode_alone(dataset_copy: Path, tmp_path: Path) -> None:
    def damage(values: list[Any]) -> list[Any]:
        values[30]["bytes"] = values[30]["bytes"][:2000]
        return values

    column(DATA, TOP, damage)(dataset_copy)
    column(DATA, "index", lambda v: [n + 5 for n in v])(dataset_copy)
    done = repair_dataset(dataset_copy, tmp_path / "out")
    assert [one.result for one in done.episodes] == [0, None, 1]
    assert "row 30" in done.episodes[1].why or "damaged" in done.episodes[1].why
    rows = rows_of(tmp_path / "out")
    kept = [*range(24), *range(41, 72)]
    for key in (TOP, ANGLE, DEPTH):
        found = [image["bytes"] for image in rows[key].to_pylist()]
        assert found == [i["bytes"] for i in pq.read_table(DATASET / DATA).take(kept)[key].to_pylist()]
    assert verify_dataset(tmp_path / "out", deep=True).faults == []


def test_both_programs_repair(toolchain: Toolchain, video: Path, tmp_path: Path, undamaged: Any) -> None:
    WHOLE["drifted times"](video)
    WHOLE["off the grid"](video)
    repair_dataset(video, tmp_path / "out")
    check(tmp_path / "out", undamaged, ALL, [ANGLE, DEPTH])


def test_what_cannot_be_told_is_asked_for(video: Path, two_cameras: Path, tmp_path: Path) -> None:
    (video / "meta/tasks.parquet").unlink()
    shutil.rmtree(video / "meta/episodes")
    with pytest.raises(SourceError, match='the task of episode 0 cannot be told .*--task "TEXT"'):
        repair_dataset(video, tmp_path / "out")
    repair_dataset(video, tmp_path / "out", task="lift it")
    assert pq.read_table(tmp_path / "out/meta/tasks.parquet")["task"].to_pylist() == ["lift it"]
    for damage, said in (
        (lambda root: (root / "meta/info.json").write_text("{"), "is not JSON"),
        (info(lambda i: i.update(codebase_version="v2.1")), "v3.0 is repaired"),
        (lambda root: shutil.rmtree(root / "data"), "no rows of any episode are left"),
    ):
        broken = Path(shutil.copytree(two_cameras, tmp_path / said[:4].strip()))
        damage(broken)
        with pytest.raises(SourceError, match=said):
            repair_dataset(broken, tmp_path / "none")


def test_a_file_of_another_rate_is_encoded_onto_the_grid(video: Path, tmp_path: Path) -> None:
    ffmpeg(video, ANGLE, "-c", "copy", "-bsf:v", "setts=ts=N*0.04/TB:duration=0.04/TB")
    done = repair_dataset(video, tmp_path / "out")
    assert any("encoded with the settings that it has" in action.what for action in done.actions)
    for found, wanted in zip(frames_of(tmp_path / "out", ANGLE), frames_of(VIDEO, ANGLE), strict=True):
        assert psnr(found, wanted) > 30


def flip_rows(name: str) -> Damage:
    """Write a row group for each episode, and damage a column in the one of episode 1."""

    def damage(root: Path) -> None:
        table = pq.read_table(root / DATA)
        with pq.ParquetWriter(root / DATA, table.schema, write_page_checksum=True) as writer:
            for start, length in zip(starts(), LENGTHS, strict=True):
                writer.write_table(table.slice(start, length))
        data = bytearray((root / DATA).read_bytes())
        group = pq.read_metadata(root / DATA).row_group(1)
        columns = [group.column(number) for number in range(group.num_columns)]
        own = next(one for one in columns if one.path_in_schema.partition(".")[0] == name)
        first = own.dictionary_page_offset or own.data_page_offset
        data[first + own.total_compressed_size - 1] ^= 0xFF
        (root / DATA).write_bytes(data)

    return damage


def set_at(place: str, name: str, at: int, value: Any) -> Damage:
    return column(place, name, lambda v: [*v[:at], value, *v[at + 1 :]])


# Damage of episode 1 alone.
OF_ONE: dict[str, Damage] = {
    "a row is missing": order(DATA, [*range(30), *range(31, 72)]),
    "a row is doubled": set_at(DATA, "frame_index", 30, 5),
    "a time is another": set_at(DATA, "timestamp", 30, 77.0),
    "a task that is not there": set_at(DATA, "task_index", 30, 9),
    "a number is NaN": column(DATA, "action", nan_action),
    "actions that cannot be read": flip_rows("action"),
    "numbers that cannot be read": flip_rows("frame_index"),
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
        with pytest.raises(SourceError, match="episode 1|file-007|cannot be read"):
            edit_dataset(video, tmp_path / "all", episodes="0-2")
    assert not (tmp_path / "all").exists()
