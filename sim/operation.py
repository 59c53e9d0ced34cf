"""What every operation is: a frozen, validated object that knows its equation, ranges, costs and two executions.

A subclass is a frozen dataclass of geometry, formats and integer arrays. It says what goes in (`inputs`),
what comes out (`output`), the equation in int64 (`wide`) and a fast batch execution (`run`). `rtl`, `hls` and
the tests find it by its module's name: `sim/operations/lerp.py`, `rtl/dataflow/stages/lerp.py`, `hls/kernels/lerp.hpp`.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from bittrue.sim.contract import Format, Range, axes, saturate, whole
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held, Parameter, Set, find, put

#: The package of the operations.
OPERATIONS = "bittrue.sim.operations"

#: What a realisation needs to know at compile time: integers, formats, and arrays or held inputs with their format.
Constant = int | Format | tuple[Format, Parameter]


@dataclass(frozen=True)
class TensorType:
    """Shape per sample (the batch is not part of it; channels innermost) and the format of every code."""

    shape: tuple[int, ...]
    format: Format

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", axes(self.shape, "tensor"))
        if not self.shape or min(self.shape) < 1:
            raise BittrueError(f"a tensor has at least one axis and no empty one; {self.shape} was given")

    @property
    def channels(self) -> int:
        return self.shape[-1]

    @property
    def tokens(self) -> int:
        return self.size // self.channels

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def events(self) -> bool:
        """Whether its codes are events, one unsigned bit each: their ones are counted wherever the program runs."""
        return self.format == Format(1, signed=False)

    def __str__(self) -> str:
        return f"{self.format}[{'x'.join(map(str, self.shape))}]"

    def check(self, codes: np.ndarray, name: str) -> np.ndarray:
        """The batch as a contiguous array of the format's dtype, or an error that names what is wrong."""
        codes = np.asarray(codes)
        if codes.dtype.kind not in "iu":
            raise BittrueError(f"{name}: codes are integers, but the array is {codes.dtype}; quantise it first")
        if codes.ndim != len(self.shape) + 1 or codes.shape[1:] != self.shape:
            expected = ", ".join(map(str, ("n", *self.shape)))
            raise BittrueError(f"{name}: expected shape ({expected}), got {codes.shape}")
        if codes.dtype != self.format.dtype or self.format.dtype.itemsize * 8 != self.format.bits:
            if not self.format.holds(codes):
                raise BittrueError(
                    f"{name}: values {codes.min()}..{codes.max()} do not fit {self.format} "
                    f"({self.format.low}..{self.format.high}); clip or requantise them first"
                )
        return np.ascontiguousarray(codes, dtype=self.format.dtype)


def freeze(array: Parameter, dtype: np.dtype | type = np.int64) -> Any:
    """A read-only integer copy of an array of whole numbers; a held input as it is."""
    if isinstance(array, Held):
        return array
    array = np.asarray(array)
    limits = np.iinfo(dtype)
    if array.dtype.kind not in "iu" and not (array.dtype.kind == "f" and np.array_equal(array, np.floor(array))):
        raise BittrueError(f"parameters are integers, but an array of {array.dtype} holds others; round it first")
    if array.size and not (limits.min <= int(_finite(array.min())) and int(_finite(array.max())) <= limits.max):
        raise BittrueError(
            f"parameters are {np.dtype(dtype)}, but an array of {array.dtype} holds {array.min()}..{array.max()}; "
            "give smaller values"
        )
    frozen = np.array(array, dtype=dtype, order="C")
    frozen.flags.writeable = False
    return frozen


def _finite(value: Any) -> Any:
    """The value, or for an infinite one a number that no integer type holds."""
    return value if np.isfinite(value) else 1 << 99


class Operation(ABC):
    """Base of every operation. See the module's docstring for what a subclass provides."""

    registry: ClassVar[dict[str, type[Operation]]] = {}

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Operation.registry[cls.__name__] = cls

    # -- what it is ------------------------------------------------------------------------------------
    @property
    def stem(self) -> str:
        """The name of its module, by which its stage and its kernel are found, and which errors name."""
        return type(self).__module__.rpartition(".")[2]

    @property
    @abstractmethod
    def inputs(self) -> tuple[TensorType, ...]:
        """The types of the operands, in order."""

    @property
    @abstractmethod
    def output(self) -> TensorType:
        """The type of the result."""

    @property
    @abstractmethod
    def accumulator(self) -> Range:
        """Exact range of the widest intermediate, over every possible input."""

    @property
    @abstractmethod
    def constants(self) -> dict[str, Constant]:
        """Everything a realisation in hardware needs, by name: geometry, formats, parameter arrays."""

    #: Whether it only gives the same codes, in the same order, other axes: hardware has nothing to do.
    renames: ClassVar[bool] = False
    #: Whether it gives rows of a table by their indices, which a product with `by_index` takes instead of the rows.
    looks_up: ClassVar[bool] = False
    #: What it does to the samples of a batch, and of hardware to frames: `TOGETHER` makes one of the n of a group,
    #: `APART` n of one; such an operation has `slots` and `images` (`sim.groups`).
    regroups: ClassVar[str] = ""

    @property
    def row(self) -> int:
        """Codes of a row of its `by_row`, where it has one: those of the axes that it sums over."""
        return self.inputs[0].channels

    @property
    def macs(self) -> int:
        """Multiply-accumulates per sample."""
        return 0

    @property
    def weights(self) -> int:
        """Number of stored parameters (weights, biases, table entries)."""
        return 0

    @property
    def table_bits(self) -> int:
        """Bits of look-up table."""
        return 0

    @cached_property
    def held(self) -> dict[str, Held]:
        """The held inputs that it reads, by name; what they hold must be bound before it can run."""
        return find(self)

    def reached(self, *x: Range) -> Range:  # noqa: ARG002
        """Codes that come out where those of the operands lie within `x`: no more than these."""
        return Range(self.output.format.low, self.output.format.high)

    def bind(self, values: Set) -> Operation:
        """The operation with constants in place of the held inputs that are named in `values`, which are checked.

        A counter is bound to the index of the first sample of the batch that is to run.
        """
        return put(self, values)

    # -- what it does ----------------------------------------------------------------------------------
    @abstractmethod
    def wide(self, *x: np.ndarray) -> np.ndarray:
        """The equation, as one reads it: int64 batch in, int64 result before the final saturation."""

    @abstractmethod
    def run(self, *x: np.ndarray) -> tuple[np.ndarray, int]:
        """Fast batch execution: the codes, and how many of them saturated."""

    def reference(self, *x: np.ndarray) -> np.ndarray:
        """The slow, obvious execution every other one is compared with."""
        return saturate(self.wide(*self._whole(x)), self.output.format)

    def saturated(self, *x: np.ndarray) -> int:
        """How many results saturate, counted the slow way."""
        wide = self.wide(*self._whole(x))
        return int(np.count_nonzero(wide != saturate(wide, self.output.format)))

    def _whole(self, x: Sequence[np.ndarray]) -> list[np.ndarray]:
        return [whole(v, f"operand {k} of {type(self).__name__}") for k, v in enumerate(x)]

    def __call__(self, *x: np.ndarray) -> np.ndarray:
        """Check the operands, then run fast."""
        name = type(self).__name__
        if any(not held.counts for held in self.held.values()):
            raise BittrueError(f"{name} reads held inputs ({', '.join(self.held)}); bind values to them before it runs")
        if len(x) != len(self.inputs):
            raise BittrueError(f"{name} takes {len(self.inputs)} operands, got {len(x)}")
        checked = (t.check(v, f"operand {k} of {name}") for k, (t, v) in enumerate(zip(self.inputs, x, strict=True)))
        return self.run(*checked)[0]

    def table(self) -> np.ndarray | None:
        """For a function of one code per channel: its table of result codes `[channels, levels]`, else None.

        Column k is the result for the k-th code of the input format. Built from the step-by-step model
        (`reference`), so it is exact by construction.
        """
        return None

    def fuse(self, producer: Operation) -> Callable[..., np.ndarray] | None:  # noqa: ARG002
        """A fast exact execution of this operation after its only `producer`, without the tensor between them.

        Called as `run(*operands of the producer, out=array or None)`; saturation is not counted. None when there is
        none. What joins a matrix product, a window in front and a table behind, needs none (`sim.execution`).
        """
        return None

    @classmethod
    @abstractmethod
    def example(cls, rng: np.random.Generator) -> Operation:
        """A random valid operation of small geometry: the conformance tests draw from this."""


def tabulate(op: Operation) -> np.ndarray:
    """The table of an element-wise operation, by running its reference on every code of every channel."""
    (kind,) = op.inputs
    codes = kind.format.codes()
    one_token = (1,) * (len(kind.shape) - 1)  # the function is the same for every token
    batch = np.broadcast_to(codes.reshape((-1, *one_token, 1)), (len(codes), *one_token, kind.channels))
    return np.ascontiguousarray(op.reference(batch).reshape(len(codes), kind.channels).T)


def discover() -> dict[str, type[Operation]]:
    """Import every operation, so that the registry knows every operation."""
    package = importlib.import_module(OPERATIONS)
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("test_"):
            importlib.import_module(f"{package.__name__}.{module.name}")
    return {
        name: cls for name, cls in sorted(Operation.registry.items()) if cls.__module__.startswith(f"{OPERATIONS}.")
    }


def same(a: object, b: object) -> bool:
    """Whether two dataclasses of the same type hold the same values, arrays compared by content."""
    if type(a) is not type(b):
        return False
    if isinstance(a, np.ndarray):
        return bool(np.array_equal(a, b))  # type: ignore[arg-type]
    if hasattr(a, "__dataclass_fields__"):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))  # type: ignore[arg-type]
    return a == b
