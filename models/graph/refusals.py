"""Things that people try and that a circuit of ours does not do, each with what would work."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from bittrue.models.graph.kinds import refuses

refuses(
    *(nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.LocalResponseNorm, nn.RMSNorm),
    *(functional.layer_norm, functional.group_norm, functional.instance_norm, functional.normalize),
    says="it divides by a statistic of the sample itself; use batch normalisation",
)
refuses(
    *(nn.Conv3d, nn.ConvTranspose3d, nn.MaxPool3d, nn.AvgPool3d, functional.conv3d),
    says="it has windows of three axes; use two (channels for the third), or one of time",
)
refuses(
    *(nn.LSTM, nn.GRU, nn.RNN),
    says="it has a state from step to step; use convolutions over time (nn.Conv1d, with dilation)",
)
refuses(
    *(nn.MultiheadAttention, functional.scaled_dot_product_attention),
    says="it multiplies tensors that depend on the sample; mix places by a linear layer (transpose, nn.Linear)",
)
refuses(
    *(torch.cumsum, torch.sort, torch.topk, "cumsum", "sort", "topk"),
    says="it compares or sums places in order; leave it to whoever reads the result",
)
