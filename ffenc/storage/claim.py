"""A lock on an address: a small hidden object there, so that two machines do not write at once.

It is created with a conditional put, which fails if it exists (S3, Google and Azure have that). A run renews
it for as long as it lives, and that tells whether it does: clocks of machines differ.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil
from msgspec import Struct

from ffenc.errors import DestinationError, FfencError
from ffenc.spelling import argument
from ffenc.storage.store import MissingError, Store

_log = logging.getLogger("ffenc")

PLACE = ".ffenc-writing.json"
"""Where it is, below the address; as any hidden file it is no part of a dataset."""

_TRIES = 5
_LEAVE = 10.0  # seconds that the end waits for an answer of the store
RENEWED = 20.0  # seconds from one time that it is written to the next
PATIENCE = 90.0  # seconds without that, after which its run is taken for dead


class _Found(Struct, frozen=True):
    """What is there.

    Attributes:
        version: of the object.
        content: what it says; empty where that cannot be read.
    """

    version: str
    content: Mapping[str, Any]

    @property
    def who(self) -> str:
        """Whose it is, for a message."""
        content = self.content
        return (
            f"process {content.get('process', '?')} on {content.get('host', 'an unknown machine')}, since "
            f"{content.get('since', 'an unknown time')}"
        )

    @property
    def lives(self) -> bool | None:
        """Whether its process does; None where that is another machine's."""
        if self.content.get("machine") != _machine():
            return None
        try:
            process = psutil.Process(int(self.content["process"]))
            return abs(process.create_time() - float(self.content["started"])) < 1
        except (psutil.NoSuchProcess, ValueError, LookupError, TypeError):
            return False


class Claim:
    """That this run writes to an address.

    Args:
        store: of the address.
        resume: where a run that may have been killed has left its object, wait to see whether it lives.

    Raises:
        DestinationError: another run writes there, or nobody may.
    """

    def __init__(self, store: Store, *, resume: bool) -> None:
        self._store = store
        self._times = 0
        self._own = {
            "owner": uuid.uuid4().hex,
            "host": socket.gethostname(),
            "machine": _machine(),
            "process": os.getpid(),
            "started": psutil.Process().create_time(),
            "since": datetime.now(timezone.utc).isoformat(" ", "seconds"),
        }
        self._lost: _Found | None = None
        self._ended = threading.Event()
        self._take(resume)
        self._thread = threading.Thread(target=self._renew, name="ffenc-claim", daemon=True)
        self._thread.start()

    def check(self, *, ask: bool = False) -> None:
        """Make sure that no other run has taken over, as one may from a machine that did not answer.

        Args:
            ask: the store, now; else what it said last is believed.

        Raises:
            DestinationError: one has.
        """
        if ask:
            self._look()
        if self._lost is not None:
            raise DestinationError(
                f"{self._store.address}: another run of ffenc ({self._lost.who}) writes there "
                "now, because this run was silent for too long; it stops"
            )

    def end(self) -> None:
        """Let others write there."""
        self._ended.set()
        self._thread.join(_LEAVE)
        with suppress(FfencError):  # whoever comes next waits a little then
            if self._lost is None and self._is_own(self._read()):
                self._store.remove(PLACE)

    def _content(self) -> bytes:
        self._times += 1
        return json.dumps({**self._own, "written": self._times}, indent=1).encode()

    def _take(self, resume: bool) -> None:
        address = self._store.address
        for _ in range(_TRIES):
            self._store.create(PLACE, self._content())
            # A store that knows no conditions has let the last one win: what is there decides.
            found = self._read()
            if self._is_own(found):
                return
            if found is None:
                continue
            lives = found.lives
            if lives is None and resume:
                lives = self._changes(found)
            if lives is not False:
                killed = f". If that run was killed, {argument('resume', True)} continues it"
                raise DestinationError(
                    f"{address} is being written by another run of ffenc ({found.who}); wait until it ends"
                    + (killed if lives is None else "")
                )
            _log.info("%s: a run that was killed (%s) had started to write there", address, found.who)
            if (now := self._read()) is not None and now.version == found.version:
                self._store.remove(PLACE)
        raise DestinationError(
            f"{address} cannot be written to: {PLACE}, the lock file, appears and disappears; "
            "another run of ffenc may be starting there. Wait, and run it again"
        )

    def _changes(self, found: _Found) -> bool:
        """Whether an object is written again: then its run lives."""
        _log.warning(
            "%s: waiting up to %.0f s to see whether another run still writes there (%s)",
            *(self._store.address, PATIENCE, found.who),
        )
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            time.sleep(min(RENEWED, PATIENCE) / 4)
            now = self._read()
            if now is None or now.version != found.version:
                return True
        return False

    def _renew(self) -> None:
        while not self._ended.wait(RENEWED) and self._lost is None:
            with suppress(FfencError):  # a store that does not answer now may the next time
                found = self._look()
                if self._lost is None:
                    write = self._store.create if found is None else self._store.write
                    write(PLACE, self._content())

    def _look(self) -> _Found | None:
        found = self._read()
        if found is not None and not self._is_own(found):
            self._lost = found
        return found

    def _is_own(self, found: _Found | None) -> bool:
        return found is not None and found.content.get("owner") == self._own["owner"]

    def _read(self) -> _Found | None:
        try:
            entry = self._store.entry(PLACE)
            data = self._store.read(PLACE, 0, entry.size)
        except MissingError:
            return None
        try:
            content = json.loads(data)
        except ValueError:
            content = {}
        return _Found(entry.version, content if isinstance(content, dict) else {})


@contextmanager
def claimed(store: Store, *, resume: bool) -> Iterator[Claim]:
    """Have an address to write to for oneself; see :class:`Claim`."""
    claim = Claim(store, resume=resume)
    try:
        yield claim
    finally:
        claim.end()


def _machine() -> str:
    """What tells the processes of this machine, or of this container, from those of others."""
    parts = [socket.gethostname()]
    with suppress(OSError):  # Linux: since when it runs, and which container's processes are seen
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(os.readlink("/proc/self/ns/pid"))  # noqa: PTH115 - it leads to no file
    return " ".join(parts)
