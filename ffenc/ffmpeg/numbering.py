"""Frames that an elementary stream has lost, found by the numbers in the frames' headers.

An elementary stream has no times, and a decoder continues after a lost frame: of H.264 it conceals missing
references without an error, and of a frame that no other refers to nothing is left. But H.264 and HEVC number
frames in display order (picture order count), H.264 also those that others refer to (frame_num), and AV1 too
(order_hint). FFmpeg's bitstream filter trace_headers prints these numbers.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from msgspec import Struct, field

from ffenc.compiler.packets import compile_header_trace
from ffenc.errors import FfmpegError, SourceError
from ffenc.ffmpeg.process import run_fed
from ffenc.words import count

_LINE = re.compile(
    r"\[trace_headers @ \w+\] \[info\] (?:(Packet): |\d+ +"
    r"(forbidden_zero_bit|nal_ref_idc|nal_unit_type|nuh_temporal_id_plus1|frame_num|field_pic_flag|"
    r"gaps_in_frame_num_allowed_flag|(?:slice_)?pic_order_cnt_lsb|memory_management_control_operation|"
    r"show_existing_frame|frame_type|show_frame|order_hint|refresh_frame_flags|frame_to_show_map_idx)"
    r" +([01]+) = (\d+)$)"
)
_UNIT = ("forbidden_zero_bit", "show_existing_frame")  # the first field of a NAL unit, of an AV1 frame header
_RESETS = 5  # memory_management_control_operation that starts a new numbering
_SLOTS = 8  # reference frames of AV1


class _Field(Struct, frozen=True):
    value: int
    bits: int


def _value(fields: dict[str, _Field], name: str) -> int:
    """Return a field's value; 0 if a damaged header lacks it."""
    return fields[name].value if name in fields else 0


class _Sequence(Struct):
    """Frames from one restart of the numbering to the next.

    Attributes:
        numbers: their numbers, without wrapping, in decoding order.
        whole: it begins with a frame that refers to none before it.
    """

    whole: bool
    numbers: list[int] = field(default_factory=list)


class _Reader:
    """Collects the numbers of frames from the lines of trace_headers."""

    def __init__(self, codec: str) -> None:
        self._codec = codec
        self._fields: dict[str, _Field] = {}
        self._first = False  # whether the packet's frame is still to come
        self._basis = 0
        self._slots = [0] * _SLOTS
        self.sequences: list[_Sequence] = []
        self.unusable = False  # fields instead of frames, or gaps that are allowed

    def line(self, text: str) -> None:
        match = _LINE.match(text)
        if match is None:
            return
        if match[1] or match[2] in _UNIT:
            self.end()
        if match[1]:
            self._first = True
            return
        found = _Field(int(match[4]), len(match[3]))
        if match[2] == "memory_management_control_operation" and found.value != _RESETS:
            return
        self._fields.setdefault(match[2], found)

    def end(self) -> None:
        """Take the fields of a NAL unit or frame header that has ended."""
        fields, self._fields = self._fields, {}
        if _value(fields, "field_pic_flag") or _value(fields, "gaps_in_frame_num_allowed_flag"):
            self.unusable = True
        if self._codec == "av1":
            self._av1(fields)
        elif self._first and "nal_unit_type" in fields:
            (self._h264 if self._codec == "h264" else self._hevc)(fields)

    def _h264(self, fields: dict[str, _Field]) -> None:
        unit = _value(fields, "nal_unit_type")
        if unit not in (1, 5) or "frame_num" not in fields:
            return
        # Without a picture order count, frames are displayed in decoding order.
        number = fields.get("pic_order_cnt_lsb", fields["frame_num"])
        self._add(number, restart=unit == 5, basis=_value(fields, "nal_ref_idc") > 0)
        if "memory_management_control_operation" in fields:
            self._restart(whole=True)

    def _hevc(self, fields: dict[str, _Field]) -> None:
        unit = _value(fields, "nal_unit_type")
        if unit >= 32:
            return
        number = fields.get("slice_pic_order_cnt_lsb", _Field(0, 0))  # an IDR frame has none
        # Frames that may be dropped (even numbers below 16) and leading frames are no basis, by the standard.
        kept = unit >= 16 or (unit % 2 == 1 and unit not in (7, 9))
        kept &= _value(fields, "nuh_temporal_id_plus1") == 1
        self._add(number, restart=16 <= unit <= 20, basis=kept)

    def _av1(self, fields: dict[str, _Field]) -> None:
        if _value(fields, "show_existing_frame"):
            number = self._slots[_value(fields, "frame_to_show_map_idx") % _SLOTS]
            self._current().numbers.append(number)
            self._basis = number
        elif "order_hint" in fields and "show_frame" in fields:
            shown, key = _value(fields, "show_frame") == 1, _value(fields, "frame_type") == 0
            number = self._number(fields["order_hint"], restart=shown and key)
            kept = 0xFF if shown and key else _value(fields, "refresh_frame_flags")
            self._slots = [number if kept >> i & 1 else one for i, one in enumerate(self._slots)]
            if shown:
                self._current().numbers.append(number)
                self._basis = number

    def _add(self, found: _Field, *, restart: bool, basis: bool) -> None:
        self._first = False
        number = self._number(found, restart=restart)
        self._current().numbers.append(number)
        if basis:
            self._basis = number

    def _number(self, found: _Field, *, restart: bool) -> int:
        """Return a number without wrapping: the one nearest to that of the frame before."""
        if restart or not self.sequences:
            self._restart(whole=restart)
            self._basis = found.value
        period = 1 << found.bits
        return self._basis + (found.value - self._basis + period // 2) % period - period // 2

    def _restart(self, *, whole: bool) -> None:
        self._basis = 0
        if not self.sequences or self.sequences[-1].numbers:
            self.sequences.append(_Sequence(whole))

    def _current(self) -> _Sequence:
        if not self.sequences:
            self._restart(whole=False)
        return self.sequences[-1]


def check_numbering(path: Path, codec: str, *, ffmpeg: str) -> None:
    """Check that an elementary stream has lost no frame between two others of one numbering.

    A stream whose headers FFmpeg cannot read, or whose numbers are not evenly spaced, is not judged. The last
    frames of a numbering (before an IDR or key frame, or the stream's end) can be missing without a trace.

    Args:
        path: the stream.
        codec: its codec; of others than H.264, HEVC and AV1 nothing is known.
        ffmpeg: the program.

    Raises:
        SourceError: frames are missing; the text says where.
    """
    if codec not in ("h264", "hevc", "av1"):
        return
    reader = _Reader(codec)
    try:
        run_fed(compile_header_trace(str(path), program=ffmpeg), [], on_line=reader.line)
    except FfmpegError as error:
        if error.unable:
            raise
        return
    reader.end()
    if reader.unusable:
        return
    for after, lost in _gaps(reader.sequences):
        raise SourceError(
            f"{path}: is damaged, or cut short: by the numbers in the frames' headers, "
            f"{count(lost, 'frame is', 'frames are')} missing after frame {after}"
        )


def _gaps(sequences: list[_Sequence]) -> Iterator[tuple[int, int]]:
    """Yield the index of the frame before each gap, and how many frames it lacks."""
    ordered = []
    for sequence in sequences:
        # Frames shown before the first one refer to frames before the stream, and need not all be there.
        least = sequence.numbers[0] if sequence.numbers and not sequence.whole else None
        ordered.append(sorted({number for number in sequence.numbers if least is None or number >= least}))
    steps = Counter(later - one for numbers in ordered for one, later in pairwise(numbers))
    if not steps:
        return
    [(step, _)] = steps.most_common(1)
    if step != min(steps):
        return
    before = 0
    for sequence, numbers in zip(sequences, ordered, strict=True):
        early = len(set(sequence.numbers)) - len(numbers)
        for at, (one, later) in enumerate(pairwise(numbers)):
            if later - one > step:
                yield before + early + at, (later - one) // step - 1
        before += len(set(sequence.numbers))
