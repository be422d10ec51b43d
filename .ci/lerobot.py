#!/usr/bin/env python3
"""Make an environment that has LeRobot and what ffenc needs there, and print its python.

    .ci/lerobot.py FOLDER

LeRobot wants Python 3.12. Where there is an older one only, what it cannot parse of the installed copy (type
parameters in brackets, the `type` statement) is written in the older way, which means the same.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

LEROBOT = "lerobot==0.6.1"
# Of LeRobot's dependencies those that recording and editing datasets take. PyPI's torch is a CUDA build of
# several GB where no smaller one is offered; the version is one that ffenc's tests have been run with.
WANTED = (
    *("torch==2.13.0", "av>=15,<16", "numpy<2.5", "datasets>=4.8,<5", "draccus==0.11.6", "huggingface-hub"),
    *("pillow", "pyarrow", "pandas", "jsonlines", "einops", "safetensors", "termcolor", "tqdm", "packaging"),
    *("fsspec", "opencv-python-headless", "deepdiff", "imageio", "gymnasium", "pyyaml"),
)
_CLASS = re.compile(r"^class (\w+)\[([^\]]+)\](?:\(([^)]*)\))?:", re.M)
_FUNCTION = re.compile(r"^def (\w+)\[([^\]]+)\]\(", re.M)
_ALIAS = re.compile(r"^(\s*)type (\w+) *=", re.M)
_DECORATED = r"((?:^@[^\n]*\n)*)"


def main(folder: Path) -> None:
    root = Path(__file__).resolve().parents[1]
    newer = next(filter(runs, ("python3.12", "python3.13")), None)
    run(newer or sys.executable, "-m", "venv", "--upgrade-deps", str(folder))  # today's pip, which is fast
    python = folder / "bin/python"

    def install(*what: str) -> None:
        run(str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *what)

    ours = (f"{root}[ffmpeg]", "pytest")
    if newer:
        install(LEROBOT, *ours)
    else:
        install(*WANTED, *ours)
        install("--no-deps", "--ignore-requires-python", "torchvision==0.28", LEROBOT)
        packages = Path(next((folder / "lib").glob("python3*"))) / "site-packages"
        for path in (packages / "lerobot").rglob("*.py"):
            text = path.read_text("utf-8")
            older = in_older_python(text)
            if older != text:
                path.write_text(older, "utf-8")
        declare_operators(packages / "torchvision/_meta_registrations.py")
    run(str(python), "-c", "import lerobot.datasets.lerobot_dataset")
    print(python)


def in_older_python(text: str) -> str:
    """Return a module without the syntax that is new in Python 3.12."""
    text = _ALIAS.sub(r"\1\2 =", text)
    for found in list(_CLASS.finditer(text)):
        names = parameters(found[2])
        bases = ", ".join(filter(None, (found[3], f"_Generic[{', '.join(names)}]")))
        head = re.compile(_DECORATED + re.escape(found[0]), re.M)
        text = head.sub(f"{declared(names)}\\1class {found[1]}({bases}):", text, count=1)
    for found in list(_FUNCTION.finditer(text)):
        head = re.compile(_DECORATED + re.escape(found[0]), re.M)
        text = head.sub(f"{declared(parameters(found[2]))}\\1def {found[1]}(", text, count=1)
    return text


def parameters(text: str) -> list[str]:
    return [one.partition(":")[0].strip() for one in text.split(",")]


def declared(names: list[str]) -> str:
    variables = "".join(f'{name} = _TypeVar("{name}")\n' for name in names)
    return f"from typing import Generic as _Generic, TypeVar as _TypeVar\n{variables}"


def declare_operators(path: Path) -> None:
    """Declare what a torchvision asks for that was not built for this torch: it has no operators then."""
    text = path.read_text("utf-8")
    operators = (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    )
    lines = "".join(f'_operators.define("{one}")\n' for one in operators)
    library = 'import torch\n\n_operators = torch.library.Library("torchvision", "FRAGMENT")\n'
    path.write_text(text.replace("import torch\n", library + lines, 1), "utf-8")


def runs(python: str) -> bool:
    """Whether it is there, and is no shim of a version that is not."""
    path = shutil.which(python)
    return (
        path is not None
        and subprocess.run([path, "-c", ""], check=False, capture_output=True).returncode == 0
    )


def run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
