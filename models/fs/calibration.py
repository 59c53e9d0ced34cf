"""What a conversion to neurons needs of a trained network: its normalisations folded, and a look at its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

#: Of the calibration images' activations, one in so many is looked at.
STRIDE = 7
#: The least real value of a code step.
SMALLEST = 1e-6
#: Images that run together.
BATCH = 250


def affine_of(norm: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Gain and offset of each channel of a batch normalisation in evaluation mode."""
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return gain, norm.bias - norm.running_mean * gain


@torch.no_grad()
def samples(
    model: nn.Module, images: np.ndarray, of: Mapping[nn.Module, Callable[[Tensor, Tensor], Tensor]]
) -> dict[nn.Module, np.ndarray]:
    """What modules of a network show while it runs on images `[n, h, w, channels]`, each sorted, `[values]`.

    of   module -> function of its (first) input and its result, which gives the values to be kept
    """
    seen: dict[nn.Module, list[Tensor]] = {module: [] for module in of}

    def keep(module: nn.Module, operands: tuple[Tensor, ...], result: Tensor) -> None:
        seen[module].append(of[module](operands[0].detach(), result.detach()).flatten().clone())

    hooks = [module.register_forward_hook(keep) for module in of]
    try:
        for part in torch.from_numpy(model.encode(images)).split(BATCH):
            model(part)
    finally:
        for hook in hooks:
            hook.remove()
    return {module: np.sort(torch.cat(values).numpy()) for module, values in seen.items()}
