"""Random torch modules of one or two inputs and one to three results: branches, gates, groups, larger images.

    python -m tests.helpers.torch_graphs --count 60 --seed 0

converts so many: every tensor of the integer forward in torch is that of the program, and of its slow reference, and
the results follow those of the floats.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import nn
from torch.nn import functional

import bittrue
from bittrue.models.graph.lower import record
from tests.helpers.torch_networks import Both, activation

#: Most that integers may be off, root mean square as a share of the spread of the floats.
FAR = 0.15


class Excite(nn.Module):
    """Squeeze and excite."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, 2, 1), nn.Conv2d(2, channels, 1)

    def forward(self, x):
        return x * torch.sigmoid(self.up(self.down(functional.adaptive_avg_pool2d(x, 1)).relu()))


class Network(nn.Module):
    """A trunk of random layers over an image, what else comes in added to it, and several ends."""

    def __init__(self, parts: list[nn.Module], side: nn.Module | None, ends: list[nn.Module], join: str) -> None:
        super().__init__()
        self.parts, self.side, self.ends, self.join = nn.ModuleList(parts), side, nn.ModuleList(ends), join

    def trunk(self, x, other=None):
        for k, part in enumerate(self.parts):
            x = part(x)
            if k == 0 and self.side is not None:
                y = self.side(other)
                x = torch.cat([x, y], 1) if self.join == "cat" else x + y if self.join == "add" else x * y.sigmoid()
        return x

    def give(self, x):
        results = tuple(end(x) for end in self.ends)
        return results[0] if len(results) == 1 else results


class One(Network):
    def forward(self, image):
        return self.give(self.trunk(image))


class Two(Network):
    def forward(self, image, known):
        return self.give(self.trunk(image, known))


def random_module(seed: int) -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """A small network in evaluation mode whose normalisations have learned, and samples of its inputs."""
    generator = torch.Generator().manual_seed(1000 + seed)
    draw = lambda high: int(torch.randint(high, (1,), generator=generator))  # noqa: E731
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        shape = (1 + draw(3), 4 + draw(3), 4 + draw(3))

        def layer(inputs: int, outputs: int) -> nn.Sequential:
            kernel, groups, dilation = (1, 3)[draw(2)], 1, 1 + draw(2)
            groups = inputs if draw(4) == 0 and outputs == inputs else 2 if inputs % 2 == outputs % 2 == 0 else 1
            conv = nn.Conv2d(inputs, outputs, kernel, 1, dilation * (kernel // 2), dilation, groups)
            return nn.Sequential(conv, *[nn.BatchNorm2d(outputs)][: draw(2)], activation(draw, outputs))

        first = 2 * (1 + draw(2))
        parts: list[nn.Module] = [layer(shape[0], first)]
        two, join = draw(2) == 1, ("cat", "add", "gate")[draw(3)]
        side, known = None, None
        if two:
            known = (torch.randn(64, shape[0], *shape[1:]), torch.randn(64, 3))[draw(2)]
            if known.ndim == 2:
                join = "gate" if join == "cat" else join
                side = nn.Sequential(nn.Linear(3, first), nn.Unflatten(1, (first, 1, 1)))
            else:
                side = nn.Conv2d(shape[0], first, 1)
        x = torch.randn(64, *shape)
        make = Two if two else One
        given = (x, known) if two else (x,)
        for _ in range(1 + draw(3)):
            y = make(parts, side, [nn.Identity()], join)(*given)
            channels, high, wide = y.shape[1:]
            small, kind = min(high, wide) < 8, draw(7)
            if kind == 0 and small:
                part = nn.ConvTranspose2d(channels, 2 + draw(3), 2 + draw(3), 2, draw(2))
            elif kind == 1 and small:
                part = nn.Upsample(scale_factor=(2, 1 + draw(2)))
            elif kind == 2:
                part = Excite(channels)
            elif kind == 3 and small:
                part = nn.Sequential(nn.Conv2d(channels, 8, 1), nn.PixelShuffle(2), activation(draw, 2))
            elif kind == 4:
                part = Both(layer(channels, channels), nn.Identity(), ("add", "sub", "gate", "cat")[draw(4)])
            elif kind == 5 and min(high, wide) > 4:
                part = (nn.MaxPool2d(2, ceil_mode=True), nn.AvgPool2d(2), nn.MaxPool2d(3, 1, 1))[draw(3)]
            else:
                part = layer(channels, 2 * (1 + draw(3)))
            parts.append(part)
        channels = make(parts, side, [nn.Identity()], join)(*given).shape[1]
        classes = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))
        ends = [classes, nn.Conv2d(channels, 2, 3, padding=1), nn.Sequential(nn.Conv2d(channels, 3, 1), nn.ReLU())]
        model = make(parts, side, ends[: 1 + draw(3)], join)
        model.train()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
        with torch.no_grad():
            for _ in range(60):
                model(*given)
    return model.eval(), given


def check(seed: int) -> float:
    """The largest error of a result of this network; every tensor of torch and of the program is the same."""
    model, given = random_module(seed)
    network = bittrue.convert(model, given, requantize=("shift", "multiplier")[seed % 2])
    program, codes = network.lower(), network.encode(given)
    codes = codes if isinstance(codes, tuple) else (codes,)
    few = tuple(part[:8] for part in codes)
    recorded, traced = record(network, *few), program.trace(*few).tensors
    assert recorded.keys() == traced.keys()
    for name, tensor in traced.items():
        assert np.array_equal(recorded[name], tensor), name
    truth = program.reference(*(part[:3] for part in codes))
    found = program.run(*codes)
    for one, other in zip(truth if isinstance(truth, tuple) else (truth,), found, strict=True):
        assert np.array_equal(one, other[:3])
    real, decoded = model(*given), network.decode(found if len(found) > 1 else found[0])
    worst = 0.0
    for one, other in zip(*((v if isinstance(v, tuple) else (v,)) for v in (real, decoded)), strict=True):
        one = one.detach().double().numpy()
        worst = max(worst, float(np.sqrt(np.square(other - one).mean() / np.square(one - one.mean()).mean())))
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=60, help="networks")
    parser.add_argument("--seed", type=int, default=0, help="of the first; the others follow")
    options = parser.parse_args()
    console, errors, wrong = Console(), {}, []
    for seed in track(range(options.seed, options.seed + options.count), "convert", console=console):
        try:
            errors[seed] = check(seed)
        except AssertionError as error:
            wrong.append(seed)
            console.print(f"seed {seed}: {error}")
    far = [seed for seed, error in errors.items() if error > FAR]
    console.print(
        f"{options.count} networks: {len(wrong)} with differences, errors {np.median([*errors.values()]):.3f} in the "
        f"middle and {max(errors.values()):.3f} at most, above {FAR} of the seeds {far or 'none'}"
    )
    raise SystemExit(bool(wrong or far))


if __name__ == "__main__":
    main()
