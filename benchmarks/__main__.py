"""Run all benchmarks that need nothing but ffenc's own environment, one after the other.

    python benchmarks

Each prints its ratios; ``python benchmarks/NAME.py --help`` says what of, and which take LeRobot's.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

NAMES = ("run", "images", "depth", "video", "edit", "reader", "recording", "sources")

for name in NAMES:
    print(f"== {name}", flush=True)
    subprocess.run([sys.executable, Path(__file__).with_name(f"{name}.py")], check=True)
