"""The ResMLP of integer layers, the twin of `models.networks.resmlp` with normalisations and scales folded.

Tensors are token-first, `[T, B, E]`, as there.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from bittrue.models.data.sets import encode
from bittrue.models.layers.integer import (
    CodeStep,
    IntegerAdd,
    IntegerAffine,
    IntegerInput,
    IntegerLinear,
    IntegerMean,
    IntegerTable,
    IntegerTokenLinear,
)
from bittrue.models.networks.settings import Quantize, ResMLPSettings


class IntegerCrossToken(nn.Module):
    """`residual(x) + scale(mix(norm(x)))`."""

    def __init__(self, tokens: int, embed: int, source: CodeStep, target: CodeStep, bits: int) -> None:
        super().__init__()
        normed, mixed = CodeStep(), CodeStep()
        self.residual = IntegerAffine(embed, source, target, bits)
        self.norm = IntegerAffine(embed, source, normed, bits)
        self.mix = IntegerTokenLinear(tokens, tokens, normed, mixed, bits)
        self.scale = IntegerAffine(embed, mixed, target, bits)
        self.add = IntegerAdd(target, bits)

    def forward(self, x: Tensor) -> Tensor:
        return self.add(self.scale(self.mix(self.norm(x))), self.residual(x))


class IntegerCrossChannel(nn.Module):
    """`residual(x) + MLP(x)`; normalisation and scale are folded into the MLP, a ReLU is a clamp of `first`.

    Learnable functions are tables in front of both linears, a swish is one in front of the second.
    """

    def __init__(self, network: ResMLPSettings, segments: int, source: CodeStep, target: CodeStep, bits: int) -> None:
        super().__init__()
        embed, hidden = network.embed, network.hidden
        self.learnable, self.relu = network.learnable, network.nonlinearity == "relu"
        self.residual = IntegerAffine(embed, source, target, bits)
        last = CodeStep()
        if self.learnable:
            before = CodeStep()
            self.before = IntegerTable(embed, segments, source, before, bits)
            source = before
        if self.relu:
            self.first = IntegerLinear(embed, hidden, source, last, bits, relu=True)
        else:
            between = CodeStep()
            self.first = IntegerLinear(embed, hidden, source, between, bits)
            self.between = IntegerTable(hidden, segments, between, last, bits)
        self.second = IntegerLinear(hidden, embed, last, target, bits)
        self.add = IntegerAdd(target, bits)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(self.before(x) if self.learnable else x)
        y = y if self.relu else self.between(y)
        return self.add(self.second(y), self.residual(x))


class IntegerBlock(nn.Module):
    """A cross-token and a cross-channel layer."""

    def __init__(
        self, network: ResMLPSettings, tokens: int, segments: int, source: CodeStep, target: CodeStep, bits: int
    ) -> None:
        super().__init__()
        middle = CodeStep()
        self.token = IntegerCrossToken(tokens, network.embed, source, middle, bits)
        self.mlp = IntegerCrossChannel(network, segments, middle, target, bits)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.token(x))


class IntegerResMLP(nn.Module):
    """A ResMLP whose forward is exact: codes `[B, tokens, features]` in, logit codes `[B, classes]` in float32 out.

    Made and filled by `models.int8.quantize.post_training`, or read by `models.training.storage.load`. Multiply a
    result by `scale` for logits in real units.
    """

    def __init__(
        self, network: ResMLPSettings, quantize: Quantize, shape: tuple[int, int, int], classes: int, gain: int = 1
    ) -> None:
        super().__init__()
        self.network, self.quantize = network, quantize
        self.shape, self.classes, self.gain = tuple(shape), classes, gain
        bits, (height, width, colours) = quantize.bits, shape
        tokens, features = (height // network.patch) * (width // network.patch), network.patch**2 * colours
        segments = min(quantize.segments, 1 << bits)
        steps = [CodeStep() for _ in range(network.blocks + 1)]
        self.calibration: dict[float, float] = {}  # filled by post_training
        self.percentile: float | None = None
        self.input = IntegerInput(tokens, features)
        self.embed = IntegerLinear(
            features, network.embed, self.input.target, steps[0], bits, input_bits=self.input.bits
        )
        self.blocks = nn.ModuleList(
            IntegerBlock(network, tokens, segments, *steps[k : k + 2], bits) for k in range(network.blocks)
        )
        self.pool = IntegerMean(tokens, steps[-1], bits)
        self.classifier = IntegerLinear(network.embed, classes, steps[-1], CodeStep(), bits, source_gain=self.pool.gain)

    @property
    def scale(self) -> Tensor:
        """Real value of one step of the logits."""
        return self.classifier.target.value

    def describe(self) -> dict[str, Any]:
        """JSON values from which `from_description` builds the network, without its parameters."""
        network, quantize = self.network.model_dump(), self.quantize.model_dump()
        geometry = {"shape": list(self.shape), "classes": self.classes, "gain": self.gain}
        return {"network": network, "quantize": quantize} | geometry

    @classmethod
    def from_description(cls, values: dict[str, Any]) -> IntegerResMLP:
        network, quantize = ResMLPSettings(**values["network"]), Quantize(**values["quantize"])
        return cls(network, quantize, tuple(values["shape"]), values["classes"], values["gain"])

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Images uint8 `[n, h, w, channels]` as codes int8 `[n, tokens, features]`."""
        return encode(images, self.network.patch, self.gain)

    def forward(self, codes: Tensor) -> Tensor:
        x = self.embed(self.input(codes))
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.pool(x))
