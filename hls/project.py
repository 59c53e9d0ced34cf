"""Write a program as a Vitis HLS project: kernels, parameters, top, test bench with vectors, script.

The text is a function of the program alone: the same program gives the same bytes. Parameter structs are made from
`operation.constants`, `inputs`, `output` and `accumulator` without knowing the operation, so that a new operation
needs nothing but its kernel `hls/kernels/<stem>.hpp`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bittrue.hls.batch import batch
from bittrue.hls.generated import parameters, test_bench, top, top_header
from bittrue.hls.network import KernelGraph
from bittrue.sim.errors import BittrueError
from bittrue.sim.files import write_whole
from bittrue.sim.held import Held, Sets
from bittrue.sim.locks import locked
from bittrue.sim.program import Node, Program
from bittrue.sim.reading import sealed

HERE = Path(__file__).parent
#: Sources that every project contains: name in this folder -> name in the project.
COMMON = {
    "kernels/contract.hpp": "contract.hpp",
    "kernels/axis.hpp": "axis.hpp",
    "kernels/frames.hpp": "frames.hpp",
    "hls_stream.h": "host/hls_stream.h",
    "kernels/probe.hpp": "host/probe.hpp",
}
#: Frames of the test bench when the caller gives none; the first two are all low and all high.
FRAMES = 8
#: Kernels that take their arrays as arguments, so that these can be held inputs.
HOLDING = (
    *("affine", "bundle", "depthwise", "linear", "mean", "multiply", "photonic_mac", "spiking_linear", "tile_sum"),
    "unbundle",
)


def write(
    program: Program,
    folder: str | Path,
    x: Sequence[np.ndarray] | None = None,
    interval: int = 0,
    control: str = "ap_ctrl_none",
) -> Path:
    """Write the project and return its folder.

    `x` holds the test bench's frames, one array `[n, *shape]` per input; None draws `FRAMES` from a fixed seed.
    The expected results are the golden simulator's; where samples go in groups, these have every size in turn, and
    frames of code 0 complete the last one. `interval` is the wanted number of cycles between frames: each
    matrix kernel forms `ceil(macs / interval)` products a cycle. Streams carry one code a cycle, so the size of the
    largest tensor is the least that can be had, and the default. `control` is how the top is
    started: by default it takes frames as they come.
    Raises BittrueError when an operation has no kernel, before anything is written.
    """
    kernels = [kernel_of(node) for node in program.nodes]
    for node, kernel in zip(program.nodes, kernels, strict=True):
        if kernel not in HOLDING and any(not held.counts for held in node.operation.held.values()):
            raise BittrueError(
                f"operation {node.name!r}: the HLS kernel of {type(node.operation).__name__} takes no held inputs "
                f"({', '.join(node.operation.held)}); leave them constant"
            )
    network = KernelGraph.of(program, kernels)
    interval = max(interval, *(kind.size for kind in program.types.values()))
    frames = program.check(*(random_frames(program) if x is None else x))
    files = {target: (HERE / source).read_text() for source, target in COMMON.items()}
    files |= {f"{kernel}.hpp": (HERE / "kernels" / f"{kernel}.hpp").read_text() for kernel in kernels}
    files["parameters.h"] = parameters(program, network, interval)
    files["top.hpp"], files["top.cpp"] = top_header(network), top(program, network, kernels, control)
    files["tb.cpp"], files["host/batch.cpp"] = test_bench(network), batch(network)
    files["run_hls.tcl"] = (HERE / "run_hls.tcl").read_text()
    sizes = group_sizes(program, len(frames[0]))
    frames = [np.concatenate([v, np.zeros((sum(sizes) - len(v), *v.shape[1:]), v.dtype)]) for v in frames]
    results = program.run(*frames, held=changes(program, sizes))
    told = [np.array(sizes)] if network.sizes else []
    for (port, _), codes in zip(network.ports, (*frames, *told, *results), strict=True):
        files[f"vectors/{port}.txt"] = vectors(codes)
    for argument, held in network.held.items():
        files[f"vectors/{argument}.txt"] = vectors(held.initial[None])
    files["project.json"] = describe(program, network, files)
    with locked(folder) as place:
        for name, text in files.items():
            write_whole(place / name, text.encode())
    return place


def kernel_of(node: Node) -> str:
    """The stem of the operation's module, which names its kernel and the file that holds it."""
    kind = type(node.operation)
    stem = kind.__module__.rsplit(".", 1)[-1]
    if not (HERE / "kernels" / f"{stem}.hpp").is_file():
        raise BittrueError(
            f"operation {node.name!r} ({kind.__name__}, {kind.__module__.replace('.', '/')}.py) has no HLS kernel; "
            f"write template <class P> void {stem}(...) in hls/kernels/{stem}.hpp"
        )
    return stem


def random_frames(program: Program) -> list[np.ndarray]:
    """`FRAMES` frames of every input, full range, from a fixed seed; the first all low, the second all high."""
    rng = np.random.default_rng(0)
    drawn = []
    for kind in program.inputs.values():
        codes = rng.integers(kind.format.low, kind.format.high + 1, (FRAMES, *kind.shape))
        codes[0], codes[1] = kind.format.low, kind.format.high
        drawn.append(codes)
    return drawn


def group_sizes(program: Program, frames: int) -> list[int]:
    """Of the test bench's calls the frames of each: where n is a held input it takes every value in turn."""
    if program.grouping is None:
        return [1] * frames
    modes = program.grouping.modes
    at = modes.index(program.grouping.size)
    sizes: list[int] = []
    while sum(sizes) < frames:
        sizes.append(modes[at])
        at = (at + 1) % len(modes)
    return sizes


def changes(program: Program, sizes: Sequence[int]) -> Sets | None:
    """The sets with which the frames of a run make groups of these sizes."""
    if program.grouping is None or program.grouping.held is None:
        return None
    name, starts = program.grouping.held.name, np.cumsum([0, *sizes[:-1]])
    return [(int(at), {name: np.array(n)}) for at, n in zip(starts, sizes, strict=True)]


def vectors(codes: np.ndarray) -> str:
    """One frame a line, decimal."""
    return "".join(" ".join(map(str, frame)) + "\n" for frame in codes.reshape(len(codes), -1).tolist())


def describe(program: Program, network: KernelGraph, files: dict[str, str]) -> str:
    """What a caller needs to know to run the project: hash, sources, types of the tensors, the network."""
    record = {
        "sha256": program.sha256,
        "inputs": list(program.inputs),
        "results": list(program.results),
        "tensors": [[name, list(kind.shape), str(kind.format)] for name, kind in program.types.items()],
        "held": held_record(program.written),
        "ports": [port for port, _ in network.ports],
        "streams": {stream.name: stream.depth for stream in network.streams},
        "processes": [[p.call, list(p.reads), list(p.writes)] for p in network.processes],
        "sources": sorted(name for name in files if name.endswith((".h", ".hpp", ".cpp"))),
    }
    if (grouping := program.grouping) is not None:
        record["grouping"] = {
            "slots": grouping.slots,
            "size": grouping.size,
            "held": grouping.held.name if grouping.held is not None else "",
            "tensors": sorted(grouping.tensors),
        }
    return sealed(record).decode()


def held_record(written: Mapping[str, Held]) -> dict[str, Any]:
    """Held inputs as JSON."""
    return {
        name: {"shape": list(h.shape), "low": h.low, "high": h.high, "initial": h.initial.reshape(-1).tolist()}
        | ({"among": list(h.among)} if h.among else {})
        for name, h in written.items()
    }
