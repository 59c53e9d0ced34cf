"""Neuron sets: the parameters of an FS-neuron as data, published, fitted or read from a file.

    v = min(max(x, low), high);  y = 0
    for t = 0 .. K-1:   z = v > T[t];   y += d[t] z;   v -= h[t] z

A set is K float32 values each of h (what a spike takes from the membrane), d (what it is worth to the reader) and T
(the threshold), with the interval of inputs that they were made for. The dynamics have no unit of their own: a layer
whose values are larger than the set's interval scales them (`models.fs.neuron.FsActivation`).
Source: Stoeckl and Maass, "Optimized spiking neurons can classify images with high accuracy through temporal coding
with two spikes", 2021 (arXiv 2002.00860).
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bittrue.sim.errors import BittrueError
from bittrue.sim.files import write_whole
from bittrue.sim.operation import freeze
from bittrue.sim.reading import plain_json, shown

FORMAT, VERSION = "bittrue neuron set", 1
#: Most steps of a neuron: a spike word is an integer of 32 bits.
MAX_STEPS = 32
#: Float32 holds every integer below this: beyond it the integer neuron and the float32 neuron may part.
EXACT = 1 << 24
#: Most fraction bits: the smallest normal float32 is far away, the valid range of any set is not.
MAX_FRACTION_BITS = 23
#: Folder of the fitted sets that come with the package.
SHIPPED = Path(__file__).parent / "neurons"


@dataclass(frozen=True, eq=False)
class IntegerSet:
    """A neuron set in fixed point: what `sim.operations.fs_neuron.FsNeuron` and
    `sim.operations.spiking_linear.SpikingLinear` take.

    threshold, reset: int64 `[K]`, in units of `unit`, which is also the unit of the input codes
    decode:           int64 `[K]`, in units of `decode_unit`
    lowest, highest:  the valid codes; None: as far as the input's format reaches
    fraction_bits:    F, where `unit` is 2^-F; None where the unit is the set's own
    """

    threshold: np.ndarray
    reset: np.ndarray
    decode: np.ndarray
    fraction_bits: int | None
    lowest: int | None
    highest: int | None
    unit: float
    decode_unit: float

    @property
    def steps(self) -> int:
        """K, the number of time steps."""
        return len(self.threshold)


@dataclass(frozen=True, eq=False)
class NeuronSet:
    """The parameters of an FS-neuron, float32 `[K]` each, valid for inputs `low <= x <= high`.

    name, function: what it is called and what it approximates
    source:         where the numbers come from
    fit:            how they were found and what was measured, plain JSON values; empty for published sets
    """

    name: str
    h: np.ndarray
    d: np.ndarray
    T: np.ndarray
    low: float = -math.inf
    high: float = math.inf
    function: str = ""
    source: str = ""
    fit: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("h", "d", "T"):
            given = np.asarray(getattr(self, name))
            if given.ndim != 1 or given.dtype.kind not in "iuf":
                raise BittrueError(f"neuron set {self.name!r}: {name} must be a list of numbers, one a step")
            with np.errstate(over="ignore"):
                values = given.astype(np.float32)  # a copy
            if not np.isfinite(values).all():
                place = int(np.flatnonzero(~np.isfinite(values))[0])
                raise BittrueError(
                    f"neuron set {self.name!r}: {name}[{place}] is {given[place]}; expected finite float32"
                )
            values.flags.writeable = False
            object.__setattr__(self, name, values)
        lengths = {name: len(getattr(self, name)) for name in ("h", "d", "T")}
        if len(set(lengths.values())) > 1:
            counts = ", ".join(f"{count} of {name}" for name, count in lengths.items())
            raise BittrueError(f"neuron set {self.name!r}: {counts}; expected one of each per step")
        if not 1 <= self.steps <= MAX_STEPS:
            raise BittrueError(f"neuron set {self.name!r}: {self.steps} steps; expected 1 to {MAX_STEPS}")
        low, high = float(self.low), float(self.high)
        if math.isnan(low) or math.isnan(high) or not low < high:
            raise BittrueError(f"neuron set {self.name!r}: the valid range {low:g}..{high:g} is empty or not a number")
        object.__setattr__(self, "low", low)
        object.__setattr__(self, "high", high)

    @property
    def steps(self) -> int:
        """K, the number of time steps."""
        return len(self.T)

    # -- integers --------------------------------------------------------------------------------------
    @property
    def binary(self) -> bool:
        """Whether h = d = T halve from step to step: successive approximation, as the published ReLU set."""
        halves = self.T[-1] * np.exp2(np.arange(self.steps - 1, -1, -1, dtype=np.float32))
        return bool(self.T[-1] > 0 and all(np.array_equal(p, halves) for p in (self.h, self.d, self.T)))

    def own_unit(self) -> IntegerSet:
        """A binary set in its own unit u = T[K-1], with no rounding at all: parameters 2^(K-1) .. 2, 1.

        With the code v = ceil(x / u) the spike word `min(max(v - 1, 0), 2^K - 1)` is that of the float neuron at x,
        because the comparison is strict. With v = round(x / u) + 1 it is an unbiased quantiser of ReLU.
        """
        if not self.binary:
            raise BittrueError(
                f"neuron set {self.name!r} has no unit of its own: h, d and T do not halve from step to step; "
                "use integer(fraction_bits)"
            )
        powers = freeze(np.int64(1) << np.arange(self.steps - 1, -1, -1))
        unit = float(self.T[-1])
        lowest = None if math.isinf(self.low) else math.ceil(self.low / unit)
        highest = None if math.isinf(self.high) else math.floor(self.high / unit)
        return IntegerSet(powers, powers, powers, None, lowest, highest, unit, unit)

    def integer(self, fraction_bits: int, decode_fraction_bits: int | None = None) -> IntegerSet:
        """The set with F fraction bits: `reset = floor(h 2^F + 1/2)`, `decode` alike, `threshold = floor(T 2^F)`.

        An integer v exceeds T 2^F exactly where it exceeds its floor, so the threshold loses nothing. The spikes and
        the decoded value equal those of the float32 neuron with the parameters `quantized(F)`, bit for bit, on every
        input i / 2^F that is valid; F is refused where a value would leave the integers that float32 holds.

        `decode_fraction_bits` gives d a unit of its own (default: F), as it belongs to the reader of the spikes.
        """
        worth_bits = fraction_bits if decode_fraction_bits is None else decode_fraction_bits
        for bits in (fraction_bits, worth_bits):
            if not isinstance(bits, int | np.integer) or not 0 <= bits <= MAX_FRACTION_BITS:
                raise BittrueError(
                    f"neuron set {self.name!r}: {bits!r} fraction bits; expected an integer of 0 to {MAX_FRACTION_BITS}"
                )
        scale = 2.0**fraction_bits
        made = IntegerSet(
            threshold=freeze(np.floor(self.T.astype(np.float64) * scale).astype(np.int64)),
            reset=freeze(_round(self.h, scale)),
            decode=freeze(_round(self.d, 2.0**worth_bits)),
            fraction_bits=int(fraction_bits),
            lowest=None if math.isinf(self.low) else math.ceil(self.low * scale),
            highest=None if math.isinf(self.high) else math.floor(self.high * scale),
            unit=1 / scale,
            decode_unit=2.0**-worth_bits,
        )
        self._check(made, fraction_bits, worth_bits)
        return made

    def quantized(self, fraction_bits: int, decode_fraction_bits: int | None = None) -> NeuronSet:
        """The float set whose parameters are exactly those of `integer`; to compare the two neurons bit for bit."""
        made = self.integer(fraction_bits, decode_fraction_bits)
        return NeuronSet(
            name=f"{self.name}-f{fraction_bits}",
            h=made.reset * made.unit,
            d=made.decode * made.decode_unit,
            T=made.threshold * made.unit,
            low=-math.inf if made.lowest is None else made.lowest * made.unit,
            high=math.inf if made.highest is None else made.highest * made.unit,
            function=self.function,
            source=f"{self.name} with {fraction_bits} fraction bits",
        )

    def _check(self, made: IntegerSet, fraction_bits: int, worth_bits: int) -> None:
        """Refuse what float32 cannot hold as an integer; name the quantity and the most fraction bits that fit."""
        reach = membrane_reach(made)
        sums = int(max(np.maximum(made.decode, 0).sum(), -np.minimum(made.decode, 0).sum()))
        sizes = {
            "a threshold": (int(np.abs(made.threshold).max()), fraction_bits),
            "a reset": (int(np.abs(made.reset).max()), fraction_bits),
            "the valid range": (max(abs(b) for b in (made.lowest, made.highest, 0) if b is not None), fraction_bits),
            "the membrane": (reach, fraction_bits),
            "the decoded value": (sums, worth_bits),
        }
        what, (size, bits) = max(sizes.items(), key=lambda entry: entry[1][0])
        if size >= EXACT:
            fewer = bits - (size.bit_length() - EXACT.bit_length() + 1)
            raise BittrueError(
                f"neuron set {self.name!r}: with {bits} fraction bits {what} reaches {size}, and integers are exact "
                f"in float32 only below 2^24 = {EXACT}; use at most {fewer} fraction bits"
            )

    # -- files -----------------------------------------------------------------------------------------
    def to_json(self) -> dict[str, Any]:
        """What a file holds, plain JSON values; an unbounded end of the range is null."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "name": self.name,
            "function": self.function,
            "source": self.source,
            "steps": self.steps,
            "range": [None if math.isinf(self.low) else self.low, None if math.isinf(self.high) else self.high],
            **{name: [_shortest(v) for v in getattr(self, name)] for name in ("h", "d", "T")},
            "fit": dict(self.fit),
        }

    def save(self, path: Path | str) -> Path:
        """Write the set as a JSON file, complete or not at all."""
        return write_whole(Path(path), (_pretty(self.to_json()) + "\n").encode())


def _round(values: np.ndarray, scale: float) -> np.ndarray:
    """`floor(values scale + 1/2)`, int64: half toward +infinity, as everywhere."""
    return np.floor(values.astype(np.float64) * scale + 0.5).astype(np.int64)


def _shortest(value: np.float32) -> float:
    """The shortest decimal that is this float32 again when it is read."""
    short = float(str(value))
    return short if np.float32(short) == value else float(value)


def _pretty(content: Mapping[str, Any]) -> str:
    """JSON with one line a key: lists of parameters are read side by side."""
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in content.items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def membrane_reach(made: IntegerSet) -> int:
    """The largest |v| of any valid input at any step, exact; of an end that is unbounded no more than the threshold.

    All inputs with the same spikes so far are an interval that moves as one; every step splits some of them in two.
    """
    far = int(max(np.abs(made.threshold).max(), np.abs(made.reset).max())) + 1
    low = -far if made.lowest is None else made.lowest
    high = far if made.highest is None else made.highest
    pieces = [(low, high)]
    reach = max(abs(low), abs(high))
    for threshold, reset in zip(made.threshold.tolist(), made.reset.tolist(), strict=True):
        silent = [(a, min(b, threshold)) for a, b in pieces if a <= threshold]
        firing = [(max(a, threshold + 1) - reset, b - reset) for a, b in pieces if b > threshold]
        pieces = _merged(silent + firing)
        reach = max(reach, *(max(abs(a), abs(b)) for a, b in pieces))
    return reach


def _merged(pieces: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The union of closed integer intervals, so that their number stays small."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(pieces):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return merged


def load(path: Path | str) -> NeuronSet:
    """Read a set that `NeuronSet.save` wrote; what is wrong with a file is said in one sentence."""
    path = Path(path)
    try:
        content = plain_json(path.read_bytes())
    except OSError as error:
        raise BittrueError(f"neuron set {path} cannot be read ({error.strerror})") from error
    except BittrueError as error:
        raise BittrueError(
            f"neuron set {path} is not JSON text of one ({error}); write it with `bittrue fit`"
        ) from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BittrueError(f"{path} is not a neuron set: its key 'format' is not {FORMAT!r}")
    if content.get("version") != VERSION:
        raise BittrueError(
            f"neuron set {path} is of version {shown(content.get('version'))}, and only {VERSION} is known here; "
            "fit it again or use a newer bittrue"
        )
    missing = [key for key in ("name", "h", "d", "T", "range", "steps") if key not in content]
    if missing:
        raise BittrueError(f"neuron set {path} has no {', '.join(missing)}")
    bounds = content["range"]
    if (
        not isinstance(bounds, list)
        or len(bounds) != 2
        or not all(b is None or (_is_number(b) and math.isfinite(b)) for b in bounds)
    ):
        raise BittrueError(f"neuron set {path}: 'range' must be two numbers, null where unbounded, not {shown(bounds)}")
    for name in ("h", "d", "T"):
        if not isinstance(content[name], list) or not all(_is_number(v) for v in content[name]):
            raise BittrueError(f"neuron set {path}: {name} must be a list of numbers, one a step")
        if len(content[name]) != content["steps"]:
            raise BittrueError(
                f"neuron set {path}: {len(content[name])} values of {name} for {content['steps']} steps; "
                "expected one of each per step"
            )
    for name, kind, what in (
        ("name", str, "text"),
        ("function", str, "text"),
        ("source", str, "text"),
        ("fit", dict, "keys with values"),
    ):
        if not isinstance(content.get(name, kind()), kind):
            raise BittrueError(f"neuron set {path}: {name!r} must be {what}, not {shown(content[name])}")
    try:
        return NeuronSet(
            name=content["name"],
            h=np.array(content["h"], dtype=np.float64),
            d=np.array(content["d"], dtype=np.float64),
            T=np.array(content["T"], dtype=np.float64),
            low=-math.inf if bounds[0] is None else bounds[0],
            high=math.inf if bounds[1] is None else bounds[1],
            function=content.get("function", ""),
            source=content.get("source", ""),
            fit=content.get("fit", {}),
        )
    except (BittrueError, OverflowError) as error:
        raise BittrueError(f"{path}: {error}") from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def shipped() -> list[str]:
    """Names of the fitted sets that come with the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.json"))


def find(name_or_path: str | Path) -> NeuronSet:
    """A published set, a shipped one by its name, or a file."""
    text = str(name_or_path)
    if text in PUBLISHED:
        return PUBLISHED[text]
    if text in shipped():
        return load(SHIPPED / f"{text}.json")
    if Path(text).suffix == ".json" or Path(text).is_file():
        return load(text)
    known = [*PUBLISHED, *shipped()]
    near = difflib.get_close_matches(text, known, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)};"
    raise BittrueError(
        f"no neuron set is named {text!r}: {hint} A new one comes from `bittrue fit FUNCTION --out FILE.json`, "
        "and the file's path is then its name"
    )


# -- published sets ------------------------------------------------------------------------------------
_SOURCE = "Stoeckl and Maass 2021 (arXiv 2002.00860), FS-neurons repository, fs_weights.py at 899af4e"
_HALVES = 25.0 * np.exp2(-np.arange(1.0, 11.0))

#: The published sets. Beyond the valid range their error grows quickly (the sigmoid set is above 1.1 at x = 12).
PUBLISHED: dict[str, NeuronSet] = {
    "relu": NeuronSet("relu", _HALVES, _HALVES, _HALVES, high=25.0, function="relu", source=_SOURCE),
    "swish": NeuronSet(
        name="swish",
        h=np.array(
            [0.7844085, 1.7550646, 1.4212719, 1.9244663, 1.4400164, 1.9249276, 1.6100428, 1.29061]
            + [0.83985287, 3.0827985, 0.43503317, 0.5155389, 0.3269445, 7.618048, -14.419675, 0.0]
        ),
        d=np.array(
            [0.40088242, 1.8856316, 1.4915457, 1.947229, 1.4717816, 1.9147849, 1.6389303, 1.2934641]
            + [0.8703124, 0.68460804, 0.44262582, 0.32832766, 0.13907616, -0.26217145, 0.23736191, -0.14830568]
        ),
        T=np.array(
            [0.05946945, 1.6541206, 1.3066754, 1.3267198, 1.1000695, 1.2308974, 1.1188028, 0.9472501]
            + [0.5447531, 1.0236325, 0.11921431, -0.12855051, -0.44731247, -2.1383545, 1.0, -4.109145]
        ),
        low=-8.0,
        high=13.8,
        function="swish",
        source=_SOURCE,
    ),
    "sigmoid": NeuronSet(
        name="sigmoid",
        h=np.array(
            [1.6558512, 1.0989026, 10.7739, 1.3579437, 1.0146959, 0.8972655]
            + [2.1207616, 1.6949341, 3.6397197, -2.1483946, 5.1177883, 0.0]
        ),
        d=np.array(
            [0.37689912, 0.21977554, 0.40271342, 0.17005783, 0.09584032, 0.06293014]
            + [0.04360681, -0.0443096, 0.01999909, 0.07107325, 0.01502249, 0.01021793]
        ),
        T=np.array(
            [-0.00824843, -0.9319625, 1.0080122, -1.2074932, -1.7885877, -2.7065408]
            + [-3.2715735, 0.07132628, -3.719372, -0.543918, -3.7693157, -5.5447803]
        ),
        low=-10.0,
        high=10.0,
        function="sigmoid",
        source=_SOURCE,
    ),
}
