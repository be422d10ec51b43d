"""Memory of images is used again."""

from __future__ import annotations

import subprocess
import sys

LOOP = """
import resource
import threading
import numpy as np
from ffenc.cli.memory import keep_freed
{first}
def work():
    for _ in range(200):
        images = [np.ones((480, 640, 3), np.uint8) for _ in range(3)]
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(first: str) -> int:
    program = [sys.executable, "-c", LOOP.format(first=first)]
    return int(subprocess.run(program, check=True, capture_output=True, text=True).stdout)


def test_images_take_new_memory_once() -> None:
    assert 4 * faults("keep_freed()") < faults("")
