"""Toggles: how often the bits of each part of a design change, counted in a waveform while the compiled RTL writes it.

The waveform goes through a pipe and is never stored: a large design writes gigabytes. Counted are the changes of the
stage's registers, and those of all its nets, copies of a net under other names once. The clock, the contents of
memories and what happens in reset are left out.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.run.probe import ROOT
from bittrue.flow.run.result import RtlRun
from bittrue.flow.run.waves import Names, Reader, number, piped
from bittrue.rtl.design import Design
from bittrue.sim.errors import BittrueError
from bittrue.sim.kernels.jit import jit

_MODULE = re.compile(r"^module (?:\\(\S+) |(\w+))\(.*?^endmodule", re.MULTILINE | re.DOTALL)
_CLOCKED = re.compile(r"^  always @\(posedge clk\).*\n(?:   +.*\n)+", re.MULTILINE)
_ASSIGNED = re.compile(
    r"^ +(?:(?:else )?if \(.*?\) |else )?(?:\\(\S+) |([A-Za-z_]\w*))(?:\[[^]]*\])? ?<= ", re.MULTILINE
)
_BASE, _FIRST = 94, 33  # a VCD code is a number in the printable characters, its low digit first
_READ = 1 << 20


@dataclass(frozen=True)
class Toggles:
    """Bit changes of one part (a stage of a pipeline) over a run: of its registers, and of all its nets."""

    stage: str
    node: str | None
    registers: int
    nets: int


def count(
    design: Design, verilog: str, x: Sequence[np.ndarray], cache: Path | None = None, optimize: str | None = None
) -> tuple[list[Toggles], RtlRun]:
    """Run a batch without stalls and count the toggles of every part of the design, in order."""
    rtl = CompiledRtl.of(design, verilog, cache=cache, optimize=optimize, trace=True)
    counter = Counter()
    run = piped(lambda waves: rtl.run(*x, waves=waves), counter)
    registers = clocked(verilog)
    found = []
    for part in design.parts:
        inside = counter.names.below((*ROOT, *part.path))
        held = {code for (path, name), code in inside.items() if name in registers.get(".".join(path[1:]), ())}
        nets = set(inside.values()) - {counter.names.codes[ROOT, "aclk"]}
        found.append(Toggles(part.name, part.node, counter.total(held), counter.total(nets)))
    return found, run


def clocked(verilog: str) -> dict[str, set[str]]:
    """The registers of every module: what a clocked process assigns."""
    found: dict[str, set[str]] = {}
    for module in _MODULE.finditer(verilog):
        blocks = "".join(block[0] for block in _CLOCKED.finditer(module[0]))
        found[module[1] or module[2]] = {m[1] or m[2] for m in _ASSIGNED.finditer(blocks)}
    return found


class Counter(Reader):
    """Counts the bit changes of every net of a waveform, out of reset."""

    def begin(self, names: Names, header: bytes) -> None:  # noqa: ARG002
        reset = names.codes.get((ROOT, "aresetn"))
        if reset is None:
            raise BittrueError("the waveform has no signal bittrue_top.aresetn, so its toggles cannot be counted")
        self.lookup = names.lookup(names.widths)
        self.offsets = np.concatenate([[0], np.cumsum(list(names.widths.values()))]).astype(np.int64)
        self.bits = np.zeros(self.offsets[-1], np.uint8)
        self.toggles = np.zeros(len(names.widths), np.int64)
        self.state = np.array([self.lookup[number(reset)], 0], np.int64)

    def lines(self, text: np.ndarray) -> int:
        return _changes(text, self.lookup, self.offsets, self.bits, self.toggles, self.state)

    def total(self, codes: set[str]) -> int:
        """Changes of all the nets with these codes."""
        return int(sum(self.toggles[self.lookup[number(code)]] for code in codes))


@partial(jit, nogil=True)
def _changes(text, lookup, offsets, bits, toggles, state):  # pragma: no cover  (compiled)
    """Work off the whole lines of `text`; returns how many bytes that was. `state`: the reset's index, 1 out of it."""
    start, size = 0, len(text)
    while True:
        end = start
        while end < size and text[end] != 10:
            end += 1
        if end == size:
            return start
        mark = text[start] if end > start else 0
        first, last = start + 1, start + 1  # the bits of the value
        code = start + 1
        if mark == 98 or mark == 66:  # b, B
            while last < end and text[last] != 32:
                last += 1
            code = last + 1
        elif mark == 48 or mark == 49 or mark == 120 or mark == 122:  # 0, 1, x, z
            first, last = start, start + 1
        else:
            start = end + 1
            continue
        number, scale = 0, 1
        for k in range(code, end):
            if text[k] <= 32:
                break
            number += (np.int64(text[k]) - 32) * scale
            scale *= 94
        index = lookup[number] if number < len(lookup) else -1
        if index >= 0:
            low, width = offsets[index], offsets[index + 1] - offsets[index]
            given = last - first
            changed = 0
            for k in range(width):  # from the lowest bit; what is not given is 0
                bit = text[last - 1 - k] if k < given else 48
                if bits[low + k] != bit:
                    changed += 1 if bits[low + k] != 0 else 0
                    bits[low + k] = bit
            if index == state[0] and bits[low] == 49:
                state[1] = 1
            elif state[1]:
                toggles[index] += changed
        start = end + 1
