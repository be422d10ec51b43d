"""Lists of accepted names, with the nearest one, for error messages."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable


def accepted(found: object, names: Iterable[object], nearest: str | None = None) -> str:
    """Return ``"; did you mean 'x'? Accepted: x, y"``; "" without names.

    The question is asked only if a name is similar. Numbers are not: 14 is not nearly 4.
    """
    texts = [str(name) for name in names]
    if not texts:
        return ""
    near = [nearest] if nearest else difflib.get_close_matches(str(found), texts, n=1, cutoff=0.6)
    near = [] if re.fullmatch(r"-?[0-9.]+", str(found)) else near
    question = f"did you mean {near[0]!r}? Accepted" if near else "accepted"
    return f"; {question}: {', '.join(texts)}"
