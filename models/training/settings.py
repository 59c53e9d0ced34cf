"""Settings of training: in floats, and on integers.

Unknown keys and values out of range are refused by name. The defaults are the Fashion-MNIST recipe; the small `digits`
set wants 150 epochs of 64 images at 2e-3 with weight decay 0.05, and 20 epochs of quantisation-aware training with 64
images a step.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bittrue.models.settings import Settings

#: What is done to training images, drawn anew in every epoch; see `models.data.augment`.
Augment = Literal["none", "shift", "flip", "flip-shift"]
AUGMENT = "training images moved by up to an eighth of their size, mirrored, or both"


class Train(Settings):
    """AdamW with a cosine schedule to zero."""

    epochs: int = Field(default=8, ge=1)
    batch: int = Field(default=128, ge=2)
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    seed: int = Field(default=1, ge=0)
    threads: int = Field(default=1, ge=1, description="of the CPU; the order of sums, and so the weights, depend on it")
    augment: Augment = Field(default="none", description=AUGMENT)


class Qat(Settings):
    """Quantisation-aware training on the integers themselves; 0 epochs skips it."""

    epochs: int = Field(default=2, ge=0)
    batch: int = Field(default=256, ge=2)
    lr: float = Field(default=3e-4, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    learn_scales: bool = False
    scale_lr: float = Field(default=1e-3, gt=0, description="learning rate of log-scales, where they are learned")
    seed: int = Field(default=1, ge=0)
    threads: int = Field(default=1, ge=1, description="of the CPU; the order of sums, and so the weights, depend on it")
    augment: Augment = Field(default="none", description=AUGMENT)
