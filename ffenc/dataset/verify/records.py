"""Records of what decoding files has found, so that they are not decoded a second time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ffenc.dataset.staging import write_json
from ffenc.dataset.verify.faults import Fault, Faults
from ffenc.frames.check import Damage
from ffenc.frames.statistics import Stats, ValueCounts


@dataclass
class Shown:
    """What was decoded of a camera.

    Attributes:
        stats: position of an episode in the list -> its statistics.
        values: how often these episodes together have each value; None where there is no episode.
        failed: FFmpeg failed at it, though no frame is damaged: another try may show more.
    """

    stats: dict[int, Stats] = field(default_factory=dict)
    values: ValueCounts | None = None
    failed: bool = False

    def add(self, other: Shown) -> None:
        """Take in what another file has of the camera."""
        self.stats |= other.stats
        if other.values is not None:
            self.values = other.values if self.values is None else self.values + other.values


class DecodeRecords:
    """Keeps what decoding files has found: which frames are damaged, and what episodes show.

    A record is of the bytes of a file and of what it was asked for, wherever the file is and whatever
    describes it: a copy of a file is not decoded again.

    Args:
        folder: where they are kept; need not exist.

    Attributes:
        taken: checksums of the files of which records of an earlier run were used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._earlier = {path.name for path in folder.glob("*.json")}
        self.taken: set[str] = set()

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
        record = self._record(checksum, ["damage", *parts])
        content = self._read(record, checksum)
        try:
            return [Damage(**one) for one in content["damage"]], True
        except (LookupError, TypeError):
            found = find()
        write_json(record, {"damage": [asdict(one) for one in found]})
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
        record = self._record(checksum, ["shown", *parts])
        known = _shown(self._read(record, checksum))
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
        content = {"faults": [asdict(one) for one in found], "stats": shown.stats, "values": counts}
        write_json(record, content)
        return shown, False

    def _record(self, checksum: str, parts: Sequence[Any]) -> Path:
        asked = json.dumps([checksum, *parts]).encode()
        return self._folder / f"{hashlib.sha256(asked).hexdigest()}.json"

    def _read(self, record: Path, checksum: str) -> Mapping[str, Any]:
        """Return what is on record, nothing where that cannot be read."""
        try:
            content = json.loads(record.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        if not isinstance(content, dict):
            return {}
        if record.name in self._earlier:
            self.taken.add(checksum)
        return content


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
