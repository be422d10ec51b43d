"""Check whether every frame of a video file can be decoded, and find the damaged ones.

Most damage gives no error in a decoder: a frame is one long arithmetic code, in which almost any bytes are
valid. So each codec is decoded in the way that detects most damage:

- AV1: libaom checks the remaining bits after decoding a tile, and so detects damage almost always. dav1d,
  which is twice as fast, does this only in newer versions and with ``-strict strict``.
- HEVC: most encoders write the start of each row of blocks (wavefronts). FFmpeg's decoder uses these
  positions if it decodes rows in parallel; otherwise it continues where the row before ended. If the two
  results differ, a row did not end where it should. The last row of a frame is not covered.
- H.264: FFmpeg's decoder conceals damage and reports it; with several threads only sometimes, because it may
  be queried before the frame is complete.
- FFV1: every slice has a checksum.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from ffenc.compiler.decode import Pixels, compile_checksums, compile_packets
from ffenc.errors import ConfigError, FfmpegError, SourceError, ToolchainError
from ffenc.ffmpeg.launch import Cancellation
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.ffmpeg.process import FfmpegProcess, run_fed
from ffenc.ffmpeg.toolchain import Toolchain, how_to_get, toolchains
from ffenc.frames.stream import NO_DECODER
from ffenc.temporary import temporary_folder

Decoder = Mapping[str, Any]

# Ways to decode each codec, best first. All decoders of a way have to return the same frames.
_WAYS: Mapping[str, Sequence[Sequence[Decoder]]] = {
    "av1": [[{"c:v": "libaom-av1"}], [{"c:v": "libdav1d", "strict": "strict"}]],
    "h264": [[{"threads": 1}]],
    "hevc": [[{"thread_type": "frame"}, {"thread_type": "slice", "threads": 4}]],
}
_NOT_STARTED = (126, 127)  # exit status of a program that cannot be loaded
_MOST_PIECES = 200  # of a damaged file that are decoded to locate the damage
_PIPE_BYTES = 1 << 20
_LINE = re.compile(rb"^0, +-?\d+, +(-?\d+), .*, *(0x[0-9a-f]+)", re.MULTILINE)
_TIME_BASE = re.compile(rb"#tb 0: (\d+)/(\d+)")


class Damage(Struct, frozen=True):
    """A damaged range of a file's frames.

    Attributes:
        first, last: indices of its first and last frame, both included. It extends to the next key frame,
            because frames up to there are predicted from the damaged one.
        reason: what was detected, in one line.
    """

    first: int
    last: int
    reason: str


class Viewer(Protocol):
    """Reads the frames of an intact file during its check, so that they are not decoded twice."""

    @property
    def pixels(self) -> Pixels:
        """The samples that it reads."""

    def read(self, process: FfmpegProcess) -> None:
        """Read all frames from a program's standard output; a damaged file may give fewer frames, or more.

        Raises:
            ConfigError: samples that it cannot process.
        """

    def done(self) -> None:
        """Called when all frames that were read are known to be intact."""


def check_decoding(
    path: Path,
    info: StreamInfo,
    *,
    viewer: Viewer | None = None,
    on_frames: Callable[[int], None] | None = None,
    cancellation: Cancellation | None = None,
    candidates: Sequence[Toolchain] | None = None,
) -> list[Damage]:
    """Decode every frame of a file, in the way that detects most damage.

    An intact file is decoded once, HEVC twice. After an error, the file is decoded again to see which frames
    are skipped; then each part is decoded separately, and damaged parts in smaller and smaller pieces.

    Args:
        path: the file.
        info: its stream fields, probed with times.
        viewer: also reads the frames; its ``done`` is not called if the file is damaged or FFmpeg fails while
            it reads.
        on_frames: called from time to time with the number of frames checked so far.
        cancellation: can stop the check from another thread.
        candidates: the programs to select from; None: all that are found.

    Returns:
        The damaged ranges in order; empty: none were detected.

    Raises:
        ToolchainError: no ffmpeg on this machine has a decoder for the codec.
        FfmpegError: a program could not run: it was killed, lacked memory, hung or crashed.
        Cancelled: ``cancellation`` was cancelled.
    """
    assert info.times is not None
    assert info.key_frames is not None
    assert info.closed is not None
    if not info.times:
        raise SourceError(f"{path} has no frames; restore the file")
    reports: list[str] = []
    for way in _WAYS.get(info.codec, [[{}]]):
        for toolchain in toolchains() if candidates is None else candidates:
            check = _Check(path, info, way, toolchain, on_frames, cancellation)
            try:
                return check.damages(viewer)
            except _NoDecoder as error:
                reports.append(f"  {toolchain}: {error}")
    listed = "\n".join(dict.fromkeys(reports))
    raise ToolchainError(
        f"{path}: {info.codec} {info.pix_fmt} cannot be decoded here:\n{listed}\n{how_to_get()}"
    )


class _NoDecoder(Exception):
    """The program lacks a decoder; the text is the program's own."""


class _Group(Struct, frozen=True):
    """Frames that can be decoded without others: from one closed key frame to the next.

    Attributes:
        first, end: frame indices; ``end`` is not included.
    """

    first: int
    end: int


def _could_not_run(error: FfmpegError) -> bool:
    """Return whether FFmpeg failed for another reason than the file: lack of memory, a signal, or a crash.

    A crash may be caused by damage, but if intact frames were reported as damaged, they would be lost.
    """
    return error.unable or error.returncode < 0 or error.returncode in _NOT_STARTED


class _Check:
    """The search for damage in a file with one program."""

    def __init__(
        self,
        path: Path,
        info: StreamInfo,
        way: Sequence[Decoder],
        toolchain: Toolchain,
        on_frames: Callable[[int], None] | None,
        cancellation: Cancellation | None,
    ) -> None:
        assert info.times is not None
        assert info.key_frames is not None
        assert info.closed is not None
        self._path = path
        self._times = info.times
        self._time_base = info.time_base
        self._keys = info.key_frames
        self._way = way
        self._program = toolchain.ffmpeg
        self._on_frames = on_frames
        self._cancellation = cancellation or Cancellation()
        starts = sorted({0, *info.closed})
        self._groups = [
            _Group(a, b) for a, b in zip(starts, [*starts[1:], len(info.times)], strict=True) if a < b
        ]
        self._pieces = 0

    def damages(self, viewer: Viewer | None) -> list[Damage]:
        """Decode the file; after an error, locate the damage."""
        viewed = None if viewer is None else self._view(viewer)
        fault = self._fault(None, viewed)
        if viewer is not None and viewed is not None and fault is None:
            viewer.done()
        found = [] if fault is None else self._search(self._groups, fault, self._suspected())
        joined: list[Damage] = []
        for damage in found:
            if joined and damage.first <= joined[-1].last + 1:
                joined[-1] = replace(joined[-1], last=max(damage.last, joined[-1].last))
            else:
                joined.append(damage)
        return joined

    def _suspected(self) -> list[Sequence[_Group]]:
        """Divide the file into series of groups with skipped or contradictory frames, and the others.

        This only determines where to search first: a frame before a damaged one may be lost with it, and not
        all damage loses a frame.
        """
        bad = self._bad(_Group(0, len(self._times)))
        series = groupby(self._groups, lambda group: not bad.isdisjoint(range(group.first, group.end)))
        return [list(groups) for _, groups in series]

    def _search(
        self, groups: Sequence[_Group], fault: str, parts: Sequence[Sequence[_Group]] = ()
    ) -> list[Damage]:
        """Find the damage in groups that are damaged together: by the given parts, otherwise by halves."""
        if len(groups) == 1:
            return self._in_group(groups[0], fault)
        if len(parts) < 2:
            middle = len(groups) // 2
            parts = groups[:middle], groups[middle:]
        found: list[Damage] = []
        if self._pieces < _MOST_PIECES:
            self._pieces += len(parts)
            for part in parts:
                own = self._fault(_Group(part[0].first, part[-1].end))
                if own is not None:
                    found += self._search(part, own)
        # No single part was damaged, or there were too many pieces: the damage cannot be located more
        # closely.
        return found or [Damage(groups[0].first, groups[-1].end - 1, fault)]

    def _in_group(self, group: _Group, fault: str) -> list[Damage]:
        """Return the frames of a damaged group that are missing, or on which decoders disagree."""
        found = []
        for index in sorted(self._bad(group)):
            place = bisect_right(self._keys, index)
            end = self._keys[place] if place < len(self._keys) else len(self._times)
            found.append(Damage(index, min(end, group.end) - 1, fault))
        return found or [Damage(group.first, group.end - 1, fault)]

    def _bad(self, piece: _Group) -> set[int]:
        """Return the frames of a damaged piece that a decoder skips, or on which decoders disagree."""
        given = [self._frames(decoder, piece) for decoder in self._way]
        wanted = range(piece.first, piece.end)
        return {i for i in wanted if i not in given[0] or len({frames.get(i) for frames in given}) > 1}

    def _view(self, viewer: Viewer) -> list[bytes] | None:
        """Decode the whole file in the first way while the viewer reads it; return the checksums.

        None if anything fails: the file is then checked without the viewer.
        """
        with temporary_folder() as folder:
            listed = folder / "frames"
            command = compile_checksums(
                str(self._path), self._way[0], pixels=viewer.pixels, listed=str(listed), program=self._program
            )
            try:
                with FfmpegProcess(
                    command, pull=True, on_frames=self._report(0), cancellation=self._cancellation
                ) as process:
                    viewer.read(process)
                    process.finish()
                sums = [match[2] for match in _LINE.finditer(listed.read_bytes())]
            except (FfmpegError, ConfigError, OSError):
                return None
        return sums if len(sums) == len(self._times) else None

    def _fault(self, piece: _Group | None, first: list[bytes] | None = None) -> str | None:
        """Decode a piece, or the whole file; return what is wrong with it, None if nothing is.

        ``first``: checksums of the first decoder, if it has decoded the piece before.
        """
        count = len(self._times) if piece is None else piece.end - piece.first
        for number, decoder in enumerate(self._way):
            if number == 0 and first is not None:
                continue
            listed = bytearray()
            command = compile_checksums(self._source(piece), decoder, program=self._program)
            report = self._report(number) if piece is None else None
            try:
                self._run(command, piece, listed, report)
            except FfmpegError as error:
                if _could_not_run(error):
                    raise
                said = "\n".join(error.stderr)
                if NO_DECODER.search(said):
                    raise _NoDecoder(error.cause) from None
                return error.cause
            sums = [match[2] for match in _LINE.finditer(listed)]
            if len(sums) != count:
                return f"{len(sums)} of {count} frames can be decoded"
            first = first or sums
            if sums != first:
                return "a row of blocks does not end where the next one begins"
        return None

    def _frames(self, decoder: Decoder, piece: _Group) -> dict[int, bytes]:
        """Return the checksums of the frames that a decoder returns for a damaged piece."""
        listed = bytearray()
        options = {
            "threads": 1,
            **decoder,
        }  # others lose frames together with a damaged one
        whole = piece.end - piece.first == len(self._times)
        source = None if whole else piece
        command = compile_checksums(self._source(source), options, lenient=True, program=self._program)
        try:
            self._run(command, source, listed, None)
        except FfmpegError as error:
            if _could_not_run(error):
                raise
        base = _TIME_BASE.search(listed)
        if base is None:
            return {}
        scale = Fraction(int(base[1]), int(base[2])) / self._time_base
        times = self._times
        found = {}
        for match in _LINE.finditer(listed):
            time = int(match[1]) * scale
            place = min(bisect_left(times, time), len(times) - 1)
            if place and time - times[place - 1] < times[place] - time:
                place -= 1
            found[place] = match[2]
        return found

    def _source(self, piece: _Group | None) -> str:
        return str(self._path) if piece is None else "pipe:0"

    def _run(
        self,
        command: Sequence[str],
        piece: _Group | None,
        listed: bytearray,
        on_frames: Callable[[int], None] | None,
    ) -> None:
        packets = iter(()) if piece is None else self._packets(piece)
        run_fed(
            command,
            packets,
            on_frames=on_frames,
            on_output=listed.extend,
            cancellation=self._cancellation,
        )

    def _packets(self, piece: _Group) -> Iterator[bytes]:
        """Yield a piece as a separate file. A seek is not enough: decoders read beyond the piece's end."""
        command = compile_packets(str(self._path), piece.first, piece.end - 1, program=self._program)
        with FfmpegProcess(command, pull=True, cancellation=self._cancellation) as process:
            buffer = bytearray(_PIPE_BYTES)
            while count := process.read_into(buffer):
                yield bytes(buffer[:count])
            # Errors about frames are ignored: FFmpeg decodes the file's first frames when it opens it, and
            # would report their damage for every piece. A packet that it drops is detected when the piece is
            # decoded; but if the program could not run, everything after that point would be lost too.
            try:
                process.finish()
            except FfmpegError as error:
                if _could_not_run(error):
                    raise

    def _report(self, number: int) -> Callable[[int], None] | None:
        """Return the callback for the ``number``-th of several decoders, which reports parts of the whole."""
        if self._on_frames is None:
            return None
        report, count = self._on_frames, len(self._times)
        return lambda done: report((number * count + min(done, count)) // len(self._way))
