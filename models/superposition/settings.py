"""Settings of networks that take several images in one pass: geometry, binding, training.

Every option of the published command has its key here; unknown keys and values out of range are refused by name.

    model             kind, depth             num                        slots
    type              binding                 -w, -i                     width, initial_width
    -p                relu_parameter          -k, -q, -z                 skip_init, dirac_init, batch_norm
    -v                train_keys              -j, -o                     key_penalty, isometry_penalty
    -u, -s            frequency, low          -b, -e, -l, -d             batch, epochs, lr, weight_decay
    -a, -g            mixup, guard            -f                         final
    -t, -r            transfer, seed          -n (workers of a loader)   threads

The data set belongs to the recipe; the number of the experiment (-x) and the place of checkpoints (-c) are the folder
of the flow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from bittrue.models.networks.settings import Convert
from bittrue.models.settings import Settings

Kind = Literal["WideResNet", "WideISOReLUNet", "WideISONet", "MIMONet"]
#: Initial value of a block's activation where it has a parameter: the shift of a ReLU, the slope of a PReLU.
RELU_PARAMETERS = {"WideISONet": -1.0, "MIMONet": 0.5}


class SuperpositionSettings(Settings):
    """Geometry of a wide residual network with N slots; see `models.superposition.networks`."""

    kind: Kind = Field(default="MIMONet", description="what the blocks have between their convolutions")
    depth: Literal[10, 16, 28] = Field(default=10, description="6 k + 4: three stages of k = 1, 2, 4 blocks")
    width: int = Field(default=1, ge=1, le=64, description="the stages have 16, 32 and 64 times so many channels")
    initial_width: int = Field(default=1, ge=1, le=64, description="D / 16: channels that are bound")
    stem_stride: Literal[1, 2] = Field(default=1, description="of the first convolution; 1 is the published one")
    binding: Literal["HRR", "MBAT", "None"] = Field(default="HRR", description="circular convolution, matrix, or sum")
    slots: int = Field(default=1, ge=1, le=64, description="N, images that one pass can take")
    train_keys: bool = True
    relu_parameter: float | None = Field(
        default=None, description="initial shift (WideISONet: -1) or slope (MIMONet: 0.5) of the activations"
    )
    skip_init: bool = Field(default=False, description="every block's branch begins with the factor 0")
    dirac_init: bool = Field(default=False, description="convolutions of the blocks begin as identities")
    batch_norm: bool = True

    @model_validator(mode="after")
    def _has_a_parameter(self) -> Self:
        if self.relu_parameter is not None and self.kind not in RELU_PARAMETERS:
            raise ValueError(f"relu_parameter does not belong to kind {self.kind}, whose ReLU has none; leave it out")
        return self

    @property
    def bound(self) -> int:
        """D, channels at the binding."""
        return 16 * self.initial_width

    @property
    def channels(self) -> int:
        """C, channels at the end, of each slot."""
        return 64 * self.width

    @property
    def initial_relu(self) -> float:
        """What the activations' parameters begin with."""
        return RELU_PARAMETERS.get(self.kind, 0.0) if self.relu_parameter is None else self.relu_parameter

    @property
    def modes(self) -> tuple[int, ...]:
        """The numbers of images that a pass can take: what divides N."""
        return tuple(n for n in range(1, self.slots + 1) if self.slots % n == 0)


class SuperpositionConvert(Convert):
    """Quantisation of a trained network; keys of all slots have one scale."""

    key_bits: int | None = Field(default=None, ge=2, le=8, description="bits of the keys; null: those of all weights")
    dynamic: bool | None = Field(
        default=None,
        description="n is a held input, any number that divides N; null: where more than one mode is trained",
    )


class SuperpositionTrain(Settings):
    """Training as published: SGD with a one-cycle rate and momentum, mixup, both penalties; see `.train`.

    The defaults are the published ones (1,200 epochs there, 200 for an ordinary network).
    """

    epochs: int = Field(default=200, ge=1, description="in each the images are seen N times")
    batch: int = Field(default=128, ge=1, description="passes of an update; N times so many images")
    lr: float = Field(default=0.2, gt=0, description="the highest of the cycle")
    weight_decay: float = Field(default=1e-5, ge=0, description="not of the activations' parameters")
    mixup: float = Field(default=1.0, ge=0, description="alpha of the beta distribution of the share; 0: none")
    guard: float = Field(
        default=10.0, gt=0, description="no update by a gradient so many times as long as the mean of the epoch before"
    )
    key_penalty: float = Field(default=0.1, ge=0)
    isometry_penalty: float = Field(default=1e-4, ge=0)
    isometry_every: int = Field(
        default=1, ge=1, description="its gradient is made at every so many'th update, and counts so many times there"
    )
    low: int | None = Field(default=None, ge=1, description="images at a time of the other trained mode; divides N")
    frequency: float = Field(default=1.0, ge=0, le=1, description="share of the updates that have N images at a time")
    augment: Literal["none", "shift", "flip", "flip-shift", "flip-reflect"] = Field(
        default="flip-reflect", description="training images moved by up to an eighth of their size, mirrored, or both"
    )
    final: bool = Field(
        default=False, description="validation images are trained on, too; each epoch tells of test images"
    )
    transfer: Path | None = Field(
        default=None, description="a network.pt to begin with, by name and shape; that its content changed is not seen"
    )
    seed: int = Field(default=42, ge=0)
    threads: int = Field(default=1, ge=1, description="of the CPU; the order of sums, and so the weights, depend on it")

    @model_validator(mode="after")
    def _modes(self) -> Self:
        if self.frequency < 1 and self.low is None:
            raise ValueError("frequency below 1 leaves updates to another mode; name it as low, or leave frequency out")
        return self

    def trained(self, slots: int) -> tuple[int, ...]:
        """The numbers of images at a time that are trained; a low that does not divide N is a ValueError."""
        if self.low is not None and slots % self.low:
            raise ValueError(f"low = {self.low} does not divide the {slots} slots; take one that does")
        found = {slots} if self.frequency > 0 else set()
        return tuple(sorted(found | ({self.low} if self.low is not None and self.frequency < 1 else set())))
