"""Whether every frame of a video file can be decoded, and which cannot.

A decoder alone overlooks much damage: what is stored is one long arithmetic code, in which almost any bytes
mean something. So each codec is decoded in the way that notices most of it:

- AV1: libaom looks at the bits that are left when a tile has been decoded, and refuses damage that way
  almost always. dav1d, which is twice as fast, does so only in newer versions and with ``-strict strict``.
- HEVC: most encoders write where each row of blocks begins (wavefronts). FFmpeg's decoder uses that when it
  decodes rows at once, and goes on where the row before ended when it does not. Where the two differ, a row
  did not end where it should. The last row of a frame has no next one to show it.
- H.264: FFmpeg's decoder conceals what it cannot decode, and then says so; with several threads only
  sometimes, as it may be asked before the frame is done.
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

# For each codec the ways to decode it, best first. All decoders of a way have to give the same frames.
_WAYS: Mapping[str, Sequence[Sequence[Decoder]]] = {
    "av1": [[{"c:v": "libaom-av1"}], [{"c:v": "libdav1d", "strict": "strict"}]],
    "h264": [[{"threads": 1}]],
    "hevc": [[{"thread_type": "frame"}, {"thread_type": "slice", "threads": 4}]],
}
_NOT_STARTED = (126, 127)  # exit status of a program that cannot be loaded
_MOST_PIECES = 200  # of a damaged file that are decoded to find where
_PIPE_BYTES = 1 << 20
_LINE = re.compile(rb"^0, +-?\d+, +(-?\d+), .*, *(0x[0-9a-f]+)", re.MULTILINE)
_TIME_BASE = re.compile(rb"#tb 0: (\d+)/(\d+)")


class Damage(Struct, frozen=True):
    """One damaged stretch of a file.

    Attributes:
        first, last: indices of its first and last frame, both included. It reaches to the next key frame,
            because until there frames are predicted from the damaged one.
        reason: what was noticed, in one line.
    """

    first: int
    last: int
    reason: str


class Viewer(Protocol):
    """Looks at the frames of a sound file while it is checked, so that it is not decoded again for them."""

    @property
    def pixels(self) -> Pixels:
        """What it looks at."""

    def read(self, process: FfmpegProcess) -> None:
        """Read all frames from a program's standard output; of a damaged file they may be fewer, or more.

        Raises:
            ConfigError: there are samples that it cannot look at.
        """

    def done(self) -> None:
        """All frames that were read are sound."""


def check_decoding(
    path: Path,
    info: StreamInfo,
    *,
    viewer: Viewer | None = None,
    on_frames: Callable[[int], None] | None = None,
    cancellation: Cancellation | None = None,
    candidates: Sequence[Toolchain] | None = None,
) -> list[Damage]:
    """Decode every frame of a file, in the way that notices most damage.

    A sound file is decoded once, HEVC twice. Where something is noticed, it is decoded again to see which
    frames are skipped, and what lies between them by itself, in ever smaller pieces where it is not sound.

    Args:
        path: the file.
        info: its stream, probed with times.
        viewer: who looks at the frames too; it is not done where the file is damaged or FFmpeg fails at
            what it looks at.
        on_frames: called now and then with the number of frames looked at so far.
        cancellation: who may end it.
        candidates: the programs to choose from; by default all that are found.

    Returns:
        the damaged stretches in order; empty: nothing was noticed.

    Raises:
        ToolchainError: no ffmpeg here has a decoder for it.
        FfmpegError: a program could not run: it was killed, lacked memory, hung or crashed.
        Cancelled: it was ended by ``cancellation``.
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
    """The program lacks a decoder; the text is its own."""


class _Group(Struct, frozen=True):
    """Frames that are decoded without any other: from one closed key frame to the next.

    Attributes:
        first, end: indices; ``end`` is not included.
    """

    first: int
    end: int


def _could_not_run(error: FfmpegError) -> bool:
    """Whether an FFmpeg failed for another reason than the file: it lacked memory, was ended, or crashed.

    A decoder that crashes may have met damage; but to call frames damaged that are sound would lose them.
    """
    return error.unable or error.returncode < 0 or error.returncode in _NOT_STARTED


class _Check:
    """The search for damage in one file with one program."""

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
        """Decode the file, and where that fails its pieces."""
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
        """Cut the file into series of groups in which decoders skip or contradict frames, and the others.

        Only where to look first: a frame before a damaged one may be lost with it, and not all damage costs
        a frame.
        """
        bad = self._bad(_Group(0, len(self._times)))
        series = groupby(self._groups, lambda group: not bad.isdisjoint(range(group.first, group.end)))
        return [list(groups) for _, groups in series]

    def _search(
        self, groups: Sequence[_Group], fault: str, parts: Sequence[Sequence[_Group]] = ()
    ) -> list[Damage]:
        """Find the damage in groups that are together known to be damaged, part by part, else by halves."""
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
        # Only all together are they damaged, or too many pieces are: then it is not known more closely.
        return found or [Damage(groups[0].first, groups[-1].end - 1, fault)]

    def _in_group(self, group: _Group, fault: str) -> list[Damage]:
        """Name the frames of a damaged group that are missing or not the same from all decoders."""
        found = []
        for index in sorted(self._bad(group)):
            place = bisect_right(self._keys, index)
            end = self._keys[place] if place < len(self._keys) else len(self._times)
            found.append(Damage(index, min(end, group.end) - 1, fault))
        return found or [Damage(group.first, group.end - 1, fault)]

    def _bad(self, piece: _Group) -> set[int]:
        """Return the frames of a damaged piece that a decoder skips, or that decoders do not agree on."""
        given = [self._frames(decoder, piece) for decoder in self._way]
        wanted = range(piece.first, piece.end)
        return {i for i in wanted if i not in given[0] or len({frames.get(i) for frames in given}) > 1}

    def _view(self, viewer: Viewer) -> list[bytes] | None:
        """Decode the whole file in the first way while the viewer looks at it, and return the checksums.

        None where anything fails: whether the file is at fault is found out without the viewer.
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
        """Decode a piece, or the whole file, and return what is wrong with it, None where nothing is.

        ``first``: the checksums that the first decoder has given, where it has decoded it already.
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
        """Return the checksum of each frame of a damaged piece that a decoder gives."""
        listed = bytearray()
        options = {"threads": 1, **decoder}  # frames on their way in other threads are lost with a bad one
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
        """Yield a piece as a file of its own. A seek would not do: decoders look beyond its end."""
        command = compile_packets(str(self._path), piece.first, piece.end - 1, program=self._program)
        with FfmpegProcess(command, pull=True, cancellation=self._cancellation) as process:
            buffer = bytearray(_PIPE_BYTES)
            while count := process.read_into(buffer):
                yield bytes(buffer[:count])
            # What it says of frames is not looked at: FFmpeg tries the file's first ones when it opens it,
            # and would complain of their damage for every piece. What it left out is missed when the piece
            # is decoded; but where it could not run, all behind that would be missed too.
            try:
                process.finish()
            except FfmpegError as error:
                if _could_not_run(error):
                    raise

    def _report(self, number: int) -> Callable[[int], None] | None:
        """Report the frames of the ``number``-th of several decoders as a part of one work."""
        if self._on_frames is None:
            return None
        report, count = self._on_frames, len(self._times)
        return lambda done: report((number * count + min(done, count)) // len(self._way))
