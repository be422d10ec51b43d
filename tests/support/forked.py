"""What a forked process does with the objects of the process that it was forked from."""

from __future__ import annotations

import os
from collections.abc import Callable

from ffenc import ConfigError


def refused_here(*calls: Callable[[], object]) -> None:
    """Assert that each call is refused, with the number of the process that the object belongs to."""
    for call in calls:
        try:
            call()
        except ConfigError as error:
            assert f"process {os.getppid()}" in str(error), error
        else:
            raise AssertionError(call)
