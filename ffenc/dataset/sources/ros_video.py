"""Packets of video in a bag: remuxed into a file whose frame i is message i, without decoding them."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property
from itertools import groupby, repeat
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ffenc.codecs.table import CODECS
from ffenc.compiler.command import compile_fed_packets
from ffenc.dataset.sources.ros_bag import Bag
from ffenc.errors import FfmpegError, SourceError
from ffenc.ffmpeg.probe import StreamInfo, probe
from ffenc.ffmpeg.process import run_fed
from ffenc.ffmpeg.toolchain import toolchains
from ffenc.frames.images import ImageHeader
from ffenc.frames.reader import VideoReader
from ffenc.frames.sources import EncodedFrame, files_fingerprint

Codec = Literal["h264", "hevc"]

# What messages call their codec; ffmpeg_image_transport names the encoder, and formats behind a semicolon.
_CODECS: dict[str, Codec] = {
    "h264": "h264",
    "h265": "hevc",
    "hevc": "hevc",
    "libx264": "h264",
    "libx265": "hevc",
}


def codec_of(message: Any, where: str) -> Codec:
    """The codec of a message's packet.

    Raises:
        SourceError: it is another than H.264 or H.265.
    """
    said = str(getattr(message, "format", None) or getattr(message, "encoding", ""))
    name = said.partition(";")[0].lower()
    found = _CODECS.get(name) or _CODECS.get(name.partition("_")[0])
    if found is None:
        raise SourceError(
            f"{where}: holds packets of {said or 'no codec that is said'}; H.264 and H.265 are read"
        )
    return found


def begins(packet: bytes, codec: Codec) -> bool:
    """Whether a decoder can begin at a packet: it holds a key frame, or parameters that precede one."""
    at = packet.find(b"\0\0\1")
    while at >= 0 and at + 3 < len(packet):
        unit = packet[at + 3] & 31 if codec == "h264" else packet[at + 3] >> 1 & 63
        if unit in ((5, 7) if codec == "h264" else (*range(16, 22), 32, 33)):
            return True
        at = packet.find(b"\0\0\1", at + 3)
    return False


class Packets:
    """The packets of a topic from its first key frame on, in a file that is there as long as this is.

    Args:
        bag, topic: where they are.
        fps: frames a second of the file: frame i, which is message ``usable`` + i, is at i / fps.

    Attributes:
        usable: the first message that can be decoded: a key frame.
        path: the file.
        info: its fields.

    Raises:
        SourceError: they are of a codec that is not read, or are damaged.
    """

    def __init__(self, bag: Bag, topic: str, fps: Fraction) -> None:
        self.bag, self.topic = bag, topic
        folder = tempfile.mkdtemp(prefix="ffenc-bag-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.path = Path(folder) / "packets.mp4"
        self.usable, self.count = 0, 0
        where = f"{bag.path}: {topic}"
        messages = self._messages()
        first = next(messages, None)
        if first is None:
            raise SourceError(f"{where}: has no messages; leave it out of the mapping")
        codec = codec_of(first, where)
        while first is not None and not begins(bytes(first.data), codec):
            self.usable += 1
            first = next(messages, None)
        if first is None:
            raise SourceError(f"{where}: has no key frame: nothing of it can be decoded")
        toolchain = toolchains()[0]
        tag = next(row.tag for row in CODECS.values() if row.stream == codec)

        def packets() -> Iterator[bytes]:
            yield bytes(first.data)
            for message in messages:
                yield bytes(message.data)

        command = compile_fed_packets(
            codec, fps=fps, output=str(self.path), tag=tag, program=toolchain.ffmpeg
        )
        try:
            run_fed(command, packets())
            self.info: StreamInfo = probe(self.path, times=True, ffprobe=toolchain.ffprobe)
        except FfmpegError as error:
            raise SourceError(f"{where}: its packets cannot be put into a file: {error.cause}") from None
        if self.info.frames != self.count - self.usable:
            raise SourceError(
                f"{where}: {self.count - self.usable:,} messages hold {self.info.frames:,} frames; one frame "
                "in each is expected, without B-frames"
            )

    def _messages(self) -> Iterator[Any]:
        for raw in self.bag.messages([self.topic]):
            self.count += 1
            yield self.bag.decoded(raw)

    @cached_property
    def header(self) -> ImageHeader:
        """What its frames are once they are decoded."""
        return ImageHeader("raw", self.info.width, self.info.height, 8, 3, order="rgb24")


class DecodedFrames:
    """Frames of packets that are not taken one after another: decoded, and picked.

    Args:
        packets: the topic's.
        picks: the number of each frame's message.
    """

    def __init__(self, packets: Packets, picks: npt.NDArray[np.int64]) -> None:
        self._packets, self._picks = packets, picks

    def __len__(self) -> int:
        return len(self._picks)

    def __iter__(self) -> Iterator[EncodedFrame]:
        where = f"{self._packets.bag.path}: {self._packets.topic}"
        with VideoReader(self._packets.path) as reader:
            runs = [(number, len(list(same))) for number, same in groupby(self._picks.tolist())]
            places = [number - self._packets.usable for number, _ in runs]
            for (number, times), frame in zip(runs, reader.each(places), strict=True):
                name = f"{where}, message {number}"
                yield from repeat(EncodedFrame(name, frame.tobytes(), raw=self._packets.header), times)

    def fingerprint(self) -> str:
        files = files_fingerprint(self._packets.bag.files)
        return f"{files} {self._packets.topic} {self._picks.tolist()}"
