"""ResMLP: a network of two linear layers in turn, over the tokens and over the channels of each token.

    x = embed(patches)
    block:  x = x + scale(mix(norm(x)))                        `mix` is one T x T linear over the tokens
            x = x + scale(MLP(norm(x)))                        over the channels
    logits = classifier(mean over tokens of norm(x))

`norm` is batch normalisation over images and tokens, `scale` a gain and offset of each channel (gain starts at
0.1). The MLP is Linear, ReLU or swish, Linear; or, with learnable 1-D functions, PSA, Linear, PSA, Linear.

Tensors inside are token-first, `[T, B, E]`: mixing tokens is one matrix product with `[T, B * E]` and a linear
over the channels is one with `[T * B, E]`, so that nothing is ever transposed.
Source: Touvron et al., "ResMLP", 2021; with PSA: Singh et al., ACM TRETS 18(2), 2025.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, fx, nn

from bittrue.models.data.sets import INPUT_SCALE, encode
from bittrue.models.graph.handlers import normalisation
from bittrue.models.graph.kinds import handles
from bittrue.models.layers.activations import activation
from bittrue.models.layers.psa import LerpPsa, Psa
from bittrue.models.networks.base import ImageNetwork
from bittrue.models.networks.settings import ResMLPSettings
from bittrue.sim.errors import BittrueError

if TYPE_CHECKING:
    from bittrue.models.graph.normalise import Normaliser


class Norm(nn.BatchNorm1d):
    """Batch normalisation of each channel over everything else; `[..., C]`."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(-1, x.shape[-1])).view_as(x)


@handles(Norm)
def _norm(to: Normaliser, node: fx.Node) -> bool:
    return normalisation(to, node, len(to.shape(node)) - 1)


@handles(Psa, LerpPsa)
def _function(to: Normaliser, node: fx.Node) -> bool:  # noqa: ARG001
    return False  # as a whole it is a function of each value, which nothing inside it is


class Scale(nn.Module):
    """Gain and offset of each channel."""

    def __init__(self, channels: int, gain: float = 0.1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((channels,), gain))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.bias, x, self.weight)


class TokenLinear(nn.Linear):
    """A linear layer over the tokens of `[T, B, E]`; weight `[T, T]`, bias `[T]`. `axis` 1: of `[B, T, E]`."""

    axis = 0

    def forward(self, x: Tensor) -> Tensor:
        if self.axis:
            return super().forward(x.transpose(1, 2)).transpose(1, 2)
        tokens, batch, channels = x.shape
        y = torch.addmm(self.bias[:, None], self.weight, x.reshape(tokens, batch * channels))
        return y.view(self.out_features, batch, channels)


class CrossToken(nn.Module):
    """`x + scale(mix(norm(x)))`."""

    def __init__(self, tokens: int, embed: int) -> None:
        super().__init__()
        self.norm = Norm(embed)
        self.mix = TokenLinear(tokens, tokens)
        self.scale = Scale(embed)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scale(self.mix(self.norm(x)))


class CrossChannel(nn.Module):
    """`x + scale(MLP(norm(x)))`; `before` and `between` are the functions in front of the two linears."""

    def __init__(self, network: ResMLPSettings) -> None:
        super().__init__()
        embed, hidden = network.embed, network.hidden
        self.norm = Norm(embed)
        self.before = function(network, embed) if network.learnable else nn.Identity()
        self.first = nn.Linear(embed, hidden)
        self.between = function(network, hidden) if network.learnable else activation(network.nonlinearity)
        self.second = nn.Linear(hidden, embed)
        self.scale = Scale(embed)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(self.before(self.norm(x)))
        return x + self.scale(self.second(self.between(y)))


class Block(nn.Module):
    """A cross-token and a cross-channel layer."""

    def __init__(self, network: ResMLPSettings, tokens: int) -> None:
        super().__init__()
        self.token = CrossToken(tokens, network.embed)
        self.mlp = CrossChannel(network)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.token(x))


class ResMLP(ImageNetwork):
    """The network in the module's docstring.

    network   its geometry
    shape     height, width and channels of an image
    classes   number of classes
    gain      code steps of one pixel step (`Data.gain`)

    `forward` takes codes `[B, tokens, features]` as `encode` makes them (any number type) and gives float logits
    `[B, classes]`; one code step is worth 1/128.
    """

    settings = ResMLPSettings
    axis = 0  # of the tokens, inside

    def __init__(self, network: ResMLPSettings, shape: tuple[int, int, int], classes: int, gain: int = 1) -> None:
        super().__init__(network, shape, classes, gain)
        height, width, colours = shape
        if height % network.patch or width % network.patch:
            raise BittrueError(
                f"network: patch {network.patch} does not tile images of {height} x {width}; "
                "choose one that divides both"
            )
        self.tokens = (height // network.patch) * (width // network.patch)
        self.features = network.patch**2 * colours
        self.embed = nn.Linear(self.features, network.embed)
        self.blocks = nn.ModuleList(Block(network, self.tokens) for _ in range(network.blocks))
        self.norm = Norm(network.embed)
        self.classifier = nn.Linear(network.embed, classes)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Images uint8 `[n, h, w, channels]` as codes int8 `[n, tokens, features]`."""
        return encode(images, self.network.patch, self.gain)

    def forward(self, codes: Tensor) -> Tensor:
        x = codes.transpose(0, 1 - self.axis).to(self.embed.weight.dtype) * INPUT_SCALE
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.norm(x).mean(self.axis))

    def samples_first(self) -> ResMLP:
        """A copy that computes the same of tensors `[B, T, E]`, as a converter follows it."""
        copied = copy.deepcopy(self)
        for module in copied.modules():
            if isinstance(module, ResMLP | TokenLinear):
                module.axis = 1
        return copied


def function(network: ResMLPSettings, channels: int) -> nn.Module:
    """The learnable 1-D functions that the settings ask for."""
    if network.nonlinearity == "psa":
        return Psa(channels, network.terms)
    return LerpPsa(channels, network.terms, network.grid_points, network.grid_range)
