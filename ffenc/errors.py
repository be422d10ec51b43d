"""The errors of ffenc: one class for each kind that a caller may handle differently."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

    from ffenc.problem import Problem


class FfencError(Exception):
    """Base class of the errors that ffenc raises. The text says what was found and what to do.

    Programs should use the attributes; the text is for people and may change.

    Args:
        found, expected, where, fix: see :class:`~ffenc.problem.Problem`.

    Attributes:
        problem: these parts.
        places: the arguments of :meth:`within`, outermost first.
    """

    def __init__(self, found: str = "", *, expected: str = "", where: object = "", fix: str = "") -> None:
        from ffenc.problem import Problem  # noqa: PLC0415 - keeps --help quick

        super().__init__(found)
        self.problem: Problem = Problem(found, expected, str(where), fix)
        self.places: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ": ".join(part for part in (*self.places, str(self.problem)) if part)

    @property
    def what(self) -> str:
        """What was found and what was expected."""
        return self.problem.what

    @property
    def where(self) -> str:
        """The file, line, image, camera or setting."""
        return self.problem.where

    @property
    def fix(self) -> str:
        """What to do."""
        return self.problem.fix

    @fix.setter
    def fix(self, text: str) -> None:
        from msgspec.structs import replace  # noqa: PLC0415 - see above

        self.problem = replace(self.problem, fix=text)

    @property
    def described(self) -> str:
        """What is wrong and where, without what to do."""
        return self.problem.described

    @property
    def cause(self) -> str:
        """The cause in one line, without :attr:`places`."""
        return str(self.problem).partition("\n")[0]

    def within(self, place: str) -> Self:
        """Put a place, such as a camera's name, before the error's text; return the error itself."""
        self.places = (place, *self.places)
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Support pickling: errors are passed between processes, whatever their constructors take."""
        return _restored, (type(self), self.args, self.__dict__)


def _restored(kind: type[FfencError], args: tuple[Any, ...], fields: dict[str, Any]) -> FfencError:
    error = kind.__new__(kind)
    error.args = args
    error.__dict__.update(fields)
    return error


class ConfigError(FfencError, ValueError):
    """A setting, preset or command-line value that is not accepted."""


class FrameIndexError(ConfigError, IndexError):
    """A requested frame that the video does not have."""


class SourceError(FfencError):
    """Input frames or a dataset that is damaged, incomplete or not supported."""


class DestinationError(FfencError):
    """A destination that exists, is in use, or cannot be written."""


class CameraError(FfencError):
    """A camera that cannot be opened, gives no frames, or gives other frames than requested."""


class ToolchainError(FfencError):
    """No FFmpeg program on this machine can do the job.

    Args:
        text: what was found and what to do.
        cause: the cause in one line; default: the first line of the text.
    """

    def __init__(self, text: str, cause: str | None = None) -> None:
        self._cause = cause
        super().__init__(text)

    @property
    def cause(self) -> str:
        return self._cause or super().cause


class VerificationError(FfencError):
    """FFmpeg reported success, but its output is not what was requested."""


class FfmpegError(FfencError):
    """An FFmpeg process failed.

    Attributes:
        reason: what happened, without FFmpeg's messages.
        command: the argument list.
        returncode: exit status; if negative, the number of the signal that ended the process.
        stderr: last lines of standard error.
        unable: the process could not run: it was killed from outside, or lacked memory, threads or open
            files. The failure then says nothing about the input or the program.
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
        said = [f"  | {line}" for line in self.stderr[-12:]]
        lines = [f"{reason} (exit status {returncode})", *said, f"  command: {shlex.join(self.command)}"]
        super().__init__("\n".join(lines))

    @property
    def cause(self) -> str:
        """The line of ``stderr`` that most likely names the cause, without FFmpeg's prefixes.

        A program that crashed says nothing of it itself.
        """
        faults = [line for line in self.stderr if "[error]" in line or "[fatal]" in line]
        telling = [line for line in faults if not re.search(r"failed: -\d+\.?$", line)]
        said = [] if self.returncode < 0 and self.returncode != -signal.SIGKILL else self.stderr
        line = (telling or faults or said or [self.reason])[0]
        return re.sub(r"^((Svt|x265 ?)?\[[^\]]*\]:?\s*)+", "", line).rstrip(".") or line


class Cancelled(FfencError):
    """The work was cancelled before it was complete."""


class FfencWarning(UserWarning):
    """A setting was accepted, but may not have the expected effect."""
