"""Training by AdamW with a cosine schedule: progress, seed, checkpoints, resume; a GPU when there is one.

A network is any module with

    encode(images)      images uint8 `[n, h, w, channels]` -> integer codes `[n, ...]`
    forward(codes)      codes `[B, ...]` -> logits `[B, classes]`

Everything random in an epoch is drawn from a generator seeded by (seed, epoch), so a run that was interrupted
and resumed after any epoch ends with the same weights, bit for bit, as one that was not.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from models import storage
from models.data import Data, Split
from models.settings import Settings, Train
from sim.errors import BittrueError

#: Images evaluated together.
EVALUATION_BATCH = 500


@dataclass(frozen=True)
class Epoch:
    """What an epoch left: mean training loss, accuracy on the validation split (0..1), seconds."""

    loss: float
    accuracy: float
    seconds: float


@dataclass(frozen=True)
class Progress:
    """What a progress callback gets after every step; `last` is the last complete epoch, None in the first."""

    stage: str
    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    last: Epoch | None


Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def predict(model: nn.Module, images: np.ndarray, device: torch.device | None = None) -> np.ndarray:
    """Logits `[n, classes]` of images, in evaluation mode, on the model's device unless told."""
    device = device or next(model.parameters()).device
    training = model.training
    model.eval()
    codes = torch.from_numpy(model.encode(images))
    with torch.inference_mode():
        parts = [model(part.to(device)).cpu() for part in codes.split(EVALUATION_BATCH)]
    model.train(training)
    return torch.cat(parts).numpy()


def accuracy(model: nn.Module, split: Split) -> float:
    """Share of the images whose largest logit is at the label; of equal logits the first counts."""
    return float((predict(model, split.images).argmax(1) == split.labels).mean())


def fit(
    model: nn.Module,
    data: Data,
    settings: Train,
    *,
    checkpoint: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    device: torch.device | str | None = None,
) -> tuple[Epoch, ...]:
    """Train in place with cross entropy and give the epochs; the model is on the CPU afterwards.

    With `checkpoint`, the state after each epoch is kept in that file, and a file that is already there, left
    by an interrupted run of the same settings, is continued.
    """
    groups = [{"params": list(model.parameters()), "lr": settings.lr}]
    return optimize(
        model, data, settings, groups, stage="train", checkpoint=checkpoint, progress=progress, device=device
    )


def optimize(
    model: nn.Module,
    data: Data,
    settings: Settings,
    groups: list[dict[str, Any]],
    *,
    stage: str,
    loss: Loss = lambda model, codes, labels: cross_entropy(model(codes), labels),
    checkpoint: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    device: torch.device | str | None = None,
) -> tuple[Epoch, ...]:
    """The loop behind every training: parameter groups with their `lr`, and a loss of (model, codes, labels).

    `settings` has epochs, batch, seed and weight_decay. Batches are shuffled; an incomplete last one is dropped.
    """
    device = torch.device(device) if device is not None else default_device()
    identity = identity_of(model, data, settings, stage)
    codes, labels = torch.from_numpy(model.encode(data.train.images)), torch.from_numpy(np.array(data.train.labels))
    batch = min(settings.batch, len(codes))
    steps = len(codes) // batch
    model.to(device)
    codes, labels = codes.to(device), labels.to(device)
    rates = [group["lr"] for group in groups]
    optimizer = torch.optim.AdamW(groups, weight_decay=settings.weight_decay, fused=True)
    history = resume(checkpoint, identity, model, optimizer)
    with flushed_denormals():
        for epoch in range(len(history), settings.epochs):
            begin, total = time.perf_counter(), 0.0
            model.train()
            with torch.random.fork_rng():
                torch.manual_seed(settings.seed * 1_000_003 + epoch)
                order = torch.randperm(len(codes)).to(device)
                for step in range(steps):
                    share = (epoch * steps + step) / (settings.epochs * steps)
                    for group, rate in zip(optimizer.param_groups, rates, strict=True):
                        group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * share))
                    chosen = order[step * batch : (step + 1) * batch]
                    value = loss(model, codes[chosen], labels[chosen])
                    optimizer.zero_grad()
                    value.backward()
                    optimizer.step()
                    number = value.item()
                    if not math.isfinite(number):
                        raise BittrueError(
                            f"{stage}: the loss is {number} in epoch {epoch + 1}, step {step + 1}, so the training "
                            "diverged; use a smaller learning rate"
                        )
                    total += number
                    if progress is not None:
                        last = history[-1] if history else None
                        progress(Progress(stage, epoch + 1, settings.epochs, step + 1, steps, total / (step + 1), last))
            seconds = time.perf_counter() - begin
            history.append(Epoch(total / steps, accuracy(model, data.val), seconds))
            if checkpoint is not None:
                content = {"identity": identity, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
                storage.write(checkpoint, "checkpoint", content | {"history": [asdict(e) for e in history]})
    model.to("cpu").eval()
    return tuple(history)


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Treat denormal floats as 0: gradients of images that are classified surely are such, and slow a CPU down."""
    before = float(torch.tensor([1e-40]) * 1) == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def identity_of(model: nn.Module, data: Data, settings: Settings, stage: str) -> str:
    """What a run must have in common with a checkpoint to continue it: settings, data, and where it started."""
    start = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        start.update(name.encode() + str(tuple(tensor.shape)).encode())
        start.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    sets = [data.name, len(data.train), len(data.val)]
    return json.dumps({"stage": stage, "settings": settings.model_dump(), "data": sets, "start": start.hexdigest()})


def resume(
    checkpoint: str | Path | None, identity: str, model: nn.Module, optimizer: torch.optim.Optimizer
) -> list[Epoch]:
    if checkpoint is None or not Path(checkpoint).exists():
        return []
    content = storage.read(checkpoint, "checkpoint")
    if content["identity"] != identity:
        before, now = json.loads(content["identity"]), json.loads(identity)
        names = {"settings": "settings", "data": "data set", "start": "initial parameters", "stage": "stage"}
        other = " and ".join(names[key] for key in names if before.get(key) != now[key])
        raise BittrueError(
            f"checkpoint {checkpoint}: it was left by a run with other {other}; delete it to start anew, "
            "or give back what it was made with"
        )
    model.load_state_dict(content["model"])
    optimizer.load_state_dict(content["optimizer"])
    return [Epoch(**epoch) for epoch in content["history"]]
