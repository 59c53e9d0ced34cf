"""The system `cnn`: convolutional networks, converted as any network of a user's own is."""

from __future__ import annotations

from bittrue.flow.engine.system import TRAINING, System


class Cnn(System):
    """Plain, residual and depthwise networks, trained in float and converted to INT8 or less."""

    name = "cnn"
    title = "convolutional networks (plain, ResNet, MobileNet), converted as one of your own is"
    reads = {"train": ("network", "train"), "quantize": ("convert", "qat"), "lower": ()}

    @property
    def code(self) -> tuple[str, ...]:
        return (*TRAINING, *self.sources("recipe.py", "steps.py"))


SYSTEM = Cnn()
