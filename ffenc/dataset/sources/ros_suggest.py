"""Suggest a mapping for a bag, by the types of its topics."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ffenc.config.mapping import CameraMapping
from ffenc.dataset.sources.contents import Contents, Held, rate_of
from ffenc.dataset.sources.ros_bag import Bag
from ffenc.dataset.sources.ros_messages import Numbers, frame_of, is_joints, joint_names, kind_of, stamp_of
from ffenc.dataset.sources.ros_rosbag2 import bags_of
from ffenc.dataset.sources.ros_time import Stream
from ffenc.errors import FfencError, SourceError
from ffenc.words import count


def suggest(path: Path) -> Contents:
    """Return the contents of a recording, with a mapping suggested from the types of its topics."""
    bags = bags_of(path)
    bag = bags[0]
    topics = bag.topics
    received: dict[str, list[int]] = {name: [] for name in topics}
    header: dict[str, list[int | None]] = {name: [] for name in topics}
    size, damaged = dict.fromkeys(topics, 0), dict.fromkeys(topics, 0)
    first: dict[str, Any] = {}
    for raw in bag.messages(list(topics)):
        received[raw.topic].append(raw.received)
        size[raw.topic] += len(raw.data)
        try:
            message = bag.decoded(raw)
        except SourceError as error:
            first.setdefault(raw.topic, error)
            header[raw.topic].append(None)
            damaged[raw.topic] += 1
            continue
        header[raw.topic].append(stamp_of(message))
        first.setdefault(raw.topic, message)
    found = Contents(bag.path, "an MCAP file" if bag.path.suffix == ".mcap" else "a ROS 2 bag", None, [], {})
    found.files = len(bags)
    rates: dict[str, float] = {}
    zero = False
    for name, topic in topics.items():
        own = header[name]
        stamps = np.array(own, np.int64) if own and None not in own else None
        stream = Stream(name, np.array(received[name], np.int64), stamps, size[name], 0)
        zero |= stamps is not None and not stamps.any()
        report = stream.report("received" if zero else "header")
        rates[name] = report.get("rate", 0.0)
        notes = [
            f"{key} {report[key]}" for key in ("duplicates", "out_of_order", "clock_jumps") if key in report
        ]
        if report.get("longest_gap", 0) > 2 / max(rates[name], 1e-9):
            notes.append(f"gap {report['longest_gap']:.3f} s")
        if isinstance(first.get(name), SourceError):
            notes.append(str(first[name]).rpartition(": ")[2])
        elif damaged[name]:
            notes.append(count(damaged[name], "damaged message"))
        found.held.append(
            Held(name, topic.type, len(received[name]), size[name], rates[name] or None, "; ".join(notes))
        )
    if bag.remark:
        found.remarks.append(bag.remark)
    _suggest_mapping(found, bag, first, rates)
    if zero:
        found.mapping["time"] = {"stamps": "received"}
        found.remarks.append("headers have no timestamps: the times of reception are used")
    return found


def _suggest_mapping(found: Contents, bag: Bag, first: Mapping[str, Any], rates: Mapping[str, float]) -> None:
    cameras: dict[str, Any] = {}
    features: dict[str, Any] = {}
    shown = [
        name
        for name, topic in bag.topics.items()
        if kind_of(topic.type) and name in first and not isinstance(first[name], SourceError)
    ]
    rate = min((rates[name] for name in shown if rates[name]), default=0.0)
    near = round(rate) if abs(rate - round(rate)) < 0.05 * rate else round(rate, 2)
    fps = rate_of(near)
    if fps is not None:
        found.mapping["fps"] = fps
    slow = 0.0 if fps is None else 1 / (2 * fps)
    for name in shown:
        camera: dict[str, Any] = {"path": name}
        for depth in (False, True) if kind_of(bag.topics[name].type) != "video" else ():
            try:
                frame_of(first[name], CameraMapping(path=name, depth=depth), name)
            except FfencError as error:
                fault = error.cause
                continue
            camera |= {"depth": True} if depth else {}
            break
        else:
            if kind_of(bag.topics[name].type) == "video":
                pass
            elif "channels:" in fault:
                camera["channels"] = "rgb"
            else:
                found.remarks.append(fault)
                continue
        cameras[_short(name, cameras)] = camera
    for name, topic in bag.topics.items():
        if name in shown or name not in first or isinstance(first[name], SourceError):
            continue
        try:
            value = Numbers(topic.type, None, None).of(first[name], name)
        except SourceError:
            continue
        one: dict[str, Any] = {"path": name}
        if isinstance(value, str):
            if "task" not in found.mapping and any(
                word in name for word in ("task", "instruction", "language")
            ):
                found.mapping["task"] = {"path": name}
            else:
                found.remarks.append(f"{name}: texts; if it is the task, write task: {{path: {name}}}")
            continue
        if not 0 < len(value) <= 1000 or value.dtype.kind not in "fiub":
            continue
        if rates[name] and 1 / (2 * rates[name]) > slow:
            one["tolerance"] = round(0.6 / rates[name], 4)
        joints = joint_names(first[name])
        if len(joints) == len(value):
            one["names"] = joints
        if value.dtype == np.float64:
            one["dtype"] = "float32"
        features[_feature_name(name, topic.type, features)] = one
    found.mapping |= {"cameras": cameras, "features": features}
    if "action" not in features:
        found.remarks.append(
            "no topic is called action, command or target: add the one that contains the actions"
        )
    if not cameras:
        found.remarks.append("no topic has supported images: add the cameras")


def _short(topic: str, taken: Mapping[str, Any]) -> str:
    parts = [
        p
        for p in topic.strip("/").split("/")
        if p not in ("image_raw", "image", "compressed", "compressedDepth")
    ]
    parts = [p for p in parts if p not in ("image_rect_raw", "image_rect", "color")] or topic.strip(
        "/"
    ).split("/")
    name = parts[-1] if parts[-1] not in taken and len(parts) < 2 else "_".join(parts)
    while name in taken:
        name += "_2"
    return name


def _feature_name(topic: str, kind: str, taken: Mapping[str, Any]) -> str:
    last = topic.strip("/").replace("/", "_")
    if any(word in last for word in ("action", "command", "target")) and "action" not in taken:
        return "action"
    if is_joints(kind) and "observation.state" not in taken:
        return "observation.state"
    return f"observation.{last}"
