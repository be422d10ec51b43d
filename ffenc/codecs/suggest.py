"""Lists of accepted names, with the nearest one, for error messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def accepted(found: object, names: Iterable[object], nearest: str | None = None) -> str:
    """Return ``"; did you mean 'x'? Accepted: x, y"``; the question only if a name is similar."""
    texts = [str(name) for name in names]
    near = [nearest] if nearest else difflib.get_close_matches(str(found), texts, n=1, cutoff=0.6)
    question = f"did you mean {near[0]!r}? Accepted" if near else "accepted"
    return f"; {question}: {', '.join(texts)}"
