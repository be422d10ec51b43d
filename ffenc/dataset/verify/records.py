"""Records of what decoding files has found, so that they are not decoded a second time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ffenc.dataset.checksums import file_checksum
from ffenc.dataset.staging import write_json
from ffenc.dataset.verify.deep import Shown
from ffenc.dataset.verify.faults import Fault, Faults
from ffenc.frames.statistics import ValueCounts


class DecodeRecords:
    """Keeps what decoding files has found, a file each.

    A record is of the bytes of a file and of what it was compared with, wherever the file is.

    Args:
        folder: where they are kept; need not exist.

    Attributes:
        taken: names of the records of an earlier run that were used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._earlier = {path.name for path in folder.glob("*.json")}
        self.taken: set[str] = set()

    def decoded(
        self, path: Path, parts: Sequence[Any], faults: Faults, decode: Callable[[Faults], Shown]
    ) -> tuple[Shown, bool]:
        """Decode a file, unless that is on record. Where FFmpeg failed, it does not come on record.

        Args:
            path: the file.
            parts: what else decides what is found: plain values.
            faults: where faults go.
            decode: decodes it.

        Returns:
            what it shows, and whether it was on record.
        """
        asked = json.dumps([file_checksum(path), *parts]).encode()
        record = self._folder / f"{hashlib.sha256(asked).hexdigest()}.json"
        known = _read(record)
        if known is not None:
            found, shown = known
            if record.name in self._earlier:
                self.taken.add(record.name)
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


def _read(record: Path) -> tuple[list[Fault], Shown] | None:
    try:
        content = json.loads(record.read_text(encoding="utf-8"))
        faults = [Fault(**one) for one in content["faults"]]
        counts = content["values"]
        values = None
        if counts is not None:
            channels, per = counts["channels"], counts["per"]
            values = ValueCounts.unpacked(counts["packed"], channels=channels, per=per)
        return faults, Shown({int(at): own for at, own in content["stats"].items()}, values)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None
