"""The generator in whole numbers: a network of integer layers whose program makes a kernel of a coordinate.

    x = entries[l], entries[f], entries[c]            entries = round(127 gamma), Q0.7, one table for all three
    x = act(requantize(W x + B))                      INT8, as `models.layers.tensors` has it
    wide = requantize(W x + B)                        16 bits, the same step for all
    kernel = round(wide m_l 2^-e)                     INT8; m_l, of the layer l, from a table

The step of the codes of layer l is `units[l]` = step of wide * 2^e / m_l. The first layer's sum is that of three parts,
of l, f and c, so that hardware may keep them. Its frame is a coordinate, three unsigned codes.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bittrue.models.graph.observe import reach
from bittrue.models.layers.embedding import IndexInput, TensorEmbedding
from bittrue.models.layers.integer import CodeStep
from bittrue.models.layers.tensors import MULTIPLIER_BITS, TensorFunction, TensorLinear
from bittrue.models.layers.windows import TensorMean, TensorMultiply, TensorReshape, TensorSlice
from bittrue.models.nern.generator import Generator
from bittrue.models.nern.settings import Integers as Settings
from bittrue.models.nern.target import coordinates, sampled
from bittrue.models.training.precision import full_precision
from bittrue.sim.errors import BittrueError

BITS, WIDE = 8, 16
HIGH = (1 << (BITS - 1)) - 1
#: Bits of a sum of three codes of the table.
SUMMED = 10
#: Coordinates that activations are observed on, at most.
OBSERVED = 1 << 15
#: How much a weight of the last layer may grow before its codes end.
ROOM = 1.25


class Integers(nn.Module):
    """The network in the module's docstring; `forward` takes coordinates `[n, 3]` and gives kernels `[n, k^2]`.

    units    real value of a step of the codes of each generated layer, float64 `[layers]`
    """

    def __init__(self, generator: Generator, settings: Settings) -> None:
        super().__init__()
        embeddings, shape = generator.settings.embeddings, generator.settings
        if not generator.embedding.separable:
            raise BittrueError(
                f"integers: an embedding of type {embeddings.type} mixes the indices and is no table of each; train "
                "the generator with nern.embeddings.type basic"
            )
        small = [str(layer) for layer in generator.layers if layer.side != shape.output_size]
        if small and shape.sampling_mode != "center":
            raise BittrueError(
                f"integers: {small[0]} takes the {shape.sampling_mode} of each kernel, and hardware writes the code in "
                "its centre; train with nern.sampling_mode center, or keep that layer"
            )
        every = coordinates(generator.layers)
        self.codes = every
        most = int(every.max())
        self.index = IndexInput((3,), max(1, most.bit_length()), "coordinate")
        sinusoid, size = CodeStep(1 / HIGH, fixed=True), generator.embedding.index_size
        entries = torch.round(generator.embedding.table(most + 1).detach().cpu() * HIGH)
        self.rows = TensorEmbedding(entries, sinusoid, BITS, "rows")
        width, self.summed = BITS, embeddings.fusion_mode == "sum"
        if self.summed:
            self.joined: nn.Module = TensorMean(None, 3, 1, sinusoid, None, SUMMED, "embedding", shift=0)
            width = SUMMED
        else:
            self.joined = TensorReshape((3 * size,), sinusoid, BITS, "embedding")
        steps, wide, units = _observed(generator, entries / HIGH, self.summed)
        self.hidden, self.activations = nn.ModuleList(), nn.ModuleList()
        source: nn.Module = self.joined.target
        for k, (layer, (sums, result)) in enumerate(zip(generator.hidden, steps, strict=True)):
            plain = isinstance(generator.activation, nn.ReLU)
            target = CodeStep(result if plain else sums)
            options = {"weight_bits": BITS, "input_bits": width, "relu": plain, "mode": settings.requantize}
            self.hidden.append(TensorLinear(*_copies(layer), source, target, BITS, f"hidden{k}", **options))
            if not plain:
                after, call = CodeStep(result), generator.activation
                self.activations.append(
                    TensorFunction(lambda v, f=call: f(v)[None], target, after, BITS, f"activation{k}", BITS)
                )
                target = after
            source, width = target, BITS
        largest = float(generator.final.weight.detach().abs().max()) * float(source.value.detach())
        wide = max(wide, ROOM * largest / HIGH)
        self.final = TensorLinear(
            *_copies(generator.final), source, CodeStep(wide), WIDE, "wide",
            weight_bits=BITS, input_bits=BITS, mode=settings.requantize,
        )  # fmt: skip
        self._scaled(wide, units, shape.output_size**2)

    def _scaled(self, wide: float, units: np.ndarray, taps: int) -> None:
        """The last operations: the code of the layer, its multiplier, the product."""
        ratio = wide / units
        free = int(np.floor(np.log2(((1 << MULTIPLIER_BITS) - 1) / ratio.max())))
        shift = int(np.clip(free, 0, 30))
        multipliers = np.rint(ratio * 2.0**shift)
        if multipliers.min() < 1 or multipliers.max() >= 1 << MULTIPLIER_BITS:
            raise BittrueError(
                f"integers: the steps of the generated layers reach from {units.min():.3g} to {units.max():.3g}, too "
                f"far apart for multipliers of {MULTIPLIER_BITS} bits; keep the layers with the smallest weights"
            )
        self.register_buffer("units", torch.from_numpy(wide * 2.0**shift / multipliers))
        one = CodeStep(1.0, fixed=True)
        table = torch.from_numpy(multipliers)[:, None].expand(-1, taps)
        self.layer = TensorSlice(0, 1, self.index.target, self.index.bits, "layer")
        self.gains = TensorEmbedding(table, one, MULTIPLIER_BITS, "multipliers", signed=False)
        self.gain = TensorReshape((taps,), one, MULTIPLIER_BITS, "multiplier")
        self.kernel = TensorMultiply(self.final.target, one, None, BITS, "kernel", shift=shift)

    def forward(self, codes: Tensor) -> Tensor:
        index = self.index(codes)
        x = self.joined(self.rows(index))
        for k, layer in enumerate(self.hidden):
            x = layer(x)
            if len(self.activations):
                x = self.activations[k](x)
        return self.kernel(self.final(x), self.gain(self.gains(self.layer(index))))

    def bytes(self, generator: Generator) -> dict[str, int]:
        """What it holds, in bytes by what (`models.nern.sizes.held`)."""
        from bittrue.models.nern.sizes import held

        layers = [*self.hidden, self.final]
        weights, channels = (sum(getattr(layer, name).numel() for layer in layers) for name in ("weight", "bias"))
        mode = generator.settings.embeddings.permutations.permute_mode
        return held(weights, channels, generator.layers, mode, layers[0].mode)


def _copies(layer: nn.Linear) -> tuple[nn.Parameter, nn.Parameter]:
    return nn.Parameter(layer.weight.detach().cpu().clone()), nn.Parameter(layer.bias.detach().cpu().clone())


@torch.no_grad()
def _observed(generator: Generator, table: Tensor, summed: bool) -> tuple[list[tuple[float, float]], float, np.ndarray]:
    """Steps of each hidden layer's sums and activations, of the last one's 16 bits, and of each layer's kernels."""
    every = torch.from_numpy(coordinates(generator.layers)).long()
    few = every[torch.linspace(0, len(every) - 1, min(len(every), OBSERVED)).long()]
    with full_precision():
        steps, x = [], _embedded(table, few, summed)
        for layer in generator.hidden:
            sums = layer(x)
            x = generator.activation(sums)
            steps.append((_step(sums, HIGH), _step(x, HIGH)))
        made = [generator.final(_last(generator, _embedded(table, part, summed))) for part in every.split(OBSERVED)]
    kernels, first, units = torch.cat(made), 0, []
    for layer in generator.layers:
        own = kernels[first : first + layer.kernels]
        units.append(_step(own if layer.side == generator.settings.output_size else sampled(own, "center"), HIGH))
        first += layer.kernels
    return steps, float(kernels.abs().max()) / ((1 << (WIDE - 1)) - 1), np.array(units)


def _embedded(table: Tensor, index: Tensor, summed: bool) -> Tensor:
    rows = table[index]
    return rows.sum(1) if summed else rows.flatten(1)


def _last(generator: Generator, x: Tensor) -> Tensor:
    for layer in generator.hidden:
        x = generator.activation(layer(x))
    return x


def _step(values: Tensor, high: int) -> float:
    """That with the least mean square error."""
    magnitudes = np.sort(values.abs().flatten().numpy())
    return max(reach(magnitudes, high, "mse") / high, 1e-9)
