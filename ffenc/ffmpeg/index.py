"""The index of an MP4 file, read without a process."""

from __future__ import annotations

import hashlib
import os
import struct
import threading
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import asdict, replace

from ffenc.errors import SourceError
from ffenc.ffmpeg.boxes import BoxError, box_in, boxes_in, fetch_index, handler, top_boxes, track_description
from ffenc.ffmpeg.cache import recall, remember
from ffenc.ffmpeg.machine import file_identity, machine_facts
from ffenc.ffmpeg.probe import StreamInfo, leading_frames, probe, without_radl
from ffenc.paths import open_regular

Integers = npt.NDArray[np.int64]

# Boxes that this module understands. Others, such as sample groups, may change how FFmpeg reads a file.
_TOP = frozenset((b"ftyp", b"moov", b"mdat", b"free"))
_TRACK = frozenset((b"tkhd", b"edts", b"mdia"))
_TABLES = frozenset((b"stsd", b"stts", b"ctts", b"stss", b"sdtp", b"stsz", b"stsc", b"stco", b"co64"))

_FULL = 8  # bytes of a table before its rows: version, flags, count
_MOST_TICKS = 1 << 31  # of a frame's duration; some readers take greater values as negative
_WHOLE_SPEED = 1 << 16


class VideoIndex(Struct, frozen=True, eq=False):
    """The frames of an MP4 file with a single video track, in display order.

    Attributes:
        description: hash of the sample description: codec, size, decoder configuration, colour tags.
        time_base: seconds per tick.
        fps: average frames per second, exact.
        times: presentation time of every frame in ticks, ascending from 0; shape (N,).
        keys: indices of the key frames.
        places: position of each frame's packet in stored order; shape (N,).
        sizes: size of every frame's packet in bytes; shape (N,).
        starts: byte offset of each packet, in stored order; shape (N,).
    """

    description: str
    time_base: Fraction
    fps: Fraction
    times: Integers
    keys: Integers
    places: Integers
    sizes: Integers
    starts: Integers

    def info(self, path: Path, like: StreamInfo) -> StreamInfo:
        """Return the file's stream fields.

        Args:
            path: the file.
            like: stream fields of a file with the same description.
        """
        keys, places = tuple(self.keys.tolist()), tuple(self.places.tolist())
        leading = leading_frames(keys, places)
        if leading and like.codec == "hevc":
            leading = without_radl(path, leading, self.starts[self.places[list(leading)]].tolist())
        return replace(
            like,
            fps=self.fps,
            frames=len(places),
            time_base=self.time_base,
            times=tuple(self.times.tolist()),
            key_frames=keys,
            places=places,
            sizes=tuple(self.sizes.tolist()),
            leading=leading,
            hidden=0,
        )


class PieceReader:
    """Reads the stream fields of an encoder's files: the first one with ffprobe, the others from their index.

    What only FFmpeg can determine (pixel format, colour tags, the stream's reorder delay) follows from a
    file's sample description. ffprobe reads the first file of each description, and its answer is kept on
    disk for the same programs. ffprobe also reads each file with another layout than FFmpeg's muxer writes,
    and all files of a description if it does not agree with the index of the first one.

    Args:
        ffprobe: the program.
        written_by: what else the answer depends on: the program and encoder that wrote the files.
    """

    def __init__(self, ffprobe: str, *written_by: str) -> None:
        self._ffprobe, self._written_by = ffprobe, written_by
        self._lock = threading.Lock()
        self._known: dict[str, StreamInfo | None] = {}  # by description; None: ffprobe does not agree

    def read(self, path: Path) -> StreamInfo:
        """Return a file's stream fields, with ``times``. Thread-safe.

        Raises:
            SourceError: it cannot be read as a video, or its index is damaged.
            ToolchainError: there is no ffprobe.
        """
        index = read_index(path)
        if index is None:
            return probe(path, times=True, ffprobe=self._ffprobe)
        with self._lock:
            if index.description not in self._known:
                program = [*file_identity(self._ffprobe), *machine_facts()]
                key = ["read", *program, *self._written_by, index.description]
                kept = _restored(recall(key))
                if kept is not None:
                    self._known[index.description] = kept
                    return index.info(path, kept)
                info = probe(path, times=True, ffprobe=self._ffprobe)
                alike = index.info(path, info) == info
                kept = replace(info, times=None, key_frames=None, places=None, sizes=None, leading=None)
                self._known[index.description] = kept if alike else None
                if alike and info.audio is None:
                    remember(key, _plain(kept))
                return info
            like = self._known[index.description]
        return index.info(path, like) if like else probe(path, times=True, ffprobe=self._ffprobe)


def _plain(info: StreamInfo) -> dict[str, Any]:
    """Return stream fields without audio as JSON values."""
    return asdict(info) | {"fps": str(info.fps), "time_base": str(info.time_base)}


def _restored(found: Any) -> StreamInfo | None:
    """Return the fields from values of :func:`_plain`; None if they are not valid."""
    try:
        rates = {name: Fraction(found[name]) for name in ("fps", "time_base")}
        return StreamInfo(**{**found, **rates})
    except (TypeError, ValueError, LookupError, ArithmeticError):
        return None


@lru_cache(maxsize=16)
def index_reader(ffprobe: str) -> PieceReader:
    """Return a reader for files of any origin; for the same program always the same one.

    Args:
        ffprobe: the program.
    """
    return PieceReader(ffprobe)


def read_index(path: Path) -> VideoIndex | None:
    """Read an MP4 file's index.

    Returns:
        The index; None: not an MP4 file with one video track as FFmpeg's muxer writes it without options, but
        for example one in fragments, with other tracks, or with an edit list that hides frames. ffprobe has
        to read such files.

    Raises:
        SourceError: the file cannot be opened, or its index is inconsistent; the text says how.
    """
    try:
        fetch_index(path)
        with open_regular(path) as file:
            return _read(file, os.fstat(file.fileno()).st_size)
    except BoxError as error:
        raise SourceError(f"{path}: its index is damaged: {error}. Restore the file, or remux it") from None
    except OSError as error:
        raise SourceError(f"{path} cannot be opened: {error.strerror}") from None


def _read(file: BinaryIO, end: int) -> VideoIndex | None:
    if file.read(8)[4:] != b"ftyp":
        return None
    found: dict[bytes, tuple[int, int]] = {}
    for box in top_boxes(file, end):
        if box.kind not in _TOP or (box.kind in found and box.kind != b"free"):
            return None
        if box.end > end:
            raise BoxError(f"the file ends {box.end - end} bytes before its {box.kind.decode()} box does")
        found[box.kind] = box.start, box.end
    if not {b"moov", b"mdat"} <= found.keys():
        return None
    start, stop = found[b"moov"]
    file.seek(start)
    return _movie(memoryview(file.read(stop - start)), found[b"mdat"])


def _movie(movie: memoryview, data: tuple[int, int]) -> VideoIndex | None:
    tracks = []
    for kind, content in boxes_in(movie):
        if kind == b"mvex":  # the frames are in fragments
            return None
        if kind == b"trak":
            tracks.append(content)
    if len(tracks) != 1:
        return None
    track = tracks[0]
    media = box_in(track, b"mdia")
    samples = box_in(media, b"minf", b"stbl")
    if not {kind for kind, _ in boxes_in(track)} <= _TRACK or handler(media) != b"vide":
        return None
    tables = dict(boxes_in(samples))
    if not tables.keys() <= _TABLES or len(list(boxes_in(samples))) != len(tables):
        return None
    if _number(_table(tables, b"stsd"), 4, "stsd") != 1:
        return None
    scale, movie_scale = _scale(media, b"mdhd"), _scale(movie, b"mvhd")
    sizes = _sizes(_table(tables, b"stsz"), data[1] - data[0])
    count = len(sizes)
    durations = _runs(_table(tables, b"stts"), "stts", count)
    late = _runs(tables[b"ctts"], "ctts", count) if b"ctts" in tables else np.zeros(count, np.int64)
    if count == 0 or durations.min() <= 0 or max(durations.max(), late.max()) >= _MOST_TICKS:
        return None
    times = np.cumsum(durations) - durations + late
    shown = _shown_from(track, scale, movie_scale, times)
    if shown is None:
        return None
    times -= shown
    order = np.argsort(times, kind="stable")
    keys = np.ones(count, bool)
    if b"stss" in tables:
        numbers = _rows(tables[b"stss"], 1, "stss")[:, 0]
        if not len(numbers):
            return None  # FFmpeg ignores this value
        if numbers[0] < 1 or numbers[-1] > count or (np.diff(numbers) <= 0).any():
            raise BoxError(f"stss does not list frames of 1 to {count}, ascending")
        keys[:] = False
        keys[numbers - 1] = True
    if times[order[0]] != 0 or (np.diff(times[order]) == 0).any():
        return None
    return VideoIndex(
        description=hashlib.sha256(track_description(track)).hexdigest(),
        time_base=Fraction(1, scale),
        fps=Fraction(scale * count, int(durations.sum())),
        times=times[order],
        keys=np.flatnonzero(keys[order]),
        places=order,
        sizes=sizes[order],
        starts=_starts(tables, sizes, data),
    )


def _scale(parent: memoryview, kind: bytes) -> int:
    """Return the ticks per second in a movie or media header."""
    header = box_in(parent, kind)
    scale = _number(header, 20 if bytes(header[:1]) == b"\1" else 12, kind.decode())
    if not scale:
        raise BoxError(f"{kind.decode()} says 0 ticks a second")
    return scale


def _shown_from(track: memoryview, scale: int, movie_scale: int, times: Integers) -> int | None:
    """Return the first displayed tick; None if the edit list hides frames or does anything else."""
    if all(kind != b"edts" for kind, _ in boxes_in(track)):
        return 0
    edits = box_in(track, b"edts", b"elst")
    wide = bytes(edits[:1]) == b"\1"
    row = struct.Struct(">Qqi" if wide else ">Iii")
    if len(edits) != _FULL + _number(edits, 4, "elst") * row.size:
        raise BoxError(f"elst says {_number(edits, 4, 'elst')} entries, and has {len(edits)} bytes")
    if len(edits) != _FULL + row.size:
        return None
    duration, first, speed = row.unpack_from(edits, _FULL)
    last = first + duration * Fraction(scale, movie_scale)
    whole = times.min() == first and times.max() < last
    return first if whole and speed == _WHOLE_SPEED else None


def _sizes(table: memoryview, room: int) -> Integers:
    """Return the sizes of all packets in bytes, in stored order."""
    size, count = _number(table, 4, "stsz"), _number(table, 8, "stsz")
    if size:
        if size * count > room:
            raise BoxError(f"stsz says {count} frames of {size} bytes, but there are {room} bytes")
        return np.full(count, size, np.int64)
    sizes = _rows(table[4:], 1, "stsz")[:, 0]
    if sizes.sum() > room:
        raise BoxError(f"stsz says {sizes.sum()} bytes of frames, but there are {room}")
    return sizes


def _runs(table: memoryview, name: str, count: int) -> Integers:
    """Return a value per frame, from a table of runs."""
    rows = _rows(table, 2, name)
    if rows[:, 0].sum() != count:
        raise BoxError(f"{name} is of {rows[:, 0].sum()} frames, stsz of {count}")
    return np.repeat(rows[:, 1], rows[:, 0])


def _starts(tables: dict[bytes, memoryview], sizes: Integers, data: tuple[int, int]) -> Integers:
    """Return the byte offset of each packet, in stored order."""
    name, width = (b"co64", 8) if b"co64" in tables else (b"stco", 4)
    chunks = _rows(_table(tables, name), 1, name.decode(), width)[:, 0]
    runs = _rows(_table(tables, b"stsc"), 3, "stsc")
    first = np.append(runs[:, 0], len(chunks) + 1)
    if first[0] != 1 or (np.diff(first) <= 0).any() or (runs[:, 1] < 1).any() or (runs[:, 2] != 1).any():
        raise BoxError(f"stsc does not say how many frames each of {len(chunks)} chunks has")
    held = np.repeat(runs[:, 1], np.diff(first))
    if held.sum() != len(sizes):
        raise BoxError(f"stsc is of {held.sum()} frames, stsz of {len(sizes)}")
    before = np.cumsum(sizes) - sizes
    within = before - np.repeat(before[np.cumsum(held) - held], held)
    outside = (chunks < data[0]) | (chunks > data[1])
    starts: Integers = np.repeat(chunks, held) + within
    if outside.any() or (starts + sizes > data[1]).any():
        raise BoxError(f"{name.decode()} places frames outside the bytes {data[0]} to {data[1]} they are in")
    return starts


def _table(tables: dict[bytes, memoryview], name: bytes) -> memoryview:
    if name not in tables:
        raise BoxError(f"{name.decode()} is missing")
    return tables[name]


def _rows(table: memoryview, columns: int, name: str, width: int = 4) -> Integers:
    """Return a table's rows as unsigned integers."""
    count = _number(table, 4, name)
    if len(table) != _FULL + count * columns * width:
        raise BoxError(f"{name} says {count} entries, and has {len(table)} bytes")
    flat: Integers = np.frombuffer(table, f">u{width}", offset=_FULL).astype(np.int64)
    rows: Integers = flat.reshape(count, columns)
    return rows


def _number(content: memoryview, at: int, name: str) -> int:
    """Return an unsigned integer of four bytes."""
    if len(content) < at + 4:
        raise BoxError(f"{name} ends after {len(content)} bytes")
    return int(struct.unpack_from(">I", content, at)[0])
