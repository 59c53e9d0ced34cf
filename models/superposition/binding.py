"""Binding and bundling: each slot's image goes through a linear map of its channels, and all are added.

    z = sum_s M_s x_s               at every pixel; M_s is D x D, slot s holds image s mod n

HRR     M_s is circulant, the circular convolution with the slot's key:
            z[j] = sum_i w[i] x[(j + 1 + i - D/2) mod D] = sum_m k[m] x[(j - m) mod D],  k[m] = w[(D/2 - 1 - m) mod D]
        `w` is what is kept and trained, in the order of the published weights; D is even
MBAT    M_s is any matrix
None    M_s = 1

Where n < N images fill the slots, M is linear, so that an image's copies are bound once, by the sum of their keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

from bittrue.models.layers.groups import Bundled
from bittrue.models.superposition.penalties import key_penalty
from bittrue.sim.errors import BittrueError


class Binding(Bundled):
    """The maps of `slots` slots of `channels` channels; this one binds nothing, and only adds.

    `forward(x)` takes images `[B, D, H, W]`, n = `at_a_time` after n, and gives `[B / n, D, H, W]`.
    `macs(pixels, n)` are the multiplications of a group: none here.
    """

    what = "binding"
    keyed = False

    def __init__(self, slots: int, channels: int, trained: bool = True) -> None:
        super().__init__(slots, trained and self.keyed)
        self.channels = channels

    def matrices(self) -> Tensor:
        return torch.eye(self.channels).expand(self.slots, -1, -1)

    def forward(self, x: Tensor) -> Tensor:
        n = self.at_a_time
        return x.unflatten(0, (-1, n)).sum(1) * (self.slots // n)

    def penalty(self) -> Tensor:
        """What a training adds for its keys."""
        return torch.zeros(())

    def macs(self, pixels: int, n: int, summed: bool = False) -> int:  # noqa: ARG002
        return 0


class Keyed(Binding):
    """Base of bindings with a weight `[N, ...]`, a key for each slot."""

    weight: nn.Parameter
    keyed = True

    def maps(self, weight: Tensor) -> Tensor:
        """Keys `[n, ...]` as matrices `[n, D, D]`."""
        raise NotImplementedError

    def summed(self, n: int) -> Tensor:
        """The keys of n images `[n, ...]`: that of image i is the sum over t of the keys of slots i + t n."""
        return self.weight.unflatten(0, (self.slots // n, n)).sum(0)

    def matrices(self) -> Tensor:
        return self.maps(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        n, channels = self.at_a_time, self.channels
        maps = self.maps(self.summed(n)).transpose(0, 1).reshape(channels, n * channels, 1, 1)
        return conv2d(x.unflatten(0, (-1, n)).flatten(1, 2), maps)

    def macs(self, pixels: int, n: int, summed: bool = False) -> int:
        """D^2 for every pixel and slot; where keys are summed, for every pixel and image."""
        return (n if summed else self.slots) * self.channels**2 * pixels

    def set_keys(self, keys: Any) -> None:
        """Take these keys; refused when they are of another shape, zero, or not finite."""
        keys = torch.as_tensor(keys, dtype=self.weight.dtype)
        if keys.shape != self.weight.shape:
            raise BittrueError(
                f"keys: they are {list(keys.shape)}, this network has {list(self.weight.shape)} ({self.slots} slots, "
                f"{self.channels} channels); give keys of that shape"
            )
        if faults := unusable(keys):
            raise BittrueError(f"keys: {faults}")
        with torch.no_grad():
            self.weight.copy_(keys)

    def _load_from_state_dict(self, state_dict: Mapping[str, Tensor], prefix: str, *rest: Any) -> None:
        """As every module's, and faults of the keys are among the errors that loading tells."""
        keys = state_dict.get(prefix + "weight")
        if keys is not None and (faults := unusable(keys)):
            rest[-1].append(f"{prefix}weight: {faults}")
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Hrr(Keyed):
    """Circular convolution with a key; `weight` is w `[N, D]`, at first uniform within 1 / sqrt(D)."""

    def __init__(self, slots: int, channels: int, trained: bool = True) -> None:
        super().__init__(slots, channels, trained)
        if channels % 2:
            raise BittrueError(
                f"binding HRR: {channels} channels are an odd number, and a key is centred on a half; take an even one"
            )
        span = 1 / math.sqrt(channels)
        self.weight = nn.Parameter(torch.empty(slots, channels).uniform_(-span, span), requires_grad=trained)
        places = torch.arange(channels)
        index = (channels // 2 - 1 - places[:, None] + places[None, :]) % channels  # [j, i]: where w has k[j - i]
        self.register_buffer("index", index, persistent=False)

    def maps(self, weight: Tensor) -> Tensor:
        return weight[:, self.index]

    @property
    def keys(self) -> Tensor:
        """k `[N, D]`: the first columns of the circulant matrices."""
        return self.weight[:, self.index[:, 0]]

    def penalty(self) -> Tensor:
        return key_penalty(self.weight)


class Mbat(Keyed):
    """A matrix for each slot; `weight` is `[N, D, D]`, at first normal with variance 2 / (N D)."""

    def __init__(self, slots: int, channels: int, trained: bool = True) -> None:
        super().__init__(slots, channels, trained)
        drawn = torch.empty(slots, channels, channels).normal_(0, math.sqrt(2 / (slots * channels)))
        self.weight = nn.Parameter(drawn, requires_grad=trained)

    def maps(self, weight: Tensor) -> Tensor:
        return weight


def unusable(keys: Tensor) -> str:
    """Why keys `[N, ...]` cannot be used, and what to do; nothing where they can."""
    for slot, key in enumerate(keys.detach().cpu()):
        if not torch.isfinite(key).all():
            return f"the key of slot {slot} is not finite; take the file of an earlier epoch, or train anew"
        if not key.any():
            return f"the key of slot {slot} is zero, so that its image is lost; draw it anew"
    return ""


BINDINGS: dict[str, type[Binding]] = {"HRR": Hrr, "MBAT": Mbat, "None": Binding}
