"""The price of alpha in a photonic network, for the report: alpha as built, from data, and as published.

An alpha above the data costs light, and bits of the converter (`models.photonic_light`). For activations with a bound
the published alpha is that bound. For ReLU, which has none, 14, 25 and 100 were published; beside a network of another
activation their price is shown on a ReLU network of the same sizes, trained on the same data for a few epochs.

Source of the published alphas: the code published with Kirtas et al., arXiv 2310.01084.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flow import training
from flow.steps import Work
from models.photonic_settings import Calibrate, published
from sim.errors import BittrueError

if TYPE_CHECKING:
    from flow.photonic import Recipe
    from models.data import Data
    from models.photonic_transform import NonNegativeNetwork

#: Published alphas of ReLU networks, and what they were published for.
RELU = {14.0: "small networks", 25.0: "AlexNet, ResNet-18", 100.0: "VGG-16, ResNet-50"}


def table(recipe: Recipe, work: Work, twin: NonNegativeNetwork, data: Data) -> list[dict[str, Any]]:
    """Rows of `models.photonic_light.Price` for test images, with the activation (`network`) and where alpha is from.

    The rows as built come first, with every layer; the others are without the first layer, whose alpha is 1.
    """
    from models import photonic_train, storage
    from models.photonic_net import SimpleMLP
    from models.photonic_transform import transform

    function, method = recipe.network.activation, recipe.calibrate.method
    percentile = recipe.calibrate.model_copy(update={"method": "percentile", "alpha": None})
    from_data = f"percentile {percentile.percentile:g} of the data"
    names = {"bound": "bound, as published", "percentile": from_data, "constant": "constant of the recipe"}
    work.progress("light", 0, 1)
    rows = _rows(recipe, twin, data, function, f"{names[method]} (as built)", {})
    if method != "percentile":
        regular = storage.load(work.upstream["train"] / "network.pt", SimpleMLP)
        try:
            found = transform(regular, percentile, images=data.train.images)
        except BittrueError:
            pass  # a layer that is dark on nearly all images has no percentile to take alpha from
        else:
            alphas = {layer.name: float(layer.alpha) for layer in found.layers}
            rows += _rows(recipe, twin, data, function, from_data, alphas)
    if function == "relu":
        return rows + _published(recipe, twin, data)
    if recipe.beside.relu_epochs:
        network = recipe.network.model_copy(update={"activation": "relu"})
        settings = published(data.name, "relu", seed=recipe.train.seed)
        settings = settings.model_copy(update={"epochs": recipe.beside.relu_epochs})
        calibrate = Calibrate(method="percentile")
        relu = photonic_train.train(data, settings, network, calibrate, progress=training.watch(work)).twin
        rows += _rows(recipe, relu, data, "relu", from_data, {layer.name: float(layer.alpha) for layer in relu.layers})
        rows += _published(recipe, relu, data)
    return rows


def _published(recipe: Recipe, twin: NonNegativeNetwork, data: Data) -> list[dict[str, Any]]:
    rows = []
    for alpha, networks in RELU.items():
        alphas = dict.fromkeys((layer.name for layer in twin.layers), alpha)
        rows += _rows(recipe, twin, data, "relu", f"published for {networks}", alphas)
    return rows


def _rows(
    recipe: Recipe, twin: NonNegativeNetwork, data: Data, function: str, origin: str, alphas: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Prices at these alphas; without any, as built and with the first layer."""
    from models.photonic_light import prices

    first = twin.layers[0].name
    chosen = {name: alpha for name, alpha in alphas.items() if name != first}
    bits = {"input_bits": recipe.array.input_bits, "weight_bits": recipe.array.weight_bits}
    found = prices(twin, data.test.images, chosen, **bits)
    kept = [price for price in found if not alphas or price.name != first]
    return [{"network": function, "alpha_from": origin} | asdict(price) for price in kept]
