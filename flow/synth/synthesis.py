"""Synthesis, place and route with the open tools: cell counts, Fmax, and where the critical path goes.

yosys maps the Verilog to the cells of a target (`flow.synth.targets`); for ECP5 `flow.synth.absorb` then moves
pipeline registers into the hard blocks, `flow.synth.carries` trims carry chains, and `flow.synth.floorplan` places the
hard blocks; nextpnr places all else and routes. The YoWASP builds of the tools see only the folder they run in, so all
files of a run have relative names inside `folder`; their output goes to log files there.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from bittrue.flow.synth import harness, netlist
from bittrue.flow.synth.absorb import absorb
from bittrue.flow.synth.carries import trim
from bittrue.flow.synth.floorplan import Floorplan
from bittrue.flow.synth.memory_files import contents_to_files
from bittrue.flow.synth.result import SynthResult
from bittrue.flow.synth.targets import RESOURCES, Target
from bittrue.flow.synth.targets import target as find_target
from bittrue.flow.synth.tools import Progress, Tools
from bittrue.flow.synth.words import PathStep
from bittrue.rtl.verilog import Verilog
from bittrue.sim.errors import BittrueError
from bittrue.sim.locks import locked

TOP = "bittrue_top"
#: Gives wires with a bracket in their name, fields of arrays, names without one. abc9 in yosys 0.70 takes the wire
#: `x[1]` for bit 1 of a wire `x`: it asserts where their widths differ, and joins the two in silence where they agree.
WITHOUT_BRACKETS = "rename -hide w:*[[]*"

Over = Mapping[str, tuple[int, int]]
Remedy = str | Callable[[str, Over], str] | None


class DoesNotFitError(BittrueError):
    """A design that exceeds its target; `over` holds (used, available) by resource, empty if nextpnr does not say."""

    def __init__(self, message: str, target: str, over: Over) -> None:
        super().__init__(message)
        self.target, self.over = target, dict(over)


def synthesize(
    verilog: str,
    target: str,
    folder: str | os.PathLike,
    freq_mhz: float = 100,
    seed: int = 1,
    progress: Progress | None = None,
    *,
    top: str = TOP,
    remedy: Remedy = None,
    registers_into_blocks: bool = True,
    limit_s: float = 3600,
) -> SynthResult:
    """Synthesises `verilog` for `target`, places and routes it where the target has a router.

    folder      receives the netlists, logs and nextpnr's report (made if absent; files of an earlier run are replaced)
    freq_mhz    the clock that place and route aims at; missing it is a result, not an error
    seed        of the placer: the same text, target, clock, seed and tools give the same figures
    progress    called with one sentence at the start of each stage
    remedy      ends the error of a design that does not fit: a sentence, or a function of (target, over) that gives one
    registers_into_blocks  lets ECP5 multipliers and block RAMs take the registers beside them (`flow.synth.absorb`)
    limit_s     most seconds a tool may run

    Raises BittrueError for an unknown target, an absent tool, Verilog that yosys refuses and a tool that fails or takes
    too long, and DoesNotFitError, with what is over and by how much, for a design that exceeds the target.
    """
    told = {"top": top, "remedy": remedy, "registers_into_blocks": registers_into_blocks, "limit_s": limit_s}
    return placements(verilog, target, folder, freq_mhz, (seed,), progress, **told)[0]


def placements(
    verilog: str,
    target: str,
    folder: str | os.PathLike,
    freq_mhz: float,
    seeds: Sequence[int],
    progress: Progress | None = None,
    *,
    top: str = TOP,
    remedy: Remedy = None,
    registers_into_blocks: bool = True,
    limit_s: float = 3600,
) -> list[SynthResult]:
    """Maps `verilog` once, places and routes it with each of the seeds: a result each, as `synthesize` gives it.

    The arguments and errors are those of `synthesize`. What lies in `folder` at the end is of the last seed.
    """
    run = _Run(find_target(target), Path(folder), top, progress or (lambda _: None), limit_s)
    with locked(run.folder):
        run.map(verilog)
        cells = netlist.types(run.module("netlist.json"))
        _refuse(run.target, run.target.over(run.target.count(cells)), remedy)
        if run.target.synth == "synth_ecp5":
            run.refine(registers_into_blocks)
            cells = netlist.types(run.module("routable.json"))
        return [_placed(run, cells, freq_mhz, seed, remedy) for seed in seeds]


def mapped(
    verilog: str,
    target: str,
    folder: str | os.PathLike,
    progress: Progress | None = None,
    *,
    top: str = TOP,
    registers_into_blocks: bool = True,
    limit_s: float = 3600,
) -> str:
    """Maps `verilog` as `synthesize` does, without placing it: the netlist as Verilog that simulates, see `netlist`.

    The arguments are those of `synthesize`. Raises BittrueError as it does, for a target other than an ECP5, and for a
    cell without a model.
    """
    run = _Run(find_target(target), Path(folder), top, progress or (lambda _: None), limit_s)
    netlist.require(run.target)
    with locked(run.folder):
        run.map(verilog)
        run.refine(registers_into_blocks)
        return run.simulated()


def simulated(target: str, folder: str | os.PathLike, top: str = TOP, limit_s: float = 3600) -> str:
    """The netlist that `synthesize` placed in `folder`, as Verilog that simulates; errors as of `mapped`."""
    run = _Run(find_target(target), Path(folder), top, lambda _: None, limit_s)
    netlist.require(run.target)
    with locked(run.folder):
        return run.simulated()


def _placed(run: "_Run", cells: dict[str, int], freq_mhz: float, seed: int, remedy: Remedy) -> SynthResult:
    """The figures of a netlist that is mapped, in a folder that nobody else works in."""
    used = run.target.count(cells)
    path, utilization, fmax = run.route(freq_mhz, seed, remedy) if run.target.routed else ((), {}, None)
    if run.target.sites:
        cells = netlist.types(run.module("routable.json"))  # with what the floorplan made again
        used = run.target.count(cells)
    if "TRELLIS_COMB" in utilization:  # carry chains and distributed RAM take sites that the netlist does not show
        used["lut"] = utilization["TRELLIS_COMB"][0]
    return SynthResult(
        target=run.target.name,
        part=run.target.part,
        units=run.target.units,
        **{resource: used[resource] for resource in RESOURCES},
        fmax_mhz=fmax,
        freq_mhz=freq_mhz,
        path=path,
        utilization=utilization,
        cells=cells,
        tools=dict(run.tools),
        seconds=dict(run.seconds),
        notes=tuple(dict.fromkeys(run.notes)),
    )


def _refuse(target: Target, over: Over, remedy: Remedy) -> None:
    if not over:
        return
    what = ", ".join(f"{name} {used} of {most} ({used - most} over)" for name, (used, most) in over.items())
    raise DoesNotFitError(
        f"synth: the design does not fit {target.name} ({target.part}): {what}; {_remedy(target, over, remedy)}",
        target.name,
        over,
    )


def _remedy(target: Target, over: Over, remedy: Remedy) -> str:
    if callable(remedy):
        remedy = remedy(target.name, over)
    return remedy or "choose a larger target, or a larger interval so that the stages are folded more"


class _Run(Tools):
    """One synthesis: the folder, what was done in it, how long each stage took."""

    def __init__(self, target: Target, folder: Path, top: str, progress: Progress, limit_s: float) -> None:
        super().__init__(target, folder, progress, limit_s)
        self.top = top
        self.notes: list[str] = []
        self.harnessed = self.absorbed = False
        self.floorplan: Floorplan | None = None

    # -- yosys -------------------------------------------------------------------------------------------------------

    def map(self, verilog: str) -> None:
        """Writes netlist.json, the cells of the design, and routable.json, what nextpnr reads."""
        files = Verilog(verilog).files
        verilog, contents = contents_to_files(verilog)
        for name, content in {"design.v": verilog, **contents, **files}.items():
            (self.folder / name).write_text(content)
        with self._stage("read"):
            read = ("read_verilog design.v", f"hierarchy -check -top {self.top}", "blackbox", "write_json ports.json")
            if not self._yosys("read", read):
                raise BittrueError(f"synth: yosys refuses the Verilog: {self._tail('read')}")
        self._choose_pins()
        top = harness.NAME if self.harnessed else self.top
        sources = ["read_verilog design.v", WITHOUT_BRACKETS]
        if self.harnessed:
            sources += [f"read_verilog {harness.NAME}.v", f"setattr -mod -set keep_hierarchy 1 {self.top}"]
        finish = ["write_json netlist.json"]
        if self.harnessed:
            finish += [f"setattr -mod -unset keep_hierarchy {self.top}", "flatten", "clean", self.target.pad]
        finish.append("write_json routable.json")
        synth, prepare = f"{self.target.synth} -top {top}", self.target.prepare
        start = [f"{synth} -run begin:coarse", *prepare] if prepare else []
        first = "coarse" if prepare else "begin"
        with self._stage("synth"):
            if self._yosys("synth", [*sources, *start, f"{synth} -run {first}:", *finish]):
                return
            if "abc9" not in self._log("synth").lower() and "abc_ops" not in self._log("synth").lower():
                raise BittrueError(f"synth: yosys failed for {self.target.name}: {self._tail('synth')}")
            self.progress("yosys' abc9 failed on this design; mapping again with plain abc")
            after = "finalize" if "xilinx" in synth else "map_cells"
            parts = [*start, f"{synth} -run {first}:map_luts", *self.target.luts, f"{synth} -run {after}:"]
            if not self._yosys("synth-abc", [*sources, *parts, *finish]):
                raise BittrueError(f"synth: yosys failed for {self.target.name}: {self._tail('synth-abc')}")
            self.notes.append("yosys' abc9 failed on this design; plain abc mapped it, which costs LUTs and delay")

    def _choose_pins(self) -> None:
        """Pads if there are enough; else a block without pads, or a harness that shifts values through few pins."""
        ports = self.module("ports.json")["ports"]
        pins = sum(len(port["bits"]) for port in ports.values())
        self.bare = False
        self.constraints: tuple[str, ...] = ()
        if not self.target.routed:
            self.notes.append("cell counts only: there is no open place and route for this target, so no Fmax")
        elif pins <= self.target.pads:
            self.notes.append(f"placed with its {pins} pins on pads that nextpnr chose (no board constraints)")
            clocks = [name for name in harness.CLOCKS if name in ports]
            if self.target.clock and len(clocks) == 1:
                (self.folder / "pins.lpf").write_text(f'LOCATE COMP "{clocks[0]}" SITE "{self.target.clock}";\n')
                self.constraints = ("--lpf", "pins.lpf")
        elif self.target.bare:
            self.bare = True
            self.notes.append(
                f"placed out of context: {pins} pins, the package has {self.target.pads}; no pads, ideal clock"
            )
        else:
            self.harnessed = True
            clock = harness.clock(ports)
            (self.folder / f"{harness.NAME}.v").write_text(harness.around(self.top, ports, clock))
            if self.target.locations:
                places = zip((clock, "serial", "parity"), self.target.locations, strict=True)
                (self.folder / "pins.cst").write_text("".join(f'IO_LOC "{pin}" {place};\n' for pin, place in places))
            self.notes.append(
                f"placed with its {pins} pins in a harness of shift registers behind three pads; "
                "lut, ff, dsp and bram are the design's own, utilization and fmax include the harness"
            )

    def refine(self, registers_into_blocks: bool) -> None:
        """Of an ECP5: moves registers of routable.json into the hard blocks if asked to, and trims carry chains."""
        self.absorbed = registers_into_blocks
        with self._stage("absorb"):
            routable = json.loads((self.folder / "routable.json").read_text())
            moved = absorb(routable, self.top) if registers_into_blocks else None
            trim(routable["modules"][self.top])
            self.floorplan, self.routable = Floorplan(routable["modules"][self.top], self.target.sites), routable
            self._write_routable()
        if moved is not None:
            self.notes.append(moved.sentence())
            if moved.multiplier_outputs or moved.block_ram_outputs:
                self.notes.append("nextpnr times the pins of registered hard blocks, not the paths inside them")

    def _write_routable(self) -> None:
        (self.folder / "routable.json").write_text(json.dumps(self.routable))

    def simulated(self) -> str:
        """routable.json as Verilog that simulates."""
        return netlist.to_verilog(self.folder / "routable.json", self.top, self._write)

    def _write(self, commands: tuple[str, ...]) -> None:
        if not self._yosys("simulated", commands):
            raise BittrueError(f"netlist: yosys cannot write it as Verilog: {self._tail('simulated')}")

    # -- nextpnr -----------------------------------------------------------------------------------------------------

    def route(self, freq_mhz: float, seed: int, remedy: Remedy) -> tuple[tuple[PathStep, ...], dict, float | None]:
        """Places and routes routable.json: critical path, utilization and Fmax."""
        if self.floorplan is not None and self.floorplan.pays:
            with self._stage("floorplan"):
                self.notes.append(self.floorplan.place(seed))
                self._write_routable()
        command, *arguments = self.target.router
        if self.absorbed:
            # router1 goes in circles over the pins of crowded registered multipliers; otherwise it is the faster clock
            arguments += ["--router", "router2"]
        arguments += ["--json", "routable.json", "--report", "route.json", "--seed", str(seed)]
        arguments += ["--freq", f"{freq_mhz:g}", "--timing-allow-fail", *(self.target.bare if self.bare else ())]
        arguments += self.constraints
        arguments += ["--vopt", "cst=pins.cst"] if self.harnessed and self.target.locations else []
        (self.folder / "route.json").unlink(missing_ok=True)
        with self._stage("route"):
            done = self._tool("route", command, arguments)
        if not done or not (self.folder / "route.json").exists():
            log = self._log("route")
            if any(
                words in log
                for words in ("no more Bels", "Unable to find a placement", "Unable to place", "failed to place")
            ):
                raise DoesNotFitError(
                    f"synth: the design does not fit {self.target.name} ({self.target.part}): {self._tail('route')}; "
                    + _remedy(self.target, {}, remedy),
                    self.target.name,
                    {},
                )
            raise BittrueError(f"synth: nextpnr failed for {self.target.name}: {self._tail('route')}")
        report = json.loads((self.folder / "route.json").read_text())
        utilization = {
            site: (figures["used"], figures["available"])
            for site, figures in sorted(report["utilization"].items())
            if figures["used"]
        }
        clocks = {name: figures["achieved"] for name, figures in report["fmax"].items()}
        if not clocks:
            self.notes.append("the design has no path from register to register, so no Fmax")
            return (), utilization, None
        slowest = min(clocks, key=clocks.__getitem__)
        return self._path(report, slowest), utilization, round(clocks[slowest], 2)

    def _path(self, report: dict, clock: str) -> tuple[PathStep, ...]:
        types = {name: cell["type"] for name, cell in self.module("routable.json", routed=True)["cells"].items()}
        for path in report["critical_paths"]:
            if path["from"].split(" ")[-1] == clock and path["to"].split(" ")[-1] == clock:
                return tuple(
                    PathStep(
                        step["type"],
                        round(step["delay"], 3),
                        f"{step['to']['cell']}.{step['to']['port']}",
                        netlist.cell_type(types, step["to"]["cell"]),
                    )
                    for step in path["path"]
                )
        return ()

    # -- netlists ----------------------------------------------------------------------------------------------------

    def module(self, name: str, routed: bool = False) -> dict:
        """The top module of a netlist (with `routed` the one that nextpnr placed)."""
        modules = json.loads((self.folder / name).read_text())["modules"]
        return modules[harness.NAME if routed and self.harnessed else self.top]
