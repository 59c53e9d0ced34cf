"""The pipeline of a plan as a `Design`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from bittrue.rtl.bus.access import Access
from bittrue.rtl.dataflow.estimate import DEVICES, Area
from bittrue.rtl.dataflow.packed import unsuited
from bittrue.rtl.dataflow.plan import Plan, fit
from bittrue.rtl.dataflow.top import group_ports
from bittrue.rtl.dataflow.weight_registers import write_set
from bittrue.rtl.design import COUNT_BITS, Cycles, Design, Part, Port, Probe
from bittrue.rtl.verilog import emit
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Set, Sets
from bittrue.sim.program import Program


class PipelineDesign(Design):
    """A stage for every operation, all at work at once; see `rtl.dataflow.plan`."""

    kind = "dataflow"
    name, title = "pipeline", "pipeline"

    def __init__(self, plan: Plan) -> None:
        self.plan, self.program = plan, plan.program
        self.inputs, self.outputs, self.weights = plan.inputs, plan.outputs, plan.weights
        self.interval, self.latency, self.steady = plan.estimated_interval, plan.estimated_latency, not plan.dynamic
        self.map = plan.registers
        self.others = group_ports(plan.network.groups)
        if self.map is not None:
            counts = tuple(Port(f"weights_{name}", "output", COUNT_BITS) for name in ("sets", "errors"))
            self.others = (*counts, *self.others)
        self.steady = self.steady and plan.network.groups is None
        self.patience = max(1 << 14, 4 * (self.latency + self.interval))

    def verilog(self) -> str:
        return emit(self.plan)

    def expect(self, *x: np.ndarray, held: Sets | None = None) -> Cycles:
        flow = self.plan.expect(*x, held=held)
        return Cycles(flow.first, flow.output_ends)

    @property
    def estimate(self) -> Area:
        return self.plan.estimate

    @property
    def parts(self) -> tuple[Part, ...]:
        return tuple(Part(e.name, ("pipeline", e.name), e.node) for e in self.plan.network.elements)

    @property
    def instances(self) -> Mapping[str, tuple[str, ...]]:
        elements = self.plan.network.elements
        forks = [f"{element.name}_fork" for element in elements if element.readers > 1]
        loader = [] if self.plan.network.words is None else [self.plan.network.loader_name]
        groups = self.plan.network.group_names
        return {"pipeline": (*(element.name for element in elements), *forks, *loader, *groups)}

    @property
    def probes(self) -> tuple[Probe, ...]:
        network = self.plan.network
        found = []
        for node in self.program.nodes:
            if node.name in network.within:  # of windows that are read in place
                continue
            element = network.elements[network.made[node.name]]
            fmt = self.program.types[node.name].format
            found.append(Probe(node.name, fmt, element.stage.lanes_out, ("pipeline", element.name)))
        return tuple(found)

    def describe(self) -> dict[str, Any]:
        words = self.plan.network.words
        return super().describe() | {
            "fifos": dict(self.plan.fifos),
            "stages": self.plan.stages(),
            "written": {} if words is None else {row["held"]: row for row in words.describe()},
            "written_costs": self.plan.cost_of_writing,
            "modes": {str(n): list(cycles) for n, cycles in self.plan.modes.items()},
        }

    def pack_set(self, values: Set) -> np.ndarray:
        return self.plan.pack_set(values)

    def write_set(self, values: Set, frame: int, sets: int) -> tuple[Access, ...]:
        if self.map is None or self.plan.network.words is None:
            return super().write_set(values, frame, sets)
        return write_set(self.plan.network.words, self.pack_set(values), frame, sets)

    def unsuited(self, target: str) -> str | None:
        return unsuited(self.plan.folding, target)

    def remedy(self, target: str) -> str:
        """The smallest interval whose estimated area fits."""
        larger = f"choose a larger target, or an interval above {self.interval} cycles"
        if target not in DEVICES:
            return larger
        try:
            interval = fit(self.program, target)
        except BittrueError as error:
            return str(error)
        if interval <= self.interval:
            return larger
        return f"the smallest interval whose estimated area fits is {interval} cycles; plan with --interval {interval}"

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind} | self.plan.to_json()

    @classmethod
    def from_json(cls, program: Program, value: Mapping[str, Any]) -> PipelineDesign:
        return cls(Plan.from_json(program, value))
