"""A problem in parts, which errors carry and verification collects."""

from __future__ import annotations

from msgspec import Struct


class Problem(Struct, frozen=True):
    """A problem in parts: carried by exceptions, and collected by verification.

    Attributes:
        found: what was found; if ``expected`` is empty, the sentence may also say what was expected.
        expected: what was expected instead, such as ``a whole number``.
        where: the file, line, image, camera or setting; "": ``found`` names it.
        fix: what to do; "": ``found`` says it, or to give what is expected is all there is to do.
        kind: kind of a fault that verification finds; "": code does not need to distinguish it.
    """

    found: str
    expected: str = ""
    where: str = ""
    fix: str = ""
    kind: str = ""

    @property
    def what(self) -> str:
        """What was found and what was expected."""
        return f"{self.found}; expected {self.expected}" if self.expected else self.found

    @property
    def described(self) -> str:
        """What is wrong and where, without what to do."""
        return ": ".join(part for part in (self.where, self.what) if part)

    def __str__(self) -> str:
        return f"{self.described}; {self.fix}" if self.fix else self.described
