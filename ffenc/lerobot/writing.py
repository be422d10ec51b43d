"""LeRobot's ``DatasetWriter``: rows are also written during recording, and saved episodes are complete."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ffenc.frames.publish import published
from ffenc.layout import CAMERA_TYPES, EPISODES_PATH, NUMBERING
from ffenc.lerobot.streaming import StreamingVideoEncoder

_log = logging.getLogger("ffenc.lerobot")

Method = Callable[..., Any]

_HIDDEN = ".unsaved"  # suffix of files with rows of an episode that is not listed yet
_PLACE = "meta/episodes"  # prefix of the columns with the list file of an episode


def writer_methods(originals: Mapping[str, Any]) -> dict[str, Method]:
    """Return the replacements of some of its methods, by name.

    Args:
        originals: LeRobot's own methods.
    """
    return {
        name: make(originals[name])
        for name, make in (
            ("DatasetWriter.add_frame", _add_frame),
            ("DatasetWriter.save_episode", _save_episode),
            ("DatasetWriter._save_episode_data", _save_episode_data),
            ("DatasetWriter.cancel_pending_videos", _cancel_pending_videos),
        )
    }


def _encoder(writer: Any) -> StreamingVideoEncoder | None:
    """Return ffenc's encoder of a writer; None if it has no encoder, or LeRobot's."""
    encoder = writer._streaming_encoder
    return encoder if isinstance(encoder, StreamingVideoEncoder) else None


def _add_frame(original: Method) -> Method:
    def add_frame(self: Any, frame: dict[str, Any]) -> None:
        encoder = _encoder(self)
        if encoder is None:
            original(self, frame)
            return
        first = self.episode_buffer is None or self.episode_buffer["size"] == 0
        task = frame.get("task")
        original(self, frame)
        features = row_features(self._meta.features)
        if first:
            encoder.begin_rows(features, self._meta.robot_type, str(task))
        encoder.add_row({name: self.episode_buffer[name][-1] for name in features})

    return add_frame


def row_features(features: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the features of a row other than frames and LeRobot's indices."""
    return {
        name: {"dtype": one["dtype"], "shape": list(one["shape"]), "names": one.get("names")}
        for name, one in features.items()
        if one["dtype"] not in CAMERA_TYPES and name not in NUMBERING
    }


def _save_episode(original: Method) -> Method:
    def save_episode(
        self: Any, episode_data: dict[str, Any] | None = None, parallel_encoding: bool = True
    ) -> None:
        encoder = _encoder(self)
        if encoder is None or not self._meta.video_keys:
            original(self, episode_data, parallel_encoding)
            return
        _delete_hidden(self._root)  # left by a killed run; ffenc recover has these rows
        try:
            original(self, episode_data, parallel_encoding)
        except BaseException:
            _delete_hidden(self._root)
            self._latest_episode = None
            raise
        make_whole(self)
        encoder.episode_saved()

    return save_episode


def _save_episode_data(original: Method) -> Method:
    """Hide the rows until the encoders are done: LeRobot writes rows first, and then waits for them.

    A data file with rows of an unlisted episode, or without its footer, prevents LeRobot from opening the
    dataset.
    """

    def save_episode_data(self: Any, episode_buffer: dict[str, Any]) -> Any:
        metadata = original(self, episode_buffer)
        if _encoder(self) is not None and self._meta.video_keys:
            self.close_writer()
            place = self._meta.data_path.format(
                chunk_index=metadata["data/chunk_index"], file_index=metadata["data/file_index"]
            )
            path = self._root / place
            path.rename(path.with_name(f".{path.name}{_HIDDEN}"))
        return metadata

    return save_episode_data


def _hidden_rows(root: Path) -> list[Path]:
    return list((root / "data").glob(f"*/.*{_HIDDEN}"))


def _delete_hidden(root: Path) -> None:
    for path in _hidden_rows(root):
        path.unlink()


def make_whole(writer: Any) -> None:
    """Close the files of the saved episode, as LeRobot does when it resumes a dataset.

    LeRobot does not write the footers of its tables, which make them readable, until the last episode: a
    crash would lose all of them. The next episode starts new files, so that no video is copied for it either.
    """
    meta = writer._meta
    for path in _hidden_rows(writer._root):
        path.rename(path.with_name(path.name[1:].removesuffix(_HIDDEN)))
    _list_episodes(meta)
    meta.episodes = EpisodeList(meta.root)
    writer._latest_episode = meta.latest_episode = None


def _list_episodes(meta: Any) -> None:
    """Add the episodes that LeRobot has not written yet to the last file of the list, atomically.

    There is one file, as in LeRobot: its merge does not number the rows of several files correctly.
    """
    new: list[dict[str, Any]] = [
        {key: _plain(value) for key, value in episode.items()} for episode in meta._metadata_buffer
    ]
    if not new:
        return
    files = _list_files(meta.root)
    path = meta.root / EPISODES_PATH.format(
        chunk_index=new[0][f"{_PLACE}/chunk_index"], file_index=new[0][f"{_PLACE}/file_index"]
    )
    table = pa.Table.from_pylist(new)
    if files and files[-1].stat().st_size < meta.data_files_size_in_mb << 20:
        path, before = files[-1], pq.read_table(files[-1])
        for name in ("chunk_index", "file_index"):
            of_file = pa.array([before[f"{_PLACE}/{name}"][-1].as_py()] * len(new), pa.int64())
            table = table.set_column(
                table.column_names.index(f"{_PLACE}/{name}"), f"{_PLACE}/{name}", of_file
            )
        table = pa.concat_tables([before, table.select(before.column_names).cast(before.schema)])
    path.parent.mkdir(parents=True, exist_ok=True)
    with published(path) as temporary:
        pq.write_table(table, temporary, compression="snappy")
    meta._metadata_buffer.clear()


def _list_files(root: Path) -> list[Path]:
    return sorted((root / _PLACE).glob("*/*.parquet"))


class EpisodeList:
    """The episodes of a dataset that is being recorded, with the interface that LeRobot's writer uses.

    LeRobot's own list is a copy in the cache of Hugging Face's library, which takes longer to create than
    the encoders take to end. It is created only when the dataset is read.

    Args:
        root: the dataset.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        files = _list_files(root)
        names = [name for name in pq.read_schema(files[0]).names if not name.startswith("stats/")]
        self._table = pa.concat_tables([pq.read_table(file, columns=names) for file in files])

    def __len__(self) -> int:
        return int(self._table.num_rows)

    def __getitem__(self, key: Any) -> Any:
        if isinstance(key, int):
            return {name: self._table[name][key].as_py() for name in self._table.column_names}
        return self._whole[key]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # while this object is being copied
            raise AttributeError(name)
        return getattr(self._whole, name)

    @cached_property
    def _whole(self) -> Any:
        from lerobot.datasets.io_utils import load_episodes  # noqa: PLC0415

        return load_episodes(self._root)


def _plain(value: Any) -> Any:
    """Return a value of an episode without LeRobot's list of one around it; arrays become lists."""
    first = value[0] if isinstance(value, list) else value
    return first.tolist() if isinstance(first, np.ndarray) else first


def _cancel_pending_videos(original: Method) -> Method:
    def cancel_pending_videos(self: Any) -> None:
        encoder = _encoder(self)
        if encoder is None:
            original(self)
        else:  # after an error or Ctrl-C
            encoder.leave_episode()

    return cancel_pending_videos
