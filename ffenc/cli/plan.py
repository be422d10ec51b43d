"""Output of a dry run of jobs that copy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ffenc.cli import output
from ffenc.cli.display import human_bytes
from ffenc.cli.output import print_json
from ffenc.words import camera_frames, count

if TYPE_CHECKING:
    from ffenc.dataset.job.plan import JobPlan


def print_plans(plans: Mapping[str, JobPlan], as_json: bool) -> None:
    """Print the plan for one dataset or for several parts."""
    if as_json:
        fields = {name: plan_fields(plan) for name, plan in plans.items()}
        print_json(fields.get("", fields))
        return
    for plan in plans.values():
        frames = camera_frames(plan.frames, len(plan.streams) + len(plan.images))
        output.result(f"{plan.destination} (not written): {count(len(plan.episodes), 'episode')}, {frames}")
        for key in plan.images:
            changed = plan.changed_images.get(key)
            how = "copied" if changed is None else f"changed: {changed}"
            output.result(f"  {key}: images {how}")
        for stream in plan.streams:
            encoded = len(plan.episodes) - len(stream.copied)
            how = f", {encoded} re-encoded" if encoded else ""
            size = human_bytes(stream.source_bytes)
            copied = count(len(stream.copied), "episode")
            why = f": {stream.why}" if not stream.copied else ""
            output.result(f"  {stream.key}: {copied} copied{how}, {size}{why}")
            for number, why in list(stream.uncopied.items())[:3]:
                output.result(f"    episode {number}: {why}")


def plan_fields(plan: JobPlan) -> dict[str, Any]:
    """Return a plan for ``--json``."""
    return {
        "destination": str(plan.destination),
        "episodes": [episode.index for episode in plan.episodes],
        "frames": plan.frames,
        "edits": dict(plan.edits),
        "cameras": {
            stream.key: {
                "copied_episodes": len(stream.copied),
                "encoded_episodes": len(plan.episodes) - len(stream.copied),
                "why_encoded": {str(number): why for number, why in stream.uncopied.items()},
                "source_bytes": stream.source_bytes,
                "transform": stream.transform.fields() if stream.transform is not None else None,
            }
            for stream in plan.streams
        },
        "image_cameras": list(plan.images),
        "changed_images": {key: one.fields() for key, one in plan.changed_images.items()},
        "commands": plan.commands(),
    }
