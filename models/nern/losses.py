"""The losses of a generator, under their published names. The original's results are constants in all of them.

reconstruction, of the layers' weights W and generated ones V, N weights in all
    L2Loss      sqrt(sum over layers of |W - V|^2 / N)
    MSELoss     mean over layers of the mean of (W - V)^2
attention, of feature maps a and generated ones b, B samples, each map as often as it counts
    L2BatchedAttentionLoss  1/B sum over maps and samples of |a / (|a| + e) - b / (|b| + e)|^2, e = 1e-3
    L2AttentionLoss         sum over maps of |a / |a| - b / (|b| + e)|^2, the lengths those of the whole batch
    SPAttentionLoss         1/B^2 sum over maps of |G(a) - G(b)|^2, G = rows of A A^T / (their length + e), A `[B, ..]`
distillation, of softmaxes p and generated q
    KLDivLoss               1/B sum of p (log p - log q)
    StableKLDivLoss         with log(q + 1e-4)
    MultiStableKLDivLoss    with p + 1e-4 besides
    TempStableKLDivLoss     that of StableKLDivLoss of logits / 2, times 4
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, softmax

Maps = Sequence[tuple[Tensor, int]]
EPSILON, STABLE, TEMPERATURE = 1e-3, 1e-4, 2.0


def l2(made: Sequence[Tensor], original: Sequence[Tensor]) -> Tensor:
    total = sum((w - v).square().sum() for v, w in zip(made, original, strict=True))
    # the root has no derivative at 0, where nothing is left to be learned
    return (total / sum(w.numel() for w in original)).clamp_min(1e-30).sqrt()


def mse(made: Sequence[Tensor], original: Sequence[Tensor]) -> Tensor:
    return sum((w - v).square().mean() for v, w in zip(made, original, strict=True)) / len(original)  # type: ignore[return-value]


def batched_attention(made: Maps, original: Maps) -> Tensor:
    def normal(x: Tensor) -> Tensor:
        x = x.flatten(1)
        return x / (x.norm(dim=1, keepdim=True) + EPSILON)

    return _over(made, original, lambda b, a: (normal(a) - normal(b)).square().sum() / len(a))


def whole_attention(made: Maps, original: Maps) -> Tensor:
    return _over(made, original, lambda b, a: (a / a.norm() - b / (b.norm() + EPSILON)).square().sum())


def similarity_attention(made: Maps, original: Maps) -> Tensor:
    def gram(x: Tensor) -> Tensor:
        x = x.flatten(1)
        g = x @ x.T
        return g / (g.norm(dim=1, keepdim=True) + EPSILON)

    return _over(made, original, lambda b, a: (gram(a) - gram(b)).square().sum() / len(a) ** 2)


def _over(made: Maps, original: Maps, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    return sum(times * loss(b, a) for (b, times), (a, _) in zip(made, original, strict=True))  # type: ignore[return-value]


def divergence(made: Tensor, original: Tensor) -> Tensor:
    return kl_div(log_softmax(made, 1), softmax(original, 1), reduction="batchmean")


def stable_divergence(made: Tensor, original: Tensor, more: float = 0.0) -> Tensor:
    return kl_div((softmax(made, 1) + STABLE).log(), softmax(original, 1) + more, reduction="batchmean")


def doubly_stable_divergence(made: Tensor, original: Tensor) -> Tensor:
    return stable_divergence(made, original, STABLE)


def warm_divergence(made: Tensor, original: Tensor) -> Tensor:
    return stable_divergence(made / TEMPERATURE, original / TEMPERATURE) * TEMPERATURE**2


RECONSTRUCTION = {"L2Loss": l2, "MSELoss": mse}
ATTENTION = {
    "L2BatchedAttentionLoss": batched_attention,
    "L2AttentionLoss": whole_attention,
    "SPAttentionLoss": similarity_attention,
}
DISTILLATION = {
    "KLDivLoss": divergence,
    "StableKLDivLoss": stable_divergence,
    "MultiStableKLDivLoss": doubly_stable_divergence,
    "TempStableKLDivLoss": warm_divergence,
}


def cosine_smoothness(weights: Sequence[Tensor]) -> Tensor:
    """The sum of the cosines of kernels beside each other, along the channels and along the filters; what a training
    of the original takes off its loss. For kernels of one value that is minus `l2_smoothness`."""
    total = weights[0].new_zeros(())
    for weight in weights:
        if weight.shape[2:] == (1, 1):
            total = total - l2_smoothness([weight])
            continue
        flat = weight.flatten(2)
        total = total + torch.cosine_similarity(flat[:, :-1], flat[:, 1:], dim=2).sum()
        total = total + torch.cosine_similarity(flat[:-1], flat[1:], dim=2).sum()
    return total


def l2_smoothness(weights: Sequence[Tensor]) -> Tensor:
    """The sum of the distances of kernels beside each other: of each, divided by its length (for kernels of one value
    by that of the layer), from the next as it is, as published."""
    total = weights[0].new_zeros(())
    for weight in weights:
        flat = weight.flatten(2)
        length = flat.norm() if weight.shape[2:] == (1, 1) else flat.norm(dim=2, keepdim=True)
        unit = flat / length.clamp_min(1e-12)
        total = total + (unit[:, :-1] - flat[:, 1:]).norm(dim=2).sum()
        total = total + (unit[:-1] - flat[1:]).norm(dim=2).sum()
    return total
