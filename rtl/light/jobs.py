"""What the controller of a photonic array has to do for a batch: the jobs, in order, and every constant they need.

A job is one tile of rows and one tile of columns of a layer on the array; it measures every image of the batch. The row
tiles of a column tile follow each other, so that only the sums of one column tile are held; column tiles follow within
a layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from bittrue.sim.contract import Format, Range
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.photonic_mac import PhotonicMac
from bittrue.sim.operations.tile_sum import TileSum
from bittrue.sim.program import Node, Program
from bittrue.sim.requantize import Requantize


@dataclass(frozen=True)
class Geometry:
    """The array: inputs (`rows`, each with its complement rail), outputs (`columns`), codes a beat (`lanes`)."""

    rows: int
    columns: int
    lanes: int

    def __post_init__(self) -> None:
        if min(self.rows, self.columns, self.lanes) < 1 or self.lanes & (self.lanes - 1):
            raise BittrueError(
                f"photonic array: {self.rows} rows, {self.columns} columns and {self.lanes} lanes; each is at least 1, "
                "and the lanes are a power of two"
            )
        if self.rows % self.lanes or self.columns % self.lanes:
            raise BittrueError(
                f"photonic array: {self.lanes} lanes do not divide {self.rows} rows and {self.columns} columns; "
                "use fewer lanes"
            )
        if max(self.rows, self.columns) >= 1 << 16:
            raise BittrueError("photonic array: it has fewer than 65,536 rows and columns")

    @property
    def words(self) -> int:
        """Beats that the codes of all rows take."""
        return self.rows // self.lanes

    @property
    def groups(self) -> int:
        """Beats that the codes of all columns take."""
        return self.columns // self.lanes


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer: its measurements, its sum and, if it has one, its activation table."""

    name: str
    mac: PhotonicMac
    total: TileSum
    table: Lerp | None
    geometry: Geometry

    @property
    def outputs(self) -> int:
        return len(self.mac.plus)

    @property
    def column_tiles(self) -> int:
        return -(-self.outputs // self.geometry.columns)

    @property
    def groups(self) -> int:
        """Beats of its outputs, the last one perhaps not full."""
        return -(-self.outputs // self.geometry.lanes)

    @property
    def channels(self) -> np.ndarray:
        """The output that every lane of every beat carries, `[groups * lanes]`; spare lanes repeat the last."""
        return np.minimum(np.arange(self.groups * self.geometry.lanes), self.outputs - 1)


@dataclass(frozen=True)
class Job:
    """One setting of the array's weights: a measurement of every image.

    number             its place in the work
    layer              index of its layer
    row_tile           of the inputs
    column_tile        of the outputs
    rows, columns      of the array that it uses; the others are dark
    """

    number: int
    layer: int
    row_tile: int
    column_tile: int
    rows: int
    columns: int


@dataclass(frozen=True, eq=False)
class Jobs:
    """The work for a batch of images on an array; `Jobs.of` makes it and refuses what a controller cannot run."""

    program: Program
    geometry: Geometry
    layers: tuple[Layer, ...]

    @classmethod
    def of(cls, program: Program, geometry: Geometry) -> Jobs:
        """The jobs of a chain of layers PhotonicMac, TileSum and an exact table (Lerp), on one token."""
        if program.written:
            raise BittrueError(
                f"photonic controller: {next(iter(program.written))!r} is a held input, but its jobs are made of "
                "constants; give it the program that `bind` makes with a set, or let it take weights over its stream"
            )
        if len(program.inputs) != 1:
            raise BittrueError(f"photonic controller: the program has {len(program.inputs)} inputs, it drives one")
        if len(program.results) != 1:
            raise BittrueError(
                f"photonic controller: the program has {len(program.results)} results ({', '.join(program.results)}), "
                "it gives out one; make a program of each, or build the pipeline"
            )
        (tensor,) = program.inputs
        layers: list[Layer] = []
        nodes = list(program.nodes)
        while nodes:
            mac, tensor = _take(nodes, PhotonicMac, tensor)
            total, tensor = _take(nodes, TileSum, tensor)
            table = None
            if nodes and isinstance(nodes[0].operation, Lerp):
                table, tensor = _take(nodes, Lerp, tensor)
            layer = Layer(mac.name, mac.operation, total.operation, table and table.operation, geometry)
            _check_layer(layer, layers[0] if layers else None)
            layers.append(layer)
        if program.result != tensor:
            raise BittrueError(f"photonic controller: the result is {program.result!r}, not its last tensor {tensor!r}")
        made = cls(program, geometry, tuple(layers))
        if made.input.channels % geometry.lanes:
            raise BittrueError(
                f"photonic controller: {geometry.lanes} lanes do not divide the {made.input.channels} inputs of an "
                "image; use fewer lanes"
            )
        return made

    # -- formats ---------------------------------------------------------------------------------------
    @property
    def input(self) -> TensorType:
        return self.layers[0].mac.input

    @property
    def output(self) -> TensorType:
        return self.program.output

    @property
    def codes(self) -> Format:
        """Of the input DACs."""
        return self.input.format

    @property
    def cells(self) -> Format:
        """Of the weight DACs."""
        return Format(max(layer.mac.cells.bits for layer in self.layers), signed=False)

    @property
    def adc(self) -> Format:
        return self.layers[0].mac.output.format

    @cached_property
    def light(self) -> Range:
        """Of a count without noise."""
        return Range(0, max(layer.mac.light.high for layer in self.layers))

    @cached_property
    def offset(self) -> Format:
        """Of an offset, as stored and as a calibration may set it: whatever light there can be, and what is set now."""
        return Format.covering(self.offsets, self.light.high)

    @property
    def noisy(self) -> bool:
        return any(layer.mac.noise is not None for layer in self.layers)

    # -- the work --------------------------------------------------------------------------------------
    @cached_property
    def work(self) -> tuple[Job, ...]:
        """All jobs, in order."""
        g, jobs = self.geometry, []
        for index, layer in enumerate(self.layers):
            for column_tile in range(layer.column_tiles):
                for row_tile, part in layer.mac.parts():
                    columns = min(g.columns, layer.outputs - column_tile * g.columns)
                    jobs.append(Job(len(jobs), index, row_tile, column_tile, part.stop - part.start, columns))
        return tuple(jobs)

    def used_groups(self, job: Job) -> int:
        """Beats of columns that a job uses."""
        return -(-job.columns // self.geometry.lanes)

    def rails(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Plus and minus codes `[lanes]` of every weight beat within the layers: jobs, rows, groups of columns.

        Beats of unused rows and unused groups of columns are not among them: their codes are 0.
        """
        g = self.geometry
        for job in self.work:
            mac = self.layers[job.layer].mac
            top, left = job.row_tile * g.rows, job.column_tile * g.columns
            tile = np.zeros((2, job.rows, self.used_groups(job) * g.lanes), np.int64)
            for rail, cells in zip(tile, (mac.plus, mac.minus), strict=True):
                rail[:, : job.columns] = cells[left : left + job.columns, top : top + job.rows].T
            for row in range(job.rows):
                for group in range(self.used_groups(job)):
                    part = slice(group * g.lanes, (group + 1) * g.lanes)
                    yield tile[0, row, part], tile[1, row, part]

    @property
    def beats(self) -> int:
        """Weight beats of a batch that `rails` gives."""
        return sum(job.rows * self.used_groups(job) for job in self.work)

    @cached_property
    def offsets(self) -> np.ndarray:
        """Offset of every column in every job, int64 `[jobs, columns]`, 0 for columns that are not used."""
        found = np.zeros((len(self.work), self.geometry.columns), np.int64)
        for job in self.work:
            left = job.column_tile * self.geometry.columns
            found[job.number, : job.columns] = self.layers[job.layer].mac.offset[
                job.row_tile, left : left + job.columns
            ]
        return found

    def with_offsets(self, offsets: np.ndarray) -> Program:
        """The program whose array has been calibrated to these offsets `[jobs, columns]`."""
        macs = {}
        for job in self.work:
            layer, left = self.layers[job.layer], job.column_tile * self.geometry.columns
            mine = macs.setdefault(layer.name, np.array(layer.mac.offset))
            mine[job.row_tile, left : left + job.columns] = offsets[job.number, : job.columns]
        nodes = [
            replace(node, operation=replace(node.operation, offset=macs[node.name])) if node.name in macs else node
            for node in self.program.nodes
        ]
        return replace(self.program, nodes=tuple(nodes))

    # -- after the converter ---------------------------------------------------------------------------
    @cached_property
    def sums(self) -> tuple[np.ndarray, np.ndarray]:
        """Exact low and high of every layer's scaled sums, in the order in which they are requantised."""
        parts = [[ends[layer.channels] for ends in layer.total.sums] for layer in self.layers]
        low, high = (np.concatenate(ends) for ends in zip(*parts, strict=True))
        return low, high

    @cached_property
    def requantize(self) -> Requantize:
        """One requantiser for all layers, as wide as what comes out of any; each layer's own clip comes after it."""
        fields = {}
        for name in ("shift", "bias", "bias_acc", "multiplier"):
            values = [getattr(layer.total.requantize, name)[layer.channels] for layer in self.layers]
            fields[name] = np.concatenate(values)
        wide = self.layers[0].total.ranges[2]
        for layer in self.layers[1:]:
            wide |= layer.total.ranges[2]
        return Requantize(len(fields["shift"]), **fields, format=wide.format)

    def tables(self, lane: int) -> tuple[np.ndarray, np.ndarray]:
        """The distinct activation tables `[tables, entries]` of a lane, and which of them each of its outputs uses.

        Outputs are in the order of `requantize`; those of a layer without a table use any (it is not read).
        """
        bits = max((layer.table.input.format.bits for layer in self.layers if layer.table), default=0)
        rows: dict[tuple[int, ...], int] = {}
        use = []
        for layer in self.layers:
            for channel in layer.channels[lane :: self.geometry.lanes]:
                if layer.table is None:
                    use.append(0)
                    continue
                knots = layer.table.knots
                row = knots[channel if len(knots) > 1 else 0][:-1]
                entries = (*map(int, row), *(0,) * ((1 << bits) - len(row)))
                use.append(rows.setdefault(entries, len(rows)))
        return np.array(list(rows), np.int64).reshape(len(rows), 1 << bits), np.array(use, np.int64)


def _take(nodes: list[Node], kind: type, tensor: str) -> tuple[Node, str]:
    """The next node, which has to be of this kind and read `tensor`, and the tensor it makes."""
    if not nodes:
        raise BittrueError(f"photonic controller: the program ends at {tensor!r}; a {kind.__name__} has to follow")
    node = nodes.pop(0)
    if not isinstance(node.operation, kind):
        raise BittrueError(
            f"photonic controller: {node.name!r} is a {type(node.operation).__name__} where a {kind.__name__} has to "
            "be; it runs chains of PhotonicMac, TileSum and an exact table"
        )
    if node.operands != (tensor,):
        raise BittrueError(f"photonic controller: {node.name!r} reads {node.operands}, not the tensor before it")
    return node, node.name


def _check_layer(layer: Layer, first: Layer | None) -> None:
    name, mac, table, g = layer.name, layer.mac, layer.table, layer.geometry
    if mac.input.tokens != 1:
        raise BittrueError(f"photonic controller: {name!r} has {mac.input.tokens} tokens; it runs images of one token")
    if mac.rows != g.rows:
        raise BittrueError(f"photonic controller: the tiles of {name!r} have {mac.rows} rows, the array has {g.rows}")
    if table is not None and table.fraction_bits:
        raise BittrueError(
            f"photonic controller: the activation after {name!r} has {table.fraction_bits} fraction bits; "
            "it stores exact tables, with an entry for every code"
        )
    if table is not None and table.input.format.bits > 12:
        raise BittrueError(f"photonic controller: the table after {name!r} is read with more than 12 bits")
    if first is None:
        return
    if mac.input.format != first.mac.input.format:
        raise BittrueError(
            f"photonic controller: {name!r} reads {mac.input.format} codes and {first.name!r} "
            f"{first.mac.input.format}; the array has one kind of input DAC"
        )
    if mac.bits != first.mac.bits:
        raise BittrueError(
            f"photonic controller: {name!r} has an ADC of {mac.bits} bits and {first.name!r} one of {first.mac.bits}; "
            "the array has one kind of converter"
        )
