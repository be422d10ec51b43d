"""Run the benchmarks that need nothing but ffenc's own environment, one after the other.

    python benchmarks [NAME ...]

Each prints its ratios; ``python benchmarks/NAME.py --help`` says of what, and which take LeRobot's.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

NAMES = ("run", "images", "depth", "video", "edit", "reader", "recording", "sources")


def main() -> None:
    """Run those that the command line names, by default all."""
    parser = argparse.ArgumentParser(
        "python benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)}; by default all")
    names = parser.parse_args().names
    for name in names:
        if name not in NAMES:
            parser.error(f"there is no benchmark {name!r}; they are {', '.join(NAMES)}")
    for name in names or NAMES:
        print(f"== {name}", flush=True)
        subprocess.run([sys.executable, Path(__file__).with_name(f"{name}.py")], check=True)


if __name__ == "__main__":
    main()
