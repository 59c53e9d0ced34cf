"""Events of the golden simulator in the very frames that ran in hardware."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from bittrue.sim.held import Sets
from bittrue.sim.program import BLOCK, Program


class Events:
    """The events that a program makes of these images, by node that makes any (`TensorType.events`)."""

    def __init__(self, program: Program, images: Sequence[np.ndarray]):
        self.program, self.images = program, images

    def beside(self, seen: dict[str, int], x: Sequence[np.ndarray], held: Sets) -> dict[str, dict[str, int]]:
        """By node, the events that hardware counted (`seen`) and those of the golden simulator in the same frames `x`,
        which are the images in turn, with the sets of weights that these met."""
        if not seen:
            return {}
        frames = len(x[0])
        if held or self.program.counts_frames:  # a frame again is another one
            golden, index = self._made(x, held), np.arange(frames)
        else:
            golden, index = self.golden, np.arange(frames) % len(self.images[0])
        return {node: {"golden": int(golden[node][index].sum()), "rtl": count} for node, count in seen.items()}

    @cached_property
    def golden(self) -> dict[str, np.ndarray]:
        """Those of every image."""
        return self._made(self.images)

    def _made(self, x: Sequence[np.ndarray], held: Sets | None = None) -> dict[str, np.ndarray]:
        """Those of every one of these frames, with the sets that are written meanwhile."""
        nodes = [node.name for node in self.program.nodes if node.operation.output.events]
        parts: dict[str, list[np.ndarray]] = {name: [] for name in nodes}
        for start in range(0, len(x[0]), BLOCK):
            part = (v[start : start + BLOCK] for v in x)
            tensors = self.program.trace(*part, first=start, held=held or None).tensors
            for name in nodes:
                ones = tensors[name]
                parts[name].append(ones.reshape(len(ones), -1).sum(axis=1, dtype=np.int64))
        return {name: np.concatenate(counts) for name, counts in parts.items()}
