"""The system `cnn`: convolutional networks, converted as any network of a user's own is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bittrue.flow.engine.system import TRAINING, System

if TYPE_CHECKING:
    from bittrue.flow.engine.steps import Workspace
    from bittrue.flow.systems.cnn.recipe import Recipe


class Cnn(System):
    """Plain, residual and depthwise networks, trained in float and converted to INT8 or less."""

    name = "cnn"
    title = "convolutional networks (plain, ResNet, MobileNet), converted as one of your own is"
    reads = {"train": ("network", "train"), "quantize": ("convert", "qat"), "lower": ()}

    @property
    def code(self) -> tuple[str, ...]:
        return (*TRAINING, *self.sources("recipe.py", "steps.py"))

    @property
    def recipe(self) -> type[Recipe]:
        from bittrue.flow.systems.cnn.recipe import Recipe

        return Recipe

    def train(self, recipe: Recipe, work: Workspace) -> dict[str, Any]:
        from bittrue.flow.systems.cnn import steps

        return steps.train(recipe, work)

    def quantize(self, recipe: Recipe, work: Workspace) -> dict[str, Any]:
        from bittrue.flow.systems.cnn import steps

        return steps.quantize(recipe, work)

    def lower(self, recipe: Recipe, work: Workspace) -> dict[str, Any]:
        from bittrue.flow.systems.cnn import steps

        return steps.lower(recipe, work)


SYSTEM = Cnn()
