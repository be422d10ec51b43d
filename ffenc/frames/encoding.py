"""The encoding of a stream on this machine: settings, programs, argument list."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from msgspec import Struct

from ffenc.codecs.codec import Codec
from ffenc.codecs.options import encoder_options
from ffenc.codecs.pixel_formats import pixel_format
from ffenc.codecs.table import codec_for
from ffenc.compiler.colour import COLOUR_TAGS
from ffenc.compiler.command import VideoInput, compile_command
from ffenc.compiler.frames import FrameFormat, SampleTap, is_depth
from ffenc.config.encoder import VideoEncoderConfig
from ffenc.config.transform import Geometry, Transform
from ffenc.ffmpeg.encoders import NOT_LISTED
from ffenc.ffmpeg.probe import StreamInfo
from ffenc.ffmpeg.toolchain import Toolchain
from ffenc.frames.verify import asked_fields, verify_video


class PassedOver(Struct, frozen=True):
    """An encoder in a program that was tried before the selected one, and failed.

    Attributes:
        vcodec: the encoder's name in the codec table.
        toolchain: the program.
        reason: the reason in one line: ``listed, but cannot load libcuda.so.1``.
    """

    vcodec: str
    toolchain: Toolchain
    reason: str


class Encoding(Struct, frozen=True):
    """All that determines how a stream is encoded on this machine.

    Attributes:
        config: the settings, with ``auto`` resolved.
        width, height: size of the source frames, in pixels.
        fps: frames per second.
        frames: format of the frames.
        encoder_threads: number of threads of the encoder; None: the encoder's default.
        toolchain: the programs.
        encoder_version: version of the encoder library, "" if unknown.
        auto: the settings had ``vcodec: auto``.
        passed_over: failed attempts before the selected encoder, in order.
        transform: changes of colour frames by FFmpeg; depth frames are transformed before.
    """

    config: VideoEncoderConfig
    width: int
    height: int
    fps: Fraction
    frames: FrameFormat
    encoder_threads: int | None
    toolchain: Toolchain
    encoder_version: str = ""
    auto: bool = False
    passed_over: tuple[PassedOver, ...] = ()
    transform: Transform | None = None

    @property
    def geometry(self) -> Geometry | None:
        """The transform for frames of this size; None: no change."""
        return self.transform.of(self.width, self.height) if self.transform is not None else None

    @property
    def stored_size(self) -> tuple[int, int]:
        """Width and height of the stored frames, in pixels."""
        size = self.width, self.height
        return size if self.transform is None else self.transform.size(*size)

    @property
    def fed_size(self) -> tuple[int, int]:
        """Width and height of raw frames for the program; depth frames are transformed before."""
        return self.stored_size if self.depth else (self.width, self.height)

    @property
    def codec(self) -> Codec:
        """The encoder's row of the codec table."""
        return codec_for(self.config.vcodec)

    @property
    def depth(self) -> bool:
        """Whether the frames are depth: codes or millimetres."""
        return is_depth(self.frames)

    @property
    def lossless(self) -> bool:
        """Whether every sample is decoded as it was passed to the encoder."""
        options = encoder_options(self.codec, self.config, self.encoder_threads)
        return self.codec.lossless(options, pixel_format(self.config.pix_fmt).bits)

    def command(
        self,
        output: Path,
        tap: SampleTap | None = None,
        video: VideoInput | None = None,
        *,
        fragment_seconds: float | None = None,
    ) -> list[str]:
        """Return the argument list that writes ``output``, from standard input or from frames of a file.

        Arguments as for :func:`~ffenc.compiler.command.compile_command`.
        """
        return compile_command(
            self.config,
            width=self.width,
            height=self.height,
            fps=self.fps,
            output=str(output),
            frames=self.frames,
            video=video,
            transform=self.transform,
            encoder_threads=self.encoder_threads,
            tap=tap,
            fragment_seconds=fragment_seconds,
            program=self.toolchain.ffmpeg,
        )

    def asked(self, tags: Mapping[str, str] = COLOUR_TAGS) -> dict[str, object]:
        """Return the expected fields of its files; see :func:`ffenc.frames.verify.asked_fields`."""
        width, height = self.stored_size
        return asked_fields(self.config, width=width, height=height, depth=self.depth, tags=tags)

    def verify(
        self,
        path: Path,
        frames: int,
        starts: Sequence[int] = (0,),
        tags: Mapping[str, str] = COLOUR_TAGS,
        read: Callable[[Path], StreamInfo] | None = None,
    ) -> StreamInfo:
        """Compare a file with this encoding; see :func:`ffenc.frames.verify.verify_video`."""
        width, height = self.stored_size
        return verify_video(
            path,
            self.config,
            width=width,
            height=height,
            fps=self.fps,
            frames=frames,
            depth=self.depth,
            tags=tags,
            starts=starts,
            read=read,
            ffprobe=self.toolchain.ffprobe,
        )

    def why(self) -> dict[str, str]:
        """Return the failed attempts: encoder -> reason for ``auto``, otherwise program -> reason."""
        if not self.auto:
            return {f"{p.toolchain.origin} {p.toolchain.version}": p.reason for p in self.passed_over}
        reasons: dict[str, str] = {}
        for passed in self.passed_over:
            # The most informative reason: that of a program that lists the encoder, if there is one.
            if reasons.get(passed.vcodec, NOT_LISTED) == NOT_LISTED:
                reasons[passed.vcodec] = passed.reason
        return reasons
