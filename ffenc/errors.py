"""What can go wrong, in the few kinds a caller would tell apart."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

if TYPE_CHECKING:
    from typing_extensions import Self


class Problem(Struct, frozen=True):
    """Something that is wrong, in parts: what an exception carries, and what a verification collects.

    Attributes:
        found: what was found; where ``expected`` is empty, and the sentence says it, what was expected too.
        expected: what was expected instead, such as ``a whole number``.
        where: the file, line, image, camera or setting that it is about; "": ``found`` says it.
        fix: what to do; "": ``found`` says it, or nothing but giving what is expected.
        kind: of what a verification finds, its kind; "": of no kind that code has to know.
    """

    found: str
    expected: str = ""
    where: str = ""
    fix: str = ""
    kind: str = ""

    @property
    def what(self) -> str:
        """What was found, and what was expected."""
        return f"{self.found}; expected {self.expected}" if self.expected else self.found

    @property
    def described(self) -> str:
        """What is wrong, and where; not what to do."""
        return ": ".join(part for part in (self.where, self.what) if part)

    def __str__(self) -> str:
        return f"{self.described}; {self.fix}" if self.fix else self.described


class FfencError(Exception):
    """Base of every error ffenc raises on purpose. Its text says what was found and what to do.

    Code reads its attributes; the text is for people, and may change.

    Args:
        found, expected, where, fix: see :class:`Problem`.

    Attributes:
        problem: these parts.
        places: what :meth:`within` was called with, outermost first.
    """

    def __init__(self, found: str = "", *, expected: str = "", where: object = "", fix: str = "") -> None:
        super().__init__(found)
        self.problem = Problem(found, expected, str(where), fix)
        self.places: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ": ".join(part for part in (*self.places, str(self.problem)) if part)

    @property
    def what(self) -> str:
        """What was found, and what was expected."""
        return self.problem.what

    @property
    def where(self) -> str:
        """What it is about."""
        return self.problem.where

    @property
    def fix(self) -> str:
        """What to do."""
        return self.problem.fix

    @fix.setter
    def fix(self, text: str) -> None:
        self.problem = replace(self.problem, fix=text)

    @property
    def described(self) -> str:
        """What is wrong, and where; not what to do."""
        return self.problem.described

    @property
    def cause(self) -> str:
        """Why, in one line, without :attr:`places`."""
        return str(self.problem).partition("\n")[0]

    def within(self, place: str) -> Self:
        """Add in what it has happened, such as a camera's name, before all else; returns the error itself."""
        self.places = (place, *self.places)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors travel between processes, whatever they are constructed with."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[FfencError], args: tuple[Any, ...], fields: dict[str, Any]) -> FfencError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(fields)
    return error


class ConfigError(FfencError, ValueError):
    """A setting, a preset or a command-line value that cannot be accepted."""


class FrameIndexError(ConfigError, IndexError):
    """A frame was asked for that the video does not have."""


class SourceError(FfencError):
    """The input frames or dataset are damaged, incomplete or of a kind that is not supported."""


class DestinationError(FfencError):
    """The destination exists, is in use, or cannot be written."""


class CameraError(FfencError):
    """A camera cannot be opened, gives no frames, or gives others than were asked for."""


class ToolchainError(FfencError):
    """No FFmpeg program on this machine can do the job.

    Args:
        text: what was found and what to do.
        cause: why, in one line; by default the text's first.
    """

    def __init__(self, text: str, cause: str | None = None) -> None:
        self._cause = cause
        super().__init__(text)

    @property
    def cause(self) -> str:
        return self._cause or super().cause


class VerificationError(FfencError):
    """FFmpeg reported success, but what it wrote is not what was asked for."""


class FfmpegError(FfencError):
    """An FFmpeg process failed.

    Attributes:
        reason: what happened, without FFmpeg's words.
        command: the argument list that was run.
        returncode: exit status; negative is the number of the signal that ended it.
        stderr: the last lines it wrote to standard error.
        unable: it could not run: it was killed from outside, or lacked memory, threads or open files. That
            says nothing of its input, nor of what it can do.
    """

    def __init__(
        self,
        reason: str,
        *,
        command: Sequence[str],
        returncode: int,
        stderr: Sequence[str],
        unable: bool = False,
    ) -> None:
        self.reason = reason
        self.unable = unable
        self.command = list(command)
        self.returncode = returncode
        self.stderr = list(stderr)
        tail = "\n".join(f"  | {line}" for line in self.stderr[-12:])
        super().__init__(
            f"{reason} (exit status {returncode})\n{tail}\n  command: {shlex.join(self.command)}"
        )

    @property
    def cause(self) -> str:
        """The line of ``stderr`` that most likely says why, without the marks FFmpeg puts before it."""
        faults = [line for line in self.stderr if "[error]" in line or "[fatal]" in line]
        telling = [line for line in faults if not re.search(r"failed: -\d+\.?$", line)]
        line = (telling or faults or self.stderr or [self.reason])[0]
        return re.sub(r"^(\[[^\]]*\]\s*)+", "", line).rstrip(".") or line


class Cancelled(FfencError):
    """The work was stopped from outside before it was done."""


class FfencWarning(UserWarning):
    """A setting that was accepted but does not have the effect its writer may expect."""
