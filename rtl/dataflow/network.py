"""All stages of a program and who reads whom: operations, width converters, residual FIFOs; and their schedule."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, cast

import numpy as np

from bittrue.rtl.dataflow.choice import windows_read
from bittrue.rtl.dataflow.convolved import ring_lanes
from bittrue.rtl.dataflow.folding import Folding
from bittrue.rtl.dataflow.groups import Groups, GroupStage
from bittrue.rtl.dataflow.loader import Loader, Words
from bittrue.rtl.dataflow.plumbing import Fifo, Narrow, Widen
from bittrue.rtl.dataflow.schedule import Flow, simulate
from bittrue.rtl.dataflow.stage import Stage, realisation
from bittrue.rtl.parts.held import Exchange
from bittrue.sim.errors import BittrueError
from bittrue.sim.groups import Grouping
from bittrue.sim.held import Sets
from bittrue.sim.naming import identifier
from bittrue.sim.operation import Operation, TensorType
from bittrue.sim.operations.window import Window
from bittrue.sim.program import BLOCK, Program


@dataclass
class Element:
    """One stage in its place: whose output it reads, and how many readers it has itself.

    `fifo` is the key "node.k" of a FIFO before operand k of a node; `of` names the operation whose result it carries.
    """

    name: str
    stage: Stage
    reads: list[int]
    node: str | None = None
    readers: int = 0
    fifo: str | None = None
    branches: list[int] = field(default_factory=list)
    of: str | None = None


class Network:
    """The elements of a program for given foldings, input lanes and FIFO entries.

    folding       Folding of every matrix stage, by node
    input_lanes   codes per beat of every program input
    fifos         entries of the FIFO before operand k of a node, by "node.k"
    stages        those made before, which is added to: for networks of one program that are only looked at
    serial        results come a code a beat
    scatter       banks of the tables of what is held, where these are written value by value; 0: row by row, of two
    """

    def __init__(
        self,
        program: Program,
        folding: Mapping[str, Folding],
        input_lanes: Mapping[str, int],
        fifos: Mapping[str, int],
        stages: dict[tuple[Hashable, ...], Stage] | None = None,
        serial: bool = False,
        scatter: int = 0,
    ):
        self.program, self.serial = program, serial
        self.elements: list[Element] = []
        self.types: list[TensorType] = []
        self.made: dict[str, int] = {}
        self.names: set[str] = set()
        for name, kind in program.inputs.items():
            lanes = input_lanes[name]
            if lanes < 1 or kind.channels % lanes:
                raise BittrueError(f"input {name!r}: {lanes} lanes do not divide its {kind.channels} channels")
            inlet = Widen(kind.format, lanes, lanes, kind.size // lanes)
            self.made[name] = self._enter(f"{name}_inlet", inlet, [], kind)
        regrouping: list[Stage] = []
        #: By node, the window whose ring it reads itself; and the tensors that so no stage gives.
        self.windows, self.within = self._windows(folding)
        for node in program.nodes:
            operation = node.operation
            sources = [self.made[name] for name in node.operands]
            if node.name in self.within or component(operation, None).wires:
                self.made[node.name] = sources[0]
                continue
            window = self.windows.get(node.name)
            lanes = self._lanes(sources, operation, folding.get(node.name), window)
            for k, source in enumerate(sources):
                entries = fifos.get(f"{node.name}.{k}", 0)
                if entries:
                    source = self._fifo(f"{node.name}_fifo{k}", source, entries)
                    self.elements[source].fifo = f"{node.name}.{k}"
                sources[k] = self._convert(f"{node.name}_width{k}", source, lanes)
            options = {"lanes": lanes}
            folded = folding.get(node.name)
            if folded is not None:
                options |= {"simd": folded.simd, "pe": folded.pe}
                if folded.block_luts is not None:
                    options["block_luts"] = folded.block_luts
                if window is not None:
                    options["window"] = window
            key = (node.name, lanes, folded)
            try:
                stage = (stages or {}).get(key) or component(operation, folded)(operation, **options)
            except BittrueError as error:
                raise BittrueError(f"{node.name}: {error}") from error
            if stages is not None:
                stages[key] = stage
            _check_held(node.name, operation, stage)
            if isinstance(stage, GroupStage):
                regrouping.append(stage)
            made = self._enter(node.name, stage, sources, operation.output, node.name)
            if (behind := stage.behind) is not None:
                made = self._enter(f"{node.name}_behind", behind, [made], operation.output)
            self.made[node.name] = made
        #: The elements that make the results, in the program's order, and which of their readers each output is.
        self.outputs = [self._result(name, kind) for name, kind in program.outputs.items()]
        self.output_branches: list[int] = []
        for k in self.outputs:
            self.output_branches.append(self.elements[k].readers)
            self.elements[k].readers += 1
        for element in self.elements:
            if not element.readers:
                raise BittrueError(
                    f"{element.name}: nothing reads its result; remove it from the program, or name it as a result"
                )
        #: What counts frames that go in groups, or None where each goes by itself.
        self.groups: Groups | None = None
        if program.grouping is not None:
            self._check_groups(program.grouping)
            ((name, kind),) = program.inputs.items()
            beats = kind.size // input_lanes[name]
            most = self._frames_on_their_way()
            results = [self.types[k].size // self.elements[k].stage.lanes_out for k in self.outputs]
            self.groups = Groups(program.grouping, regrouping, most, beats, results)
        #: The order in which a set is written, or None where nothing is.
        self.words: Words | None = None
        tables = [table for element in self.elements for table in element.stage.tables]
        if tables := tables + ([] if self.groups is None else self.groups.tables):
            self._check_connected()
            for table in tables if scatter else ():
                table.scatter(scatter)
            self.words = Words(tables)
            bits = self._frames_on_their_way().bit_length()
            for element in self.elements:
                element.stage.exchange_bits = bits

    # -- building --------------------------------------------------------------------------------------
    def _enter(self, name: str, stage: Stage, reads: list[int], kind: TensorType, node: str | None = None) -> int:
        branches = []
        for source in reads:
            branches.append(self.elements[source].readers)
            self.elements[source].readers += 1
        of = node or (self.elements[reads[0]].of if reads else None)
        self.elements.append(Element(identifier(name, self.names), stage, reads, node, branches=branches, of=of))
        self.types.append(kind)
        return len(self.elements) - 1

    def _windows(self, folding: Mapping[str, Folding]) -> tuple[dict[str, Window], set[str]]:
        """The windows that are read by the stages of other nodes, and the nodes that are in these."""
        reading = [name for name, folded in folding.items() if folded.ring]
        ways = windows_read(self.program) if reading else {}
        for name in reading:
            if name not in ways or component(self.program[name], folding[name]) is None:
                raise BittrueError(
                    f"{name}: it has no ring to read: its operand is no window that it alone reads, or its "
                    f"architecture {folding[name].architecture!r} stores vectors; plan it with ring=False"
                )
        windows = {name: cast(Window, self.program[ways[name][0]]) for name in reading}
        return windows, {within for name in reading for within in ways[name]}

    def _lanes(self, sources: list[int], operation, folding: Folding | None, window: Window | None = None) -> int:
        lanes = [self.elements[s].stage.lanes_out for s in sources]
        if folding is not None and window is not None:
            return ring_lanes(window, folding.simd, lanes[0])
        make = component(operation, folding)
        if folding is not None:
            taken = min(folding.simd, operation.inputs[0].channels)
            if make.whole_beats and taken > 0 and not operation.inputs[0].channels % taken:
                return taken
            return math.gcd(lanes[0], folding.simd)  # a folding that does not divide is refused by the stage
        # a beat before a renaming of axes may hold more codes than the operand has channels
        return make.legal_lanes(operation, math.gcd(max(lanes), operation.inputs[0].channels))

    def _fifo(self, name: str, source: int, entries: int) -> int:
        stage, kind = self.elements[source].stage, self.types[source]
        fifo = Fifo(kind.format, stage.lanes_out, entries, kind.size // stage.lanes_out)
        return self._enter(name, fifo, [source], kind)

    def _convert(self, name: str, source: int, lanes: int) -> int:
        kind = self.types[source]
        common = math.gcd(self.elements[source].stage.lanes_out, lanes)
        now = self.elements[source].stage.lanes_out
        if now != common:
            narrow = Narrow(kind.format, now, common, kind.size // now)
            source = self._enter(f"{name}_narrow", narrow, [source], kind)
        if common != lanes:
            source = self._enter(f"{name}_widen", Widen(kind.format, common, lanes, kind.size // lanes), [source], kind)
        return source

    def _result(self, name: str, kind: TensorType) -> int:
        """What gives a result, in beats of codes of one token."""
        made = self.made[name]
        lanes = 1 if self.serial else math.gcd(self.elements[made].stage.lanes_out, kind.channels)
        return self._convert(f"{name}_result", made, lanes)

    # -- groups ----------------------------------------------------------------------------------------
    def _check_groups(self, grouping: Grouping) -> None:
        """Refuse what is not there yet for frames that go in groups."""
        if len(self.program.inputs) > 1:
            raise BittrueError(
                f"the program's samples go in groups and come in on {len(self.program.inputs)} inputs "
                f"({', '.join(self.program.inputs)}); hardware of it takes one input, so join them before"
            )
        if of := [name for name in self.program.results if name in grouping.tensors]:
            raise BittrueError(
                f"the result {of[0]!r} is one of groups of samples; hardware gives a result a sample, so part it before"
            )
        if self.dynamic:
            raise BittrueError(
                f"{self.dynamic[0].name}: its cycles depend on the data, which is not planned yet where samples go in "
                "groups; choose another architecture"
            )

    # -- sets ------------------------------------------------------------------------------------------
    def _check_connected(self) -> None:
        """Refuse parts that share no stream: one could be any number of frames ahead of another, and a set is for one
        frame of all."""
        part = list(range(len(self.elements)))
        for k, element in enumerate(self.elements):
            for source in element.reads:
                old, new = part[source], part[k]
                part = [new if p == old else p for p in part]
        if len(set(part)) > 1:
            names = [next(e.name for k, e in enumerate(self.elements) if part[k] == p) for p in dict.fromkeys(part)]
            raise BittrueError(
                f"the program falls into parts that share no tensor ({', '.join(names)}), so no set of weights could "
                "be for the same frame of all; make a program of each part"
            )

    def _frames_on_their_way(self) -> int:
        """More frames than can be between the inputs and the outputs, whatever stalls."""
        most = 2
        for element, kind in zip(self.elements, self.types, strict=True):
            timing = element.stage.timing
            beats = kind.size // element.stage.lanes_out
            held = max(-(-room // supply) for room, supply in zip(timing.rooms, timing.supply, strict=True))
            most += -(-timing.credits // beats) + held + 2
        return 2 * most

    @property
    def loader_name(self) -> str:
        """The name of the loader among the parts of the pipeline."""
        return identifier("loader", self.names | self._forks)

    @property
    def groups_name(self) -> str:
        """The name of what counts frames that go in groups, likewise."""
        return identifier("groups", self.names | self._forks)

    @property
    def passing_names(self) -> list[str]:
        """The names of what lets the frames of each result pass, likewise; none where frames go by themselves."""
        if self.groups is None:
            return []
        taken = self.names | self._forks | {self.groups_name}
        return [identifier(f"result{k}_passing", taken) for k in range(len(self.outputs))]

    @property
    def group_names(self) -> list[str]:
        """All of these."""
        return [] if self.groups is None else [self.groups_name, *self.passing_names]

    @property
    def _forks(self) -> set[str]:
        return {f"{element.name}_fork" for element in self.elements if element.readers > 1}

    @cached_property
    def loader(self) -> Loader | None:
        """What takes the sets, where any are written, with the exchanges of the stages that hold them."""
        if self.words is None:
            return None
        holding: list[Any] = [element.stage for element in self.elements if element.stage.tables]
        for stage in holding:
            stage.exchange = Exchange(stage.exchange_bits)
        if self.groups is not None and self.groups.tables:
            self.groups.exchange = Exchange(1)
            holding.append(self.groups)
        return Loader(self.words, [stage.exchange for stage in holding], len(self.program.inputs))

    # -- timing ----------------------------------------------------------------------------------------
    @property
    def bottleneck(self) -> int:
        """Cycles per frame of the slowest stage: the pipeline's interval when no FIFO is too shallow; per group, as
        large as can be, where frames go in groups."""
        return max(map(self.cycles, self.elements))

    def cycles(self, element: Element) -> int:
        """Those of a frame in an element by itself, of a group where frames go in groups; what regroups tells that."""
        grouping = self.program.grouping
        alone = grouping is None or isinstance(element.stage, GroupStage) or element.of in grouping.tensors
        return element.stage.interval * (1 if alone or grouping is None else max(grouping.modes))

    @property
    def dynamic(self) -> list[Element]:
        """The elements whose cycles depend on the data."""
        return [e for e in self.elements if e.stage.timing.dynamic]

    def work(self, *x: np.ndarray, held: Sets | None = None) -> dict[int, np.ndarray]:
        """The cycles of every block of the elements whose work depends on the data, for a batch, by element.

        `held` is what is written meanwhile, as for the program.
        """
        dynamic = [k for k, e in enumerate(self.elements) if e.stage.timing.dynamic]
        operands = {node.name: node.operands for node in self.program.nodes}
        parts: dict[int, list[np.ndarray]] = {k: [] for k in dynamic}
        for start in range(0, len(x[0]) if dynamic else 0, BLOCK):
            tensors = self.program.trace(*(v[start : start + BLOCK] for v in x), first=start, held=held).tensors
            for k in dynamic:
                element = self.elements[k]
                parts[k].append(element.stage.work(*(tensors[name] for name in operands[element.node])))
        return {k: np.concatenate(cycles) for k, cycles in parts.items()}

    def schedule(
        self,
        frames: int,
        entries: Mapping[str, int] | None = None,
        goal: np.ndarray | None = None,
        work: Mapping[int, np.ndarray] | None = None,
        early: bool = False,
        modes: Sequence[int] | None = None,
    ) -> Flow:
        """The cycles of `frames` frames.

        Where these go in groups, `modes` are the sizes of the groups, one after the other and then again; without, all
        are as they are at first. `frames` completes the last one.

        `entries` tries other FIFO depths (0 takes the FIFO out); `goal` and `early` as in
        `rtl.dataflow.schedule.simulate`; `work` is what the method of that name gives, else every block takes the most
        cycles that it can.
        """
        entries, size = entries or {}, 1
        if self.program.grouping is not None:
            modes = [self.program.grouping.size] if modes is None else modes
            size = modes[-1]
        gone = {index for index, e in enumerate(self.elements) if e.fifo in entries and not entries[e.fifo]}
        place = {index: k for k, index in enumerate(i for i in range(len(self.elements)) if i not in gone)}
        stages, reads, inputs = [], [], []
        for index, element in enumerate(self.elements):
            if index in gone:
                continue
            timing = element.stage.timing if modes is None else element.stage.timed(modes)
            stages.append(replace(timing, blocks=entries[element.fifo]) if element.fifo in entries else timing)
            sources = (self.elements[s].reads[0] if s in gone else s for s in element.reads)
            if element.reads:
                reads.append([place[s] for s in sources])
            else:
                reads.append([~len(inputs)])
                inputs.append(element.stage.timing.supply[0])
        outputs = [(place[k], self.types[k].size // self.elements[k].stage.lanes_out) for k in self.outputs]
        told = {place[index]: cycles for index, cycles in (work or {}).items()}
        return replace(simulate(stages, reads, inputs, outputs, frames, goal, told, early), size=size)


def _check_held(name: str, operation: Operation, stage: Stage) -> None:
    """Refuse a stage that has no memory for what its operation holds."""
    stored = {table.held.name for table in stage.tables}
    if operation.regroups:
        return  # what it holds is kept where groups are counted
    lacking = [held.name for held in operation.held.values() if not held.counts and held.name not in stored]
    if lacking and any(held.low != held.high for held in operation.held.values() if held.name in lacking):
        raise BittrueError(
            f"{name}: the RTL of {type(operation).__name__} cannot be written ({', '.join(lacking)}); leave these "
            "constant, or give its stage a memory for them (`tables`)"
        )


def component(operation: Operation, folding: Folding | None):
    """The class of the stage of an operation, in the architecture that its folding names.

    None where the folding says that it reads a ring, and there is no such stage.
    """
    make = realisation(operation) if folding is None else realisation(operation, folding.architecture)
    return make.convolved if folding is not None and folding.ring else make
