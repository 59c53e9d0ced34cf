"""Networks of a user's own, in torch alone: the four that newcomers try, and random ones by seed."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Residual(nn.Module):
    """As in a ResNet: two convolutions with normalisation, added to what came in, or to a convolution of it."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += self.shortcut(x)
        return self.relu(out)


def mlp_norm(classes=10):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(),
        nn.Linear(32, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.1), nn.Linear(24, classes),
    )  # fmt: skip


def mlp_gelu(classes=10):
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 32),
        nn.GELU(),
        nn.Linear(32, 24),
        nn.GELU(),
        nn.Linear(24, classes),
        nn.LogSoftmax(1),
    )


def cnn_pool(classes=10):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3), nn.ReLU(),
        nn.AvgPool2d(2), nn.Flatten(), nn.Linear(12, classes),
    )  # fmt: skip


def resnet(classes=10):
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(), Residual(8, 8), Residual(8, 12, 2),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, classes),
    )  # fmt: skip


#: What newcomers try first, on images `[n, 1, 8, 8]`.
NEWCOMERS = {"mlp-norm": mlp_norm, "mlp-gelu": mlp_gelu, "cnn-pool": cnn_pool, "resnet": resnet}


class Act(nn.Module):
    """A function that is written by hand."""

    def __init__(self, kind: int) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x):
        if self.kind == 0:
            return x * torch.sigmoid(1.7 * x)
        if self.kind == 1:
            return functional.relu6(x + 3) * x / 6
        if self.kind == 2:
            return x.clamp(-1.5, 2.5)
        if self.kind == 3:
            return torch.tanh(functional.softplus(x)) * x
        return 0.5 * x + 0.25


class Both(nn.Module):
    """Two branches of one input, added, subtracted, multiplied or put side by side; `part` takes half of the other."""

    def __init__(self, left: nn.Module, right: nn.Module, how: str) -> None:
        super().__init__()
        self.left, self.right, self.how = left, right, how

    def forward(self, x):
        a, b = self.left(x), self.right(x)
        return {"add": lambda: a + b, "sub": lambda: a - b, "cat": lambda: torch.cat([a, b], dim=1),
                "gate": lambda: a * torch.sigmoid(b), "part": lambda: a + b.chunk(2, 1)[1]}[self.how]()  # fmt: skip


class Ends(nn.Module):
    """What is behind the images or sequences: one of many ways to classes."""

    def __init__(self, shape: tuple[int, ...], way: int) -> None:
        super().__init__()
        self.way = way
        size = int(torch.Size(shape).numel())
        self.fc = nn.Linear(size if way in (0, 1) else shape[0], 5)

    def forward(self, x):
        if self.way == 0:
            return self.fc(torch.flatten(x, 1))
        if self.way == 1:
            return self.fc(x.reshape(x.shape[0], -1)).softmax(dim=1)
        if self.way == 2:
            return self.fc(x.mean(dim=tuple(range(2, x.dim()))))
        tokens = x.flatten(2).transpose(1, 2)  # [n, places, channels]
        return self.fc(tokens).mean(1)


def activation(draw, channels: int) -> nn.Module:
    known = [
        nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), nn.LeakyReLU(0.1), nn.PReLU(channels), nn.Hardtanh(-2, 2),
        nn.GELU(), nn.SiLU(), nn.Sigmoid(), nn.Tanh(), nn.Hardswish(), nn.ELU(), nn.Softplus(), nn.Identity(),
        *(Act(kind) for kind in range(5)),
    ]  # fmt: skip
    return known[draw(len(known))]


def random_network(seed: int) -> tuple[nn.Module, tuple[int, ...]]:
    """A small network in evaluation mode whose normalisations have learned, and the shape of a sample."""
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int) -> int:
        return int(torch.randint(high, (1,), generator=generator))

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        flat = seed % 3 == 0
        conv, norm = (nn.Conv1d, nn.BatchNorm1d) if flat else (nn.Conv2d, nn.BatchNorm2d)
        max_pool, avg_pool = (nn.MaxPool1d, nn.AvgPool1d) if flat else (nn.MaxPool2d, nn.AvgPool2d)
        channels = 1 + draw(3)
        shape = (channels, 10 + draw(5)) if flat else (channels, 8 + draw(3), 7 + draw(4))

        def layer(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
            kernel, groups = (1, 3)[draw(2)], 1
            if draw(3) == 0:
                outputs = inputs if stride == 1 else outputs
                groups = inputs if inputs == outputs else 1
            dilation = 1 + draw(2) if kernel == 3 else 1
            parts = [
                conv(inputs, outputs, kernel, stride, dilation * (kernel // 2), dilation, groups, bias=draw(2) == 0)
            ]
            if draw(3):
                parts.append(norm(outputs))
            elif draw(2):
                parts.insert(0, norm(inputs))
            return nn.Sequential(*parts, activation(draw, outputs))

        parts, x = [], torch.randn(16, *shape)
        for _ in range(2 + draw(2)):
            before = x.shape[1]
            kind = draw(6)
            if kind == 0:
                part = Both(layer(before, before), nn.Identity(), ("add", "sub", "gate")[draw(3)])
            elif kind == 1:
                how = draw(2)
                part = (
                    Both(layer(before, 2 + draw(3)), layer(before, 2), "cat")
                    if how
                    else Both(conv(before, 3, 1), nn.Sequential(conv(before, 6, 1), activation(draw, 6)), "part")
                )
            elif kind == 2 and x.shape[-1] > 4:
                part = max_pool(2 + draw(2), 2, padding=draw(2), ceil_mode=draw(2) == 1)
            elif kind == 3 and x.shape[-1] > 4:
                part = avg_pool(2 + draw(2), 2)
            else:
                part = layer(before, 2 + draw(5), 1 + draw(2) if x.shape[-1] > 4 else 1)
            parts.append(part)
            x = part(x)
        model = nn.Sequential(*parts, Ends(tuple(x.shape[1:]), draw(4)))
        learn(model, torch.randn(64, *shape))
    return model, shape


def learn(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """Spread the factors of a network's normalisations, let them see samples, and leave it in evaluation mode."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    model.train()
    with torch.no_grad():
        for _ in range(60):
            model(x.clone())
    return model.eval()
