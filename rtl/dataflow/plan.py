"""From a program to hardware parameters: foldings balanced to one interval, FIFO depths from the schedule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from bittrue.rtl.bus import framing
from bittrue.rtl.bus.ports import StreamPort
from bittrue.rtl.bus.registers import RegisterMap
from bittrue.rtl.dataflow.choice import budget, fold_all, foldable, frames_of, preferred
from bittrue.rtl.dataflow.estimate import DEVICES, Area, estimate
from bittrue.rtl.dataflow.fifos import Stages, size_fifos
from bittrue.rtl.dataflow.folding import Folding, divisors
from bittrue.rtl.dataflow.network import Network
from bittrue.rtl.dataflow.packed import WIDE_ONES
from bittrue.rtl.dataflow.rings import Costs, with_rings
from bittrue.rtl.dataflow.schedule import Flow
from bittrue.rtl.dataflow.stage import PARALLEL, architectures
from bittrue.rtl.dataflow.weight_registers import WeightRegisters, register_map
from bittrue.sim.errors import BittrueError
from bittrue.sim.groups import walk
from bittrue.sim.held import Set, Sets, check_set
from bittrue.sim.naming import identifier, master_prefixes, slave_prefixes
from bittrue.sim.operation import TensorType
from bittrue.sim.program import Program
from bittrue.sim.written import written

#: What weights can be written over.
WEIGHT_BUSES = ("stream", "lite")


@dataclass(frozen=True, eq=False)
class Plan:
    """Everything the hardware of a program depends on.

    folding            Folding of each matrix stage
    input_lanes        codes per beat of each input stream
    fifos              entries of the FIFO before operand k of a node, by "node.k"
    estimated_latency  cycles from the first input beat to the first output beat, unstalled; of several outputs, of the
                       one that begins last (`network.schedule` knows every one)
    estimated_interval cycles between frames in steady state, unstalled; a frame ends with the last of its outputs
    weight_bus         what written weights come over, where there are any: `stream` or `lite`
    serial             whether results come a code a beat
    scatter            banks of the memories of written weights, where each value is written by itself; else 0, and they
                       are written row by row

    Where a stage's cycles depend on the data, the two are the most that there can be; `expect` gives the exact cycles
    of given frames.
    """

    program: Program
    folding: Mapping[str, Folding]
    input_lanes: Mapping[str, int]
    fifos: Mapping[str, int] = field(default_factory=dict)
    estimated_latency: int = 0
    estimated_interval: int = 0
    weight_bus: str = "stream"
    serial: bool = False
    scatter: int = 0

    @cached_property
    def network(self) -> Network:
        given = self.program, self.folding, self.input_lanes, self.fifos
        return Network(*given, serial=self.serial, scatter=self.scatter)

    @property
    def inputs(self) -> tuple[StreamPort, ...]:
        """The AXI4-Stream slave ports, in the order of the program's inputs."""
        given = self.program.inputs
        return tuple(
            StreamPort(prefix, kind, self.input_lanes[name])
            for prefix, (name, kind) in zip(slave_prefixes(given), given.items(), strict=True)
        )

    @property
    def outputs(self) -> tuple[StreamPort, ...]:
        """The AXI4-Stream master ports, in the order of the program's results."""
        given = self.program.outputs
        return tuple(
            StreamPort(prefix, kind, self.network.elements[k].stage.lanes_out)
            for prefix, kind, k in zip(master_prefixes(given), given.values(), self.network.outputs, strict=True)
        )

    @property
    def weights(self) -> StreamPort | None:
        """The AXI4-Stream slave port of the weights, where they are written over one: a frame of it is a set."""
        if self.network.words is None or self.weight_bus != "stream":
            return None
        taken = set(slave_prefixes(self.program.inputs))
        return self.network.words.port(identifier("s_axis_weights", taken))

    @property
    def registers(self) -> RegisterMap | None:
        """The registers on AXI4-Lite, where weights are written over them."""
        return register_map(self.network.words) if self.network.words and self.weight_bus == "lite" else None

    def pack_set(self, values: Set) -> np.ndarray:
        """The words of a set, checked, in the order in which the port `weights` takes them: int64 `[words]`."""
        if self.network.words is None:
            raise BittrueError("plan: no weights of this program are written; plan it with weights='written'")
        return self.network.words.pack(check_set(self.program.written, values))

    @cached_property
    def estimate(self) -> Area:
        ports = framing.structure(self.inputs, self.outputs)
        if self.registers is not None:
            ports += WeightRegisters.structure(self.network.words)
        return estimate(self.network, ports)

    @cached_property
    def cost_of_writing(self) -> dict[str, int]:
        """What written weights add to the estimated area: two banks, their ports, the loader. Empty where none are."""
        if self.network.words is None:
            return {}
        program = self.program.bind(self.program.initial)
        constant = Plan(program, self.folding, self.input_lanes, self.fifos).estimate
        return {name: getattr(self.estimate, name) - getattr(constant, name) for name in ("lut", "ff", "dsp", "bram")}

    @cached_property
    def modes(self) -> dict[int, tuple[int, int]]:
        """By n, where frames go in groups: cycles from the first input beat to the first output beat, and between the
        ends of groups in steady state, all of that size. Empty where they do not."""
        grouping = self.program.grouping
        found: dict[int, tuple[int, int]] = {}
        for n in grouping.modes if grouping is not None else ():
            latency = self.network.schedule(2 * n, modes=[n]).latency or 0
            flow = self.network.schedule(n * (latency // self.network.bottleneck + 5), modes=[n])
            found[n] = int(flow.latency or 0), int(flow.interval or 0)
        return found

    @property
    def dynamic(self) -> bool:
        """Whether the cycles of a frame depend on its data."""
        return bool(self.network.dynamic)

    def expect(self, *x: np.ndarray, held: Sets | None = None) -> Flow:
        """The exact cycles of these frames, one after the other, unstalled; `held` is what is written meanwhile."""
        if self.program.grouping is not None:
            groups = list(walk(self.program.grouping, len(x[0]), 0, held))
            if groups and groups[-1].present < groups[-1].size:
                raise BittrueError(
                    f"plan: the last group has {groups[-1].present} of {groups[-1].size} frames and waits for the "
                    "others, so it never ends; give whole groups"
                )
            return self.network.schedule(len(x[0]), modes=[group.size for group in groups] or None)
        return self.network.schedule(len(x[0]), work=self.network.work(*x, held=held))

    def stages(self) -> list[dict[str, Any]]:
        """One row a stage, for reports: name, kind, node, folding, lanes, interval, latency, FIFO entries."""
        rows = []
        for element in self.network.elements:
            stage, folding = element.stage, self.folding.get(element.node or "")
            rows.append(
                {
                    "name": element.name,
                    "kind": type(stage).__name__.removesuffix("Stage").lower(),
                    "node": element.node,
                    "reads": [self.network.elements[k].name for k in element.reads],
                    "lanes_in": stage.lanes_in,
                    "lanes_out": stage.lanes_out,
                    "simd": folding.simd if folding else None,
                    "pe": folding.pe if folding else None,
                    "architecture": folding.architecture if folding else None,
                    "interval": stage.interval,
                    "latency": stage.latency,
                    "entries": stage.timing.blocks if type(stage).__name__ == "Fifo" else None,
                }
            )
        return rows

    def to_json(self) -> dict[str, Any]:
        return {
            "program": self.program.sha256,
            "folding": {name: asdict(f) for name, f in self.folding.items()},
            "input_lanes": dict(self.input_lanes),
            "fifos": dict(self.fifos),
            "estimated_latency": self.estimated_latency,
            "estimated_interval": self.estimated_interval,
            "weight_bus": self.weight_bus,
        } | {name: value for name in ("serial", "scatter") if (value := getattr(self, name))}

    @staticmethod
    def from_json(program: Program, value: Mapping[str, Any]) -> Plan:
        if value["program"] != program.sha256:
            raise BittrueError("the plan was made for another program; plan again")
        folding = {name: Folding(**f) for name, f in value["folding"].items()}
        latency, interval = value["estimated_latency"], value["estimated_interval"]
        bus = value.get("weight_bus", "stream")
        made = value["input_lanes"], value["fifos"], latency, interval, bus
        return Plan(program, folding, *made, value.get("serial", False), value.get("scatter", 0))


def _lanes_for(kind: TensorType, interval: int) -> int:
    """The fewest codes a beat that bring a frame in within the interval (or all channels)."""
    return next((lanes for lanes in divisors(kind.channels) if kind.size // lanes <= interval), kind.channels)


def _input_lanes(program: Program, interval: int) -> dict[str, int]:
    return {name: _lanes_for(kind, budget(program, name, interval)) for name, kind in program.inputs.items()}


def natural_interval(program: Program) -> int:
    """The interval at one code a beat: the size of the largest tensor."""
    return max(kind.size * frames_of(program, name) for name, kind in program.types.items())


def _without_fifos(program: Program, folding: Mapping[str, Folding], interval: int, stages: Stages) -> Plan:
    lanes = _input_lanes(program, interval)
    draft = Plan(program, folding, lanes)
    draft.__dict__["network"] = Network(program, folding, lanes, {}, stages)
    return draft


def activity(program: Program, *x: np.ndarray) -> dict[str, float]:
    """The share of ones in the events that each node reads, over a batch: what event-driven stages cost."""
    tensors = program.trace(*x).tensors
    return {
        node.name: float(tensors[node.operands[0]].mean())
        for node in program.nodes
        if program.types[node.operands[0]].format.bits == 1
    }


def plan(
    program: Program,
    interval: int | None = None,
    device: str | None = None,
    folding: Mapping[str, Folding] | None = None,
    architecture: str | Mapping[str, str] | None = None,
    activity: Mapping[str, float] | None = None,
    weights: str | Iterable[str] | None = None,
    weight_bus: str = "stream",
    block_luts: int | None = None,
    rings: bool | None = None,
) -> Plan:
    """Balance every stage to one interval and size the FIFOs.

    interval   wanted cycles per frame; the plan reaches it or better, or says why not. By default one code a beat.
               Where frames go in groups it is that of a group, as large as can be: what works on every frame has its
               part of it, what works on a group all
    device     instead: the smallest interval whose estimated area fits the device (see `rtl.dataflow.estimate.DEVICES`)
    folding    fixes the folding of some matrix stages
    architecture  which one of those an operation has (`parallel`, `packed`, `paired`, `adders`, `events`), for all that
               can have it or by node, and where `packed` cannot be, `paired`; `rtl.dataflow.packed.suited` tells the
               one for a target. By default `parallel`, but `adders` where `interval` leaves a vector one cycle and
               nothing is against it (`rtl.dataflow.adders`)
    activity   by node, the share of ones in the events it reads (see the function `activity`): an event-driven stage
               is folded for it; without, for a one everywhere
    weights    `"written"`, or names of operations: their weights, cells, biases and shifts can be written while it
               runs (`sim.written`); the plan's program has them as held inputs
    weight_bus  what weights are written over: `stream` (AXI4-Stream) or `lite` (registers on AXI4-Lite)
    block_luts  LUTs that a block RAM is worth in matrix stages: shallow memories go to LUTs where no block saves more
               (`rtl.dataflow.structure.Storage`); by default as the stages say (`BLOCK_LUTS`, fewer where `packed`)
    rings      whether matrix stages read the ring of pixels of a window themselves, so that no vectors are stored
               (`rtl.dataflow.convolved`): True wherever they can, False nowhere; by default where it takes less
    """
    if weight_bus not in WEIGHT_BUSES:
        raise BittrueError(f"plan: no bus for weights {weight_bus!r}; use one of {', '.join(WEIGHT_BUSES)}")
    if isinstance(architecture, str) and architecture not in (known := sorted(architectures())):
        raise BittrueError(f"plan: no operation has the architecture {architecture!r}; use one of {', '.join(known)}")
    if weights is not None:
        program = written(program, weights)
    if interval is not None and device is not None:
        raise BittrueError("plan: give an interval or a device, not both")
    stages: Stages = {}
    if device is not None:
        architecture = architecture or PARALLEL
        interval = fit(program, device, architecture, activity, stages, block_luts, rings)
    interval = natural_interval(program) if interval is None else interval
    architecture = preferred(program, interval) if architecture is None else architecture
    apart = fold_all(program, interval, folding, architecture, activity, block_luts)
    foldings = with_rings(program, apart, interval, _input_lanes(program, interval), folding, rings, stages)
    draft = _without_fifos(program, foldings, interval, stages)
    network = draft.network
    cycles = [0 if activity and e.stage.timing.dynamic else network.cycles(e) for e in network.elements]
    if (most := max(cycles)) > interval and folding is None:
        raise BittrueError(
            f"plan: an interval of {interval} cycles cannot be reached: "
            f"{network.elements[cycles.index(most)].name} needs {most}; ask for {most} or more"
        )
    made = size_fifos(draft, stages)
    if rings is None and made.estimated_interval > interval and set(foldings) != set(apart):
        without = size_fifos(_without_fifos(program, apart, interval, stages), stages)
        made = min(made, without, key=lambda plan: plan.estimated_interval)
    made = replace(made, weight_bus=weight_bus)
    _ = made.registers  # refuses words that the bus cannot carry
    return made


def intervals(program: Program, architecture: str | Mapping[str, str] = PARALLEL) -> list[int]:
    """Those at which a stage of the program has a folding of its own, ascending."""
    found = {natural_interval(program)}
    for name, make in foldable(program, architecture).items():
        found |= {cycles * frames_of(program, name) for cycles in make.intervals(program[name])}
    return sorted(found)


def fit(
    program: Program,
    device: str,
    architecture: str | Mapping[str, str] = PARALLEL,
    activity: Mapping[str, float] | None = None,
    stages: Stages | None = None,
    block_luts: int | None = None,
    rings: bool | None = None,
) -> int:
    """The smallest interval whose estimated area (without residual FIFOs' exact depth) fits the device.

    These are ECP5s, with multipliers too narrow for a pair of products: what is `packed` counts as if it were not.
    """
    if device not in DEVICES:
        raise BittrueError(f"plan: no device {device!r}; known are {', '.join(sorted(DEVICES))}")
    plain = dict.fromkeys(WIDE_ONES, PARALLEL)
    if isinstance(architecture, str):
        architecture = plain.get(architecture, architecture)
    else:
        architecture = {node: plain.get(name, name) for node, name in architecture.items()}
    last: tuple[int, Area] | None = None
    stages = {} if stages is None else stages
    costs: Costs = {}
    for interval in intervals(program, architecture):
        try:
            apart = fold_all(program, interval, None, architecture, activity, block_luts)
            lanes = _input_lanes(program, interval)
            folding = with_rings(program, apart, interval, lanes, None, rings, stages, costs)
            draft = _without_fifos(program, folding, interval, stages)
        except BittrueError:
            continue
        if draft.network.bottleneck > interval and not (activity and draft.dynamic):
            continue
        area = draft.estimate
        if not area.over(DEVICES[device]):
            return interval
        last = (interval, area)
    if last is None:
        raise BittrueError(f"plan: no folding of the program can be built for {device}")

    slowest, area = last
    excess = area.excess(DEVICES[device])
    raise BittrueError(f"plan: even the slowest folding (interval {slowest}) does not fit {device}: {excess}")
