"""A network as one component: its stages connected, forks between them, what counts groups and takes sets."""

from __future__ import annotations

from amaranth.hdl import Module, Mux
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out, connect, flipped

from bittrue.rtl.dataflow.groups import Groups, Passing
from bittrue.rtl.dataflow.loader import beats_begin
from bittrue.rtl.dataflow.network import Network
from bittrue.rtl.dataflow.plumbing import Fork
from bittrue.rtl.dataflow.stage import beat
from bittrue.sim.naming import identifier


class Pipeline(wiring.Component):
    """The network as one component: a stream per program input (`inlet`) and per result (`outlets`)."""

    def __init__(self, network: Network):
        self.network = network
        members = {}
        for name in network.program.inputs:
            inlet = network.elements[network.made[name]].stage
            members[self.member(name)] = In(stream.Signature(beat(network.program.inputs[name].format, inlet.lanes_in)))
        for k, (member, kind) in enumerate(zip(self.results, network.program.outputs.values(), strict=True)):
            lanes = network.elements[network.outputs[k]].stage.lanes_out
            members[member] = Out(stream.Signature(beat(kind.format, lanes)))
        self.loader = network.loader
        super().__init__(members)

    def member(self, name: str) -> str:
        """The member that takes the codes of an input."""
        return f"i{list(self.network.program.inputs).index(name)}"

    def inlet(self, name: str):
        """The stream that takes the codes of an input."""
        return getattr(self, self.member(name))

    @property
    def results(self) -> list[str]:
        """The members that give the codes of the results: `o`, or `o0`, `o1`, ... where there are several."""
        count = len(self.network.outputs)
        return ["o"] if count == 1 else [f"o{k}" for k in range(count)]

    @property
    def outlets(self) -> list:
        """The streams that give the codes of the results, in order."""
        return [getattr(self, name) for name in self.results]

    def elaborate(self, platform):  # noqa: ARG002
        m = Module()
        network = self.network
        names, outputs = set(network.names), []
        for index, element in enumerate(network.elements):
            m.submodules[element.name] = element.stage
            if element.readers == 1:
                outputs.append([element.stage.o])
                continue
            fork = Fork(network.types[index].format, element.stage.lanes_out, element.readers)
            m.submodules[identifier(f"{element.name}_fork", names)] = fork
            connect(m, element.stage.o, fork.i)
            outputs.append(list(fork.o))
        if network.groups is None:
            for name in network.program.inputs:
                connect(m, flipped(self.inlet(name)), network.elements[network.made[name]].stage.i)
        else:
            m.submodules[network.groups_name] = network.groups
            self._fill(m, network.groups)
        if self.loader is not None:
            m.submodules[network.loader_name] = self.loader
            for k, (name, kind) in enumerate(network.program.inputs.items()):
                i = self.inlet(name)
                begins = beats_begin(m, f"i{k}", kind.size // len(i.payload), i.valid & i.ready)
                m.d.comb += self.loader.begins[k].eq(begins)
        for element in network.elements:
            for k, (source, branch) in enumerate(zip(element.reads, element.branches, strict=True)):
                connect(m, outputs[source][branch], element.stage.operands[k])
        ends = zip(self.outlets, network.outputs, network.output_branches, strict=True)
        for k, (outlet, source, branch) in enumerate(ends):
            made = outputs[source][branch]
            if network.groups is not None:
                groups = network.groups
                passing = Passing(outlet.payload.shape(), groups.results[k], groups.groups[k])
                m.submodules[network.passing_names[k]] = passing
                connect(m, made, passing.i)
                made = passing.o
            connect(m, made, flipped(outlet))
        return m

    def _fill(self, m: Module, groups: Groups) -> None:
        """What comes in, or what fills a group that is not complete."""
        (name,) = self.network.program.inputs
        i, into = self.inlet(name), self.network.elements[self.network.made[name]].stage.i
        m.d.comb += [
            into.valid.eq(i.valid | groups.filling),
            into.payload.eq(Mux(groups.filling, 0, i.payload.as_value())),
            i.ready.eq(into.ready & ~groups.filling),
            groups.taken.eq(into.valid & into.ready),
        ]
