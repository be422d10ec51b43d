"""Records of the results of decoding files, so that a file is not decoded a second time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from ffenc.dataset.verify.faults import Fault, Faults
from ffenc.ffmpeg.cache import recall, remember
from ffenc.fields import plain_fields
from ffenc.frames.check import Damage
from ffenc.frames.statistics import Stats, ValueCounts

_STATISTICS = 3  # increased when the same frames give other statistics, so that older records are not read


class Shown(Struct):
    """The result of decoding files of a camera.

    Attributes:
        stats: position of an episode in the list -> statistics.
        measured: the same for depth, without the pixels at either or both ends of the stored range: a video
            cannot say whether they are depth, and statistics from before quantisation do not count NaN and
            infinity.
        values: number of occurrences of each value in these episodes; None if there is no episode.
        failed: FFmpeg failed although no frame is damaged; another attempt may succeed.
        recorded: number of files with a record, which were not decoded.
    """

    stats: dict[int, Stats] = field(default_factory=dict)
    measured: dict[int, list[Stats]] = field(default_factory=dict)
    values: ValueCounts | None = None
    failed: bool = False
    recorded: int = 0

    def add(self, other: Shown) -> None:
        """Add the result of another file of the camera."""
        self.stats |= other.stats
        self.measured |= other.measured
        self.recorded += other.recorded
        if other.values is not None:
            self.values = other.values if self.values is None else self.values + other.values


class DecodeRecords:
    """Stores the results of decoding files: damaged frames, and what the episodes show.

    The key of a record consists of the file's SHA-256, the programs and the parameters, not of the path or
    the metadata: a copy of a file is not decoded again. Records are kept in the user's cache, as long as
    other entries there.

    Args:
        again: read no records; new ones are still written.
        images: keep records of images too. The key needs a hash of the bytes, whose cost is small compared
            with decoding video; for images it is a twentieth of the work.
    """

    def __init__(self, *, again: bool = False, images: bool = False) -> None:
        self.again, self.images = again, images

    def damage(
        self, checksum: str, parts: Sequence[Any], find: Callable[[], list[Damage]]
    ) -> tuple[list[Damage], bool]:
        """Return the damaged frames of a video file, from its record if there is one.

        Args:
            checksum: SHA-256 of the file.
            parts: plain values of the parameters that the result depends on.
            find: decodes the file.

        Returns:
            The damage, and whether it was recorded.
        """
        key = ["damage", checksum, *parts]
        content = self._read(key)
        try:
            return [Damage(**one) for one in content["damage"]], True
        except (LookupError, TypeError):
            found = find()
        remember(key, {"damage": [plain_fields(one) for one in found]})
        return found, False

    def shown(
        self, checksum: str, parts: Sequence[Any], faults: Faults, decode: Callable[[Faults], Shown]
    ) -> tuple[Shown, bool]:
        """Return what a file shows, from its record if there is one. No record is written if FFmpeg failed.

        Args:
            checksum: SHA-256 of the file.
            parts: plain values of the parameters that the result depends on.
            faults: faults are added to it.
            decode: decodes the file.

        Returns:
            What it shows, and whether it was recorded.
        """
        key = ["shown", _STATISTICS, checksum, *parts]
        known = _shown(self._read(key))
        if known is not None:
            found, shown = known
            faults.take(found)
            return shown, True
        own = Faults()
        shown = decode(own)
        found = [*own.of("fault"), *own.of("note")]
        faults.take(found)
        if shown.failed:
            return shown, False
        values = shown.values
        counts = None
        if values is not None:
            counts = {"channels": len(values.counts), "per": values.per, "packed": values.packed()}
        content = {
            "faults": [plain_fields(one) for one in found],
            "stats": shown.stats,
            "measured": shown.measured,
            "values": counts,
        }
        remember(key, content)
        return shown, False

    def _read(self, key: Sequence[Any]) -> Mapping[str, Any]:
        """Return the record; empty if nothing is recorded."""
        content = None if self.again else recall(key)
        return content if isinstance(content, dict) else {}


def _shown(content: Mapping[str, Any]) -> tuple[list[Fault], Shown] | None:
    try:
        faults = [Fault(**one) for one in content["faults"]]
        counts = content["values"]
        values = None
        if counts is not None:
            channels, per = counts["channels"], counts["per"]
            values = ValueCounts.unpacked(counts["packed"], channels=channels, per=per)
        stats, measured = (
            {int(at): own for at, own in content[name].items()} for name in ("stats", "measured")
        )
        return faults, Shown(stats, measured, values)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
