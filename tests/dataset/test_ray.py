"""Pieces that Ray makes are those that this machine makes, to the byte; lost workers cost nothing."""

from __future__ import annotations

import hashlib
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from msgspec.structs import replace

from ffenc import (
    ConfigError,
    RayExecutor,
    SourceError,
    ToolchainError,
    plan_reencode,
    reencode_dataset,
    run_plan,
)
from ffenc.config.mapping import build_mapping
from ffenc.dataset.executors.ray_nodes import hardware_options
from tests.conftest import ANGLE, DATASET, FIXTURES, find_toolchain
from tests.recording.recording import wait_for
from tests.support.command_line import CommandLine
from tests.support.read import contents
from tests.support.recorded import _Messages, samples, video_packets, write_mcap
from tests.support.s3 import S3, s3_server

VIDEO = FIXTURES / "aloha_video_v30"
H264 = [(("camera_encoder", "vcodec"), "h264"), (("camera_encoder", "preset"), "ultrafast")]


@pytest.fixture(scope="module", autouse=True)
def ray_folder() -> Iterator[None]:
    """Ray keeps what a session wrote, and packages that came with a job. Its sockets need a short path."""
    with (
        tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("RAY_TMPDIR", folder)
        yield


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    """An S3 server, and a cache folder; the workers of the cluster inherit where they are."""
    with pytest.MonkeyPatch.context() as patch, s3_server() as s3:
        patch.setenv("FFENC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield s3


@pytest.fixture(scope="module")
def cluster(bucket: S3) -> Iterator[Any]:
    """Two machines of a CPU each, as far as Ray knows, with the newest programs."""
    import ray
    from ray.cluster_utils import Cluster

    newest = find_toolchain("newest")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FFENC_FFMPEG", newest.ffmpeg)
        patch.setenv("FFENC_FFPROBE", newest.ffprobe)
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        unneeded = {"include_dashboard": False, "include_log_monitor": False, "no_monitor": True}
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **unneeded})
        made.add_node(num_cpus=1)
        patch.setenv("RAY_ADDRESS", made.address)
        ray.init(address=made.address, log_to_driver=False)
        yield made
        ray.shutdown()
        made.shutdown()


SLOW: dict[str, Any] = {
    "cameras": ["top", "angle"],
    "overrides": [*H264, (("camera_encoder", "preset"), "veryslow")],
}


@pytest.fixture(scope="module")
def slow_here(cluster: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What this machine makes of what takes long enough to be interrupted."""
    out = tmp_path_factory.mktemp("slow") / "here"
    reencode_dataset(DATASET, out, **SLOW)
    return contents(out)


@pytest.mark.parametrize(
    ("source", "options"),
    [
        (DATASET, {"overrides": H264, "cameras": ["top", "angle_depth"]}),
        (VIDEO, {"overrides": H264, "cameras": ["angle"], "force": True, "episodes": [0, 2]}),
    ],
    ids=["images and depth", "video"],
)
def test_the_bytes_are_those_of_one_machine(
    cluster: Any, source: Path, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reencode_dataset(source, tmp_path / "here", **options)
    monkeypatch.chdir(source.parent)  # Ray's workers begin in another folder
    done: list[int] = []
    summary = reencode_dataset(
        source.name,
        tmp_path / "ray",
        executor=RayExecutor(),
        on_progress=lambda frames, _: done.append(frames),
        **options,
    )
    assert contents(tmp_path / "ray") == contents(tmp_path / "here")
    assert done[-1] == summary.frames
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "ray"]


def test_an_error_names_its_episode_and_the_rest_is_taken_up(cluster: Any, tmp_path: Path) -> None:
    source = Path(shutil.copytree(DATASET, tmp_path / "source"))
    path = source / "data/chunk-000/file-000.parquet"
    good = path.read_bytes()
    table = pq.read_table(path)
    images = table[ANGLE].to_pylist()
    images[60]["bytes"] = images[60]["bytes"][:500]
    at = table.column_names.index(ANGLE)
    pq.write_table(table.set_column(at, ANGLE, pa.array(images, table.schema.field(at).type)), path)
    with pytest.raises(SourceError, match=r"row 60.*cut short"):
        reencode_dataset(source, tmp_path / "out", overrides=H264, cameras=["angle"], executor=RayExecutor())
    assert not (tmp_path / "out").exists()
    path.write_bytes(good)
    reencode_dataset(source, tmp_path / "out", overrides=H264, cameras=["angle"], resume=True)
    reencode_dataset(DATASET, tmp_path / "whole", overrides=H264, cameras=["angle"])
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def started(folder: Path) -> tuple[threading.Thread, list[Any]]:
    """A slow job in a thread, and the list that will hold its summary."""
    result: list[Any] = []
    thread = threading.Thread(
        target=lambda: result.append(
            reencode_dataset(DATASET, folder / "ray", executor=RayExecutor(), **SLOW)
        )
    )
    thread.start()
    return thread, result


def working() -> list[psutil.Process]:
    """Ray's workers that encode an episode."""
    listed = [(process, process.info["cmdline"]) for process in psutil.process_iter(["cmdline"])]
    return [one for one, words in listed if words and words[0].startswith("ray::observation.images.")]


def test_a_killed_encoder_is_started_again(cluster: Any, slow_here: dict[str, str], tmp_path: Path) -> None:
    """On a machine that is being lost, it can be killed before the worker, which then reports it."""
    thread, result = started(tmp_path)
    encoders: list[psutil.Process] = []

    def encoding() -> bool:
        with suppress(psutil.Error):  # a worker has ended in the meantime
            children = [child for worker in working() for child in worker.children(recursive=True)]
            encoders[:] = [child for child in children if child.name().startswith("ffmpeg")]
        return bool(encoders)

    wait_for(lambda: encoding() or bool(result), limit=120, every=0.1)
    assert not result
    encoders[0].kill()
    thread.join()
    assert result
    assert contents(tmp_path / "ray") == slow_here


def test_a_killed_worker_and_a_lost_machine_are_replaced(
    cluster: Any, slow_here: dict[str, str], tmp_path: Path
) -> None:
    """Of three machines one is lost, and a worker of another is killed, while they encode."""
    lost = cluster.add_node(num_cpus=1)
    raylet = psutil.Process(lost.all_processes["raylet"][0].process.pid)
    thread, result = started(tmp_path)

    def there() -> list[psutil.Process]:
        own = {process.pid for process in raylet.children(recursive=True)}
        return [process for process in working() if process.pid in own]

    # To look through all processes takes a processor that the machines need.
    wait_for(lambda: (bool(there()) and len(working()) > 1) or bool(result), limit=120, every=0.1)
    assert not result
    next(process for process in working() if process not in there()).kill()
    cluster.remove_node(lost, allow_graceful=False)
    thread.join()
    assert result
    assert result[0].frames == 144
    assert contents(tmp_path / "ray") == slow_here


def test_a_machine_without_the_program_gets_no_work(cluster: Any, tmp_path: Path) -> None:
    plan = plan_reencode(DATASET, tmp_path / "out", overrides=H264, cameras=["top"])
    [stream] = plan.streams
    assert stream.encoding is not None
    other = replace(stream.encoding.toolchain, version="0.0-none")
    plan = replace(plan, streams=[replace(stream, encoding=replace(stream.encoding, toolchain=other))])
    with pytest.raises(ToolchainError, match=r"no machine of the cluster has FFmpeg 0\.0-none"):
        run_plan(plan, executor=RayExecutor())
    assert not (tmp_path / "out").exists()


def test_a_machine_that_does_not_see_the_packets_of_a_bag_is_named_before_any_work(
    cluster: Any, tmp_path: Path
) -> None:
    packets, make = video_packets(samples(8)[0].angle, "h264", 4), _Messages()
    second = 1_000_000_000
    messages = [
        ("/cam", i * second // 10, make.video(i * second // 10, packet, "h264"))
        for i, packet in enumerate(packets)
    ]
    mapping = build_mapping({"fps": 10, "cameras": {"cam": {"path": "/cam"}}})
    bag = write_mcap(tmp_path / "a.mcap", messages)
    plan = plan_reencode(bag, tmp_path / "out", mapping=mapping, task="x", overrides=H264)
    [folder] = plan.source.temporary
    elsewhere = folder.rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=rf"cannot read {folder}, .* set TMPDIR to a folder there"):
        run_plan(plan, executor=RayExecutor())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mcap", "elsewhere"]
    elsewhere.rename(folder)
    assert run_plan(plan, executor=RayExecutor()).frames == 8


def test_a_machine_that_does_not_see_the_folder_of_the_pieces_is_named_before_any_work(
    cluster: Any, tmp_path: Path
) -> None:
    class Unshared(RayExecutor):
        def open(self, workers: int, uses: Sequence[Path] = ()) -> Any:
            next(path for path in uses if path.name == "pieces").rename(tmp_path / "elsewhere")
            return super().open(workers, uses)

    plan = plan_reencode(DATASET, tmp_path / "out", overrides=H264, cameras=["top"])
    with pytest.raises(ConfigError, match=r"cannot read .*/pieces, which the job uses on all machines"):
        run_plan(plan, executor=Unshared())
    assert [path.name for path in tmp_path.iterdir()] == ["elsewhere"]


def test_tasks_of_every_kind_can_be_pickled(png_tree: Path, dataset_v21: Path, tmp_path: Path) -> None:
    for number, (source, options) in enumerate(
        [(DATASET, {}), (VIDEO, {"force": True}), (dataset_v21, {}), (png_tree, {"fps": 30})]
    ):
        plan = plan_reencode(source, tmp_path / f"out-{number}", overrides=H264, **options)
        for stream in plan.streams:
            task = stream.task(plan, plan.episodes[0], tmp_path)
            again = pickle.loads(pickle.dumps(task))
            assert again.fingerprint(again.clip()) == task.fingerprint(task.clip())


def test_what_cannot_be_reached_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="accepted: prefer, require"):
        RayExecutor(same_program="always")  # type: ignore[arg-type]
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'ffenc\[ray\]'"):
        RayExecutor()


def test_commands_run_on_a_cluster(cluster: Any, ffenc: CommandLine, tmp_path: Path) -> None:
    """Packets are copied, images counted, frames decoded and compared on the cluster, as on this machine."""
    made, both, part = tmp_path / "made", tmp_path / "both", tmp_path / "part"
    settings = ["--cameras", "angle", "--camera_encoder.vcodec=h264"]
    commands: dict[Path, list[Any]] = {
        made: ["reencode", DATASET, made, *settings],
        both: ["merge", VIDEO, VIDEO, "--out", both],
        part: ["edit", VIDEO, part, "--exclude-episodes", "1"],
    }
    for place, words in commands.items():
        ffenc.done(*words)
        place.rename(tmp_path / f"{place.name} here")
        ffenc.done(*words, "--on", "auto")
        assert contents(place) == contents(tmp_path / f"{place.name} here")
    compared = ["verify", made, "--against", DATASET, "--deep", "--again", "--json"]
    here, there = (ffenc.done(*compared, *more).json for more in ([], ["--on", "auto"]))
    assert there["cameras"][0]["compared"] is not None
    assert {**here, "seconds": 0} == {**there, "seconds": 0}
    damaged = next((made / "videos").rglob("*.mp4"))
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 255
    damaged.write_bytes(data)
    here, there = (
        ffenc.run("verify", made, "--deep", "--json", *more).json for more in ([], ["--on", "auto"])
    )
    assert not there["sound"]
    assert (here["recorded"], there["recorded"]) == (0, 1)  # a machine of the cluster has it on record
    assert {**here, "seconds": 0, "recorded": 1} == {**there, "seconds": 0}
    said = ffenc.run("edit", made, tmp_path / "cut", "--exclude-episodes", "1", "--on", "auto").err
    assert "`ffenc verify NEW --deep`" in said
    assert "verify_dataset(" not in said, "a worker names flags too"


def test_where_work_is_done_is_refused_where_it_means_nothing(ffenc: CommandLine, tmp_path: Path) -> None:
    words = ["reencode", DATASET, tmp_path / "b", "--same-program", "require"]
    assert "--same-program has no effect without --on" in ffenc.refused(*words, status=2)
    assert "--on would have no effect, because no frame is decoded; pass --deep or --against SRC too" in (
        ffenc.refused("verify", VIDEO, "--on", "ray")
    )
    file = next(VIDEO.rglob("*.mp4"))
    assert "is a single file" in ffenc.refused("verify", file, "--deep", "--on", "ray")


def test_a_driver_that_is_killed_is_taken_up(cluster: Any, slow_here: dict[str, str], tmp_path: Path) -> None:
    code = (
        "from ffenc import RayExecutor, reencode_dataset\n"
        f"reencode_dataset({str(DATASET)!r}, {str(tmp_path / 'out')!r}, executor=RayExecutor('auto'), "
        f"**{SLOW!r})"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as driver:
        pieces = tmp_path / ".out.ffenc/pieces"
        wait_for(lambda: bool(list(pieces.rglob("episode*.json"))) or driver.poll() is not None, limit=120)
        driver.kill()
    assert not (tmp_path / "out").exists()
    summary = reencode_dataset(DATASET, tmp_path / "out", resume=True, **SLOW)
    assert summary.resumed
    assert contents(tmp_path / "out") == slow_here


def test_a_signal_ends_it_with_ffencs_own_words_and_leaves_no_process(tmp_path: Path) -> None:
    settings = ["--cameras", "top", "--camera_encoder.vcodec=libsvtav1", "--camera_encoder.preset=0"]
    command = [sys.executable, "-m", "ffenc", "reencode", str(DATASET), str(tmp_path / "out")]
    with subprocess.Popen(
        [*command, *settings, "--workers", "2", "--on", "ray"], stderr=subprocess.PIPE, text=True
    ) as process:
        started: list[psutil.Process] = []

        def command_of(one: psutil.Process) -> str:
            try:
                return " ".join(one.cmdline())
            except psutil.Error:  # it has ended meanwhile
                return ""

        def working() -> bool:
            assert process.poll() is None
            started[:] = psutil.Process(process.pid).children(recursive=True)
            return any(command_of(one).startswith("ray::observation.images.top") for one in started)

        wait_for(working, limit=120, every=0.2)
        process.terminate()
        _, said = process.communicate(timeout=30)
    assert "SIGTERM received" not in said
    assert process.returncode == 143, said
    assert not (tmp_path / "out").exists()
    _, alive = psutil.wait_procs(started, timeout=20)
    assert [one.name() for one in alive] == []


@pytest.mark.parametrize(
    ("encoder", "there", "options"),
    [
        ("h264_nvenc", {"CPU", "GPU", "h264_nvenc"}, {"resources": {"h264_nvenc": 1}}),
        ("h264_nvenc", {"CPU", "GPU"}, {"num_gpus": 0.25}),
        ("h264_nvenc", {"CPU"}, {}),
        ("h264_vaapi", {"CPU", "GPU"}, {}),
        ("h264_vaapi", {"CPU", "h264_vaapi"}, {"resources": {"h264_vaapi": 1}}),
    ],
)
def test_an_encoder_of_a_device_asks_for_it(encoder: str, there: set[str], options: dict[str, Any]) -> None:
    assert hardware_options(encoder, there) == options


def test_all_other_episodes_are_finished_on_request(cluster: Any, tmp_path: Path) -> None:
    source = Path(shutil.copytree(DATASET, tmp_path / "source"))
    path = source / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    images = table[ANGLE].to_pylist()
    images[5]["bytes"] = images[5]["bytes"][:500]
    at = table.column_names.index(ANGLE)
    pq.write_table(table.set_column(at, ANGLE, pa.array(images, table.schema.field(at).type)), path)
    options: dict[str, Any] = {"cameras": ["angle"], "overrides": H264}
    with pytest.raises(SourceError, match=r"1 encode of 1 episode failed.*episodes 1-2 are complete"):
        reencode_dataset(source, tmp_path / "out", executor=RayExecutor(), keep_going=True, **options)
    summary = reencode_dataset(source, tmp_path / "out", resume=True, episodes=[1, 2], **options)
    assert summary.resumed == 2


def test_each_worker_fetches_what_it_reads_of_a_bucket(cluster: Any, bucket: S3, tmp_path: Path) -> None:
    options: dict[str, Any] = {"overrides": H264, "cameras": ["angle"], "episodes": [0, 2]}
    bucket.upload(VIDEO, "video")
    reencode_dataset("s3://lab/video", "s3://lab/made", executor=RayExecutor(), **options)
    made = {place: hashlib.sha256(data).hexdigest() for place, data in bucket.files("made").items()}
    reencode_dataset(VIDEO, tmp_path / "here", **options)
    assert made == contents(tmp_path / "here")


def test_ffenc_itself_can_come_with_the_job(tmp_path: Path) -> None:
    """As a wheel, which Ray installs where the pieces are made; the script says which ffenc made them.

    On a Ray of its own: the two machines of the other tests would install into one folder.
    """
    root = Path(__file__).parents[2]
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=root, check=True, capture_output=True)
    wheel = next(tmp_path.glob("*.whl"))
    script = tmp_path / "job.py"
    script.write_text(
        f"""
import ffenc.dataset.executors.ray_nodes as nodes
from ffenc import RayExecutor, reencode_dataset

def run(task, around):
    import ffenc.dataset.executors.ray_task as here
    with open({str(tmp_path / "where")!r}, "a") as file:
        file.write(here.__file__ + chr(10))
    return here.run_task(task, around)

nodes.run_task = run
pip = {{"packages": [{str(wheel)!r}], "pip_check": False, "pip_install_options": ["--no-deps", "--no-index"]}}
reencode_dataset(
    {str(VIDEO)!r}, {str(tmp_path / "out")!r}, cameras=["angle"], overrides={H264!r}, episodes=[0], workers=1,
    executor=RayExecutor(runtime_env={{"pip": pip}}),
)
"""
    )
    subprocess.run([sys.executable, str(script)], cwd=tmp_path, check=True)
    assert "runtime_resources" in (tmp_path / "where").read_text()
    assert (tmp_path / "out/meta/info.json").is_file()


def test_a_runtime_env_for_a_ray_that_runs_already_is_refused(cluster: Any, tmp_path: Path) -> None:
    executor = RayExecutor(runtime_env={"pip": ["ffenc"]})
    with pytest.raises(ConfigError, match="runtime_env would have no effect"):
        reencode_dataset(DATASET, tmp_path / "out", cameras=["angle"], overrides=H264, executor=executor)
