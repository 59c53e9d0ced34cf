"""What `bittrue mimo validate` does: a trained network in several modes, over random pairings of the images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bittrue.flow import stages
from bittrue.flow.cli import options
from bittrue.flow.engine import kernels, steps, training
from bittrue.flow.engine import recipe as recipes
from bittrue.flow.systems.mimo.recipe import Recipe
from bittrue.sim.errors import BittrueError

if TYPE_CHECKING:
    from bittrue.models.data.sets import Data
    from bittrue.models.superposition.networks import Superposition


def modes(text: str | None) -> list[int] | None:
    """`1,2,4` as numbers; None stays."""
    if text is None:
        return None
    wanted = f"--images {text!r}: write numbers of images at a time, from 1, such as 1,2,4"
    return options.numbers(text, 1, None, wanted, f"--images {text!r}: a number")


def run(
    source: str | Path,
    overrides: Sequence[str],
    images: Sequence[int] | None,
    pairings: int,
    *,
    seed: int = 0,
    split: str = "test",
    network: Path | None = None,
    flow: Path | None = None,
    listener: Any = None,
) -> dict[str, Any]:
    """Evaluate the recipe's network, trained by the flow in its folder if it is not yet, or that of a file.

    images     numbers of images at a time; None: all that divide N
    pairings   random ones for each; with one image at a time there is but one
    split      `test` or `val`

    Returns the modes: images, whether the recipe trained it, accuracies by pairing, their mean and standard deviation
    (None of a single one), seconds an image.
    """
    given = opened("validate", source, overrides, split, network, flow, listener, images)
    return _evaluated(given, split, pairings, seed)


@dataclass(frozen=True)
class Opened:
    """A recipe with its trained network, of the file `path`, and its data; `wanted` are numbers of images at a time."""

    recipe: Recipe
    path: Path
    model: Superposition
    data: Data
    wanted: list[int]
    listener: Any


def opened(
    command: str,
    source: str | Path,
    overrides: Sequence[str],
    split: str,
    network: Path | None,
    flow: Path | None,
    listener: Any,
    images: Sequence[int] | None = None,
) -> Opened:
    """What a command of trained networks begins with; the network is trained by the flow if it is not yet."""
    recipe = recipes.load(source, overrides)
    if not isinstance(recipe, Recipe):
        raise BittrueError(
            f"mimo {command}: recipe {recipe.name} is of the system {recipe.system!r}, whose networks take one image "
            "at a time; take one of the system 'mimo', such as mimonet-fashion-mnist"
        )
    if split not in ("test", "val"):
        raise BittrueError(f"--split {split!r}: take test or val")
    wanted = list(recipe.network.modes) if images is None else list(images)
    if wrong := [n for n in wanted if n not in recipe.network.modes]:
        raise BittrueError(
            f"--images: {wrong[0]} at a time do not divide the {recipe.network.slots} slots of {recipe.name}; take "
            f"some of {', '.join(map(str, recipe.network.modes))}"
        )
    kernels.hold()
    listener = listener or steps.Silent()
    if network is None:
        folder = flow or Path("build") / recipe.name
        (outcome,) = steps.run(stages.steps(recipe), recipe, folder, "train", None, listener)
        network = outcome.folder / "network.pt"
    listener.begin(command)
    data = training.data_of(recipe)
    return Opened(recipe, network, _network(recipe, network, data), data, wanted, listener)


def _evaluated(given: Opened, split: str, pairings: int, seed: int) -> dict[str, Any]:
    from bittrue.models.superposition import evaluate
    from bittrue.models.training.precision import threads

    recipe, told = given.recipe, []
    trained = recipe.train.trained(recipe.network.slots)
    images = getattr(given.data, split)
    with threads(recipe.train.threads):
        for done, n in enumerate(given.wanted):
            given.listener.progress(f"{n} at a time", done, len(given.wanted))
            (mode,) = evaluate.validate(given.model, images, [n], pairings, seed)
            told.append({"images": n, "trained": n in trained, "accuracies": list(mode.accuracies), "mean": mode.mean})
            told[-1] |= {"deviation": mode.deviation, "seconds_per_image": mode.seconds}
    return {"network": recipe.name, "file": str(given.path), "images": len(images), "split": split, "modes": told}


def _network(recipe: Recipe, path: Path, data: Data) -> Superposition:
    """The network of a file, refused where it is not that of the recipe."""
    from bittrue.models.superposition.networks import Superposition
    from bittrue.models.superposition.train import differences
    from bittrue.models.training import storage

    model = storage.load(path, Superposition)
    expected = {"network": recipe.network.model_dump(mode="json"), "shape": list(data.shape)}
    expected |= {"classes": len(data.classes), "gain": data.gain}
    if differ := differences(model.describe(), expected):
        raise BittrueError(
            f"network {path}: it is not that of recipe {recipe.name}: {differ}; change the recipe's section network, "
            "or give a file that was trained with it"
        )
    return model
