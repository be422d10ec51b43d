"""Ways to damage a copy of the sample that LeRobot wrote as video, and what a repair has to make of it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ffenc.dataset.checksums import file_checksum
from ffenc.ffmpeg.join import cut_file
from ffenc.ffmpeg.toolchain import Toolchain, toolchains
from tests.conftest import ANGLE, DEPTH, FIXTURES, LENGTHS, TOP, newest_program, newest_programs, starts

VIDEO = FIXTURES / "aloha_video_v30"
DATA, LIST = "data/chunk-000/file-000.parquet", "meta/episodes/chunk-000/file-000.parquet"
Damage = Callable[[Path], None]


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


def times_from_0(values: list[Any]) -> list[Any]:
    """The timestamps of rows that follow one another without a gap, in each of the three episodes."""
    kept = [*LENGTHS[:2], len(values) - sum(LENGTHS[:2])]
    return [i / 30 for length in kept for i in range(length)]


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


def files_of_one_episode(root: Path) -> None:
    """Give each episode files of its own: not what is damaged, but what can be damaged one by one."""
    table = pq.read_table(root / DATA)
    for number, (start, length) in enumerate(zip(starts(), LENGTHS, strict=True)):
        pq.write_table(table.slice(start, length), root / f"data/chunk-000/file-{number:03d}.parquet")
        for key in (ANGLE, DEPTH):
            whole, own = file_of(root, key), root / f"videos/{key}/chunk-000/new-{number:03d}.mp4"
            tag = "hvc1" if key == DEPTH else None
            cut_file(whole, own, first=start, frames=length, fps=Fraction(30), tag=tag, toolchain=newest())
    names = ["data/file_index"]
    for key in (ANGLE, DEPTH):
        file_of(root, key).unlink()
        for number in range(3):
            video_file(root, key, number).with_name(f"new-{number:03d}.mp4").replace(
                video_file(root, key, number)
            )
        column(LIST, f"videos/{key}/from_timestamp", lambda v: [0.0] * 3)(root)
        column(LIST, f"videos/{key}/to_timestamp", lambda v: [length / 30 for length in LENGTHS])(root)
        names.append(f"videos/{key}/file_index")
    for name in names:
        column(LIST, name, lambda v: [0, 1, 2])(root)


def newest() -> Toolchain:
    return toolchains(**newest_programs())[0]


def in_files(damage: Damage) -> Damage:
    """Damage a dataset that has a file for each episode."""
    return all_of(files_of_one_episode, damage)


def video_file(root: Path, key: str, number: int) -> Path:
    return root / f"videos/{key}/chunk-000/file-{number:03d}.mp4"


def exchanged(one: Path, other: Path) -> None:
    waiting = one.with_name("waiting")
    one.replace(waiting)
    other.replace(one)
    waiting.replace(other)


def rotated(root: Path) -> None:
    """Each of three files is where the next one should be."""
    first, second, third = (video_file(root, ANGLE, number) for number in range(3))
    exchanged(first, second)
    exchanged(second, third)


def data_file(root: Path, number: int) -> Path:
    return root / f"data/chunk-000/file-{number:03d}.parquet"


def cut_short(root: Path) -> None:
    """A file whose index is in front, and whose end is missing, from the middle of the last episode on."""
    ffmpeg(root, ANGLE, "-c", "copy", "-movflags", "+faststart")
    path = file_of(root, ANGLE)
    path.write_bytes(path.read_bytes()[:-15000])


def other_bytes(root: Path) -> None:
    """A file that decodes as before, and is not what ffenc wrote."""
    path = file_of(root, ANGLE)
    (root / "meta/videos.sha256").write_text(f"{file_checksum(path)}  {path.relative_to(root)}\n")
    path.write_bytes(path.read_bytes() + b"\0\0\0\x08free")


def statistics_of(key: str, name: str, values: list[Any], *, listed: bool) -> Damage:
    def damage(root: Path) -> None:
        if listed:
            column(LIST, f"stats/{key}/{name}", lambda v: [v[0], values, v[2]])(root)
        path = root / "meta/stats.json"
        content = json.loads(path.read_text())
        content[key][name] = values
        path.write_text(json.dumps(content))

    return damage


def schema_metadata(root: Path) -> None:
    content = json.dumps({"info": {"features": {"action": {"_type": "Value", "dtype": "int64"}}}})
    change_table(root, DATA, lambda table: table.replace_schema_metadata({"huggingface": content}))


def link_that_leads_out(root: Path) -> None:
    path = file_of(root, ANGLE)
    away = root.with_name("away.mp4")
    path.replace(away)
    path.symlink_to(away)


def swapped_statistics(root: Path) -> None:
    """The episode list has the pictures' statistics of two episodes the wrong way round."""

    def swapped(table: pa.Table) -> pa.Table:
        names = [name for name in table.column_names if name.startswith(f"stats/{ANGLE}/")]
        other = table.take([0, 2, 1])
        for name in names:
            table = table.set_column(table.column_names.index(name), name, other[name])
        return table

    change_table(root, LIST, swapped)


def block(key: str, **changes: Any) -> Damage:
    """Change fields of a camera's info block; None takes one away."""

    def changed(content: dict[str, Any]) -> None:
        own = content["features"][key]["info"]
        for name, value in changes.items():
            own.pop(name.replace("video_", "video.", 1), None)
            if value is not None:
                own[name.replace("video_", "video.", 1)] = value

    return info(changed)


ALL = list(enumerate(LENGTHS))
Kept = list[tuple[int, int]]
"""Number of an episode, and how many of its rows are kept."""


@dataclass(frozen=True)
class Case:
    """A damage, and what a repair makes of it.

    Attributes:
        kind: what ``verify`` calls it, with ``--deep`` where need be.
        damage: does it.
        kept: of episodes that are dropped.
        trimmed: where episodes are cut.
        lossy: cameras that have to be encoded.
        links: the dataset has links that lead out, which are followed.
    """

    kind: str
    damage: Damage
    kept: Kept = field(default_factory=lambda: ALL)
    trimmed: Kept | None = None
    lossy: Sequence[str] = ()
    links: bool = False


OPEN_GROUPS = "lossless=1:keyint=6:min-keyint=6:open-gop=1"
DEEP = {"damaged-frame", "checksum", "other-content", "swapped", "image"}
"""Kinds of faults that are found where all is decoded."""

X264 = ("-c:v", "libx264", "-qp", "0", "-pix_fmt", "yuv420p", "-color_range", "tv")

# Damage that takes nothing away: everything comes back.
WHOLE: dict[str, Case] = {
    "totals": Case("totals", info(lambda i: i.update(total_frames=7, total_episodes=9))),
    "templates": Case(
        "path-template",
        info(
            lambda i: i.update(
                video_path="videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
            )
        ),
    ),
    "shape and names": Case(
        "shape",
        info(
            lambda i: (i["features"]["timestamp"].update(shape=[]), i["features"][ANGLE].update(names=None))
        ),
    ),
    "splits": Case("info", info(lambda i: i.update(splits={"train": "0:99"}))),
    "stream fields": Case("video-fields", block(ANGLE, video_codec="h264", video_height=9)),
    "no info block": Case("video-block", info(lambda i: i["features"][ANGLE].pop("info"))),
    "depth is not marked": Case("depth", block(DEPTH, is_depth_map=None)),
    "depth for another reader": Case("depth", block(DEPTH, video_video_backend="torchcodec")),
    "drifted times": Case(
        "episode-place", start_of(ANGLE, lambda v: [t + 0.013 * i for i, t in enumerate(v)])
    ),
    "swapped times": Case("episode-place", start_of(ANGLE, lambda v: [v[0], v[2], v[1]])),
    "constant offset": Case("episode-place", start_of(DEPTH, lambda v: [t + 5 / 30 for t in v])),
    "no times": Case("episodes", start_of(ANGLE, lambda v: [None] * len(v))),
    "file that is not there": Case(
        "video-missing", column(LIST, f"videos/{ANGLE}/file_index", lambda v: [7] * len(v))
    ),
    "files exchanged": Case(
        "frame-count",
        in_files(lambda root: exchanged(video_file(root, ANGLE, 0), video_file(root, ANGLE, 1))),
    ),
    "three files exchanged": Case("frame-count", in_files(rotated)),
    "data files exchanged": Case(
        "rows", in_files(lambda root: exchanged(data_file(root, 0), data_file(root, 1)))
    ),
    "data file that is not there": Case("data-file", column(LIST, "data/file_index", lambda v: [3] * len(v))),
    "no column of places": Case(
        "episodes", without(LIST, f"videos/{ANGLE}/chunk_index", "length", "dataset_from_index")
    ),
    "no tasks in the list": Case("episode-columns", without(LIST, "tasks")),
    "another task in the list": Case("tasks", column(LIST, "tasks", lambda v: [v[2], *v[1:]])),
    "wrong lengths": Case("rows", column(LIST, "length", lambda v: [n + 1 for n in v])),
    "list out of order": Case("episodes", order(LIST, [2, 0, 1])),
    "list with a hole": Case("episodes", order(LIST, [0, 2])),
    "no list": Case("episodes", lambda root: shutil.rmtree(root / "meta/episodes")),
    "damaged list": Case(
        "episodes", lambda root: (root / LIST).write_bytes((root / LIST).read_bytes()[:3000])
    ),
    "gaps in numbers": Case(
        "episodes",
        all_of(
            column(LIST, "episode_index", lambda v: [3 * n for n in v]),
            column(DATA, "episode_index", lambda v: [3 * n for n in v]),
        ),
    ),
    "index": Case("index", column(DATA, "index", lambda v: [n + 1000 for n in v])),
    "frame_index of all": Case("rows", column(DATA, "frame_index", lambda v: list(range(len(v))))),
    "frame_index of another row": Case("rows", set_at(DATA, "frame_index", 30, 5)),
    "one frame_index for all": Case("rows", column(DATA, "frame_index", lambda v: [0] * len(v))),
    "two episodes of one number": Case(
        "rows", column(DATA, "episode_index", lambda v: [1 if number == 2 else number for number in v])
    ),
    "an episode doubled": Case("rows", order(DATA, [*range(41), *range(24, 72)])),
    "rows out of order": Case("rows", order(DATA, [*range(24), *range(40, 23, -1), *range(41, 72)])),
    "doubled rows": Case("rows", order(DATA, [*range(30), 29, 29, *range(30, 72)])),
    "clock times": Case("timestamps", column(DATA, "timestamp", lambda v: [1e5 + 1.7 * t for t in v])),
    "no timestamp": Case("columns", without(DATA, "timestamp")),
    "no index": Case("columns", without(DATA, "index", "frame_index")),
    "a column more": Case(
        "columns",
        lambda root: change_table(root, DATA, lambda table: table.append_column("extra", table["action"])),
    ),
    "schema metadata": Case("schema-metadata", schema_metadata),
    "text of tasks as a column": Case("tasks-table", text_as_column),
    "no tasks table": Case("tasks", lambda root: (root / "meta/tasks.parquet").unlink()),
    "rows of a task that is not there": Case(
        "task-index", column(DATA, "task_index", lambda v: [n + 9 for n in v])
    ),
    "no statistics": Case(
        "statistics-missing",
        all_of(
            lambda root: (root / "meta/stats.json").unlink(),
            without(LIST, f"stats/{ANGLE}/mean", "stats/action/max"),
        ),
    ),
    "statistics of other rows": Case(
        "statistics-differ", statistics_of("action", "max", [9.0] * 14, listed=True)
    ),
    "statistics of pictures that cannot be": Case(
        "statistics-differ", statistics_of(ANGLE, "q99", [[[-1.0]]] * 3, listed=True)
    ),
    "statistics of other pictures": Case(
        "other-content", statistics_of(ANGLE, "std", [[[0.05]]] * 3, listed=True)
    ),
    "statistics of numbering": Case("statistics-stale", statistics_of("index", "max", [999], listed=False)),
    "a recording that was killed": Case("episodes", without_footer()),
    "orphans": Case("orphan", lambda root: shutil.copy(root / DATA, root / "videos/chunk.parquet")),
    "off the grid": Case(
        "frame-times",
        lambda root: ffmpeg(
            root,
            ANGLE,
            *("-c", "copy", "-video_track_timescale", "1000", "-bsf:v", "setts=ts=TS+mod(N\\,2)*0.002/TB"),
        ),
    ),
    "another average rate": Case(
        "frame-rate",
        lambda root: ffmpeg(
            root,
            ANGLE,
            *("-c", "copy", "-bsf:v", "setts=ts=TS:duration=if(eq(N\\,71)\\,40*DURATION\\,DURATION)"),
        ),
    ),
    "another time scale": Case(
        "time-scale", lambda root: ffmpeg(root, ANGLE, "-c", "copy", "-video_track_timescale", "600")
    ),
    "one key frame": Case(
        "key-frame",
        all_of(
            lambda root: ffmpeg(root, ANGLE, *X264, "-g", "250", "-bf", "0"), block(ANGLE, video_codec="h264")
        ),
        lossy=[ANGLE],
    ),
    "open groups": Case(
        "open-groups",
        all_of(
            lambda root: ffmpeg(
                root,
                ANGLE,
                *("-c:v", "libx265", "-x265-params", "lossless=1:keyint=6:min-keyint=6:open-gop=1"),
            ),
            block(ANGLE, video_codec="hevc"),
        ),
        lossy=[ANGLE],
    ),
    "other bytes": Case("checksum", other_bytes),
    "a link that leads out": Case("not-own-file", link_that_leads_out, links=True),
}

# What is lost.
LOST: dict[str, Case] = {
    "a frame cannot be decoded": Case(
        "damaged-frame", flip(ANGLE, 30), [ALL[0], ALL[2]], [ALL[0], (1, 6), ALL[2]]
    ),
    "rows are missing": Case(
        "rows", order(DATA, [*range(50), *range(53, 72)]), [ALL[0], ALL[1]], [ALL[0], ALL[1], (2, 9)]
    ),
    "the first rows are missing": Case(
        "rows", order(DATA, [*range(24), *range(27, 72)]), [ALL[0], ALL[2]], [ALL[0], ALL[2]]
    ),
    "rows are missing, and frame_index": Case(
        "columns",
        all_of(order(DATA, [*range(50), *range(53, 72)]), without(DATA, "frame_index")),
        *([ALL[0], ALL[1]], [ALL[0], ALL[1]]),
    ),
    "rows are missing, and the next start is wrong": Case(
        "episode-place",
        all_of(
            order(DATA, [*range(25), *range(33, 72)]),
            set_at(LIST, f"videos/{ANGLE}/from_timestamp", 2, 39 / 30),
        ),
        *([ALL[0]], [ALL[0], (1, 1)]),
    ),
    "rows of another episode come first": Case(
        "rows",
        all_of(
            column(DATA, "episode_index", lambda v: [max(1, number) for number in v]),
            order(DATA, [*range(31), *range(30, 72)]),
        ),
        *([ALL[2]], [ALL[2]]),
    ),
    "a row is doubled, and no frame_index": Case(
        "columns",
        all_of(order(DATA, [*range(31), *range(30, 72)]), without(DATA, "frame_index")),
        *([ALL[0], ALL[2]], [ALL[0], ALL[2]]),
    ),
    "rows are missing, and times are rewritten": Case(
        "rows",
        all_of(order(DATA, [*range(50), *range(53, 72)]), column(DATA, "timestamp", times_from_0)),
        *([ALL[0], ALL[1]], [ALL[0], ALL[1], (2, 9)]),
    ),
    "unlike rows of one frame_index": Case(
        "rows",
        all_of(
            set_at(DATA, "frame_index", 30, 5),
            column(DATA, "timestamp", lambda v: [1e5 + 1.7 * t for t in v]),
        ),
        *([ALL[0], ALL[2]], [ALL[0], (1, 6), ALL[2]]),
    ),
    "a row group is damaged": Case("data-file", flip_rows("action"), [ALL[0], ALL[2]], [ALL[0], ALL[2]]),
    "the last frames are missing": Case(
        "frame-count",
        lambda root: ffmpeg(root, ANGLE, "-c", "copy", "-frames:v", "60"),
        *([ALL[0], ALL[1]], [ALL[0], ALL[1], (2, 19)]),
    ),
    "the end of a file is missing": Case("video-cut", cut_short, [ALL[0], ALL[1]], [ALL[0], ALL[1], (2, 18)]),
    "a video is missing": Case(
        "video-missing",
        in_files(lambda root: video_file(root, ANGLE, 1).unlink()),
        *([ALL[0], ALL[2]], [ALL[0], ALL[2]]),
    ),
    "a file that is no video": Case(
        "video-unreadable",
        in_files(lambda root: video_file(root, ANGLE, 1).write_bytes(b"no video")),
        *([ALL[0], ALL[2]], [ALL[0], ALL[2]]),
    ),
    "another camera's video": Case(
        "depth",
        in_files(lambda root: shutil.copy(video_file(root, DEPTH, 1), video_file(root, ANGLE, 1))),
        *([ALL[0], ALL[2]], [ALL[0], ALL[2]]),
    ),
    "a data file is cut short": Case(
        "data-file",
        in_files(lambda root: data_file(root, 1).write_bytes(data_file(root, 1).read_bytes()[:900])),
        *([ALL[0], ALL[2]], [ALL[0], ALL[2]]),
    ),
    "a recording that was killed in a row group": Case(
        "episodes", without_footer(cut=100), [ALL[0], ALL[1]], [ALL[0], ALL[1]]
    ),
    "a number is NaN": Case("values", column(DATA, "action", nan_action), [ALL[0], ALL[2]], [ALL[0], ALL[2]]),
    "a row has no action": Case(
        "columns", set_at(DATA, "action", 30, None), [ALL[0], ALL[2]], [ALL[0], (1, 6), ALL[2]]
    ),
    "two episodes have each other's statistics": Case("swapped", swapped_statistics, [ALL[0]], [ALL[0]]),
}


def cut_image(images: list[Any]) -> list[Any]:
    images[30]["bytes"] = images[30]["bytes"][:2000]
    return images


# Of the dataset of images.
IMAGES: dict[str, Case] = {
    "an image is damaged": Case(
        "image", column(DATA, TOP, cut_image), [ALL[0], ALL[2]], [ALL[0], (1, 6), ALL[2]]
    ),
}
