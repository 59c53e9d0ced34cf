"""Formats of networks: programs and their inputs, NIR, published C headers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np

from bittrue.flow.run import arrays
from bittrue.models.formats import headers
from bittrue.models.formats.nir import graph as nir_graph
from bittrue.models.formats.nir import read as nir_read
from bittrue.models.formats.nir import write as nir_write
from bittrue.sim import reading, storage
from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8
from bittrue.sim.contract import Format as NumberFormat
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.lif import Lif
from bittrue.sim.operations.linear import Linear
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize
from tests.helpers import damage
from tests.helpers.corpus_kinds import OCTETS, SEALED, Damage, Format
from tests.helpers.damage import Rng
from tests.helpers.nir_graphs import DT, STEPS, chain, lif, weights
from tests.helpers.programs import several, stimulus


# -- programs ----------------------------------------------------------------------------------------------
def _resealed(parts: dict[str, bytes]) -> bytes:
    return damage.with_hash(damage.zipped(parts, b"sha256:" + b"0" * 64)[:-64])


def header(rng: Rng, content: bytes, right: bool) -> bytes:
    """Another header under a right outer hash; with `right`, its own hash is right as well."""
    parts = damage.members(content)
    header = json.loads(reading.array(parts["header.npy"]).tobytes())
    header = damage.tree(rng, header)
    if right and isinstance(header, dict):
        parsed = [reading.array(parts[f"array{k}.npy"]).astype(np.int64) for k in range(len(parts) - 1)]
        content_of = {key: header.get(key) for key in ("inputs", "nodes", "result")}
        try:
            plain = json.loads(damage.json_text(content_of))
            header["sha256"] = storage._digest(plain, parsed)
        except (ValueError, RecursionError):
            pass
    text = damage.json_text(header, rng)
    return _resealed(parts | {"header.npy": damage.npy(np.frombuffer(text.encode(), np.uint8))})


PROGRAM: dict[str, tuple[Damage, ...]] = {
    "program.npz": (
        SEALED,
        ("members", lambda rng, content: _resealed(damage.member(rng, content)), True),
        ("sealed bytes", lambda rng, content: damage.with_hash(damage.octets(rng, content[:-64])), True),
        ("header", lambda rng, content: header(rng, content, right=False), False),
        ("forged header", lambda rng, content: header(rng, content, right=True), False),
    )
}


def meta(place: Path, name: str) -> Any:
    """What is outside the hash of the operations, which is what may differ: the meta."""
    header = json.loads(reading.array(damage.members((place / name).read_bytes())["header.npy"]).tobytes())
    return header["sha256"], header["meta"]


def program_format(name: str, make: Callable[[], Program]) -> Format:
    def read(place: Path) -> Any:
        loaded = Program.load(place / "program.npz")
        return loaded.sha256, dict(loaded.meta)

    def save(place: Path) -> None:
        made = make()
        made = Program(made.inputs, made.nodes, made.results, {"scales": [0.5, 1e-9], "of": {"a": "b"}})
        made.save(place / "program.npz")

    return Format(name, save, read, PROGRAM, meta, frozenset({"forged header"}))


# -- arrays ------------------------------------------------------------------------------------------------
def inputs(suffix: str) -> Format:
    name, taker = f"x{suffix}", several() if suffix == ".npz" else small_program()

    def make(place: Path) -> None:
        x = stimulus(taker, 5, 0)
        arrays.write(place / name, x[0] if len(x) == 1 else dict(zip(taker.inputs, x, strict=True)))

    def read(place: Path) -> Any:
        return [np.asarray(v) for v in arrays.read_inputs(place / name, taker)]

    def says(place: Path, name: str) -> Any:
        found = np.load(place / name, allow_pickle=False)
        found = [found] if isinstance(found, np.ndarray) else [found[key] for key in taker.inputs]
        return [v.astype(kind.format.dtype) for v, kind in zip(found, taker.inputs.values(), strict=True)]

    ways = (OCTETS, ("array", damage.any_npy, False))
    if suffix == ".npz":
        ways = (OCTETS, ("members", lambda rng, content: damage.zipped(damage.member(rng, content)), False))
    return Format(f"inputs{suffix}", make, read, {name: ways}, says)


def small_program() -> Program:
    build = Builder({"x": TensorType((2, 3), INT8)})
    kind = build.types["x"]
    y = build.add("linear", Linear(kind, np.arange(-6, 6).reshape(4, 3) * 9, Requantize(4, [5])), "x")
    return build.program(y)


# -- NIR ---------------------------------------------------------------------------------------------------
def conv() -> nir.NIRGraph:
    one = np.ones((2, 2, 2))
    convolution = nir.Conv2d((2, 2), weights(2, 9).reshape(2, 1, 3, 3), (1, 1), (1, 1), (1, 1), 1, np.zeros(2))
    neuron = nir.LIF(tau=4 * DT * one, r=4 * one, v_leak=0 * one, v_threshold=one, v_reset=0 * one)
    pool = nir.SumPool2d(np.array([2, 2]), np.array([1, 1]), np.array([0, 0]))
    return chain(
        convolution,
        neuron,
        pool,
        nir.Flatten(np.array([2, 1, 1]), 0, -1),
        nir.Linear(weights(3, 2)),
        lif(3),
        shape=(1, 2, 2),
        size=3,
    )


def hinted() -> nir.NIRGraph:
    rng = np.random.default_rng(0)
    build = Builder({"x": TensorType((STEPS, 4), INT8)})
    kind = build.types["x"]
    wide = Requantize(3, 0, bias_acc=rng.integers(-9, 9, 3), format=NumberFormat(16))
    y = build.add("linear", Linear(kind, rng.integers(-2, 3, (3, 4)), wide), "x")
    y = build.add("lif", Lif(build.types[y], np.full(3, 900), np.zeros(3), np.array([700, 900, 1000]), 10, 2), y)
    return nir_write.graph(build.program(y))


def nir_format(name: str, graph: Callable[[], nir.NIRGraph], fmt: str = "u1") -> Format:
    options = {"input_format": NumberFormat.parse(fmt)}

    def read(place: Path) -> Any:
        found = nir_graph.read(place / "net.nir")
        program = nir_read.program(found, STEPS, DT, **options)
        nir_read.check_agreement(nir_read.agreement(program, found, _spikes(program), dt=DT), 0.9)
        return program.sha256

    def says(place: Path, name: str) -> Any:
        """A program that agrees with a simulation of what the package itself reads is what the file says."""
        truth = nir.read(place / name, type_check=False)
        program = nir_read.program(nir_graph.read(place / name), STEPS, DT, **options)
        seen = nir_read.agreement(program, truth, _spikes(program), dt=DT)
        return program.sha256 if all(layer["equal"] >= 0.9 for layer in seen.values()) else seen

    ways = (OCTETS, ("HDF5", damage.hdf5, False), ("HDF5", damage.hdf5, False))
    return Format(name, lambda place: nir.write(place / "net.nir", graph()), read, {"net.nir": ways}, says)


def _spikes(program: Program) -> np.ndarray:
    ((_, kind),) = program.inputs.items()
    return np.random.default_rng(0).integers(kind.format.low, kind.format.high + 1, (32, *kind.shape))


# -- C headers ---------------------------------------------------------------------------------------------
def text(change: Callable[[Rng, str], str]) -> Callable[[Rng, bytes], bytes]:
    return lambda rng, content: change(rng, content.decode("latin1")).encode("latin1")


C_TEXT: tuple[Damage, ...] = (
    OCTETS,
    ("directive", text(damage.directive), True),
    ("directive", text(damage.directive), True),
    ("constants", text(damage.constants), False),
)


def write_headers(place: Path) -> None:
    from tests.helpers.header_models import random_model, text

    rng = np.random.default_rng(0)
    parameters, tables = random_model(rng, blocks=1, tokens=2, features=2, channels=3, hidden=2, classes=2, knots=4)
    (place / headers.PARAMETERS).write_text(text(parameters))
    (place / headers.TABLES).write_text(text(tables))


def read_headers(place: Path) -> Any:
    headers.read(place)
    return {
        (array.name, str(array.format)): array.values
        for name in (headers.PARAMETERS, headers.TABLES)
        for array in headers.parse(place / name).values()
    }


def headers_say(place: Path, name: str) -> Any:  # noqa: ARG001
    """Every array of the text, by a simple reader that knows no directives."""
    found = {}
    for name in (headers.PARAMETERS, headers.TABLES):
        text = re.sub(r"//[^\n]*|/\*.*?\*/", " ", (place / name).read_text("ascii"), flags=re.DOTALL)
        for u, bits, array, shape, values in re.findall(
            r"const\s+ap_(u?)int\s*<\s*(\d+)\s*>\s*(\w+)\s*((?:\[\s*\d+\s*\]\s*)+)=([^;]*);", text
        ):
            axes = [int(n) for n in re.findall(r"\d+", shape)]
            found[array, f"{'u' if u else 's'}{int(bits)}"] = np.array(
                [int(v) for v in re.findall(r"-?\d+", values)]
            ).reshape(axes)
    return found
