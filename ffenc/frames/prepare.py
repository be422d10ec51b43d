"""Selection of the programs and the encoder for a stream, by trial: a compiled-in encoder may not run."""

from __future__ import annotations

import contextlib
import logging
import re
import tempfile
import warnings
from collections.abc import Sequence
from fractions import Fraction
from itertools import cycle, islice, product
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from ffenc.codecs.codec import Codec
from ffenc.codecs.options import encoder_options
from ffenc.codecs.pixel_formats import pixel_format
from ffenc.codecs.table import AUTO_ORDER, CODECS, auto_fallback, codec_for
from ffenc.compiler.command import check_size, compile_samples, encoder_format
from ffenc.compiler.decode import compile_decode
from ffenc.compiler.frames import FrameFormat, is_depth, is_encoded
from ffenc.compiler.published import PixelFormatError
from ffenc.config.encoder import VideoEncoderConfig
from ffenc.config.transform import Transform
from ffenc.errors import (
    ConfigError,
    FfencError,
    FfencWarning,
    FfmpegError,
    SourceError,
    ToolchainError,
    VerificationError,
)
from ffenc.ffmpeg.cache import recall, remember
from ffenc.ffmpeg.encoders import NOT_LISTED, check_encoder
from ffenc.ffmpeg.machine import cores, file_identity, machine_facts
from ffenc.ffmpeg.process import Log, run_fed
from ffenc.ffmpeg.toolchain import Toolchain, how_to_get, installed, toolchains
from ffenc.frames.depth_loss import warn_of_loss
from ffenc.frames.encoding import Encoding, PassedOver
from ffenc.frames.images import read_header
from ffenc.temporary import temporary_folder

_log = logging.getLogger("ffenc")

TRIAL_FRAMES = 4
# Greatest time without progress in a trial. A device that works answers at once; a slow software encoder
# needs a while for four large frames.
HARDWARE_SECONDS = 10.0
# Without device or driver, the encoder fails at any frame size.
_NO_DEVICE = re.compile(r"Cannot load|No VA display|init_hw_device|find a valid device|did nothing for")
# These errors need another program, not another setting: a small build has no decoder for the images, an old
# one cannot write FFV1 to MP4.
_NOT_USED = re.compile(r"Codec AVOption (\S+) .*has not been used for any stream")
_LACKS = re.compile(r"unknown (de|en)coder|^not compiled in|not currently supported in container", re.I)

# Hardware encoders that were found without their device in this run: (ffmpeg, encoder) -> error.
Absent = dict[tuple[str, str], FfmpegError]
SOFTWARE_SECONDS = 120.0


def prepare(
    config: VideoEncoderConfig,
    first_frames: Sequence[bytes],
    *,
    width: int,
    height: int,
    fps: Fraction,
    frames: FrameFormat,
    encoder_threads: int | None = None,
    candidates: Sequence[Toolchain] | None = None,
    absent: Absent | None = None,
    stored: tuple[int, int] | None = None,
    transform: Transform | None = None,
) -> Encoding:
    """Select the programs and the encoder, by encoding a few frames with the job's own arguments.

    The result of a software encoder is kept on disk for the same program, machine and arguments. A hardware
    encoder is tried every time: a device can be taken, or a driver lost, without a trace.

    Args:
        config: the settings; ``auto`` is resolved to the first encoder that runs.
        first_frames: one or a few of the stream's frames, in the format of ``frames``.
        width, height, fps, frames: as for :class:`Encoding`.
        encoder_threads: number of threads of the encoder; None: half of the cores if the images' decoder has
            its own threads, otherwise the encoder's default.
        candidates: toolchains to try in order; None: those of :func:`toolchains`.
        transform: changes of colour frames by FFmpeg.
        stored: channels and bit depth of colour frames in their source; None: those of the first frame.
        absent: shared by the streams of a job, so that a missing device is tried only once; filled in here.

    Raises:
        ConfigError: settings that cannot be encoded on any machine, or that no encoder here accepts.
        ToolchainError: no toolchain can run them; the text contains the error of each.
    """
    size = (width, height) if transform is None else transform.size(width, height)
    check_size(config, *size, transform)
    if not is_depth(frames):
        _check_samples(config, *(stored or _stored(frames, first_frames)))
    found = list(candidates) if candidates is not None else toolchains()
    auto = config.vcodec == "auto"
    # auto: hardware that runs with any program precedes software with the best program.
    names = (*AUTO_ORDER, auto_fallback(config.pix_fmt)) if auto else (config.vcodec,)
    passed: list[PassedOver] = []
    errors: list[FfencError] = []
    for name, toolchain in product(names, found):
        threads = encoder_threads
        if threads is None and toolchain.threaded and is_encoded(frames):
            # Decoding takes about as long as encoding; an encoder with all cores would compete with it.
            threads = max(1, cores() // 2)
        try:
            encoding = Encoding(
                *(config.resolve(name), width, height, fps, frames, threads, toolchain),
                auto=auto,
                transform=transform,
            )
            _check_exact(encoding, *size)
            proven = _proven(encoding, first_frames, {} if absent is None else absent)
        except FfmpegError as error:
            if error.unable:
                raise
            if small := _too_small(codec_for(name), *size, error):
                errors.append(small)
                passed.append(PassedOver(name, toolchain, small.cause))
                continue
            errors.append(error)
            passed.append(PassedOver(name, toolchain, f"listed, but {_sentence(error.cause)}"))
        except (ConfigError, SourceError, ToolchainError, VerificationError) as error:
            errors.append(error)
            passed.append(PassedOver(name, toolchain, error.cause))
        else:
            proven = replace(proven, passed_over=tuple(passed))
            if auto:
                _log.info("%s", _auto_text(proven))
            else:
                _note_passed_over(passed, toolchain)
            warn_of_loss(proven, list(islice(cycle(first_frames), TRIAL_FRAMES)))
            return proven
    refusal = _refusal(
        config, names[-1], f"{size[0]}x{size[1]}", passed[-len(found) :], errors[-len(found) :]
    )
    if isinstance(refusal, ToolchainError) and all(p.reason == NOT_LISTED for p in passed[-len(found) :]):
        stream = {"width": width, "height": height, "fps": fps, "frames": frames, "transform": transform}
        if other := _other_codec(config, first_frames, found, encoder_threads, **stream):
            raise ToolchainError(f"{refusal}\n{other} runs here: set vcodec={other}", cause=refusal.cause)
    raise refusal


def _other_codec(
    config: VideoEncoderConfig,
    first_frames: Sequence[bytes],
    candidates: Sequence[Toolchain],
    threads: int | None,
    **stream: Any,
) -> str | None:
    """Return a software codec that encodes these frames here with its defaults; None if none does."""
    own = ("vcodec", "preset", "crf", "fast_decode", "extra_options")
    kept = {name: getattr(config, name) for name in config.given if name not in own}
    for row in CODECS.values():
        if row.hardware or row.name == config.vcodec:
            continue
        for toolchain in candidates:
            with contextlib.suppress(FfencError):
                settings = type(config)(vcodec=row.name, **kept)
                _proven(
                    Encoding(settings, **stream, encoder_threads=threads, toolchain=toolchain),
                    first_frames,
                    {},
                )
                return row.name
    return None


def _stored(frames: FrameFormat, first_frames: Sequence[bytes]) -> tuple[int, int]:
    """Return channels and bit depth of colour frames."""
    if is_encoded(frames) and first_frames:
        header = read_header(first_frames[0], "the first frame")
        return (1 if header.channels < 3 else 3), header.bits
    return (1 if frames == "gray" else 3), 8


def _check_samples(config: VideoEncoderConfig, channels: int, bits: int) -> None:
    """Refuse a pixel format that drops colours of the frames, or bits without an explicit request.

    Subsampled chroma (``yuv420p``) is the usual format of video; fewer bits are accepted if ``pix_fmt`` was
    given.

    Raises:
        ConfigError: the format would lose colours or bits.
    """
    fmt = pixel_format(config.pix_fmt)
    if fmt.channels < channels:
        raise ConfigError(
            f"pix_fmt={fmt.name} has no colour, which the frames would lose. Use yuv420p, or "
            "convert the frames to gray first"
        )
    if fmt.bits < bits and "pix_fmt" not in config.given:
        raise ConfigError(
            f"the frames have {bits} bits a sample, and pix_fmt={fmt.name}, the default, keeps {fmt.bits}: "
            f"set pix_fmt, e.g. yuv420p10le (hevc, libsvtav1) to keep 10, or {fmt.name} to reduce them"
        )


def _check_exact(encoding: Encoding, width: int, height: int) -> None:
    """Refuse a size at which lossless settings of an encoder lose samples; a trial rarely shows it."""
    if encoding.codec.inexact(width, height) and encoding.config.g != 1 and encoding.lossless:
        raise ConfigError(
            f"{encoding.codec.encoder} does not encode {width}x{height} frames without loss, although the "
            "settings are lossless: set g=1 or vcodec=ffv1, or use another size"
        )


def _too_small(codec: Codec, width: int, height: int, error: FfmpegError) -> ConfigError | None:
    """Return an error if an encoder of an old library does not support frames as small as these."""
    least = codec.old_min_size
    if (
        least is None
        or (width >= least[0] and height >= least[1])
        or not re.search(r"(?:Width|Height) must be at least", " ".join(error.stderr))
    ):
        return None
    return ConfigError(
        f"{width}x{height} frames are too small: {codec.encoder} takes {least[0]}x{least[1]} or more in this "
        "FFmpeg; use another vcodec (h264 takes any size), or a newer FFmpeg"
    )


def _refusal(
    config: VideoEncoderConfig,
    name: str,
    size: str,
    passed: Sequence[PassedOver],
    errors: Sequence[FfencError],
) -> FfencError:
    """Return the error with all programs' messages for the requested encoder, or the last of ``auto``."""
    if all(isinstance(error, ConfigError) for error in errors):
        # An x265 may be built with 8 bits only.
        bits = pixel_format(config.pix_fmt).bits > 8 and isinstance(errors[0], PixelFormatError)
        full = any(p.toolchain.origin == "imageio-ffmpeg" for p in passed)
        return (
            ConfigError(f"{errors[0]}\nfor a more complete FFmpeg: {how_to_get()}")
            if bits and not full
            else errors[0]
        )
    reasons = "\n".join(f"  {p.toolchain}: {p.reason}" for p in passed)
    command = next((f"\n{error}" for error in errors if isinstance(error, FfmpegError)), "")
    lacks = all(_LACKS.search(p.reason) for p in passed)
    how = (
        f"\na newer or more complete FFmpeg can: {how_to_get()}"
        if lacks
        else ""
        if command
        else f"\n{how_to_get()}"
    )
    return ToolchainError(
        f"{size} {config.pix_fmt} with {codec_for(name).encoder} cannot be encoded here:\n"
        f"{reasons}{command}{how}",
        cause=passed[0].reason,
    )


def _note_passed_over(passed: Sequence[PassedOver], chosen: Toolchain) -> None:
    for one in passed:
        text = f"{one.toolchain.ffmpeg} was skipped in favour of {chosen.ffmpeg}: {one.reason}"
        warnings.warn(text, FfencWarning, stacklevel=3)


def _auto_text(encoding: Encoding) -> str:
    """Return what ``auto`` selected, what was tried before, and why each attempt failed."""
    names: dict[str, list[str]] = {}
    for name, reason in encoding.why().items():
        names.setdefault(reason, []).append(name)
    listed = "; ".join(f"{', '.join(group)} ({reason})" for reason, group in names.items())
    return f"auto is {encoding.config.vcodec} here" + (f": skipped {listed}" if listed else "")


def _sentence(text: str) -> str:
    """Return a sentence with a lower-case first letter, unless it is a name."""
    return text[:1].lower() + text[1:] if re.match(r"[A-Z][a-z]* ", text) else text


def _proven(encoding: Encoding, first_frames: Sequence[bytes], absent: Absent) -> Encoding:
    """Return the encoding with its encoder's version, after a successful trial.

    Raises:
        ToolchainError: the program does not have the encoder.
        ConfigError: the encoder does not accept an option or the pixel format.
        FfmpegError, VerificationError: the trial failed, or its result is wrong.
    """
    codec = codec_for(encoding.config.vcodec)
    programs = encoding.toolchain.ffmpeg, encoding.toolchain.ffprobe
    key = ["trial 2", *map(file_identity, programs), machine_facts(), encoding.command(Path("trial.mp4"))[1:]]
    known = None if codec.hardware else recall(key)
    if isinstance(known, dict) and isinstance(known.get("encoder_version"), str):
        # The same program has run these arguments on this machine before.
        return replace(encoding, encoder_version=known["encoder_version"])
    options = encoder_options(codec, encoding.config, encoding.encoder_threads)
    check_encoder(encoding.toolchain.ffmpeg, codec, options, encoder_format(codec, encoding.config))
    hardware = (encoding.toolchain.ffmpeg, codec.encoder)
    if hardware in absent:
        raise absent[hardware]
    sent = list(islice(cycle(first_frames), TRIAL_FRAMES))
    try:
        with temporary_folder() as folder:
            version = _tried(encoding, sent, Path(folder) / "trial.mp4")
    except FfmpegError as error:
        if codec.hardware and _NO_DEVICE.search(f"{error.reason} {error.cause}"):
            absent[hardware] = error
        raise
    except OSError as error:
        raise ToolchainError(
            f"a trial cannot be written to {tempfile.gettempdir()}: {error.strerror}; free some "
            "space there, or set TMPDIR to another folder"
        ) from None
    if not codec.hardware:
        remember(key, {"encoder_version": version})
    return replace(encoding, encoder_version=version)


def _tried(encoding: Encoding, sent: list[bytes], output: Path) -> str:
    """Encode, read back, decode; return the encoder's version, "" if unknown."""
    codec = codec_for(encoding.config.vcodec)
    command = encoding.command(output)
    command[command.index("-loglevel") + 1] = "level+info"  # versions are logged at info level
    limit = HARDWARE_SECONDS if codec.hardware else SOFTWARE_SECONDS
    log = run_fed(command, sent, stall_seconds=limit)
    _refuse_ignored(codec, log)
    encoding.verify(output, len(sent))
    _check_decoded(encoding, sent, output)
    said = "\n".join(log.head) + output.read_bytes().decode("latin-1")
    _refuse_changed(encoding, said)
    match = re.search(codec.version, said) if codec.version else None
    return match[1] if match else ""


def _refuse_ignored(codec: Codec, log: Log) -> None:
    """Refuse options that FFmpeg did not use, and sub-keys that the library ignored."""
    for line in log.head:
        if found := _NOT_USED.search(line):
            raise ConfigError(f"extra option {found[1]!r} has no effect: {codec.encoder} does not take it")
        if codec.ignored is not None and (found := re.search(codec.ignored, line)):
            said = found[0].strip()
            limits = "".join(
                f"; {name} is a number from {low:g} to {high:g}"
                for name, (low, high) in codec.ranges.items()
                if re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", said)
            )
            raise ConfigError(f"extra_options: {codec.params}: {codec.encoder} says {said!r}{limits}")


def _refuse_changed(encoding: Encoding, said: str) -> None:
    """Refuse numbers in a params option that differ from those the library wrote into the stream.

    Values in a range of the codec table are not compared: other settings may limit them.
    """
    codec = encoding.codec
    found = re.search(codec.reported, said) if codec.reported is not None else None
    options = encoder_options(codec, encoding.config, encoding.encoder_threads)
    if found is None or codec.params not in options:
        return
    used = {key.replace("_", "-"): value for key, _, value in (w.partition("=") for w in found[1].split())}
    for part in str(options[codec.params]).split(":"):
        key, _, value = part.partition("=")
        own = used.get(key.strip().lstrip("-").replace("_", "-"))
        if key not in codec.ranges and own is not None and _differ(value, own):
            raise ConfigError(
                f"extra_options: {codec.params}: {part} is not what {codec.encoder} used: {key}={own}"
            )


def _differ(value: str, own: str) -> bool:
    """Return whether two texts are different numbers, to the precision of the second."""
    try:
        digits = len(own.partition(".")[2])
        return abs(float(value) - float(own)) > float(f"0.51e-{digits}")
    except ValueError:
        return False  # a name or several numbers


def _check_decoded(encoding: Encoding, sent: Sequence[bytes], output: Path) -> None:
    """Decode the trial's result: all frames must be decoded, and with lossless settings all samples be equal.

    If the program, a small build, lacks the decoder for its own result, another program is used.

    Raises:
        VerificationError: no program here returns the frames.
    """
    lossless = encoding.lossless
    fmt = pixel_format(encoding.config.pix_fmt).compared if lossless else None
    own = encoding.toolchain.ffmpeg
    faults = []
    for program in dict.fromkeys([own, *(found.path for found in installed("ffmpeg") if not found.fault)]):
        shown, count = bytearray(), [0]
        try:
            run_fed(
                compile_decode(str(output), pix_fmt=fmt, program=program),
                [],
                on_output=shown.extend if lossless else None,
                on_frames=lambda frames, count=count: count.append(frames),  # type: ignore[misc]
                stall_seconds=SOFTWARE_SECONDS,
            )
        except FfmpegError as error:
            if error.unable:
                raise
            faults.append(f"{program}: {error.cause}")
            continue
        if count[-1] != len(sent):
            raise VerificationError(f"of {len(sent)} frames encoded, {count[-1]} could be decoded")
        if lossless and bytes(shown) != _samples(encoding, sent):
            raise VerificationError("the settings are lossless, but the samples decoded are not those sent")
        return
    raise VerificationError("what it encodes cannot be decoded here: " + "; ".join(faults))


def _samples(encoding: Encoding, sent: Sequence[bytes]) -> bytes:
    """Return the samples that were passed to the encoder."""
    samples = bytearray()
    command = compile_samples(
        encoding.config,
        width=encoding.width,
        height=encoding.height,
        fps=encoding.fps,
        frames=encoding.frames,
        transform=encoding.transform,
        program=encoding.toolchain.ffmpeg,
    )
    run_fed(command, sent, on_output=samples.extend, stall_seconds=SOFTWARE_SECONDS)
    return bytes(samples)
