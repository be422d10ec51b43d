"""Frames of a video file through PyAV: FFmpeg's libraries in this process, without starting a program.

The samples are equal to those of the ffmpeg program: the decoders used here are exact by specification, and
the same filter with the same options converts colours. PyAV does not report missing packets and FFmpeg's
messages about damage. So every packet is compared with the file's index, frames must be consecutive, and
FFmpeg's error messages are counted. After any deviation no frame is returned; the caller then uses the ffmpeg
program, which returns the frame or reports the fault.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ffenc.compiler.inputs import INPUT_LIMITS, file_url
from ffenc.errors import FfencError, SourceError
from ffenc.ffmpeg.demuxer import demuxer_of
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.frames.excerpt import FrameIndex
from ffenc.storage.mirror import held

if TYPE_CHECKING:
    from types import ModuleType

    import av
    from av.container import InputContainer
    from av.filter import Graph
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

HOW_TO_GET_PYAV = "pip install 'ffenc[reader]'"
# All builds' decoders give the same samples for these codecs; MPEG-4 and JPEG leave rounding to the decoder.
EXACT_CODECS = ("h264", "hevc", "av1", "ffv1")
_OLDEST = 15


class NotGivenError(FfencError):
    """PyAV did not return the requested frame with certainty."""


def load() -> ModuleType:
    """Import PyAV.

    Raises:
        NotGivenError: PyAV is not installed, or cannot be used.
    """
    try:
        module = importlib.import_module("av")
        importlib.import_module("av.filter")
    except ImportError as error:
        raise NotGivenError(f"PyAV cannot be imported: {error}") from None
    if int(module.__version__.partition(".")[0]) < _OLDEST:
        raise NotGivenError(f"PyAV {module.__version__} is too old, {_OLDEST} or newer is needed")
    return module


class LiveDecoder:
    """An open file and its decoder, which stay at the position of the last frame.

    For one thread at a time. The file is opened when the first frame is read.

    Args:
        path: the file.
        info: its stream fields, with ``times``.
        conversion: options of the conversion to RGB, see :func:`~ffenc.compiler.colour.rgb_conversion`; None:
            the samples are returned as stored.
    """

    def __init__(self, path: Path, info: StreamInfo, conversion: Mapping[str, str] | None) -> None:
        assert info.times is not None
        assert info.places is not None
        assert info.sizes is not None
        self._path, self._info, self._conversion = path, info, conversion
        self._index = FrameIndex(info)
        self._keys = frozenset(info.key_frames or ())
        self._times, self._places, self._sizes = info.times, info.places, info.sizes
        places = np.array(info.places)
        self._stored = np.full(int(places.max()) + 1, -1)  # stored position -> frame; -1: hidden
        self._stored[places] = np.arange(len(places))
        # A frame may refer to all frames stored before it, of which this one is displayed last.
        self._needs = np.maximum.accumulate(self._stored)[places]
        self._back = 0  # seek to so many frames before a key frame, so as not to land after it
        self._file: _File | None = None
        self._forget()

    def _forget(self) -> None:
        self._packets: Iterator[av.Packet] = iter(())
        self._place = -1  # of the next packet; -1: a seek is needed
        self._entered = -1  # key frame of the last seek
        self._given = -1  # last frame that the decoder returned
        self._ready: deque[tuple[int, VideoFrame]] = deque()  # decoded frames, from the last read one on

    def close(self) -> None:
        """Close the file; the next read opens it again."""
        file, self._file = self._file, None
        self._forget()
        if file is not None:
            file.container.close()

    def abandon(self) -> None:
        """Leave the file open forever, in a process forked from the one that opened it.

        Both processes share the file's position, and freeing the decoder would wait forever for threads that
        do not exist here.
        """
        if self._file is not None:
            kept = (self._file, self._packets, self._ready)
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
        self._file = None
        self._forget()

    def read(self, index: int, room: npt.NDArray[Any]) -> None:
        """Decode a frame into an array.

        Args:
            index: the frame; fastest shortly after the frame that was read last.
            room: ``(H, W, 3)`` uint8, for depth ``(H, W)`` uint16; contiguous.

        Raises:
            NotGivenError: PyAV cannot open the file, it is damaged, or PyAV reads it differently from
                ffprobe.
        """
        try:
            if self._file is None:
                self._file = _File(self._path)
            self._copy(self._decoded(self._file, index), self._file, room)
        except NotGivenError:
            self._place = -1
            raise
        except (OSError, ValueError, SourceError) as error:  # the first two include PyAV's own errors
            self._place = -1
            raise NotGivenError(f"frame {index}: {error}") from None

    def _decoded(self, file: _File, index: int) -> VideoFrame:
        held = self._ready and self._ready[0][0] <= index <= self._given
        # Decode forwards, unless a key frame in between makes a seek shorter.
        further = self._given < index and self._index.key(index) <= self._given + 1
        if self._place < 0 or not (held or further):
            self._enter(file, self._index.key(index))
        while self._ready and self._ready[0][0] < index:
            self._ready.popleft()
        while self._given < self._needs[index]:
            packet = next(self._packets, None)
            if packet is None:
                raise NotGivenError(f"frame {index}: the file ends before it")
            self._decode(file, packet)
            while self._ready and self._ready[0][0] < index:
                self._ready.popleft()
        if not self._ready or self._ready[0][0] != index:
            raise NotGivenError(f"frame {index} was skipped")
        return self._ready[0][1]

    def _enter(self, file: _File, key: int) -> None:
        """Seek to a key frame, or to one before it if the container's seek lands there."""
        for back in dict.fromkeys((self._back, self._info.decode_delay, key)):
            self._forget()
            file.container.seek(self._times[max(0, key - back)], stream=file.stream)
            self._packets = file.container.demux(file.stream)
            packet = next(self._packets, None)
            found = self._frame_at(packet.pts) if packet is not None else -1
            if packet is not None and 0 <= found <= key and found in self._keys:
                self._back = back
                self._place, self._entered = self._places[found], found
                self._decode(file, packet)
                return
        raise NotGivenError(f"PyAV did not find key frame {key}")

    def _decode(self, file: _File, packet: av.Packet) -> None:
        """Send a packet to the decoder, and append the decoded frames to those that are ready."""
        if packet.size:  # otherwise the end, at which the decoder returns its last frames
            self._compare(packet)
        for frame in file.decode(packet):
            number = self._frame_at(frame.pts)
            if number < 0 or frame.is_corrupt:
                raise NotGivenError(f"the frame at tick {frame.pts} is damaged or not in the index")
            # Frames displayed before an open key frame need frames before it in the file, and are dropped.
            if number != self._given + 1 and not self._given < number <= self._entered:
                raise NotGivenError(f"frame {self._given + 1} was left out")
            self._given = number
            self._ready.append((number, frame))

    def _compare(self, packet: av.Packet) -> None:
        """Compare a packet with the one that ffprobe listed at its position."""
        frame = int(self._stored[self._place]) if self._place < len(self._stored) else -1
        if frame < 0:
            same = packet.is_discard
        else:
            same = (packet.pts, packet.size) == (self._times[frame], self._sizes[frame])
        if packet.is_corrupt or not same:
            raise NotGivenError(f"packet {self._place} is not the one that is in the index")
        self._place += 1

    def _frame_at(self, pts: int | None) -> int:
        """Return the frame at a tick; -1: there is none."""
        if pts is None:
            return -1
        frame = bisect_left(self._times, pts)
        return frame if frame < len(self._times) and self._times[frame] == pts else -1

    def _copy(self, frame: VideoFrame, file: _File, room: npt.NDArray[Any]) -> None:
        info = self._info
        if (frame.width, frame.height) != (info.width, info.height):
            raise NotGivenError(f"a frame of {frame.width}x{frame.height} pixels")
        if self._conversion is not None:
            frame = file.converted(frame, self._conversion)
        elif frame.format.name != info.pix_fmt:
            raise NotGivenError(f"a frame of {frame.format.name}")
        plane = frame.planes[0]
        lines = np.frombuffer(memoryview(plane), np.uint8).reshape(info.height, plane.line_size)
        target = room.reshape(info.height, -1).view(np.uint8)
        target[...] = lines[:, : target.shape[1]]


class _File:
    """PyAV's objects of an open file.

    Raises:
        NotGivenError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._av = load()
        with held(path):  # an open file stays readable, whatever happens to its path
            self.container: InputContainer = self._av.open(
                file_url(str(path)),
                format=demuxer_of(path),
                container_options=dict(INPUT_LIMITS),
                metadata_errors="replace",
            )
        if not self.container.streams.video:
            self.container.close()
            raise NotGivenError(f"{path}: PyAV finds no video stream")
        self.stream: VideoStream = self.container.streams.video[0]
        # With several threads, H.264's decoder does not detect or report all that it conceals.
        self.stream.codec_context.thread_type = "NONE"
        self.stream.codec_context.thread_count = 1
        self.stream.codec_context.options = {"err_detect": "explode"}
        self._graph: Graph | None = None
        self._format = ""  # of the graph's input

    def decode(self, packet: av.Packet) -> list[VideoFrame]:
        """Return the frames that the decoder returns for a packet.

        Raises:
            NotGivenError: FFmpeg reported an error.
            OSError, ValueError: PyAV's errors.
        """
        log = self._av.logging
        if log.get_level() is None:
            # Without a log level PyAV receives no messages. At this level it shows none either, but counts
            # errors.
            log.set_level(log.PANIC)
        before, _ = log.get_last_error()
        frames = self.stream.codec_context.decode(packet)
        after, last = log.get_last_error()
        if after != before:  # perhaps another thread's error: then ffmpeg is used without need
            raise NotGivenError(f"FFmpeg said: {last[2].strip()}")
        return frames

    def converted(self, frame: VideoFrame, conversion: Mapping[str, str]) -> VideoFrame:
        """Return a frame as rgb24."""
        if self._graph is None or frame.format.name != self._format:
            graph: Graph = self._av.filter.Graph()
            given = graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format, time_base=self.stream.time_base
            )
            scale = graph.add("scale", ":".join(f"{name}={value}" for name, value in conversion.items()))
            graph.link_nodes(given, scale, graph.add("format", "rgb24"), graph.add("buffersink")).configure()
            self._graph, self._format = graph, frame.format.name
        self._graph.vpush(frame)
        return self._graph.vpull()
