"""Write the packets of video in a bag to a file, and map its frames to messages."""

from __future__ import annotations

import hashlib
import warnings
import weakref
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from copy import copy
from fractions import Fraction
from functools import cached_property
from itertools import groupby, repeat
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from ffenc.codecs.table import CODECS
from ffenc.compiler.packets import compile_fed_packets
from ffenc.dataset.sources.ros_bag import Bag
from ffenc.dataset.sources.ros_messages import bytes_of, required
from ffenc.dataset.sources.ros_time import Stream
from ffenc.errors import FfencWarning, FfmpegError, SourceError
from ffenc.ffmpeg.decoded import decoded_frames
from ffenc.ffmpeg.probe import StreamInfo, probe
from ffenc.ffmpeg.process import run_fed
from ffenc.ffmpeg.toolchain import Toolchain, toolchains
from ffenc.frames.header import ImageHeader
from ffenc.frames.reader import VideoReader
from ffenc.frames.sources import EncodedFrame, files_fingerprint
from ffenc.temporary import temporary_folder

Codec = Literal["h264", "hevc"]
Numbers = npt.NDArray[np.int64]

# Codec names in messages; ffmpeg_image_transport uses the encoder's, with formats after a semicolon.
_CODECS: dict[str, Codec] = {
    "h264": "h264",
    "h265": "hevc",
    "hevc": "hevc",
    "libx264": "h264",
    "libx265": "hevc",
}
_GAP = 1.5  # times the usual interval of messages: a message may be lost in between


def codec_of(message: Any, where: str) -> Codec:
    """Return the codec of a message's packet.

    Raises:
        SourceError: the codec is not H.264 or H.265.
    """
    said = str(getattr(message, "format", None) or getattr(message, "encoding", ""))
    name = said.partition(";")[0].lower()
    found = _CODECS.get(name) or _CODECS.get(name.partition("_")[0])
    if found is None:
        raise SourceError(
            f"{where}: holds packets of {said or 'an unknown codec'}; H.264 and H.265 are supported"
        )
    return found


def begins(packet: bytes, codec: Codec) -> bool:
    """Return whether decoding can begin at a packet: it has a key frame, or parameter sets before one."""
    at = packet.find(b"\0\0\1")
    while at >= 0 and at + 3 < len(packet):
        unit = packet[at + 3] & 31 if codec == "h264" else packet[at + 3] >> 1 & 63
        if unit in ((5, 7) if codec == "h264" else (*range(16, 22), 32, 33)):
            return True
        at = packet.find(b"\0\0\1", at + 3)
    return False


class Packets:
    """The decodable packets of a topic, in a temporary file that is deleted with this object.

    Each message is a packet, recorded in decoding order. If frames are shown in another order (B-frames), the
    file can only be decoded; otherwise its packets can also be copied.

    Args:
        bag, topic: the recording and its topic.
        fps: frame rate of the file: frame i is at i / fps.
        stamps: time of each message of the topic in nanoseconds, used to find lost messages.
        programs: ffmpeg and ffprobe; None: those that are found.

    Attributes:
        shown: index of the message of each frame of the file, in display order.
        first: index of the first message that can be decoded: a key frame.
        lost: number of messages after it that cannot be decoded, as they refer to one that is not in the bag.
        reordered: display order differs from decoding order.
        path: path of the file.
        info: its stream fields.
        programs: the programs that decode it.

    Raises:
        SourceError: the codec is not supported, or the packets are damaged.
    """

    def __init__(
        self,
        bag: Bag,
        topic: str,
        fps: Fraction,
        stamps: Numbers,
        programs: tuple[str | None, str | None] = (None, None),
    ) -> None:
        self.bag, self.topic, self.fps = bag, topic, fps
        self.programs = toolchains(*programs)[0]
        with ExitStack() as made:
            self._folder = made.enter_context(temporary_folder())
            weakref.finalize(self, made.pop_all().close)
        self._where = f"{bag.path}: {topic}"
        self._find_first()
        self.path = self._folder / "packets.mp4"
        self._damaged = False
        every = np.arange(self.first, len(stamps))
        self.info = self._copied(every)
        gaps = _gaps(stamps[self.first :])
        self.reordered, self.lost = self.info.reorder > 0, 0
        self.shown: Numbers = every
        if not (self.reordered or gaps or self._damaged):
            return
        decoded = decoded_frames(self.path, self.info, ffprobe=self.programs.ffprobe)
        order = np.array([frame.place for frame in decoded], np.int64)
        self.reordered = bool((np.diff(order) < 0).any())
        whole = np.zeros(len(every), bool)
        whole[order] = True
        for place in self._left_out(whole):
            whole[place : self._next_entry(place, order)] = False
        for shown, frame in enumerate(decoded):
            if frame.broken:
                # The damage is reported with the frame that is output then, after more packets are decoded.
                last = shown + self.info.reorder + 1 if self.reordered else frame.place
                whole[min(frame.place, shown) : self._next_entry(last, order)] = False
        order = order[whole[order]]
        self.lost = len(every) - len(order)
        self.shown = every[order]
        if self.reordered:
            self._write_stream(set(self.shown.tolist()))
        elif self.lost:
            self.info = self._copied(self.shown)

    def _find_first(self) -> None:
        self.first = 0
        codec: Codec | None = None
        for message in self._messages():
            codec = codec or codec_of(message, self._where)
            if begins(_packet(message, self._where), codec):
                self.codec: Codec = codec
                return
            self.first += 1
        what = "no messages; leave it out of the mapping"
        if self.first:
            what = "no key frame in packets with start codes (Annex B), so nothing can be decoded"
        raise SourceError(f"{self._where}: has {what}")

    def _messages(self) -> Iterator[Any]:
        for raw in self.bag.messages([self.topic]):
            yield self.bag.decoded(raw)

    def _chosen(self, numbers: Iterable[int]) -> Iterator[bytes]:
        """Yield the packets of some messages, in the order of the bag."""
        chosen = set(numbers)
        for number, message in enumerate(self._messages()):
            if number in chosen:
                yield _packet(message, self._where)

    def _copied(self, numbers: Numbers) -> StreamInfo:
        """Write the packets of some messages to the file; packet i is at i / fps."""
        command = compile_fed_packets(
            self.codec,
            fps=self.fps,
            output=str(self.path),
            tag=next(row.tag for row in CODECS.values() if row.stream == self.codec),
            program=self.programs.ffmpeg,
        )
        try:
            try:
                run_fed(command, self._chosen(numbers.tolist()))
            except FfmpegError as error:
                if error.unable or error.returncode:
                    raise
                self._damaged = True  # FFmpeg decodes the first packets, and reports what is missing
            info = probe(self.path, times=True, ffprobe=self.programs.ffprobe)
        except FfmpegError as error:
            if error.unable:
                raise
            raise SourceError(
                f"{self._where}: its packets cannot be put into a file: {error.cause}"
            ) from None
        if info.frames != len(numbers):
            raise SourceError(
                f"{self._where}: {len(numbers):,} messages hold {info.frames:,} frames",
                expected="one frame in each",
            )
        return info

    def _left_out(self, whole: npt.NDArray[np.bool_]) -> list[int]:
        """Return the packets whose frames the decoder did not output, and to which others refer.

        Packets directly after a first key frame of an open GOP do not count: they refer to the GOP before
        it, and no other packets refer to them.
        """
        places = np.flatnonzero(~whole)
        leading = places == np.arange(1, len(places) + 1)
        return [int(place) for place in places[~np.logical_and.accumulate(leading)]]

    def _next_entry(self, place: int, order: Numbers) -> int:
        """Return the next key frame after a packet that no packet stored after it is shown before."""
        assert self.info.key_frames is not None
        rank = np.full(self.info.frames, np.iinfo(np.int64).max)
        rank[order] = np.arange(len(order))
        least = np.minimum.accumulate(rank[::-1])[::-1]
        return next(
            (key for key in self.info.key_frames if key > place and rank[key] == least[key]), self.info.frames
        )

    def _write_stream(self, numbers: set[int]) -> None:
        """Write some packets as an elementary stream, whose frames are decoded in display order."""
        self.path = self._folder / f"packets.{self.codec}"
        with self.path.open("wb") as file:
            for packet in self._chosen(numbers):
                file.write(packet)
        self.info = probe(self.path, times=True, rate=self.fps, ffprobe=self.programs.ffprobe)

    @cached_property
    def places(self) -> dict[int, int]:
        """Return message -> frame of the file, for the messages that can be decoded."""
        return {number: place for place, number in enumerate(self.shown.tolist())}

    def in_order_of_showing(self, stamps: Numbers) -> Numbers:
        """Return the times of frames whose display order differs from the recording order.

        Args:
            stamps: time of each message.

        Returns:
            The stamps if they ascend in display order, as a camera's do; if they ascend in recording order,
            the same times assigned in display order.

        Raises:
            SourceError: they ascend in neither order, so that the times of frames are unknown.
        """
        if (np.diff(stamps[self.shown]) >= 0).all():
            return stamps
        if (np.diff(stamps[np.sort(self.shown)]) < 0).any():
            raise SourceError(
                f"{self._where}: has B-frames, and its timestamps ascend neither in display order "
                "nor in recording order; write stamps: received under time in the mapping"
            )
        found = stamps.copy()
        found[self.shown] = np.sort(stamps[self.shown])
        return found

    @cached_property
    def header(self) -> ImageHeader:
        """Header of the decoded frames."""
        return ImageHeader("raw", self.info.width, self.info.height, 8, 3, order="rgb24")

    @cached_property
    def origin(self) -> str:
        """Return a text that identifies what the file was created from."""
        digest = hashlib.sha256(self.shown.tobytes()).hexdigest()
        return f"{files_fingerprint(self.bag.files)} {self.topic} {self.fps} {digest}"


def _packet(message: Any, where: str) -> bytes:
    required(message, ("data",), where)
    return bytes_of(message.data, where)


def _gaps(stamps: Numbers) -> bool:
    """Return whether a message may be missing between two others."""
    steps = np.diff(np.sort(stamps))
    steps = steps[steps > 0]
    return bool(len(steps)) and float(steps.max()) > _GAP * float(np.median(steps))


def decodable(
    bag: Bag,
    stream: Stream,
    fps: Fraction,
    which: str,
    programs: tuple[str | None, str | None] = (None, None),
) -> tuple[Stream, Packets]:
    """Return a topic's times and packets, limited to the video that can be decoded.

    Args:
        bag: the recording.
        stream: times of the topic.
        fps: frames per second.
        which: time stamps to use, ``header`` or ``received``.
        programs: ffmpeg and ffprobe; None: those that are found.

    Raises:
        SourceError: as for :class:`Packets`, or the time stamps are in neither order.

    Warns:
        FfencWarning: packets cannot be decoded, or frames get time stamps of other messages.
    """
    given = stream.stamps(which)
    packets = Packets(bag, stream.topic, fps, given, programs)
    where = f"{bag.path}: {stream.topic}"
    counts = {
        "packets before the first key frame": packets.first,
        "packets that refer to a lost one": packets.lost,
    }
    notes = {what: count for what, count in counts.items() if count}
    for what, count in notes.items():
        warnings.warn(f"{where}: {count} {what} cannot be decoded", FfencWarning, stacklevel=6)
    stamps = packets.in_order_of_showing(given) if packets.reordered else given
    if stamps is not given:
        text = (
            f"{where}: has B-frames, and timestamps in recording order; frames get the same "
            "timestamps in display order"
        )
        warnings.warn(text, FfencWarning, stacklevel=6)
        by_header = which == "header" and stream.header is not None
        stream = replace(stream, header=stamps) if by_header else replace(stream, received=stamps)
    return replace(stream, taken=np.sort(packets.shown), notes=notes), packets


class DecodedFrames:
    """Decoded frames of packets, for episodes that do not use consecutive packets.

    Args:
        packets: packets of the topic.
        picks: index of the message for each frame.
    """

    def __init__(self, packets: Packets, picks: Numbers) -> None:
        self._packets, self._picks = packets, picks

    def __len__(self) -> int:
        return len(self._picks)

    def __iter__(self) -> Iterator[EncodedFrame]:
        packets = self._packets
        where = f"{packets.bag.path}: {packets.topic}"
        rate = packets.fps if packets.info.raw else None
        ffmpeg, ffprobe = packets.programs.ffmpeg, packets.programs.ffprobe
        with VideoReader(packets.path, rate=rate, ffmpeg=ffmpeg, ffprobe=ffprobe) as reader:
            runs = [(number, len(list(same))) for number, same in groupby(self._picks.tolist())]
            places = [packets.places[number] for number, _ in runs]
            for (number, times), frame in zip(runs, reader.each(places), strict=True):
                name = f"{where}, message {number}"
                yield from repeat(EncodedFrame(name, frame.tobytes(), raw=packets.header), times)

    def using(self, programs: Toolchain) -> DecodedFrames:
        """Return the frames for a machine with the same programs at other paths."""
        packets = copy(self._packets)
        packets.programs = programs
        return DecodedFrames(packets, self._picks)

    def fingerprint(self) -> str:
        return f"{self._packets.origin} {self._picks.tolist()}"
