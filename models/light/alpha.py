"""Alpha from data against published alphas: what each costs in light, in bits of the converter, and in its result.

A ReLU has no bound, so a non-negative network needs another upper bound for the inputs of its layers: alpha. It was
published as a constant, 14 for small networks and up to 100 for deep ones; calibrated, it is a percentile of the
layer's inputs on training images. Every alpha is brought to the same array, without training on it: the price of light
and of an exact converter comes from `models.light.price`, the signal over what the real converter adds from
`models.light.measure`, for a window from darkness to full scale and for one around the pedestal. That signal is
the layer's own input codes; that their step grows with alpha is seen in the accuracy, and in `Price.fine_input_bits`.

Source of the published alphas: the code published with Kirtas et al., arXiv 2310.01084.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bittrue.models.data.sets import Data, Split
from bittrue.models.graph.lower import lower
from bittrue.models.light.convert import convert
from bittrue.models.light.measure import Conversion, conversions
from bittrue.models.light.network import SimpleMLP
from bittrue.models.light.price import Price, prices
from bittrue.models.light.settings import Array, Calibrate
from bittrue.models.light.transform import transform
from bittrue.models.training.loop import accuracy
from bittrue.sim.errors import BittrueError

#: Published alphas of ReLU networks, and what they were published for.
PUBLISHED = {14.0: "small networks", 25.0: "AlexNet, ResNet-18", 100.0: "VGG-16, ResNet-50"}
WINDOWS = ("pedestal", "full")
Report = Callable[[str, float, float], None]


@dataclass(frozen=True)
class LayerCost:
    """A layer at one alpha. `price.fine_adc_bits` keeps the input step that it has at the calibrated alpha; `pedestal`
    and `full` are the converter with these windows."""

    name: str
    alpha: float
    price: Price
    pedestal: Conversion
    full: Conversion


@dataclass(frozen=True)
class AlphaCost:
    """A network at one alpha. Its first layer, whose inputs are light and whose alpha is 1, is left out of `layers`.

    alpha               None where it is each layer's own, from data
    accuracy_float      of the non-negative network, whose inputs above alpha are clipped
    accuracy_pedestal   of the converted one, by the window of its converters; without training on the array
    accuracy_full       the same
    """

    alpha: float | None
    accuracy_float: float
    accuracy_pedestal: float
    accuracy_full: float
    layers: tuple[LayerCost, ...]


def compare_alphas(
    network: SimpleMLP,
    data: Data,
    array: Array | None = None,
    *,
    alphas: Sequence[float] = tuple(PUBLISHED),
    percentile: float = 99.9,
    images: int | None = None,
    progress: Report | None = None,
) -> list[AlphaCost]:
    """The network at alphas from data, and at each of `alphas`, on the first test images (all unless told).

    network   a trained one with ReLU; a photonic activation has its bound, which is its alpha
    array     geometry and converters; its window is taken as both in turn, and its noise as it is
    """
    array = array or Array()
    if images is not None and not 1 <= images <= len(data.test):
        raise BittrueError(f"alphas: {data.name} has {len(data.test):,} test images, not {images:,}; give fewer")
    if network.network.activation != "relu":
        raise BittrueError(
            f"alphas: a {network.network.activation} has a bound, which is its alpha; give a ReLU network"
        )
    split = Split(data.test.images[:images], data.test.labels[:images])
    calibrate = Calibrate(method="percentile", percentile=percentile, images=array.images)
    calibrated = transform(network, calibrate, images=data.train.images)
    later = [layer.name for layer in calibrated.layers[1:]]
    result = []
    for done, alpha in enumerate((None, *alphas)):
        if progress is not None:
            progress("alpha from data" if alpha is None else f"alpha {alpha:g}", done, 1 + len(alphas))
        twin = calibrated
        if alpha is not None:
            twin = transform(network, Calibrate(method="constant", alpha=alpha))
        chosen = {} if alpha is None else dict.fromkeys(later, alpha)
        bits = {"input_bits": array.input_bits, "weight_bits": array.weight_bits}
        light = prices(calibrated, split.images, chosen, **bits)
        scores, rows = {}, {}
        for window in WINDOWS:
            integer = convert(twin, data, array.model_copy(update={"window": window}))
            codes, program = integer.encode(split.images), lower(integer)
            scores[window] = float((program(codes).argmax(1) == split.labels).mean())
            rows[window] = conversions(integer, program, codes)
        costs = zip(twin.layers, light, rows["pedestal"], rows["full"], strict=True)
        layers = tuple(LayerCost(layer.name, float(layer.alpha), *cost) for layer, *cost in costs)[1:]
        result.append(AlphaCost(alpha, accuracy(twin, split), scores["pedestal"], scores["full"], layers))
    return result
