"""What a training adds to its loss: for keys that are not of length 1 or not orthogonal, and for convolutions that do
not keep distances."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import conv2d, normalize


def key_penalty(keys: Tensor) -> Tensor:
    """Of keys `[N, D]`, a scalar:

    the mean over pairs a < b of cos^2(w_a, w_b) (0 for one key) + the mean over keys of (|w_a| - 1)^2
    """
    slots = len(keys)
    lengths = (keys.norm(dim=1) - 1).square().mean()
    if slots == 1:
        return lengths
    unit = normalize(keys, dim=1)
    cosines = (unit @ unit.T).triu(1)
    return cosines.square().sum() / (slots * (slots - 1) / 2) + lengths


def isometry_penalty(weight: Tensor, stride: int = 1) -> Tensor:
    """Of a convolution's weight W `[out, in, k, k]`, 1/2 |G - delta|^2 with G = conv2d(W, W, padding k - 1, stride).

    delta[a, b, centre] is 1 for a = b, and all else 0. Where there are more outputs than inputs, both axes change
    places, so that the Gram matrix is the smaller one.
    """
    if weight.shape[1] < weight.shape[0]:
        weight = weight.transpose(0, 1)
    gram = conv2d(weight, weight, padding=weight.shape[2] - 1, stride=stride)
    delta = torch.zeros_like(gram)
    delta[:, :, gram.shape[2] // 2, gram.shape[3] // 2] = torch.eye(len(gram), device=gram.device, dtype=gram.dtype)
    return 0.5 * (gram - delta).square().sum()
