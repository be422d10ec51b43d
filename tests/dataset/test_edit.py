"""An edit changes what was asked for and not a bit else; a split has every episode once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ffenc import (
    ConfigError,
    DestinationError,
    FfencWarning,
    VerificationError,
    merge_datasets,
    reencode_dataset,
    verify_dataset,
)
from ffenc.dataset import columns
from ffenc.dataset.choice import chosen_episodes, divided
from ffenc.dataset.edit import edit_dataset, plan_edit
from ffenc.dataset.edited import Edits
from ffenc.dataset.split import split_dataset
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.layout import CHECKSUMS
from tests.conftest import (
    ANGLE,
    DATASET,
    DEPTH,
    FIXTURES,
    LENGTHS,
    TOP,
    decode,
    everything_in,
    newest_programs,
    notes_of,
    starts,
)
from tests.support.read import packets

VIDEO = FIXTURES / "aloha_video_v30"
FRONT = "observation.images.front"
PLACES = ("episode_index", "index", "task_index")  # which follow from what is kept


def rows_of(root: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(path) for path in sorted((root / "data").rglob("*.parquet")))


def episodes_of(root: Path) -> pa.Table:
    return pq.read_table(next((root / "meta/episodes").rglob("*.parquet")))


def json_of(root: Path, name: str) -> dict[str, Any]:
    return json.loads((root / f"meta/{name}.json").read_text())


def file_of(root: Path, key: str) -> Path:
    return next((root / f"videos/{key}").rglob("*.mp4"))


def tasks_of(root: Path) -> list[str]:
    """The text of every row's task, as a reader finds it."""
    texts = pq.read_table(root / "meta/tasks.parquet")["task"].to_pylist()
    return [texts[number] for number in rows_of(root)["task_index"].to_pylist()]


def assert_sound(root: Path, *, deep: bool = True) -> None:
    found = verify_dataset(root, deep=deep, **newest_programs())
    assert [str(fault) for fault in (*found.faults, *notes_of(found))] == []


def test_video_is_copied_and_names_rows_and_statistics_follow(toolchain: Toolchain, tmp_path: Path) -> None:
    out = tmp_path / "it's 50% out"
    edits = Edits(
        rename_cameras={"top": "front"},
        drop_cameras=["angle"],
        drop_features=["observation.state"],
        robot_type="another arm",
    )
    summary = edit_dataset(VIDEO, out, edits=edits, exclude_episodes="1")
    assert (summary.episodes, summary.copied) == (2, 4)
    assert_sound(out)
    info = json_of(out, "info")
    kept = [key for key in json_of(VIDEO, "info")["features"] if key not in (ANGLE, "observation.state")]
    assert list(info["features"]) == [FRONT if key == TOP else key for key in kept]
    assert info["features"][FRONT] == json_of(VIDEO, "info")["features"][TOP]
    assert (info["robot_type"], info["total_episodes"], info["total_frames"]) == ("another arm", 2, 55)
    first, last = (range(start, start + LENGTHS[n]) for n, start in ((0, starts()[0]), (2, starts()[2])))
    for old, new in ((TOP, FRONT), (DEPTH, DEPTH)):
        stored = packets(file_of(VIDEO, old))
        assert packets(file_of(out, new)) == [stored[i] for i in (*first, *last)]
    before, after = rows_of(VIDEO).take([*first, *last]), rows_of(out)
    assert set(before.column_names) - set(after.column_names) == {"observation.state"}
    for name in set(after.column_names) - set(PLACES):
        assert after[name].equals(before[name]), name
    assert after["index"].to_pylist() == list(range(55))
    assert after["episode_index"].to_pylist() == [0] * LENGTHS[0] + [1] * LENGTHS[2]
    stats = json_of(out, "stats")
    assert set(stats) == set(info["features"])
    actions = np.array(after["action"].to_pylist())
    np.testing.assert_allclose(stats["action"]["mean"], actions.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(stats["action"]["max"], actions.max(axis=0), rtol=1e-6)
    listed = episodes_of(out)
    assert (
        listed[f"stats/{FRONT}/mean"].to_pylist()
        == episodes_of(VIDEO).take([0, 2])[f"stats/{TOP}/mean"].to_pylist()
    )
    assert not [
        name for name in listed.column_names if f"{TOP}/" in name or f"{ANGLE}/" in name or "state" in name
    ]


def test_images_stay_as_they_are_to_the_byte(tmp_path: Path) -> None:
    out = tmp_path / "out"
    edit_dataset(DATASET, out, edits=Edits(rename_cameras={TOP: FRONT, "angle_depth": "depth"}), episodes=[2])
    assert_sound(out)
    before, after = rows_of(DATASET).slice(starts()[2]), rows_of(out)
    for old, new in ((TOP, FRONT), (ANGLE, ANGLE), (DEPTH, "observation.images.depth")):
        images = [
            [row["bytes"] for row in table[key].to_pylist()] for table, key in ((before, old), (after, new))
        ]
        assert images[0] == images[1]
    words = json.loads(pq.read_schema(next((out / "data").rglob("*.parquet"))).metadata[b"huggingface"])
    assert words["info"]["features"][FRONT] == {"_type": "Image"}


@pytest.mark.parametrize("rows", [7, 17, 41, 1000])
def test_images_are_the_same_whatever_row_groups_they_stand_in(
    rows: int, tmp_path: Path, two_image_cameras: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row groups that are kept whole are copied; where an episode is cut out of one, rows are written."""
    dataset_copy = Path(shutil.copytree(two_image_cameras, tmp_path / "source"))
    monkeypatch.setattr(columns, "IMAGE_BYTES", 100_000)
    (path,) = (dataset_copy / "data").rglob("*.parquet")
    pq.write_table(pq.read_table(path), path, row_group_size=rows)
    before = rows_of(dataset_copy)
    for number, episodes in enumerate(([0, 1, 2], [0, 2], [1], [1, 2])):
        out = tmp_path / str(number)
        chosen = episodes if number else None
        edit_dataset(dataset_copy, out, edits=Edits(rename_cameras={ANGLE: FRONT}), episodes=chosen)
        assert_sound(out, deep=rows == 17 and len(episodes) == 2)  # all are compared, to the byte
        kept = pc.is_in(before["episode_index"], pa.array(episodes))
        after, wanted = rows_of(out), before.filter(kept)
        for old, new in ((ANGLE, FRONT), (DEPTH, DEPTH)):
            assert after[new].equals(wanted[old])
        metadata = pq.read_metadata(next((out / "data").rglob("*.parquet")))
        groups = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        assert sum(groups) == metadata.num_rows == int(pc.sum(kept).as_py())
        if len(episodes) == 3:
            assert groups == [min(rows, 72 - first) for first in range(0, 72, rows)]


@pytest.mark.parametrize("source", ["v3.0", "v2.1"])
def test_tasks_are_corrected_in_rows_lists_and_table(source: str, tmp_path: Path, dataset_v21: Path) -> None:
    root = DATASET if source == "v3.0" else dataset_v21
    first, second = "transfer the red cube", "hold the cube"
    cases: list[tuple[Edits, list[str]]] = [
        (Edits(task="lift it"), ["lift it"] * 3),
        (Edits(task_of={1: "größer = besser"}), [first, "größer = besser", second]),
        (Edits(replace_tasks={first: "carry it"}), ["carry it", "carry it", second]),
        (Edits(replace_tasks={second: first}), [first] * 3),
        (Edits(task="a", task_of={2: "b"}), ["a", "a", "b"]),
    ]
    before = tasks_of(DATASET)
    assert [before[start] for start in starts()] == [first, first, second]
    for number, (edits, texts) in enumerate(cases):
        out = tmp_path / str(number)
        edit_dataset(root, out, edits=edits, cameras=["angle"])
        assert tasks_of(out) == [text for text, n in zip(texts, LENGTHS, strict=True) for _ in range(n)]
        assert episodes_of(out)["tasks"].to_pylist() == [[text] for text in texts]
        assert pq.read_table(out / "meta/tasks.parquet")["task"].to_pylist() == list(dict.fromkeys(texts))
        assert json_of(out, "info")["total_tasks"] == len(set(texts))
        assert_sound(out, deep=number == 0)  # the images are the same each time


def test_a_codec_is_kept_and_only_what_cannot_be_cut_is_encoded(tmp_path: Path) -> None:
    """Two episodes that were encoded in one go: the second does not begin on a key frame."""
    source, whole = tmp_path / "source", tmp_path / "whole"
    settings = [(("camera_encoder", n), v) for n, v in (("vcodec", "h264"), ("crf", 12), ("g", 30))]
    reencode_dataset(DATASET, source, cameras=["angle"], overrides=settings)
    stored = packets(file_of(source, ANGLE))
    edit_dataset(source, whole, episodes="1-")
    assert packets(file_of(whole, ANGLE)) == stored[LENGTHS[0] :]
    block = json_of(whole, "info")["features"][ANGLE]["info"]
    assert (block["video.codec"], block["video.crf"], block["video.g"]) == ("h264", 12, 30)
    # One episode of the same frames, of which the list makes two.
    one = tmp_path / "one"
    edit_dataset(source, one, episodes=[0])
    half(one, 11)
    with pytest.warns(FfencWarning, match="episode 1 is re-encoded, not copied"):
        plan = plan_edit(one, tmp_path / "plan", episodes=[1])
    (stream,) = plan.streams
    assert (stream.copied, list(stream.uncopied)) == (frozenset(), [1])
    assert "key frame" in stream.uncopied[1]
    with pytest.warns(FfencWarning, match="episode 1 is re-encoded, not copied"):
        edit_dataset(one, tmp_path / "cut", episodes=[1])
    assert_sound(tmp_path / "cut")
    block = json_of(tmp_path / "cut", "info")["features"][ANGLE]["info"]
    assert (block["video.codec"], block["video.crf"], block["video.g"]) == ("h264", 12, 30)
    shown, source_frames = decode(file_of(tmp_path / "cut", ANGLE)), decode(file_of(source, ANGLE))
    assert len(shown) == LENGTHS[0] - 11
    assert np.abs(shown.astype(int) - source_frames[11 : LENGTHS[0]]).mean() < 3


def half(root: Path, at: int) -> None:
    """Make two episodes of a dataset's only one."""
    data = next((root / "data").rglob("*.parquet"))
    rows = pq.read_table(data)
    count = len(rows)
    numbers = [int(i >= at) for i in range(count)]
    frames = [i - at if i >= at else i for i in range(count)]
    times = np.array(frames) / 30
    for name, values in (("episode_index", numbers), ("frame_index", frames), ("timestamp", times)):
        place = rows.column_names.index(name)
        rows = rows.set_column(place, rows.schema.field(name), pa.array(values, rows.schema.field(name).type))
    pq.write_table(rows, data)
    path = next((root / "meta/episodes").rglob("*.parquet"))
    listed = pq.read_table(path).to_pylist()[0]
    parts = []
    for number, (first, end) in enumerate(((0, at), (at, count))):
        own = {k: v for k, v in listed.items() if not k.startswith("stats/")}
        own |= {"episode_index": number, "length": end - first}
        own |= {"dataset_from_index": first, "dataset_to_index": end}
        own |= {f"videos/{ANGLE}/from_timestamp": first / 30, f"videos/{ANGLE}/to_timestamp": end / 30}
        parts.append(own)
    pq.write_table(pa.Table.from_pylist(parts), path)
    (root / "meta/stats.json").write_text("{}")
    info = json_of(root, "info")
    (root / "meta/info.json").write_text(
        json.dumps({**info, "total_episodes": 2, "splits": {"train": "0:2"}})
    )


@pytest.mark.parametrize(
    ("edits", "options", "said"),
    [
        (Edits(), {}, "no edit was requested"),
        (Edits(drop_cameras=["topp"]), {}, "did you mean 'top'"),
        (Edits(drop_features=["action.x"]), {}, "did you mean 'action'"),
        (Edits(drop_features=["index"]), {}, "LeRobot's own numbering"),
        (Edits(drop_features=[TOP]), {}, "drop_cameras"),
        (Edits(rename_cameras={"top": "angle"}), {}, f"two features would be called {ANGLE}"),
        (Edits(rename_cameras={"top": "top"}), {}, "has that name already"),
        (Edits(rename_cameras={"top": None}), {}, "rename_cameras: 'top': None is not accepted; expected"),
        (Edits(rename_cameras={3: "front"}), {}, "rename_cameras: 3: 'front' is not accepted; expected"),
        (Edits(rename_cameras={"top": "a/../b"}), {}, "a/../b"),
        (Edits(rename_cameras={"top": "a"}, drop_cameras=["top"]), {}, "is left out"),
        (Edits(task_of={7: "a"}), {}, "episode 7 is not among those"),
        (Edits(task_of={1: "a"}), {"episodes": [0]}, "episode 1 is not among those"),
        (Edits(replace_tasks={"hold the cub": "a"}), {}, "did you mean 'hold the cube'"),
        (Edits(task="a", replace_tasks={"hold the cube": "b"}), {}, "would have no effect"),
        (Edits(task_of={2: "hold the cube"}), {}, "has this task already"),
        (Edits(task="  "), {}, "task: '  ' is not accepted; expected a text"),
        (Edits(task_of={0: ""}), {}, "task_of: '' is not accepted; expected a text"),
        (Edits(robot_type="aloha"), {}, "has this robot type already"),
        (None, {"episodes": "0-9"}, "there is no episode 9; there are 0 to 2"),
        (None, {"episodes": "5-"}, "there is no episode 5"),
        (None, {"episodes": "\u0661"}, "is neither an episode number"),
        (None, {"episodes": "2-1"}, "'2-1' is neither an episode number"),
        (None, {"episodes": []}, "no episode is selected"),
        (None, {"episodes": 1}, "episodes: 1 is not accepted; expected a list of episodes"),
        (None, {"episodes": "0-"}, "episodes selects all episodes; leave it out"),
        (None, {"exclude_episodes": [0], "encoder_threads": 2}, "encoder_threads would have no effect"),
        (None, {"exclude_episodes": [0], "workers": 0}, "workers: 0 is not accepted"),
        (None, {"exclude_episodes": [0], "encoder_threads": 1.5}, "encoder_threads: 1.5 is not accepted"),
        ({"task": "x"}, {}, "edits: {'task': 'x'} is not accepted; expected an Edits"),
        (Edits(task=5), {}, "task: 5 is not accepted"),  # type: ignore[arg-type]
        (None, {"transform": {"rotate": 90}}, "transform: {'rotate': 90} is not accepted"),
        (None, {"transforms": {"top": {"rotate": 90}}}, "expected a mapping of cameras to a Transform"),
        (None, {"cameras": "top"}, "cameras: 'top' is not accepted; expected a list of names"),
        (None, {"exclude_episodes": "0-"}, "no episode is left"),
        (None, {"episodes": [0], "exclude_episodes": [1]}, "is not among episodes"),
        (None, {"cameras": ["top", "angle", "angle_depth"]}, "selects all cameras"),
        (Edits(drop_cameras=["top"]), {"cameras": ["angle"]}, "pass one of them"),
    ],
)
def test_what_would_do_nothing_or_matches_nothing_is_refused(
    edits: Edits | None, options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        edit_dataset(VIDEO, tmp_path / "out", edits=edits, **options)
    assert said in str(error.value)
    assert everything_in(tmp_path) == []


def test_a_text_is_no_list_of_names() -> None:
    for name in ("drop_cameras", "drop_features"):
        with pytest.raises(ConfigError, match=f"{name}: 'top' is not accepted; expected a list of names"):
            Edits(**{name: "top"})  # type: ignore[arg-type]


def test_a_finished_edit_is_left_and_another_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    edit_dataset(VIDEO, out, edits=Edits(task="a"))
    assert edit_dataset(VIDEO, out, edits=Edits(task="a"), resume=True).complete_before
    for edits in (Edits(task="b"), Edits(task="a", robot_type="b")):
        with pytest.raises(DestinationError, match="is the result of another job"):
            edit_dataset(VIDEO, out, edits=edits, resume=True)
    with pytest.raises(DestinationError, match="overlap"):
        edit_dataset(VIDEO, VIDEO / "inside", edits=Edits(task="a"))


# --- split ------------------------------------------------------------------------------------------------


def test_a_split_has_every_episode_once_and_a_merge_of_its_parts_is_the_whole(
    two_cameras: Path, tmp_path: Path
) -> None:
    parts = split_dataset(two_cameras, tmp_path / "parts", {"train": 0.7, "val": 0.3}, seed=3)
    assert {name: one.episodes for name, one in parts.items()} == {"train": 2, "val": 1}
    for name in parts:
        assert_sound(tmp_path / "parts" / name)
    again = split_dataset(two_cameras, tmp_path / "again", {"train": 0.7, "val": 0.3}, seed=3)
    assert {n: p.frames for n, p in again.items()} == {n: p.frames for n, p in parts.items()}
    merge_datasets([tmp_path / "parts/train", tmp_path / "parts/val"], tmp_path / "whole")
    lengths = episodes_of(tmp_path / "whole")["length"].to_pylist()
    assert sorted(lengths) == sorted(LENGTHS)
    named = split_dataset(two_cameras, tmp_path / "named", {"a": "0,2", "b": [1]})
    assert [named[n].frames for n in "ab"] == [2 * (LENGTHS[0] + LENGTHS[2]), 2 * LENGTHS[1]]
    with pytest.raises(DestinationError, match="exists"):
        split_dataset(two_cameras, tmp_path / "named", {"a": "0,2", "b": [1]})
    done = split_dataset(two_cameras, tmp_path / "named", {"a": "0,2", "b": [1]}, resume=True)
    assert all(part.complete_before for part in done.values())


def test_by_task_no_part_has_a_task_of_another(tmp_path: Path) -> None:
    split_dataset(VIDEO, tmp_path / "parts", {"a": 0.6, "b": 0.4}, by="task")
    texts = [set(tasks_of(tmp_path / "parts" / name)) for name in "ab"]
    assert texts[0].isdisjoint(texts[1])


@pytest.mark.parametrize(
    ("into", "options", "said"),
    [
        ({"a": 1.0}, {}, "at least two parts"),
        ({"a": 0.6, "b": 0.6}, {}, "add up to 1.2"),
        ({"a": 0.99, "b": 0.01}, {}, "would have no episode"),
        ({"a": 0.5, "b": "0-"}, {}, "not both in one split"),
        ({"a": "0-1", "b": "1-"}, {}, "episode 1 is in a and in b"),
        ({"a": "0", "b": "1"}, {}, "episode 2 is in no part"),
        ({"a": "0", "b": "1-"}, {"seed": 2}, "are for shares"),
        ({"../a": 0.5, "b": 0.5}, {}, "'../a' is not accepted"),
        (["a", "b"], {}, "into: ['a', 'b'] is not accepted; expected a mapping"),
        *(
            ({"a": 0.5, "b": 0.5}, {"seed": seed}, f"seed: {seed!r} is not accepted")
            for seed in (-5, 1.5, "x", True)
        ),
    ],
)
def test_a_split_that_is_none_is_refused(
    into: dict[str, Any], options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as error:
        split_dataset(VIDEO, tmp_path / "out", into, **options)
    assert said in str(error.value)
    assert everything_in(tmp_path) == []


def test_shares_are_kept_within_an_episode_and_the_seed_decides() -> None:
    groups = [[n] for n in range(1000)]
    parts = divided(groups, {"train": 0.8, "val": 0.15, "test": 0.05})
    assert {name: len(own) for name, own in parts.items()} == {"train": 800, "val": 150, "test": 50}
    assert sorted(n for own in parts.values() for n in own) == list(range(1000))
    assert divided(groups, {"a": 0.5, "b": 0.5}, seed=1) != divided(groups, {"a": 0.5, "b": 0.5}, seed=2)
    assert divided(groups, {"a": 0.5, "b": 0.5}, seed=1) == divided(groups, {"a": 0.5, "b": 0.5}, seed=1)


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0", [0]),
        ("0,2,5-7", [0, 2, 5, 6, 7]),
        ("8-", [8, 9]),
        ("9-", [9]),
        (" 1 , 1,0-1", [0, 1]),
        ([3, 1], [1, 3]),
    ],
)
def test_episodes_are_named_by_numbers_and_ranges(text: Any, numbers: list[int]) -> None:
    assert chosen_episodes(text, range(10)) == numbers


def test_a_file_of_which_all_is_kept_is_copied_as_it_is(tmp_path: Path) -> None:
    edit_dataset(VIDEO, tmp_path / "out", edits=Edits(task="lift it", rename_cameras={"top": "front"}))
    for old, new in ((TOP, FRONT), (ANGLE, ANGLE), (DEPTH, DEPTH)):
        place = "chunk-000/file-000.mp4"
        kept = (tmp_path / "out/videos" / new / place).read_bytes()
        assert kept == (VIDEO / "videos" / old / place).read_bytes()
    edit_dataset(VIDEO, tmp_path / "part", episodes="0-1", cameras=["angle"])
    [cut] = (tmp_path / "part/videos").rglob("*.mp4")
    whole = VIDEO / "videos" / ANGLE / "chunk-000/file-000.mp4"
    assert packets(cut) == packets(whole)[: len(packets(cut))]
    assert len(packets(cut)) < len(packets(whole))


def test_a_copy_is_compared_with_its_file_and_keeps_the_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    edit_dataset(VIDEO, first, cameras=["top", "angle"])
    edit_dataset(first, second, edits=Edits(robot_type="another"))
    assert (second / CHECKSUMS).read_text() == (first / CHECKSUMS).read_text()
    assert_sound(second)  # it hashes the files

    def faulty(source: Path, target: Path) -> None:
        content = bytearray(source.read_bytes())
        content[len(content) // 2] ^= 1
        target.write_bytes(content)

    monkeypatch.setattr("ffenc.dataset.job.joins.copy_file", faulty)
    with pytest.raises(VerificationError, match="is not, to the byte, what was copied from"):
        edit_dataset(first, tmp_path / "third", edits=Edits(robot_type="another"))
    assert not (tmp_path / "third").exists()
