"""A job on a pretended cluster: its CPUs are kept busy, and what an earlier run has left costs little."""

from __future__ import annotations

from pathlib import Path


def test_a_large_job_keeps_a_cluster_busy(tmp_path: Path) -> None:
    """The short form of ``benchmarks/cluster.py``: all but the encoders is ffenc's own, the clock is not."""
    from benchmarks.cluster import pretend  # with Ray, which takes a second

    found = pretend(tmp_path, episodes=300, cameras=2, cpus=32, seconds=0.5, resume=True)
    assert found.busy > 0.9
    assert found.piece < 5
    assert found.take_up < 5
