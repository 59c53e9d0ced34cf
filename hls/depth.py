"""Whether the depths of a project's streams suffice: its processes are played against streams of finite depth.

The host build runs one process after the other through unbounded streams, which says nothing about a deadlock in
hardware. But a process of the DATAFLOW region accesses its streams in an order that does not depend on the data, so
the recorded order of one frame, repeated, is what the hardware does; where samples go in groups, that of a group, for
each size of groups. A network of such processes deadlocks for one
schedule exactly when it does for all (Kahn), so any schedule decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bittrue.hls.host import build
from bittrue.sim.errors import BittrueError


@dataclass(frozen=True)
class Transfers:
    """What one process reads and writes in a call of the top, in order: names of streams, and which are written."""

    process: str
    streams: tuple[str, ...]
    writes: tuple[bool, ...]


def record(folder: str | Path, images: int | None = None) -> list[Transfers]:
    """The accesses of every process of the project to the streams between processes, from running one frame.

    Where samples go in groups it is one group; `images` is its size, by default the one that it has at first. Ports are
    left out: what is outside the network always delivers and always accepts. So are streams that a kernel makes inside
    itself.
    """
    kernel = build(folder, ("BITTRUE_LOG",))
    before = len(kernel.log())
    grouping = kernel.grouping
    frames = images or (grouping.size if grouping is not None else 1)
    held = {grouping.held.name: np.array(frames)} if grouping is not None and grouping.held is not None else None
    kernel.predict(*(np.zeros((frames, *kernel.tensors[name].shape), np.int64) for name in kernel.inputs), held=held)
    log = kernel.log()[before:]
    # Streams are numbered as they are constructed: the ports of the frame, then the streams of the top, in order.
    ports, names = len(kernel.project["ports"]), list(kernel.project["streams"])
    ends = np.flatnonzero(log == -1)
    first = int(log[log >= 0].min()) >> 1
    starts = [int(np.flatnonzero(log[: ends[0]] & 1 == 0)[0]), *(ends[:-1] + 1)]  # before it, the frame is sent
    processes = []
    for (call, _, _), start, end in zip(kernel.project["processes"], starts, ends, strict=True):
        entries = log[start:end]
        stream = (entries >> 1) - first - ports
        between = (stream >= 0) & (stream < len(names))  # beyond these are a kernel's own
        inner, order = entries[between], tuple(names[k] for k in stream[between])
        processes.append(Transfers(call, order, tuple((inner & 1).astype(bool).tolist())))
    return processes


def follow(*calls: list[Transfers]) -> list[Transfers]:
    """The accesses of several calls, one after the other: of groups of different sizes."""
    return [
        Transfers(
            parts[0].process,
            tuple(name for part in parts for name in part.streams),
            tuple(write for part in parts for write in part.writes),
        )
        for parts in zip(*calls, strict=True)
    ]


def check(processes: list[Transfers], depths: dict[str, int], frames: int = 3) -> None:
    """Play `frames` frames with streams of the given depths; raises BittrueError when the processes deadlock.

    Some depths deadlock only when a frame catches up with the one before it, hence more than one frame.
    """
    level = dict.fromkeys(depths, 0)
    position = [0] * len(processes)
    frame = [0] * len(processes)
    progress = True
    while progress:
        progress = False
        for k, process in enumerate(processes):
            at, order, writes = position[k], process.streams, process.writes
            while frame[k] < frames and order:
                name = order[at]
                if (level[name] >= depths[name]) if writes[at] else (level[name] == 0):
                    break
                level[name] += 1 if writes[at] else -1
                progress, at = True, at + 1
                if at == len(order):
                    at, frame[k] = 0, frame[k] + 1
            position[k] = at
    stuck = [k for k, process in enumerate(processes) if process.streams and frame[k] < frames]
    if stuck:
        waits = [
            f"{p.process} {'writes full' if p.writes[position[k]] else 'reads empty'} {p.streams[position[k]]}"
            for k, p in ((k, processes[k]) for k in stuck)
        ]
        raise BittrueError(f"HLS streams are too shallow: deadlock, {'; '.join(waits[:6])}; deepen the full streams")
