"""Records of what decoding files has found, so that they are not decoded a second time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from ffenc.dataset.verify.faults import Fault, Faults
from ffenc.ffmpeg.cache import recall, remember
from ffenc.fields import fields_of
from ffenc.frames.check import Damage
from ffenc.frames.statistics import Stats, ValueCounts


class Shown(Struct):
    """What was decoded of a camera.

    Attributes:
        stats: position of an episode in the list -> its statistics.
        values: how often these episodes together have each value; None where there is no episode.
        failed: FFmpeg failed at it, though no frame is damaged: another try may show more.
        recorded: of how many files it was on record, and was not decoded.
    """

    stats: dict[int, Stats] = field(default_factory=dict)
    values: ValueCounts | None = None
    failed: bool = False
    recorded: int = 0

    def add(self, other: Shown) -> None:
        """Take in what another file has of the camera."""
        self.stats |= other.stats
        self.recorded += other.recorded
        if other.values is not None:
            self.values = other.values if self.values is None else self.values + other.values


class DecodeRecords:
    """Keeps what decoding files has found: which frames are damaged, and what episodes show.

    A record is of a file's bytes (its SHA-256), of the programs and of what was asked, wherever the file is
    and whatever describes it: a copy of a file is not decoded again. They are kept in the user's cache, for
    every run, as long as other answers there.

    Args:
        again: use no record; new ones are kept all the same.
        images: keep records of images too. To know a file its bytes are hashed, which costs little beside
            decoding video; of images it is a twentieth of the work.
    """

    def __init__(self, *, again: bool = False, images: bool = False) -> None:
        self.again, self.images = again, images

    def damage(
        self, checksum: str, parts: Sequence[Any], find: Callable[[], list[Damage]]
    ) -> tuple[list[Damage], bool]:
        """Find the damaged frames of a video file, unless they are on record.

        Args:
            checksum: of the file.
            parts: what else decides what is found: plain values.
            find: decodes the file.

        Returns:
            its damage, and whether it was on record.
        """
        key = ["damage", checksum, *parts]
        content = self._read(key)
        try:
            return [Damage(**one) for one in content["damage"]], True
        except (LookupError, TypeError):
            found = find()
        remember(key, {"damage": [fields_of(one) for one in found]})
        return found, False

    def shown(
        self, checksum: str, parts: Sequence[Any], faults: Faults, decode: Callable[[Faults], Shown]
    ) -> tuple[Shown, bool]:
        """Find what a file shows, unless that is on record. Where FFmpeg failed, it does not come on record.

        Args:
            checksum: of the file.
            parts: what else decides what is found: plain values.
            faults: where faults go.
            decode: decodes the file.

        Returns:
            what it shows, and whether it was on record.
        """
        key = ["shown", checksum, *parts]
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
        content = {"faults": [fields_of(one) for one in found], "stats": shown.stats, "values": counts}
        remember(key, content)
        return shown, False

    def _read(self, key: Sequence[Any]) -> Mapping[str, Any]:
        """Return what is on record, nothing where there is no record."""
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
        return faults, Shown({int(at): own for at, own in content["stats"].items()}, values)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
