"""All files of a bag are read, or what is not read is reported."""

from __future__ import annotations

import shutil
import sqlite3
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ffenc import FfencWarning, SourceError, inspect_source
from ffenc.config.mapping import build_mapping
from ffenc.dataset.source import DatasetSource
from ffenc.dataset.sources.kind import Opening
from ffenc.dataset.sources.registry import open_source
from tests.support.recorded import _Messages, write_bag, write_mcap

BEGIN, STEP = 1_700_000_000_000_000_000, 100_000_000
MAPPING = build_mapping({"fps": 10, "cameras": {"cam": {"path": "/cam"}}})
MAKE = _Messages()


def camera(first: int, count: int) -> list[Any]:
    """Frames of a camera at 10 frames/s; frame i is of the colour i."""
    gray = np.zeros((64, 64, 3), np.uint8)
    places = range(first, first + count)
    return [("/cam", BEGIN + i * STEP, MAKE.image(BEGIN + i * STEP, gray + i, "rgb8")) for i in places]


def colours(source: DatasetSource, episode: int = 0) -> list[int]:
    return [frame.data[0] for frame in source.frames("observation.images.cam", source.episodes[episode])]


def opened(path: Path) -> DatasetSource:
    return open_source(path, Opening(mapping=MAPPING))


@pytest.fixture
def split(tmp_path: Path) -> Path:
    """A bag in two files of ten frames each."""
    folder = tmp_path / "split"
    folder.mkdir()
    for number in range(2):
        one = write_bag(tmp_path / f"part_{number}", camera(10 * number, 10))
        shutil.copy(one / f"part_{number}.db3", folder)
    state(folder, ["part_0.db3", "part_1.db3"], 20)
    return folder


def state(folder: Path, files: list[str], messages: int) -> None:
    """Write the metadata of the bag."""
    found = yaml.safe_load((folder.parent / "part_0/metadata.yaml").read_text())
    about = found["rosbag2_bagfile_information"]
    about["relative_file_paths"], about["message_count"] = files, messages
    about["topics_with_message_count"][0]["message_count"] = messages
    (folder / "metadata.yaml").write_text(yaml.safe_dump(found))


def test_the_files_of_a_bag_may_be_listed_in_any_order(split: Path) -> None:
    assert colours(opened(split)) == list(range(20))
    state(split, ["part_1.db3", "part_0.db3"], 20)
    assert colours(opened(split)) == list(range(20))


def test_files_that_the_metadata_does_not_list_are_reported(split: Path) -> None:
    state(split, ["part_0.db3"], 10)
    with pytest.warns(FfencWarning, match=r"split/part_1\.db3: not included in the result"):
        assert colours(opened(split)) == list(range(10))


def test_messages_that_the_metadata_counts_and_that_are_lost_are_reported(split: Path) -> None:
    state(split, ["part_0.db3", "part_1.db3"], 30)
    with pytest.warns(FfencWarning, match="/cam: 20 messages are in the bag, which states 30"):
        opened(split)


def test_a_recording_without_its_metadata_is_reported(split: Path) -> None:
    (split.parent / "part_1/metadata.yaml").unlink()
    with pytest.warns(FfencWarning, match="part_1: not included in the result"):
        source = opened(split.parent)
    assert [one.length for one in source.episodes] == [10, 20]


def test_recordings_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 2):
        write_mcap(tmp_path / f"take_{number}.mcap", camera(0, number))
    source = opened(tmp_path)
    assert [one.length for one in source.episodes] == [2, 9, 10]


@pytest.mark.parametrize("name", ["take#1", "what?", "a%20b"])
def test_a_path_that_sqlite_would_misread_is_refused(split: Path, name: str) -> None:
    path = split.rename(split.with_name(name))
    for place in (path, path / "part_0.db3"):
        with pytest.raises(SourceError, match=r"part_0\.db3: cannot be opened, because its path contains"):
            opened(place)


@pytest.mark.parametrize("name", ["it's ünï", "100% done", "a:b\\c"])
def test_other_names_are_read(split: Path, name: str) -> None:
    assert colours(opened(split.rename(split.with_name(name)))) == list(range(20))


def test_messages_in_a_journal_beside_the_bag_are_not_ignored(tmp_path: Path) -> None:
    """A recorder of the preset ``resilient`` that was killed leaves its last messages in such a file."""
    bag = write_bag(tmp_path / "bag", camera(0, 10))
    file = bag / "bag.db3"
    recorder = sqlite3.connect(file)
    recorder.execute("PRAGMA journal_mode=WAL")
    (topic,) = recorder.execute("SELECT id FROM topics").fetchone()
    stamp = BEGIN + 10 * STEP
    data = bytes(MAKE.store.serialize_cdr(camera(10, 1)[0][2], "sensor_msgs/msg/Image"))
    recorder.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES(?, ?, ?)", (topic, stamp, data))
    recorder.commit()
    crashed = Path(shutil.copytree(bag, tmp_path / "crashed"))
    recorder.close()
    for path in (crashed, crashed / "bag.db3"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with pytest.raises(SourceError, match=r"bag\.db3-wal contains messages.*journal_mode=DELETE"):
                opened(path)
            with pytest.raises(SourceError, match=r"bag\.db3-wal contains messages"):
                inspect_source(path)
    sqlite3.connect(crashed / "bag.db3").execute("PRAGMA journal_mode=DELETE")
    assert colours(opened(crashed)) == list(range(11))


def test_damaged_messages_are_counted_when_a_bag_is_inspected(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", camera(0, 10))
    with sqlite3.connect(bag / "bag.db3") as database:
        database.execute("UPDATE messages SET data = substr(data, 1, 40) WHERE id = 5")
    (held,) = inspect_source(bag).held
    assert (held.count, held.rate, held.notes) == (10, 10.0, "1 damaged message")
    with pytest.raises(SourceError, match="/cam: the message recorded at .* is damaged"):
        opened(bag)
