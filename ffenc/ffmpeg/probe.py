"""Stream fields of a video file, read with ffprobe."""

from __future__ import annotations

import os
import re
from bisect import bisect
from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

from msgspec import Struct
from msgspec.structs import replace

from ffenc.arguments import check_kind, checked_path
from ffenc.codecs.pixel_formats import PIXEL_FORMATS
from ffenc.compiler.inputs import INPUT_LIMITS, file_url
from ffenc.errors import FfmpegError, SourceError
from ffenc.ffmpeg.boxes import fetch_first_frames
from ffenc.ffmpeg.demuxer import RAW, demuxer_of
from ffenc.ffmpeg.process import STALL_SECONDS, run_asked
from ffenc.ffmpeg.toolchain import find_ffprobe
from ffenc.spelling import call
from ffenc.storage.mirror import held
from ffenc.storage.ranges import Range, Reader, ReadFile

# NAL units of HEVC in MP4: a length of four bytes, then the unit's type in the first byte.
_UNIT_HEAD, _LAST_SLICE, _RADL = 5, 31, (6, 7)
_MOST_UNITS = 8  # before the first slice of a picture

_PART = re.compile(r"(?:\\.|[^|\\])+")  # of a line in ffprobe's compact format, with escaped characters
_HASHED_BYTES = 8 << 20  # hashing a larger file takes longer than another process
# Limits of the cache of unchanged files: a job reads the fields of each of its files several times.
_MOST_KEPT, _MOST_KEPT_FRAMES = 64, 100_000
_kept: dict[Any, StreamInfo] = {}


class AudioInfo(Struct, frozen=True):
    """The first audio stream of a file."""

    codec: str
    channels: int
    channel_layout: str | None
    sample_rate: int
    bit_rate: int | None
    bit_depth: int | None


class StreamInfo(Struct, frozen=True, dict=True):
    """The first video stream of a file, as ffprobe reads it.

    Attributes:
        codec: ``av1``, ``h264``, ``hevc``, ``ffv1``.
        pix_fmt: FFmpeg pixel format.
        width, height: frame size in pixels.
        fps: average frames per second, exact.
        frames: number of frames.
        time_base: seconds per tick of ``times``.
        channels: number of components per pixel.
        color_space, color_range, color_primaries, color_transfer: colour tags, None if absent.
        audio: the first audio stream; None: the file has no audio.
        tag: the stream's tag in MP4 (``avc1``); None: it has none.
        extradata_hash: hash of the decoder configuration.
        times: presentation time of every frame in ticks, ascending; None unless requested.
        key_frames: indices of the key frames in ``times``; None unless requested.
        places: position of each frame's packet in stored order; None unless requested.
        sizes: size of every frame's packet in bytes, in the order of ``times``; None unless requested.
        leading: frames of open GOPs: stored after a key frame, displayed before it, and predicted from the
            GOP before. A decoder that starts at that key frame skips them. None unless requested.
        hidden: number of stored frames that are never displayed because of an edit list; 0 unless requested.
        raw: an elementary stream, whose frames have no timestamps; ``times`` are then frame numbers.
        rotation: degrees by which players rotate the frames because of a tag.
        reorder: reorder delay that the stream declares, in frames.
        others: number of further video streams in the file, which are not read. Cover pictures do not count.
    """

    codec: str
    pix_fmt: str
    width: int
    height: int
    fps: Fraction
    frames: int
    time_base: Fraction
    channels: int
    color_space: str | None
    color_range: str | None
    color_primaries: str | None
    color_transfer: str | None
    audio: AudioInfo | None
    tag: str | None
    extradata_hash: str | None
    times: tuple[int, ...] | None = None
    key_frames: tuple[int, ...] | None = None
    places: tuple[int, ...] | None = None
    sizes: tuple[int, ...] | None = None
    leading: tuple[int, ...] | None = None
    reorder: int = 0
    hidden: int = 0
    raw: bool = False
    rotation: int = 0
    others: int = 0

    @property
    def configuration(self) -> str:
        """What files have to share to be joined: the decoder configuration and the colour tags."""
        tags = self.color_space, self.color_range, self.color_primaries, self.color_transfer
        return " ".join(str(part) for part in (self.extradata_hash, *tags))

    @property
    def closed(self) -> tuple[int, ...] | None:
        """The key frames at which the file can be cut; None if unknown.

        No frame stored after such a key frame is displayed before it, and no hidden frame is stored before
        it.
        """
        if self.key_frames is None or self.places is None:
            return None
        places = self.places
        return tuple(frame for frame in self.key_frames if places[frame] == frame)

    @cached_property
    def delay(self) -> int | None:
        """The greatest number of packets by which a frame is stored after its display position.

        0 if frames are stored in display order.
        """
        if self.places is None:
            return None
        return max((place - shown for shown, place in enumerate(self.places)), default=0)

    @property
    def decode_delay(self) -> int:
        """The number of frames by which decode times begin before the first frame, as in FFmpeg's muxer.

        This is the declared reorder delay, even if no frame needs it. Programs that copy files can
        concatenate those with the same delay in any order.
        """
        return max(self.delay or 0, self.reorder)

    @cached_property
    def missed(self) -> tuple[int, ...] | None:
        """The frames that a reader like LeRobot's misses because of open GOPs, seeking to each by its time.

        A seek in MP4 ends at the last key frame stored before a frame's display position. The value also
        contains ``frames`` if a file joined to the end would lose its first frame: FFmpeg's decoder drops a
        frame that directly follows the first open key frame of a sequence.
        """
        if self.leading is None or self.key_frames is None or self.places is None:
            return None
        keys, places = self.key_frames, self.places
        missed = {frame for frame in self.leading if places[keys[bisect(keys, frame)]] < frame}
        opened = {keys[bisect(keys, frame)] for frame in self.leading}
        for before, key, after in zip(keys, keys[1:], [*keys[2:], self.frames], strict=False):
            if before not in opened and key in opened and after not in opened and after == key + 1:
                missed.add(after)
        return tuple(sorted(missed))


def probe(
    path: str | Path,
    *,
    times: bool = False,
    rate: Fraction | None = None,
    ffprobe: str | None = None,
    complete: bool = False,
) -> StreamInfo:
    """Read the fields of a file's video stream with ffprobe. Results of unchanged files are reused.

    Args:
        path: the file.
        times: also read every frame's time and the key frames, from the packets.
        rate: frames per second of an elementary stream, which has no times: frame i is at i / rate. Ignored
            for other files.
        ffprobe: the program; None: the one that :func:`find_ffprobe` returns.
        complete: leave out a packet of which only a part is there, at the end of a truncated file.

    Raises:
        ConfigError: ``path`` is not a path.
        SourceError: the file does not exist, cannot be read as video, or has no video stream.
        ToolchainError: there is no ffprobe.
        FfmpegError: ffprobe could not run: it was killed, or lacked memory.

    Example:
        >>> info = probe("top.mp4", times=True)
        >>> info.frames, info.fps, info.key_frames[:3]
        (300, Fraction(30, 1), (0, 2, 4))
    """
    path = checked_path("path", path)
    check_kind("rate", rate, (int, Fraction), "a Fraction")
    check_kind("ffprobe", ffprobe, str, "the name or path of a program")
    program = ffprobe or find_ffprobe()
    try:
        found = os.stat(path)  # noqa: PTH116 - one system call
    except OSError:
        return _probed(path, times, rate, program, complete)  # reports what is wrong
    state = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    key = (str(path), state, times, rate, program, complete)
    known = _kept.get(key)
    if known is None:
        known = _kept[key] = _probed(path, times, rate, program, complete)
        frames = 0
        for place, (one, info) in enumerate(reversed(list(_kept.items()))):
            frames += info.frames
            if place >= _MOST_KEPT or frames > _MOST_KEPT_FRAMES:
                _kept.pop(one, None)
    return known


def _listed(path: str | Path, program: str, *, packets: bool, complete: bool) -> list[str]:
    """Return ffprobe's lines of a file's programs and streams, and of its packets if they are requested."""
    streams_of = ("-show_streams", "-show_data_hash", "sha256", "-show_entries")
    packets_of = "packet=stream_index,pts,size,flags,pos"
    # Line by line: the JSON of a long file's packets would need hundreds of megabytes.
    if not packets:
        return ask(program, path, *streams_of, "format=nb_programs")
    kept = ("-fflags", "+discardcorrupt") if complete else ()
    if Path(path).stat().st_size < _HASHED_BYTES:
        return ask(program, path, *kept, *streams_of, f"format=nb_programs:{packets_of}")
    # If packets are listed, it also hashes each of them, whether displayed or not.
    answer = ask(program, path, *streams_of, "format=nb_programs")
    return answer + ask(program, path, *kept, "-show_entries", packets_of)


def _probed(path: str | Path, times: bool, rate: Fraction | None, program: str, complete: bool) -> StreamInfo:
    raw = _demuxer(path) in RAW
    if raw and times and rate is None:
        raise SourceError(
            f"{path} is an elementary stream, whose frames have no timestamps; "
            f"{call('encode', source=path, output='OUT.MP4', fps='RATE')} stores it as a video"
        )
    answer = _listed(path, program, packets=times, complete=complete)
    programs = fields_of(next((line for line in answer if line.startswith("format|")), ""))
    if int(programs.get("nb_programs", 0)) > 1:
        raise SourceError(
            f"{path} holds {programs['nb_programs']} programs",
            expected="one",
            fix="ffmpeg -i FILE -map 0:p:NUMBER -c copy OUT.ts extracts one of them",
        )
    streams = [fields_of(line) for line in answer if line.startswith("stream|")]
    videos = [s for s in streams if s.get("codec_type") == "video"]
    video = next(iter(videos), None)
    if video is None:
        raise SourceError(f"{path} has no video stream")
    fps = _fraction(video.get("avg_frame_rate")) or _fraction(video.get("r_frame_rate"))
    time_base = _fraction(video.get("time_base"))
    if not (fps > 0 and time_base > 0):
        raise SourceError(
            f"{path} does not state a frame rate: {video.get('avg_frame_rate')} frames a second, time base "
            f"{video.get('time_base')}",
            expected="both above 0",
            fix="remux the file, or restore it",
        )
    width, height = int(video.get("width", 0)), int(video.get("height", 0))
    if not (width > 0 and height > 0):
        raise SourceError(
            f"{path} does not state the size of its frames: the decoder found no complete key frame",
            fix="restore the file, or cut it from its source again, from a key frame on",
        )
    audio = next((s for s in streams if s.get("codec_type") == "audio"), None)
    # A stream of a program (MPEG-TS) is listed twice: with its program and by itself.
    others = {s["index"] for s in videos if s.get("disposition:attached_pic") != "1"} - {video["index"]}
    info = StreamInfo(
        codec=video.get("codec_name", "unknown"),
        pix_fmt=video.get("pix_fmt", "unknown"),
        width=width,
        height=height,
        fps=fps,
        frames=0 if times else _frame_count(video, program, path),
        time_base=time_base,
        channels=_channels(video.get("pix_fmt", "")),
        color_space=_tag(video.get("color_space")),
        color_range=_tag(video.get("color_range")),
        color_primaries=_tag(video.get("color_primaries")),
        color_transfer=_tag(video.get("color_transfer")),
        audio=_audio(audio) if audio else None,
        tag=tag if re.fullmatch(r"\w{4}", tag := video.get("codec_tag_string", "")) else None,
        extradata_hash=video.get("extradata_hash"),
        raw=raw,
        rotation=_rotation(video),
        others=len(others),
        reorder=int(video["has_b_frames"]) if video.get("has_b_frames", "").isdigit() else 0,
    )
    if not times:
        return info
    packets = [line for line in answer if line.startswith(f"packet|stream_index={video['index']}|")]
    if not raw:
        return _with_packets(info, path, packets)
    assert rate is not None
    # Each packet is a frame. Key frames are not needed: an elementary stream cannot be entered by time.
    every = tuple(range(len(packets)))
    info = replace(info, fps=rate, time_base=1 / rate, frames=len(every))
    return replace(info, times=every, key_frames=(), places=every, leading=())


def _with_packets(info: StreamInfo, path: str | Path, packets: Iterable[str]) -> StreamInfo:
    """Return a stream's fields with those that are read from its packets.

    Args:
        info: the other fields.
        path: the file.
        packets: ffprobe's lines of the stream's packets.

    Raises:
        SourceError: a packet has no timestamp.
    """
    own: list[tuple[int, bool, int, int]] = []  # time, key frame, position in stored order, size
    at: list[str] = []
    hidden = 0
    for line in packets:
        fields = fields_of(line)
        at.append(fields.get("pos", ""))
        if "D" in fields["flags"]:
            hidden += 1
            continue  # hidden by an edit list: decoded, but never displayed
        if not fields["pts"].lstrip("-").isdigit():
            raise SourceError(
                f"{path} has frames without a timestamp. Convert it without loss first: "
                "`ffmpeg -i FILE -c:v ffv1 NEW.mkv`"
            )
        own.append((int(fields["pts"]), "K" in fields["flags"], len(at) - 1, int(fields["size"])))
    own.sort()
    keys = tuple(i for i, (_, key, _, _) in enumerate(own) if key)
    places = tuple(place for _, _, place, _ in own)
    leading = leading_frames(keys, places)
    if leading and info.codec == "hevc":
        found = (at[places[frame]] for frame in leading)
        leading = without_radl(path, leading, [int(one) if one.isdigit() else None for one in found])
    return replace(
        info,
        frames=len(own),
        times=tuple(pts for pts, _, _, _ in own),
        key_frames=keys,
        places=places,
        sizes=tuple(size for _, _, _, size in own),
        leading=leading,
        hidden=hidden,
    )


def leading_frames(keys: Sequence[int], places: Sequence[int]) -> tuple[int, ...]:
    """Return the frames that are stored after a key frame and displayed before it.

    Args:
        keys: indices of the key frames.
        places: position of each frame's packet in stored order.
    """
    if all(places[key] == key for key in keys):
        return ()
    leading = []
    key, known = -1, frozenset(keys)
    for frame in sorted(range(len(places)), key=places.__getitem__):
        if frame in known:
            key = frame
        elif frame < key:
            leading.append(frame)
    return tuple(sorted(leading))


def without_radl(path: str | Path, leading: Sequence[int], starts: Sequence[int | None]) -> tuple[int, ...]:
    """Remove HEVC's leading pictures that can be decoded without the frames before their key frame.

    Args:
        path: an MP4 file.
        leading: indices of the leading frames.
        starts: byte offset of each one's packet; None: unknown.
    """

    def needed(read: Reader, _: int) -> list[Range]:
        for start in starts:
            if start is not None:
                _is_radl(cast(BinaryIO, ReadFile(read)), start)
        return []  # what was read suffices

    with held(Path(path), needs=needed, name="leading frames"), Path(path).open("rb") as file:
        found = zip(leading, starts, strict=True)
        return tuple(frame for frame, start in found if start is None or not _is_radl(file, start))


def _is_radl(file: BinaryIO, place: int) -> bool:
    """Return whether a packet in an MP4 file is a random access decodable leading picture."""
    for _ in range(_MOST_UNITS):
        file.seek(place)
        head = file.read(_UNIT_HEAD)
        if len(head) < _UNIT_HEAD:
            return False
        kind = head[4] >> 1 & 63
        if kind <= _LAST_SLICE:
            return kind in _RADL
        place += 4 + int.from_bytes(head[:4], "big")  # a delimiter or message before the picture
    return False


def _demuxer(path: str | Path) -> str:
    """Return the demuxer for a file's first bytes."""
    try:
        return demuxer_of(Path(path))
    except FileNotFoundError:
        raise SourceError(f"{path} does not exist") from None
    except OSError as error:
        raise SourceError(f"{path} cannot be opened: {error.strerror}") from None


def ask(program: str, path: str | Path, *questions: str, timeout: float = STALL_SECONDS) -> list[str]:
    """Return the lines of ffprobe's answer; the file is opened with the demuxer of its first bytes."""
    demuxer = _demuxer(path)
    fetch_first_frames(Path(path))
    limits = [word for name, value in INPUT_LIMITS.items() for word in (f"-{name}", value)]
    command = [program, "-hide_banner", "-loglevel", "error", *limits, "-f", demuxer]
    try:
        asked = [*command, *questions, "-of", "compact", file_url(str(path))]
        return run_asked(asked, timeout=timeout).splitlines()
    except FfmpegError as error:
        if error.unable:
            raise
        reason = error.stderr[-1] if error.stderr else "ffprobe gave no reason"
        raise SourceError(f"{path} cannot be read as a video: {reason}") from None


def fields_of(line: str) -> dict[str, str]:
    """Return the fields of a line of ffprobe's compact format, values escaped as in it."""
    parts = _PART.findall(line) if "\\" in line else line.split("|")
    return dict(part.partition("=")[::2] for part in parts[1:])


def _rotation(video: dict[str, str]) -> int:
    """Return the rotation in the display matrix, or in the older rotate tag."""
    found = (value for name, value in video.items() if name.endswith((":rotation", "tag:rotate")))
    text = next(found, "0")
    return int(text) if re.fullmatch(r"-?\d+", text) else 0


def _fraction(text: str | None) -> Fraction:
    match = re.fullmatch(r"(\d+)/(\d+)", text or "")
    return Fraction(int(match[1]), int(match[2])) if match and int(match[2]) else Fraction(0)


def _tag(text: str | None) -> str | None:
    return None if text in (None, "unknown", "unspecified", "reserved", "N/A") else text


def _frame_count(video: dict[str, str], program: str, path: str | Path) -> int:
    """Return the number of frames in the container's index, or of packets if it has none."""
    if video.get("nb_frames", "").isdigit():
        return int(video["nb_frames"])
    query = ("-count_packets", "-select_streams", "v:0", "-show_entries", "stream=nb_read_packets")
    # A stream of a program (MPEG-TS) is listed twice: with its program and by itself.
    lines = (line for line in ask(program, path, *query) if line.startswith("stream|"))
    counted = fields_of(next(lines, "")).get("nb_read_packets", "")
    return int(counted) if counted.isdigit() else 0


def _channels(pix_fmt: str) -> int:
    if pix_fmt in PIXEL_FORMATS:
        return PIXEL_FORMATS[pix_fmt].channels
    if pix_fmt.startswith(("gray", "mono")):
        return 1
    return 4 if pix_fmt.startswith(("yuva", "rgba", "bgra", "argb", "abgr", "gbrap")) else 3


def _audio(stream: dict[str, str]) -> AudioInfo:
    def number(key: str) -> int | None:
        return int(stream[key]) if stream.get(key, "").isdigit() else None

    return AudioInfo(
        codec=stream.get("codec_name", "unknown"),
        channels=number("channels") or 0,
        channel_layout=stream.get("channel_layout"),
        sample_rate=number("sample_rate") or 0,
        bit_rate=number("bit_rate"),
        bit_depth=number("bits_per_raw_sample") or number("bits_per_sample") or None,
    )
