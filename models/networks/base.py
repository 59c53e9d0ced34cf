"""What the regular networks on images have in common: how one is made for a data set, and described in a file."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
import torch
from torch import Tensor, nn

from bittrue.models.data.sets import Data
from bittrue.models.settings import Settings


class ImageNetwork(nn.Module):
    """Base of networks that are made of settings and the geometry of their images.

    network   settings, of the class `settings`
    shape     height, width and channels of an image
    classes   number of classes
    gain      code steps of one pixel step (`Data.gain`)
    """

    settings: ClassVar[type[Settings]]

    def __init__(self, network: Any, shape: tuple[int, int, int], classes: int, gain: int = 1) -> None:
        super().__init__()
        self.network, self.shape, self.classes, self.gain = network, tuple(shape), classes, gain

    @classmethod
    def for_data(cls, network: Any, data: Data, seed: int | None = None) -> Self:
        """A network for a data set; `seed` fixes its initial parameters without touching torch's generator."""
        with torch.random.fork_rng(enabled=seed is not None):
            if seed is not None:
                torch.manual_seed(seed)
            return cls(network, data.shape, len(data.classes), data.gain)

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Images uint8 `[n, h, w, channels]` as codes int8, as `forward` takes them."""
        raise NotImplementedError

    def values(self, images: np.ndarray) -> Tensor:
        """The codes as floats: what the network is calibrated on."""
        return torch.from_numpy(self.encode(images)).float()

    def samples_first(self) -> ImageNetwork:
        """The network with tensors whose first axis is that of the samples, as a converter follows it."""
        return self

    def describe(self) -> dict[str, Any]:
        """JSON values from which `from_description` builds the network, without its parameters."""
        network = self.network.model_dump(mode="json")
        return {"network": network, "shape": list(self.shape), "classes": self.classes, "gain": self.gain}

    @classmethod
    def from_description(cls, values: dict[str, Any]) -> Self:
        return cls(cls.settings(**values["network"]), tuple(values["shape"]), values["classes"], values["gain"])
