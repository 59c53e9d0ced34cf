"""The price of alpha in a photonic network, for the report: alpha as built, from data, and as published.

An alpha above the data costs light, and bits of the converter (`models.light.price`). For activations with a bound
the published alpha is that bound. For ReLU, which has none, `models.light.alpha` compares published constants with
alphas from data; beside a network of another activation, on a ReLU network of the same sizes, trained on the same data
for a few epochs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bittrue.flow.engine import training
from bittrue.flow.engine.steps import Workspace
from bittrue.flow.systems.light.recipe import Recipe
from bittrue.models.light.settings import Calibrate, published
from bittrue.sim.errors import BittrueError

if TYPE_CHECKING:
    from bittrue.models.data.sets import Data
    from bittrue.models.light.network import SimpleMLP
    from bittrue.models.light.transform import NonNegativeNetwork

#: Test images on which the alphas of a ReLU network are compared.
COMPARED = 1000


def table(recipe: Recipe, work: Workspace, twin: NonNegativeNetwork, data: Data) -> list[dict[str, Any]]:
    """Rows of `models.light.price.Price` with the activation (`network`) and where alpha is from (`alpha_from`).

    The rows as built come first, with every layer; the others are without the first layer, whose alpha is 1. Rows of
    the comparison on a ReLU network also have `sqnr_db` and `accuracy` of the converted network, by window, without
    training on the array.
    """
    from bittrue.models.light import train as photonic_train
    from bittrue.models.light.network import SimpleMLP
    from bittrue.models.light.transform import transform
    from bittrue.models.training import storage

    function, method = recipe.network.activation, recipe.calibrate.method
    percentile = recipe.calibrate.model_copy(update={"method": "percentile", "alpha": None})
    from_data = f"percentile {percentile.percentile:g} of the data"
    names = {"bound": "bound, as published", "percentile": from_data, "constant": "constant of the recipe"}
    work.progress("light", 0, 1)
    rows = _rows(recipe, twin, data, f"{names[method]} (as built)", {})
    regular = storage.load(work.upstream["train"] / "network.pt", SimpleMLP)
    if function == "relu":
        return rows + _compared(recipe, work, regular, data, percentile)
    if method != "percentile":
        try:
            found = transform(regular, percentile, images=data.train.images)
        except BittrueError:
            pass  # a layer that is dark on nearly all images has no percentile to take alpha from
        else:
            rows += _rows(recipe, twin, data, from_data, {layer.name: float(layer.alpha) for layer in found.layers})
    if recipe.beside.relu_epochs:
        network = recipe.network.model_copy(update={"activation": "relu"})
        settings = published(data.name, "relu", seed=recipe.train.seed)
        settings = settings.model_copy(update={"epochs": recipe.beside.relu_epochs})
        trained = photonic_train.train(
            data, settings, network, Calibrate(method="percentile"), progress=training.watch(work)
        )
        rows += _compared(recipe, work, trained.regular, data, percentile)
    return rows


def _compared(
    recipe: Recipe, work: Workspace, regular: SimpleMLP, data: Data, percentile: Calibrate
) -> list[dict[str, Any]]:
    """A ReLU network at alphas from data and at the published ones."""
    from bittrue.models.light.alpha import PUBLISHED, compare_alphas

    images, share = min(COMPARED, len(data.test)), percentile.percentile
    rows = []
    for cost in compare_alphas(regular, data, recipe.array, percentile=share, images=images, progress=work.progress):
        origin = f"percentile {share:g} of the data"
        if cost.alpha is not None:
            origin = f"published for {PUBLISHED[cost.alpha]}"
        accuracy = {"pedestal": cost.accuracy_pedestal, "full": cost.accuracy_full}
        for layer in cost.layers:
            sqnr = {"pedestal": layer.pedestal.sqnr_db, "full": layer.full.sqnr_db}
            row = {"network": "relu", "alpha_from": origin} | asdict(layer.price)
            rows.append(row | {"sqnr_db": sqnr, "accuracy": accuracy})
    return rows


def _rows(
    recipe: Recipe, twin: NonNegativeNetwork, data: Data, origin: str, alphas: Mapping[str, float]
) -> list[dict[str, Any]]:
    """Prices at these alphas; without any, as built and with the first layer."""
    from bittrue.models.light.price import prices

    first = twin.layers[0].name
    chosen = {name: alpha for name, alpha in alphas.items() if name != first}
    bits = {"input_bits": recipe.array.input_bits, "weight_bits": recipe.array.weight_bits}
    kept = [price for price in prices(twin, data.test.images, chosen, **bits) if not alphas or price.name != first]
    begin = {"network": recipe.network.activation, "alpha_from": origin}
    return [begin | asdict(price) | {"sqnr_db": None, "accuracy": None} for price in kept]
