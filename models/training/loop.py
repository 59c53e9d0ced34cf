"""Training: one loop for every network, with progress, seed, checkpoints and resume; a GPU when there is one.

A network is any module with

    encode(images)      images uint8 `[n, h, w, channels]` -> integer codes `[n, ...]`
    forward(codes)      codes `[B, ...]` -> logits `[B, classes]`

and where the logits depend on which images these are, as they do with noise, with `counts_frames = True` and

    forward(codes, first)   `first` is the index of the batch's first image: in evaluation its place in the set, in
                            training the number of those that were in front of it since the training began

What is random in an epoch is drawn from a generator seeded by (seed, epoch), or belongs to the index of an image, so a
run that was interrupted and resumed after any epoch ends with the same weights, bit for bit, as one that was not.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bittrue.models.data.sets import Data, Split
from bittrue.models.settings import Settings
from bittrue.models.training import storage
from bittrue.models.training.precision import flushed_denormals, full_precision
from bittrue.models.training.settings import Train
from bittrue.sim.errors import BittrueError

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


#: From logits and labels.
Loss = Callable[[Tensor, Tensor], Tensor]
#: From the share of a training that is done, 0..1, to a factor on the learning rates.
Schedule = Callable[[float], float]


def cosine(share: float) -> float:
    """From 1 down to 0."""
    return 0.5 * (1 + math.cos(math.pi * share))


def default_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def logits(model: nn.Module, codes: Tensor, first: int) -> Tensor:
    """Logits of a batch whose first image has this index."""
    return model(codes, first) if getattr(model, "counts_frames", False) else model(codes)


def predict(model: nn.Module, images: np.ndarray, device: torch.device | None = None) -> np.ndarray:
    """Logits `[n, classes]` of images, in evaluation mode, on the model's device unless told."""
    device = device or next(model.parameters()).device
    training = model.training
    model.eval()
    codes = torch.from_numpy(model.encode(images))
    with torch.inference_mode():
        starts = range(0, max(len(codes), 1), EVALUATION_BATCH)
        parts = [logits(model, codes[k : k + EVALUATION_BATCH].to(device), k).cpu() for k in starts]
    model.train(training)
    return torch.cat(parts).numpy()


def accuracy(model: nn.Module, split: Split) -> float:
    """Share of the images whose largest logit is at the label; of equal logits the first counts."""
    return float((predict(model, split.images).argmax(1) == split.labels).mean())


def fit(
    model: nn.Module,
    data: Data,
    settings: Train = Train(),  # noqa: B008  (frozen)
    *,
    checkpoint: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    device: torch.device | str | None = None,
) -> tuple[Epoch, ...]:
    """Train in place by AdamW with a cosine schedule, and give the epochs; see `optimize`."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    return optimize(
        model,
        data,
        settings,
        optimizer,
        epochs=settings.epochs,
        stage="train",
        schedule=cosine,
        checkpoint=checkpoint,
        progress=progress,
        device=device,
    )


def optimize(
    model: nn.Module,
    data: Data,
    settings: Settings,
    optimizer: torch.optim.Optimizer,
    *,
    epochs: int,
    stage: str,
    loss: Loss = cross_entropy,
    schedule: Schedule | None = None,
    shuffle: bool = True,
    drop_last: bool = True,
    checkpoint: str | Path | None = None,
    progress: Callable[[Progress], None] | None = None,
    device: torch.device | str | None = None,
) -> tuple[Epoch, ...]:
    """The loop behind every training, in place; the model is on the CPU afterwards.

    settings     has `batch` and `seed`, and is part of what a checkpoint must have in common with a run
    optimizer    over the model's parameters; its groups' `lr` are the rates that `schedule` multiplies, step by step
    shuffle      batches in another order in every epoch, or always in that of the data set
    drop_last    leave out an incomplete last batch; else it counts as any other
    checkpoint   file that keeps the state after each epoch; one that is already there, left by an interrupted run of
                 the same settings, is continued to the same weights bit for bit
    """
    device = torch.device(device) if device is not None else default_device()
    identity = identity_of(model, data, settings, stage)
    codes, labels = torch.from_numpy(model.encode(data.train.images)), torch.from_numpy(np.array(data.train.labels))
    batch = min(settings.batch, len(codes))
    steps = len(codes) // batch if drop_last else math.ceil(len(codes) / batch)
    model.to(device)
    codes, labels = codes.to(device), labels.to(device)
    rates = [group["lr"] for group in optimizer.param_groups] if schedule else []
    history = resume(checkpoint, identity, model, optimizer)
    with full_precision(), flushed_denormals():
        for epoch in range(len(history), epochs):
            begin, total = time.perf_counter(), 0.0
            model.train()
            with torch.random.fork_rng():
                torch.manual_seed(settings.seed * 1_000_003 + epoch)
                order = torch.randperm(len(codes)).to(device) if shuffle else None
                for step in range(steps):
                    if schedule is not None:
                        factor = schedule((epoch * steps + step) / (epochs * steps))
                        for group, rate in zip(optimizer.param_groups, rates, strict=True):
                            group["lr"] = rate * factor
                    here = slice(step * batch, (step + 1) * batch)
                    chosen = here if order is None else order[here]
                    value = loss(logits(model, codes[chosen], epoch * len(codes) + step * batch), labels[chosen])
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
                        progress(Progress(stage, epoch + 1, epochs, step + 1, steps, total / (step + 1), last))
            seconds = time.perf_counter() - begin
            history.append(Epoch(total / steps, accuracy(model, data.val), seconds))
            if checkpoint is not None:
                content = {"identity": identity, "model": model.state_dict(), "optimizer": optimizer.state_dict()}
                storage.write(checkpoint, "checkpoint", content | {"history": [asdict(e) for e in history]})
    model.to("cpu").eval()
    return tuple(history)


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
    if content.get("identity") != identity:
        raise BittrueError(
            f"checkpoint {checkpoint}: it was left by a run with other {_others(content.get('identity'), identity)}; "
            "delete it to start anew, or give back what it was made with"
        )
    try:
        model.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
        return [Epoch(**epoch) for epoch in content["history"]]
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise BittrueError(f"checkpoint {checkpoint}: it does not fit ({error}); delete it to start anew") from error


def _others(before: object, now: str) -> str:
    """In what two identities differ, in words."""
    names = {"settings": "settings", "data": "data set", "start": "initial parameters", "stage": "stage"}
    try:
        found = json.loads(before)  # type: ignore[arg-type]
        return " and ".join(names[key] for key in names if found.get(key) != json.loads(now)[key])
    except (TypeError, ValueError, AttributeError):
        return "settings"
