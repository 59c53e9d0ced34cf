"""Settings of a recipe, validated: network, training, post-training quantisation, quantisation-aware training.

Unknown keys and values out of range are refused by name. The defaults are the Fashion-MNIST recipe; the small
`digits` set wants `patch=2, embed=32, blocks=2`, 150 epochs of 64 images at 2e-3 with weight decay 0.05, and
20 epochs of quantisation-aware training with 64 images a step.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

Nonlinearity = Literal["lerp_psa", "psa", "relu"]


class Settings(BaseModel):
    """Base of every group of settings: frozen, and no key that is not declared."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Network(Settings):
    """Geometry of a ResMLP and its non-linearity; `hidden_factor` is hidden width over `embed`."""

    patch: int = Field(4, ge=1, description="side of a square patch, pixels")
    embed: int = Field(64, ge=1, description="channels of a token")
    blocks: int = Field(3, ge=1)
    hidden_factor: float = Field(1.0, gt=0)
    nonlinearity: Nonlinearity = "lerp_psa"
    terms: int = Field(8, ge=1, description="terms of a PSA function")
    grid_points: int = Field(64, ge=2, description="points at which a LERP-PSA evaluates its PSA")
    grid_range: float = Field(4.0, gt=0, description="the grid spans -range to range")

    @property
    def hidden(self) -> int:
        return max(1, round(self.hidden_factor * self.embed))


class Train(Settings):
    """AdamW with a cosine schedule to zero."""

    epochs: int = Field(8, ge=1)
    batch: int = Field(128, ge=2)
    lr: float = Field(1e-3, gt=0)
    weight_decay: float = Field(0.01, ge=0)
    seed: int = Field(1, ge=0)


class Quantize(Settings):
    """Post-training quantisation; the percentile is chosen on the validation split, the first one wins a tie."""

    percentiles: tuple[Annotated[float, Field(gt=50, le=100)], ...] = (99.97, 99.99, 100.0, 99.9)
    segments: int = Field(64, ge=2, description="segments of a table; it holds one knot more")
    bits: int = Field(8, ge=4, le=8, description="bits of activations, weights, biases and knots")
    images: int = Field(1000, ge=1, description="training images to calibrate on")

    @field_validator("percentiles")
    @classmethod
    def _some(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not value:
            raise ValueError("give at least one percentile")
        return value

    @field_validator("segments")
    @classmethod
    def _power_of_two(cls, value: int) -> int:
        if value & (value - 1):
            raise ValueError("the number of segments is a power of two")
        return value


class Qat(Settings):
    """Quantisation-aware training on the integers themselves; 0 epochs skips it."""

    epochs: int = Field(2, ge=0)
    batch: int = Field(256, ge=2)
    lr: float = Field(3e-4, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    learn_scales: bool = False
    scale_lr: float = Field(1e-3, gt=0, description="learning rate of log-scales, where they are learned")
    seed: int = Field(1, ge=0)
