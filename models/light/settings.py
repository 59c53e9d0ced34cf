"""Settings of photonic networks and of their training, with the published values per data set and activation.

Source of the values: the configurations published with Kirtas, Passalis, Pleros and Tefas, "Non-negative isomorphic
neural networks for photonic neuromorphic accelerators", arXiv 2310.01084; those of `digits` are ours. The settings of
the array and of its noise are not published with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from bittrue.models.settings import Settings
from bittrue.sim.errors import BittrueError

PhotonicActivation = Literal["sigmoid", "sinusoid", "relu"]
Scenario = Literal["transform", "post", "scratch"]
NonNegativeOptimizer = Literal["nnsgd", "csgd"]
Positive = Annotated[float, Field(gt=0)]
Bound = Annotated[float, Field(gt=0, le=1)]


class PhotonicPerceptron(Settings):
    """Hidden layers of a SimpleMLP and their function; `grey` turns colours to luminance first."""

    hidden: tuple[Annotated[int, Field(ge=1, le=1 << 14)], ...] = (100, 200)
    activation: PhotonicActivation = "sinusoid"
    grey: bool = False

    @field_validator("hidden")
    @classmethod
    def _some(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if not value:
            raise ValueError("give the size of at least one hidden layer")
        return value


class Calibrate(Settings):
    """How each layer's alpha, the upper bound of its inputs, is found; the first layer's is 1, its inputs are light.

    bound        the largest value of the activation in front; an unbounded ReLU has none and is refused
    percentile   that percentile of the layer's inputs over `images` training images; what exceeds it is clipped
    constant     the number `alpha`, for all layers but the first, as published for ReLU networks
    """

    method: Literal["bound", "percentile", "constant"] = "bound"
    percentile: float = Field(default=99.9, gt=50, le=100)
    alpha: float | None = Field(default=None, gt=0)
    images: int = Field(default=1000, ge=1)

    @model_validator(mode="after")
    def _number(self) -> Calibrate:
        if self.method == "constant" and self.alpha is None:
            raise ValueError("the method `constant` needs its number, `alpha`; give it")
        if self.method != "constant" and self.alpha is not None:
            raise ValueError(f"`alpha` is the number of the method `constant`, not of `{self.method}`; leave it out")
        return self


class PhotonicTrain(Settings):
    """A scenario. Batches in the order of the data set unless shuffled, constant learning rates.

    transform   `epochs` of SGD at `lr`, then the transformation
    post        `epochs` of SGD at `lr`, the transformation, then `non_negative_epochs` of the non-negative optimiser
    scratch     initialisation, the transformation, then `non_negative_epochs` of the non-negative optimiser

    `lr_in` and `lr_out` are NNSGD's, `clip_lr` is CSGD's.
    """

    scenario: Scenario = "transform"
    optimizer: NonNegativeOptimizer = "nnsgd"
    epochs: int = Field(default=50, ge=0)
    non_negative_epochs: int = Field(default=0, ge=0)
    batch: int = Field(default=256, ge=1)
    lr: Positive = 0.16
    lr_in: Positive = 0.63
    lr_out: Bound = 0.5
    clip_lr: Positive = 0.05
    shuffle: bool = False
    seed: int = Field(default=1, ge=0)

    @model_validator(mode="after")
    def _phases(self) -> PhotonicTrain:
        regular, non_negative = self.scenario != "scratch", self.scenario != "transform"
        for name, value, used in (
            ("epochs", self.epochs, regular),
            ("non_negative_epochs", self.non_negative_epochs, non_negative),
        ):
            if bool(value) != used:
                remedy = "give 1 or more" if used else "it has no such phase, so give 0 or leave it out"
                raise ValueError(f"scenario {self.scenario}: `{name}` is {value}; {remedy}")
        return self


def check_calibration(scenario: Scenario, calibrate: Calibrate, activation: PhotonicActivation) -> None:
    """Raise where alpha cannot be found in this way, which would else come out only behind the first phase."""
    if scenario == "scratch" and calibrate.method == "percentile":
        raise BittrueError("scenario scratch: nothing is trained yet to take a percentile of; calibrate by `bound`")
    if calibrate.method == "bound" and activation == "relu":
        raise BittrueError(
            "calibrate.method = 'bound': a ReLU has no bound to take alpha from; calibrate by `percentile`, or by "
            "`constant` with an `alpha`, for which 14 is published"
        )


# -- the array -----------------------------------------------------------------------------------------
PLANCK, LIGHT_SPEED, CHARGE = 6.62607015e-34, 299792458.0, 1.602176634e-19  # J s, m/s, C: exact in the SI


@dataclass(frozen=True)
class NoiseFactors:
    """Noise of a detector, in units of a full product: an input of full light through one open cell.

    relative   standard deviation over the signal       photons   detected of a full product; infinite without shot
    thermal    standard deviation, in full products
    """

    relative: float
    photons: float
    thermal: float


class ArrayNoise(Settings):
    """Noise of light and receiver; nothing that is given is off. Each kind as a plain ratio or in physical units.

    relative intensity   `relative`, the standard deviation over the signal; or `rin_db_per_hz` with `bandwidth_hz`:
                         sigma = sqrt(10^(RIN / 10) B)
    shot                 `photons` detected of a full product; or `power_w`, `wavelength_m` and `integration_s`:
                         photons = eta P T lambda / (h c), and sigma = sqrt of the photons detected
    thermal              `thermal`, the standard deviation in full products; or the receiver's input-referred
                         `current_a_per_rthz` with `bandwidth_hz`, `power_w` and `wavelength_m`:
                         sigma = i_n sqrt(B) / (eta q lambda P / (h c))

    A full product is an input of full light through one open cell; `power_w` is the optical power that it puts on the
    detector, eta the detector's quantum efficiency. Source of the formulas: G. P. Agrawal, "Fiber-Optic Communication
    Systems", chapters on laser noise and receiver noise; they hold for white noise within the bandwidth.
    """

    relative: float | None = Field(default=None, ge=0, lt=1)
    rin_db_per_hz: float | None = Field(default=None, lt=0)
    photons: float | None = Field(default=None, gt=0)
    thermal: float | None = Field(default=None, ge=0)
    current_a_per_rthz: float | None = Field(default=None, gt=0)
    bandwidth_hz: float | None = Field(default=None, gt=0)
    power_w: float | None = Field(default=None, gt=0)
    wavelength_m: float = Field(default=1550e-9, gt=0)
    integration_s: float | None = Field(default=None, gt=0)
    quantum_efficiency: float = Field(default=0.8, gt=0, le=1)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for ratio, physical, more in (
            ("relative", "rin_db_per_hz", ("bandwidth_hz",)),
            ("photons", "integration_s", ("power_w",)),
            ("thermal", "current_a_per_rthz", ("bandwidth_hz", "power_w")),
        ):
            if getattr(self, physical) is None:
                continue
            if getattr(self, ratio) is not None:
                raise ValueError(f"`{ratio}` and `{physical}` say the same noise twice; give one of them")
            missing = [name for name in more if getattr(self, name) is None]
            if missing:
                raise ValueError(f"`{physical}` needs {' and '.join(missing)} beside it")
        used = {
            "bandwidth_hz": ("rin_db_per_hz", "current_a_per_rthz"),
            "power_w": ("integration_s", "current_a_per_rthz"),
        }
        for name, readers in used.items():
            if getattr(self, name) is not None and all(getattr(self, reader) is None for reader in readers):
                raise ValueError(f"`{name}` alone makes no noise; give {' or '.join(readers)} with it")
        if not self.factors.relative < 1:
            raise ValueError(
                f"`rin_db_per_hz` over `bandwidth_hz` is an intensity noise of {self.factors.relative:.3g} times "
                "the signal, and at 1 no signal is left; give less noise or a narrower bandwidth"
            )
        return self

    @property
    def factors(self) -> NoiseFactors:
        """The noise in full products."""
        relative, photons, thermal = self.relative or 0.0, self.photons or math.inf, self.thermal or 0.0
        per_joule = self.quantum_efficiency * self.wavelength_m / (PLANCK * LIGHT_SPEED)  # photons detected
        if self.rin_db_per_hz is not None:
            relative = math.sqrt(10 ** (self.rin_db_per_hz / 10) * self.bandwidth_hz)
        if self.integration_s is not None:
            photons = per_joule * self.power_w * self.integration_s
        if self.current_a_per_rthz is not None:
            thermal = self.current_a_per_rthz * math.sqrt(self.bandwidth_hz) / (CHARGE * per_joule * self.power_w)
        return NoiseFactors(relative, photons, thermal)

    @property
    def on(self) -> bool:
        """Whether there is any."""
        return self.factors != NoiseFactors(0.0, math.inf, 0.0)


class Array(Settings):
    """The photonic array and its converters.

    rows, columns   inputs and outputs of a tile: what is larger is cut into tiles, whose codes are added digitally
    input_bits      of the input DACs, which take codes of 0..2^bits - 1
    weight_bits     of the weight DACs: magnitudes of 0..2^bits - 1, the sign selects the rail
    adc_bits        of the converter; its step is a power of two of counts, one for a layer
    window          `full`: from darkness up to the largest count that the layer can make; `pedestal`: for each tile
                    and output around its centre on data, as wide as the `window_percentile` of the deviations needs
    rails           `one`: a cell for each weight, its sign selects the rail; `two`: a cell on each rail
    extinction_db   power ratio of an open and a closed cell; null: closed cells are dark
    crosstalk_db    share of a cell's light that reaches each neighbouring column of its tile; null: none
    weight_error    standard deviation of setting a cell, over an open cell's transmission; calibrated away as far as
                    the pedestal is concerned
    drift           the same for what has changed since the pedestal was calibrated
    fraction_bits   binary digits of a cell's transmission below one step of its DAC; null: 0 for cells that are
                    exact, else 4
    sum_bits        codes of a layer's result, in front of the activation
    images          training images on which the windows are set
    """

    rows: int = Field(default=64, ge=1, lt=1 << 16)
    columns: int = Field(default=64, ge=1, lt=1 << 16)
    input_bits: int = Field(default=8, ge=1, le=8)
    weight_bits: int = Field(default=8, ge=1, le=10)
    adc_bits: int = Field(default=8, ge=1, le=24)
    window: Literal["pedestal", "full"] = "pedestal"
    window_percentile: float = Field(default=99.9, gt=50, le=100)
    rails: Literal["one", "two"] = "one"
    extinction_db: float | None = Field(default=None, gt=0)
    crosstalk_db: float | None = Field(default=None, lt=-3.1)
    weight_error: float = Field(default=0.0, ge=0, lt=1)
    drift: float = Field(default=0.0, ge=0, lt=1)
    fraction_bits: int | None = Field(default=None, ge=0, le=8)
    sum_bits: int = Field(default=8, ge=4, le=12)
    images: int = Field(default=1000, ge=1)
    noise: ArrayNoise = ArrayNoise()
    seed: int = Field(default=1, ge=0, lt=1 << 64)

    @property
    def exact(self) -> bool:
        """Whether a cell transmits just what its code says."""
        return self.extinction_db is None and self.crosstalk_db is None and not (self.weight_error or self.drift)

    @property
    def fraction(self) -> int:
        """Binary digits of a cell below one step of its DAC."""
        return (0 if self.exact else 4) if self.fraction_bits is None else self.fraction_bits


#: Per data set and activation: SGD; NNSGD and CSGD after training; NNSGD and CSGD from scratch.
_RATES: dict[tuple[str, str], tuple[float, tuple[float, float], float, tuple[float, float], float]] = {
    ("mnist", "sigmoid"): (0.092, (0.78, 0.23), 0.002, (0.64, 0.6), 0.0067),
    ("mnist", "sinusoid"): (0.5, (0.9, 0.68), 0.009, (1.0, 1.0), 0.034),
    ("fashion-mnist", "sigmoid"): (0.01, (0.28, 0.3), 0.0027, (0.28, 0.91), 0.0091),
    ("fashion-mnist", "sinusoid"): (0.16, (0.9, 0.6), 0.008, (0.63, 0.5), 0.05),
    ("cifar10", "sigmoid"): (0.002, (0.37, 0.3), 0.0034, (0.5, 0.5), 0.0049),
    ("cifar10", "sinusoid"): (0.047, (0.91, 0.086), 0.002, (0.86, 0.68), 0.024),
    ("digits", "sigmoid"): (0.05, (0.28, 0.3), 0.005, (0.28, 0.9), 0.01),
    ("digits", "sinusoid"): (0.2, (0.9, 0.6), 0.01, (0.63, 0.5), 0.05),
}
#: Epochs of a whole training, and of each of the two phases of `post`.
_EPOCHS = {"mnist": (50, 5), "fashion-mnist": (50, 5), "cifar10": (100, 15), "digits": (60, 30)}


def published(
    data: str,
    activation: PhotonicActivation = "sinusoid",
    scenario: Scenario = "transform",
    optimizer: NonNegativeOptimizer = "nnsgd",
    seed: int = 1,
) -> PhotonicTrain:
    """The published settings of an MLP (`digits`: our own). A ReLU network is published for `transform` alone."""
    whole, phase = _EPOCHS.get(data, (0, 0))
    if not whole:
        raise BittrueError(f"no photonic settings for the data set {data!r}; known are {', '.join(_EPOCHS)}")
    batch = 32 if data == "digits" else 256
    if activation == "relu":
        if scenario != "transform":
            raise BittrueError(f"no settings of scenario {scenario} were published for ReLU networks; use `transform`")
        return PhotonicTrain(epochs=whole, lr=0.01, batch=batch, seed=seed)
    if (data, activation) not in _RATES:
        raise BittrueError(f"no photonic settings for the activation {activation!r}; known are sigmoid, sinusoid, relu")
    lr, post_nn, post_clip, scratch_nn, scratch_clip = _RATES[data, activation]
    (lr_in, lr_out), clip = (scratch_nn, scratch_clip) if scenario == "scratch" else (post_nn, post_clip)
    epochs = {"transform": (whole, 0), "post": (phase, phase), "scratch": (0, whole)}
    if scenario not in epochs:
        raise BittrueError(f"no scenario is named {scenario!r}; known are {', '.join(epochs)}")
    first, second = epochs[scenario]
    return PhotonicTrain(
        scenario=scenario,
        optimizer=optimizer,
        epochs=first,
        non_negative_epochs=second,
        batch=batch,
        lr=lr,
        lr_in=lr_in,
        lr_out=lr_out,
        clip_lr=clip,
        seed=seed,
    )


def architecture(data: str, activation: PhotonicActivation = "sinusoid") -> PhotonicPerceptron:
    """The published SimpleMLP of a data set; CIFAR-10 in grey levels."""
    if data == "cifar10":
        return PhotonicPerceptron(hidden=(1024, 512), activation=activation, grey=True)
    return PhotonicPerceptron(activation=activation)
