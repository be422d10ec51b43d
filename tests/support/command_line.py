"""The command line, in this process or in one of its own."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from ffenc.cli.main import answer

# Every command, in the order of --help.
COMMANDS = [
    "record",
    "lerobot",
    "recover",
    "reencode",
    "merge",
    "edit",
    "split",
    "push",
    "pull",
    "encode",
    "decode",
    "tune",
    "compare",
    "compile",
    "inspect",
    "info",
    "verify",
    "repair",
    "stats",
    "probe",
    "doctor",
]
SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

# What nobody has thought of: the last resort's words, which no test takes for an answer.
NOT_OURS = re.compile(r"Traceback|unexpected error|a table cannot be read or written|an image cannot be read")


class Outcome:
    """What a run of the command line left behind."""

    def __init__(self, status: Any, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def process(
    *words: object, cwd: Path | None = None, env: dict[str, str] | None = None, modest: bool = False
) -> Outcome:
    """Run ffenc in a process of its own, as a user would; if modest, without root's right to every file."""
    rights = "-dac_override,-dac_read_search"
    before = ["setpriv", "--bounding-set", rights] if modest and os.geteuid() == 0 else []
    ran = subprocess.run(
        [*before, sys.executable, "-m", "ffenc", *map(str, words)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=os.environ | (env or {}),
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert not NOT_OURS.search(ran.stderr + ran.stdout), ran.stderr
    return Outcome(ran.returncode, ran.stdout, ran.stderr)


class CommandLine:
    """The command line, run in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        self._capsys = capsys
        self._monkeypatch = monkeypatch

    def run(self, *words: object) -> Outcome:
        self._monkeypatch.setattr(sys, "argv", ["ffenc", *map(str, words)])
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        finders, callbacks, threshold = list(sys.meta_path), list(gc.callbacks), gc.get_threshold()
        self._monkeypatch.delenv("COLUMNS", raising=False)
        self._capsys.readouterr()
        try:
            with warnings.catch_warnings():
                status = answer()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
            # What a command does to a process that ends with it.
            sys.meta_path[:], gc.callbacks[:] = finders, callbacks
            gc.set_threshold(*threshold)
            gc.unfreeze()
        outcome = Outcome(status, *self._capsys.readouterr())
        assert not NOT_OURS.search(outcome.err + outcome.out), outcome.err
        return outcome

    def done(self, *words: object) -> Outcome:
        """Run what has to succeed."""
        outcome = self.run(*words)
        assert outcome.status == 0, outcome.err
        return outcome

    def refused(self, *words: object, status: int = 1) -> str:
        """Run what has to be refused; the message."""
        outcome = self.run(*words)
        assert outcome.status == status
        assert outcome.out == ""
        assert len(outcome.err.splitlines()) <= 24, "a message fits on a screen"
        return outcome.err
