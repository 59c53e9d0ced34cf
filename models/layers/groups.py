"""Layers whose samples go in groups: n of them become one, go through a network together, and come apart again.

`Bundled` and `Unbundled` are what a network in floats is written with, and taken as a whole by the converter;
`TensorBundle` and `TensorUnbundle` compute the same in integers. A batch `[B, ...]` in front of the first is `[B / n,
...]` behind it: n samples that follow each other are a group. n divides the N slots, of which a sample fills N / n.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bittrue.models.layers.exact import round_through
from bittrue.models.layers.lowering import Lowering
from bittrue.models.layers.tensors import TensorLayer, TensorProduct
from bittrue.sim import groups
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held
from bittrue.sim.operations.bundle import Bundle
from bittrue.sim.operations.unbundle import Unbundle


class Regrouping:
    """How the samples of a network go in groups; all its layers share one.

    slots   N
    modes   the numbers n that it takes, ascending: one, which is constant, or all that divide N, and n is a held input
    size    n now
    """

    def __init__(self, slots: int, modes: Sequence[int]) -> None:
        self.slots, self.modes = slots, tuple(modes)
        if not self.modes:
            raise BittrueError(f"modes: none is given; give one number that divides {slots} slots, or all of them")
        if len(self.modes) > 1 and self.modes != groups.divisors(slots):
            known = ", ".join(map(str, groups.divisors(slots)))
            raise BittrueError(
                f"modes: {', '.join(map(str, self.modes))} are not all numbers that divide {slots} slots; give all of "
                f"{known}, or one of them"
            )
        self.size = int(groups.check(self.modes[-1], slots, "modes"))  # type: ignore[arg-type]

    @property
    def images(self) -> np.ndarray | Held:
        """n, as operations have it."""
        return groups.written(self.slots) if len(self.modes) > 1 else np.array(self.modes[0])

    def set(self, n: int) -> None:
        """Take n samples at a time. Raises BittrueError for a number that it is not made for."""
        if n not in self.modes:
            raise BittrueError(
                f"{n} samples at a time are not what these integers are made for; they take "
                f"{', '.join(map(str, self.modes))}"
            )
        self.size = int(n)

    @contextmanager
    def at(self, n: int) -> Iterator[None]:
        """Within, n samples at a time."""
        before = self.size
        self.set(n)
        try:
            yield
        finally:
            self.size = before


# -- in floats -----------------------------------------------------------------------------------------
class Regroups(nn.Module):
    """Base of modules that bring samples together or apart. `at_a_time` is n, settable before every call; at first
    N. `what` is what errors call it."""

    what = "samples"

    def __init__(self, slots: int) -> None:
        super().__init__()
        self.slots = int(slots)
        self.at_a_time = slots

    @property
    def at_a_time(self) -> int:
        return self._at_a_time

    @at_a_time.setter
    def at_a_time(self, n: int) -> None:
        self._at_a_time = int(groups.check(n, self.slots, self.what))  # type: ignore[arg-type]


class Bundled(Regroups):
    """`z = sum_s M_s x_{s mod n}` along the channels, at every place: `[B, C, ...]` to `[B / n, C', ...]`.

    A class of one's own says what the matrices are. `trained` is whether they are when the network is trained.
    """

    def __init__(self, slots: int, trained: bool = True) -> None:
        super().__init__(slots)
        self.trained = trained

    def matrices(self) -> Tensor:
        """All M_s, `[N, C', C]`."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return bundled(x, self.matrices(), self.at_a_time)


class Unbundled(Regroups):
    """The channels of N slots, C each, as those of n samples: the mean over the slots `t n + i` of sample i; `[B / n,
    N C, ...]` to `[B, C, ...]`."""

    def forward(self, x: Tensor) -> Tensor:
        return unbundled(x, self.slots, self.at_a_time)


def bundled(x: Tensor, matrices: Tensor, n: int) -> Tensor:
    """What `Bundled` gives for matrices `[N, C', C]`: each sample is multiplied once, by the sum of those of its
    slots."""
    maps = matrices.unflatten(0, (len(matrices) // n, n)).sum(0).transpose(0, 1).flatten(1)  # [C', n C]
    rows = x.unflatten(0, (len(x) // n, n)).flatten(1, 2)
    y = functional.conv2d(rows.reshape(*rows.shape[:2], -1, 1), maps[..., None, None])
    return y.reshape(*y.shape[:2], *x.shape[2:])


def unbundled(x: Tensor, slots: int, n: int) -> Tensor:
    """What `Unbundled` gives."""
    return x.unflatten(1, (slots // n, n, -1)).mean(1).flatten(0, 1)


# -- in integers ---------------------------------------------------------------------------------------
class TensorBundle(TensorProduct):
    """`Bundled` of `[B, ..., C]`: one sum over all slots, whose weights have one scale, and one requantisation.

    `weight` is `[N, C', C]`, or of circular convolutions the keys `[N, C]`, `M[j, i] = key[(j - i) mod C]`, which stay
    such in training. `columns` are torch's channels in the program's order.
    """

    def __init__(self, regrouping: Regrouping, columns: Tensor, *arguments, **options) -> None:
        super().__init__(*arguments, **options)
        self.regrouping = regrouping
        self.register_buffer("columns", columns, persistent=False)

    def real_weight(self) -> Tensor:
        """`[C', N C]`, slot after slot."""
        maps = circulant(self.weight) if self.weight.ndim == 2 else self.weight
        return maps[..., self.columns].transpose(0, 1).flatten(1)

    def product(self, x: Tensor, weight: Tensor) -> Tensor:
        n, channels = self.regrouping.size, x.shape[-1]
        maps = weight.unflatten(1, (-1, n, channels)).sum(1).flatten(1)
        rows = x.unflatten(0, (len(x) // n, n)).movedim(1, -2).flatten(-2)
        return functional.linear(rows, maps)

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        codes, requantizer, fmt = self.requantizer()
        kind, slots = lowering.type(source), self.regrouping.slots
        weight = codes.reshape(len(codes), slots, -1).transpose(1, 0, 2)
        operation = Bundle(kind, weight, requantizer, self.regrouping.images, fmt)
        return lowering.add(name, operation, source, scale=self.scale)


class TensorUnbundle(TensorLayer):
    """`Unbundled` of `[B / n, ..., N C]`, means rounded half up; the step stays."""

    def __init__(self, regrouping: Regrouping, target: nn.Module, bits: int, label: str) -> None:
        super().__init__(target, bits, label)
        self.regrouping = regrouping

    def forward(self, x: Tensor) -> Tensor:
        n, slots = self.regrouping.size, self.regrouping.slots
        y = x.unflatten(-1, (slots // n, n, -1))
        y = round_through(y.sum(-3) / (slots // n)) if n < slots else y.squeeze(-3)
        return y.movedim(-2, 1).flatten(0, 1)

    def emit(self, lowering: Lowering, name: str, source: str) -> str:
        operation = Unbundle(lowering.type(source), self.regrouping.slots, self.regrouping.images)
        return lowering.add(name, operation, source, scale=self.scale)


def circulant(keys: Tensor) -> Tensor:
    """Keys `[N, C]` as the matrices `[N, C, C]` of their circular convolutions."""
    places = torch.arange(keys.shape[1], device=keys.device)
    return keys[:, (places[:, None] - places[None, :]) % keys.shape[1]]


def keys_of(matrices: Tensor) -> Tensor | None:
    """The keys `[N, C]` of matrices that are all those of circular convolutions; None: one is not."""
    _, outputs, inputs = matrices.shape
    keys = matrices[:, :, 0]
    return keys if outputs == inputs and torch.equal(matrices, circulant(keys)) else None
