"""The process network of a program: which stream joins which kernels, and how deep it must be.

A tensor that is read once is one stream; one that is read several times (a residual) goes through a fork, and one
that nobody reads is drained. Depths: two codes everywhere, a whole frame on every operand of an operation that has
several operands. No network of that kind can deadlock, provided that each process finishes a frame on every stream
before it begins the next, and that all results are read at the same time. Take the oldest frame that some process has
not finished, and of those processes the first in the order of the nodes: its operands are all there, so only a full
output can stop it. Follow the full streams downstream. Each ends at a process that has data on its only operand and is
itself stopped by a full output, or at one with several operands; but a stream a frame deep that is full of this frame's
codes still holds one of the frame before, which contradicts the choice of the oldest frame. So the process can run.

Where samples go in groups (`sim.groups`), the same holds of groups: a process of tensors of samples runs once for each
frame of a group, all others once, and so each finishes a group on every stream before it begins the next. An operand of
an operation that has several is then as deep as the frames of the largest group, so that one full of a group's codes
holds one of the group before, whichever the sizes of the two are. What brings frames together gives no code before the
last frame of a group, and what parts them none before it has its whole frame; both have one operand, so that nothing
but this and their output stops them.

Where n is a held input, it comes on a stream, a number a group, and a process tells it to all that need it, each
through a stream of its own. Of the oldest unfinished group every process has been told: a stream that is full of
numbers holds one of a group before, which its reader has not begun. So no depth of these streams can deadlock; twice as
many numbers as there are processes keep none waiting, for each is at most two groups behind the one before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from bittrue.sim.contract import Format
from bittrue.sim.held import Held
from bittrue.sim.naming import identifier, master_prefixes, slave_prefixes
from bittrue.sim.operation import Operation, TensorType
from bittrue.sim.program import Program

#: Depth of a stream between two kernels that run in step.
SHALLOW = 2


def code_type(fmt: Format) -> str:
    """The C++ type of a code.

    >>> code_type(Format(8)), code_type(Format(3, signed=False))
    ('ap_int<8>', 'ap_uint<3>')
    """
    return f"ap_{'int' if fmt.signed else 'uint'}<{fmt.bits}>"


def beat_bits(fmt: Format) -> int:
    """Width of TDATA: whole bytes."""
    return 8 * -(-fmt.bits // 8)


@dataclass(frozen=True)
class Stream:
    """One FIFO: its C++ name, what flows through it, its depth in codes."""

    name: str
    tensor: TensorType
    depth: int


@dataclass(frozen=True)
class Process:
    """One function of the DATAFLOW region. `call` is the C++ name with its template arguments.

    `probe` is the index of the tensor that this process makes, None for forks and the output; `parameters` are the
    arguments of the top that it takes too: held inputs, and where an input counts its framing errors. `repeats`: it
    runs once for every frame of a group. `told` is the stream that tells it how many these are, where it changes.
    """

    call: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    probe: int | None = None
    parameters: tuple[str, ...] = ()
    repeats: bool = False
    told: str = ""


@dataclass(frozen=True)
class KernelGraph:
    """Streams and processes in an order in which every operand exists.

    `slaves` and `masters` are the AXI4-Streams of inputs and results, in the program's order; `held` are the written
    inputs, by the names that they have as arguments of the top. `groups` are the masters that give a frame a group.
    `images` is how many frames a group has, 1 where they do not go in groups; where it changes, `sizes` is the
    AXI4-Stream that has a number a group, and its type.
    """

    slaves: tuple[tuple[str, TensorType], ...]
    masters: tuple[tuple[str, TensorType], ...]
    structs: tuple[str, ...]
    streams: tuple[Stream, ...]
    processes: tuple[Process, ...]
    held: Mapping[str, Held]
    groups: frozenset[str] = frozenset()
    images: int = 1
    sizes: tuple[str, TensorType] | None = None

    @property
    def ports(self) -> tuple[tuple[str, TensorType], ...]:
        """All AXI4-Streams: inputs, sizes of groups where these change, results."""
        return self.slaves + ((self.sizes,) if self.sizes else ()) + self.masters

    @property
    def grouped(self) -> bool:
        """Whether a call may be of several frames."""
        return self.sizes is not None or self.images > 1

    @property
    def reports(self) -> list[str]:
        """The output arguments of the top that count framing errors, one an input."""
        return [f"{port}_framing_errors" for port, _ in self.slaves]

    @property
    def arguments(self) -> str:
        """What the top is called with: its ports, its held inputs, and where framing errors go."""
        return ", ".join([*(port for port, _ in self.ports), *self.held, *self.reports])

    @classmethod
    def of(cls, program: Program, kernels: list[str]) -> KernelGraph:
        """The network of a program whose k-th node runs the kernel of the k-th name."""
        index = {name: k for k, name in enumerate(program.types)}
        label = {name: f"{k}_{identifier(name, set())}" for name, k in index.items()}
        structs = tuple(f"node_{label[node.name]}" for node in program.nodes)
        slaves = tuple(zip(slave_prefixes(program.inputs), program.inputs.values(), strict=True))
        masters = tuple(zip(master_prefixes(program.results), program.outputs.values(), strict=True))

        taken = {port for port, _ in slaves + masters}
        grouping = program.grouping
        changing = None if grouping is None else grouping.held
        sizes = None
        if changing is not None:  # a program with groups holds nothing else
            sizes = identifier(f"s_axis_{changing.name}", taken), TensorType((1,), changing.format)
        written = {} if changing is not None else program.written
        arguments = {name: identifier(f"held_{name}", taken) for name in written}
        of_groups = frozenset() if grouping is None else grouping.tensors
        most = 1 if grouping is None else max(grouping.modes)

        def of_samples(name: str) -> bool:
            """Whether a tensor has several frames a call."""
            return grouping is not None and name not in of_groups

        streams: list[Stream] = []
        processes: list[Process] = []
        feeds: dict[tuple[int, int], str] = {}  # (node, operand) -> stream; node -1 are the program's results
        readers: dict[str, list[tuple[int, int, int]]] = {name: [] for name in program.types}
        for at, node in enumerate(program.nodes):
            for operand, name in enumerate(node.operands):
                several = len(node.operands) > 1
                frames = 1 if name in of_groups else most
                readers[name].append((at, operand, frames * program.types[name].size if several else SHALLOW))
        for k, name in enumerate(program.results):
            readers[name].append((-1, k, SHALLOW))

        def publish(name: str) -> tuple[str, Process | None]:
            """The stream that the maker of a tensor writes, and the fork behind it if there is one."""
            kind, base = program.types[name], f"t{label[name]}"
            if len(readers[name]) == 1:
                ((at, operand, depth),) = readers[name]
                streams.append(Stream(base, kind, depth))
                feeds[at, operand] = base
                return base, None
            streams.append(Stream(base, kind, SHALLOW))
            branches = []
            for k, (at, operand, depth) in enumerate(readers[name]):
                branches.append(f"{base}_to_{k}")
                streams.append(Stream(branches[-1], kind, depth))
                feeds[at, operand] = branches[-1]
            return base, Process(f"bittrue::fork<{kind.size}>", (base,), tuple(branches), repeats=of_samples(name))

        for k, ((port, kind), name) in enumerate(zip(slaves, program.inputs, strict=True)):
            made, fork = publish(name)
            call, reports = f"bittrue::unpack<{k}, {kind.size}>", (f"{port}_framing_errors",)
            processes.append(Process(call, (port,), (made,), index[name], reports, of_samples(name)))
            processes += [fork] if fork else []
        for at, (node, struct, kernel) in enumerate(zip(program.nodes, structs, kernels, strict=True)):
            made, fork = publish(node.name)
            operands = tuple(feeds[at, k] for k in range(len(node.operands)))
            given = parameters(node.operation, struct, arguments)
            alone = of_samples(node.name) and of_samples(node.operands[0])
            call = f"bittrue::{kernel}<{struct}>"
            told = f"t{label[node.name]}_images" if sizes and node.operation.regroups else ""
            processes.append(Process(call, operands, (made,), index[node.name], given, alone, told))
            processes += [fork] if fork else []
        for k, ((port, kind), name) in enumerate(zip(masters, program.results, strict=True)):
            processes.append(Process(f"bittrue::pack<{kind.size}>", (feeds[-1, k],), (port,), repeats=of_samples(name)))
        held = {arguments[name]: h for name, h in written.items()}
        together = frozenset(
            port for (port, _), name in zip(masters, program.results, strict=True) if name in of_groups
        )
        images = 1 if grouping is None else grouping.size
        if sizes is not None:
            processes = [
                replace(process, told=f"sizes_{k}") if process.repeats else process
                for k, process in enumerate(processes)
            ]
            readers_of = tuple(process.told for process in processes if process.told)
            depth = SHALLOW * len(processes)
            streams += [Stream(name, sizes[1], depth) for name in readers_of]
            slots = grouping.slots  # type: ignore[union-attr]
            processes.insert(
                0, Process(f"bittrue::tell<{code_type(sizes[1].format)}, {slots}, {images}>", (sizes[0],), readers_of)
            )
        given = slaves, masters, structs, tuple(streams), tuple(processes), held, together
        return cls(*given, images, sizes)


#: The arrays that a kernel takes as arguments where one of them is held, in order.
PARAMETERS = ("weight", "plus", "minus", "offset", "shift", "bias", "bias_acc", "multiplier")


def parameters(operation: Operation, struct: str, arguments: Mapping[str, str]) -> tuple[str, ...]:
    """What a kernel is called with besides its streams, when its operation reads held inputs: its arrays, in order."""
    if not any(name in arguments for name in operation.held):
        return ()
    arrays = {key: value[1] for key, value in operation.constants.items() if isinstance(value, tuple)}
    return tuple(
        arguments[arrays[key].name] if isinstance(arrays[key], Held) else f"{struct}::{key}"
        for key in PARAMETERS
        if key in arrays
    )
