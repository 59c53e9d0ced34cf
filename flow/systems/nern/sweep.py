"""Sweeps of generated kernels: accuracy and bytes of generators of one original, over their settings and seeds.

The original is trained once. Every point trains a generator of its own for it, makes it and the target integers, trains
those where `integers.num_iterations` says so, and runs the golden simulator with the kernels that they make: what the
steps `train` and `quantize` do behind the original. A seed is that of generator and images (`generate.seed`); that of
the integers moves along, so the first seed is the recipe's own run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bittrue.flow.engine.sweeper import Shared, Sweeper, correct
from bittrue.flow.systems.nern import original
from bittrue.sim.errors import BittrueError

if TYPE_CHECKING:
    from bittrue.flow.systems.nern.recipe import Recipe
    from bittrue.models.data.sets import Data
    from bittrue.models.nern.networks import Resnet
    from bittrue.models.nern.settings import Generate, Integers, Nern, Optim
    from bittrue.models.nern.tours import Tour

#: What a target's kernels and their tours are made by: side, layers that are kept, mode.
Toured = tuple[int, tuple[str, ...], str | None]


@dataclass(frozen=True)
class Settings:
    """Of a point: the sections of its recipe, with its seed, and one thread."""

    nern: Nern
    optim: Optim
    generate: Generate
    integers: Integers


@dataclass(frozen=True, eq=False)
class Original(Shared):
    """The original network, and the tours over its kernels that points need."""

    network: Resnet
    tours: dict[Toured, list[Tour]]


class Generators(Sweeper):
    """Generators of one original network."""

    sections = ("nern", "optim", "generate", "integers")
    because = "a sweep trains generators of one original"
    step = "original"
    seed = "generate.seed"
    fixed = {
        "integers.seed": "it moves along with generate.seed",
        "generate.threads": "a point has one thread",
        "integers.threads": "a point has one thread",
        "nern.embeddings.permutations.path": "tours are the same wherever they are kept",
        "nern.embeddings.permutations.num_workers": "tours are the same however many are made at once",
    }
    seeds = 1
    reference = "original"
    figures = ("bytes", "share")
    cost = "bytes"
    names = {
        "nern.hidden_layer_size": "hidden size of the generator",
        "nern.num_blocks": "layers of the generator",
        "nern.embeddings.enc_levels": "levels of the embedding",
        "nern.embeddings.base": "base of the embedding",
        "nern.embeddings.permutations.permute_mode": "tours",
        "optim.lr": "learning rate",
        "generate.num_iterations": "steps of training",
        "generate.epochs": "epochs of training",
        "integers.num_iterations": "steps of training in integers",
    }
    examples = (
        "bittrue sweep nern-resnet8-fashion-mnist --over nern.hidden_layer_size=64,80,96 --images 2000",
        "bittrue sweep nern-resnet8-fashion-mnist --over nern.embeddings.permutations.permute_mode=crossfilter,null",
    )

    @property
    def code(self) -> tuple[str, ...]:
        return (*super().code, str(Path(__file__).resolve().with_name("steps.py")))

    def check(self, variant: Recipe) -> None:
        if variant.nern.checkpoint_path is not None:
            raise BittrueError(
                "sweep: a point trains a generator of its own, and nern.checkpoint_path names one to begin with; leave "
                "it out, and nern.init checkpoint with it"
            )

    def random(self, variant: Recipe) -> bool:  # noqa: ARG002 - weights and images are drawn in every point
        return True

    def share(self, base: Recipe, variants: Sequence[Recipe], folder: Path, data: Data, trained: bool) -> Original:  # noqa: ARG002
        """Tours are made here: a worker of a cluster may have no processes of its own, nor what was kept of them."""
        from bittrue.models.nern.networks import Resnet
        from bittrue.models.nern.target import Target
        from bittrue.models.nern.tours import tours
        from bittrue.models.training import storage

        network = storage.load(folder / original.NETWORK, Resnet)
        found: dict[Toured, list[Tour]] = {}
        for variant in variants:
            key = _toured(variant.nern)
            if key not in found:
                weights = [weight.numpy() for weight in Target(network, *key[:2]).weights()]
                how = variant.nern.embeddings.permutations
                found[key] = tours(weights, how.permute_mode, folder=how.path, workers=how.num_workers)
        return Original(data, network, found)

    def task(self, base: Recipe, variant: Recipe, seed: int, trained: bool) -> tuple[Settings, dict[str, Any]]:  # noqa: ARG002
        nern, one = variant.nern, {"threads": 1}
        permutations = type(nern.embeddings.permutations)(permute_mode=nern.embeddings.permutations.permute_mode)
        embeddings = nern.embeddings.model_copy(update={"permutations": permutations})
        integers = one | {"seed": variant.integers.seed + seed - variant.generate.seed}
        parts = {
            "nern": nern.model_copy(update={"embeddings": embeddings}),
            "optim": variant.optim,
            "generate": variant.generate.model_copy(update=one | {"seed": seed}),
            "integers": variant.integers.model_copy(update=integers),
        }
        return Settings(**parts), {name: part.model_dump(mode="json") for name, part in parts.items()}

    def evaluate(self, settings: Settings, shared: Original) -> dict[str, Any]:
        from bittrue.flow.systems.nern import steps
        from bittrue.models.nern import exact
        from bittrue.models.nern.target import Target

        data, key = shared.data, _toured(settings.nern)
        target = Target(shared.network, *key[:2])
        generator, _ = steps.trained(settings, target, data, lambda _: shared.tours[key])
        integers, network = steps.converted(settings.integers, generator, target, data)
        exact.fit(integers, network, generator, target, data, settings.integers)
        program = network.lower(name="sweep", dataset=data.name, classes=list(data.classes))
        size = steps.counted(integers, generator, target)
        right = correct(program, network, data.test)
        return {"correct": right, "bytes": sum(size["bytes"].values()), "share": size["share"]}

    def accuracy(self, shared: Original) -> float:
        from bittrue.models.training.loop import accuracy

        return accuracy(shared.network, shared.data.test)


def _toured(nern: Nern) -> Toured:
    return nern.output_size, nern.keep, nern.embeddings.permutations.permute_mode
