"""The generator: an MLP from the embedding of a coordinate to a kernel.

    x = embedding of (l, f, c)
    x = act(W x + b)                `num_blocks` - 1 times, H values
    kernel = W x + b                k^2 values

With a basic embedding the first layer is separable,

    W x + b = W_l gamma(l) + W_f gamma(f) + W_c gamma(c) + b

so that its products are made once for each index that occurs, 2 L H for each instead of 6 L H for each kernel. A
convolution of one pixel takes one value of its kernel (`Target.split`).

Which coordinate a kernel has is the order of its layer (`models.nern.tours`): the kernel at `order[r]` has the r-th
coordinate of the layer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from bittrue.models.nern.embedding import Embedding, check_distinct
from bittrue.models.nern.settings import Nern
from bittrue.models.nern.target import Layer, Target, coordinates
from bittrue.sim.errors import BittrueError

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "hardswish": nn.Hardswish, "gelu": nn.GELU, "relu6": nn.ReLU6,
    "elu": nn.ELU,
}  # fmt: skip


class Generator(nn.Module):
    """The network in the module's docstring, for the layers of a target.

    settings   `Nern`: geometry, embedding, activation, sampling
    layers     what it generates
    original   hash of the target that it was made for (`Target.sha256`), and `classifier` the path of its last layer's
               weight where that is trained, too, with `classifier_weight`; else None
    """

    def __init__(
        self,
        settings: Nern,
        layers: Sequence[Layer],
        original: str = "",
        classifier: str | None = None,
        classifier_shape: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.settings, self.layers, self.original = settings, tuple(layers), original
        self.embedding = Embedding(settings.embeddings)
        check_distinct(self.embedding, self.layers)
        hidden = settings.hidden_layer_size
        sizes = [self.embedding.size, *[hidden] * (settings.num_blocks - 1)]
        self.hidden = nn.ModuleList(nn.Linear(*pair) for pair in zip(sizes[:-1], sizes[1:], strict=True))
        self.final = nn.Linear(hidden, settings.output_size**2)
        self.activation = ACTIVATIONS[settings.act_layer]()
        if settings.init == "fmod":
            with torch.no_grad():
                for parameter in self.parameters():
                    parameter.fmod_(2)
        self.classifier = classifier
        self.classifier_weight = nn.Parameter(torch.zeros(*classifier_shape)) if classifier else None
        self.register_buffer("order", torch.arange(sum(layer.kernels for layer in self.layers), dtype=torch.int32))
        self._place()

    @classmethod
    def for_target(
        cls, settings: Nern, target: Target, orders: Sequence[np.ndarray] | None = None, seed: int | None = None,
        learn_classifier: bool = False,
    ) -> Self:  # fmt: skip
        """A generator of a target's kernels, in these orders of its layers; `seed` fixes the initial parameters."""
        path = shape = None
        if learn_classifier:
            path, shape = _classifier(target.network)
        with torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            made = cls(settings, target.layers, target.sha256(), path, shape or ())
        if path is not None:
            with torch.no_grad():
                made.classifier_weight.copy_(target.network.get_parameter(path))
        if orders is not None:
            made.set_orders(orders)
        return made

    # -- which kernel has which coordinate ---------------------------------------------------------------
    def set_orders(self, orders: Sequence[np.ndarray]) -> None:
        """Take an order of each layer's kernels; one that is no permutation is refused, by its layer."""
        if len(orders) != len(self.layers):
            raise BittrueError(
                f"order: there are {len(orders)} of them for {len(self.layers)} layers; give one for each"
            )
        found, first = [], 0
        for layer, order in zip(self.layers, orders, strict=True):
            check_order(layer, order)
            found.append(np.asarray(order, np.int64) + first)
            first += layer.kernels
        self.order.copy_(torch.from_numpy(np.concatenate(found)))
        self._place()

    def orders(self) -> list[np.ndarray]:
        """int64 for each layer: `order[r]` is the kernel (f channels + c) with the layer's r-th coordinate."""
        every, found, first = self.order.cpu().numpy().astype(np.int64), [], 0
        for layer in self.layers:
            found.append(every[first : first + layer.kernels] - first)
            first += layer.kernels
        return found

    def _place(self) -> None:
        """The coordinate that each kernel has, int64 `[K, 3]`: `placed`."""
        placed = np.empty((len(self.order), 3), np.int64)
        placed[self.order.cpu().numpy()] = coordinates(self.layers)
        self.register_buffer("placed", torch.from_numpy(placed).to(self.order.device), persistent=False)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        """As every module's, and an order that is none is among the errors that loading tells."""
        super()._load_from_state_dict(state_dict, prefix, *rest)
        first = 0
        for layer in self.layers:
            try:
                check_order(layer, self.order[first : first + layer.kernels].cpu().numpy() - first)
            except BittrueError as error:
                rest[-1].append(str(error))
                return
            first += layer.kernels
        self._place()

    # -- generating ------------------------------------------------------------------------------------
    def first(self, coordinates: Tensor) -> Tensor:
        """The first layer's sums `[n, H]` for coordinates `[n, 3]`, separably where the embedding is."""
        layer = self.hidden[0]
        if not self.embedding.separable or len(coordinates) == 0:
            return layer(self.embedding(coordinates))
        table = self.embedding.table(int(coordinates.max()) + 1)
        weights = [layer.weight] * 3 if self.settings.embeddings.fusion_mode == "sum" else layer.weight.chunk(3, dim=1)
        total = layer.bias
        for axis, weight in enumerate(weights):
            index = coordinates[:, axis]
            partial = table[: int(index.max()) + 1] @ weight.T
            total = total + torch.nn.functional.embedding(index, partial)
        return total

    def forward(self, coordinates: Tensor) -> Tensor:
        """Kernels `[n, k^2]` for coordinates int `[n, 3]`."""
        x = self.activation(self.first(coordinates))
        for layer in self.hidden[1:]:
            x = self.activation(layer(x))
        return self.final(x)

    def kernels(self, which: Tensor | None = None) -> Tensor:
        """The kernels of these numbers, or all: `[n, k^2]`, made `weights_batch_size` at a time."""
        placed = self.placed if which is None else self.placed[which]
        at_once = self.settings.weights_batch_size or max(len(placed), 1)
        parts = [self(placed[k : k + at_once]) for k in range(0, len(placed), at_once)]
        return torch.cat(parts) if parts else placed.new_zeros((0, self.settings.output_size**2), dtype=torch.float32)

    def others(self) -> dict[str, Tensor]:
        """Parameters of the target that are trained besides, by name."""
        return {self.classifier: self.classifier_weight} if self.classifier is not None else {}

    # -- files -----------------------------------------------------------------------------------------
    def describe(self) -> dict[str, Any]:
        settings = self.settings.model_copy(update={"init": "default", "checkpoint_path": None})
        layers = [[layer.path, layer.filters, layer.channels, layer.side] for layer in self.layers]
        shape = [] if self.classifier_weight is None else list(self.classifier_weight.shape)
        values = {"settings": settings.model_dump(mode="json"), "layers": layers, "original": self.original}
        return values | {"classifier": self.classifier, "classifier_shape": shape}

    @classmethod
    def from_description(cls, values: dict[str, Any]) -> Self:
        layers = [Layer(str(path), *map(int, sizes)) for path, *sizes in values["layers"]]
        if sum(layer.kernels for layer in layers) > 1 << 26 or not all(layer.kernels > 0 for layer in layers):
            raise ValueError("it names no or too many kernels")
        settings = Nern.model_validate_json(json.dumps(values["settings"]), strict=True)
        return cls(settings, layers, values["original"], values["classifier"], values["classifier_shape"])

    def belongs_to(self, target: Target, what: str = "generator") -> None:
        """Refuse another target than that which it was made for, and say in what it differs."""
        if self.layers != target.layers:
            here = dict.fromkeys(map(str, target.layers))
            there = dict.fromkeys(map(str, self.layers))
            differs = [name for name in there if name not in here] + [name for name in here if name not in there]
            raise BittrueError(
                f"{what}: it generates another target, of {len(self.layers)} layers instead of {len(target.layers)}"
                f"{f', which differ in {differs[0]}' if differs else ''}; name the original that it was trained for"
            )
        if self.original != target.sha256():
            raise BittrueError(
                f"{what}: it was trained for another original of the same layers, whose normalisations and classifier "
                "are not these; name that original, or train anew"
            )


def check_order(layer: Layer, order: np.ndarray) -> None:
    """Refuse what is no permutation of a layer's kernels."""
    order = np.asarray(order)
    where = f"order of {layer.path}"
    if order.dtype.kind not in "iu" or order.shape != (layer.kernels,):
        raise BittrueError(f"{where}: it is {order.dtype} {order.shape}; give {layer.kernels} whole numbers")
    if order.min() < 0 or order.max() >= layer.kernels:
        wrong = order[(order < 0) | (order >= layer.kernels)][0]
        raise BittrueError(f"{where}: {wrong} is the number of no kernel; they are 0..{layer.kernels - 1}")
    counts = np.bincount(order, minlength=layer.kernels)
    if counts.max() > 1:
        raise BittrueError(
            f"{where}: it is no permutation, kernel {int(counts.argmax())} is in it {counts.max()} times and kernel "
            f"{int(counts.argmin())} is not; give each once"
        )


def _classifier(network: nn.Module) -> tuple[str, tuple[int, ...]]:
    """The name and shape of the weight of the network's last linear layer."""
    linear = [path for path, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not linear:
        raise BittrueError("learn_fc_layer: the target has no linear layer; leave the key out")
    return f"{linear[-1]}.weight", tuple(network.get_submodule(linear[-1]).weight.shape)


def parameters(settings: Nern) -> int:
    """Of a generator: those of `num_blocks` linear layers, biases included. For 5 blocks of H and 240 values it is
    3 H^2 + 253 H + 9 for kernels of 3 x 3."""
    inputs, hidden, outputs = _sizes(settings)
    return (inputs + 1) * hidden + (settings.num_blocks - 2) * (hidden + 1) * hidden + (hidden + 1) * outputs


def macs(settings: Nern, separable: bool = False) -> int:
    """Multiply-accumulates for a kernel; `separable`: without those of the first layer, which are then made once for
    an index."""
    inputs, hidden, outputs = _sizes(settings)
    first = 0 if separable else inputs * hidden
    return first + (settings.num_blocks - 2) * hidden**2 + hidden * outputs


def _sizes(settings: Nern) -> tuple[int, int, int]:
    embeddings = settings.embeddings
    inputs = embeddings.enc_levels * (2 if embeddings.fusion_mode == "sum" else 6)
    return inputs, settings.hidden_layer_size, settings.output_size**2
