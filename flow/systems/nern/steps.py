"""What `train` does, and what is not there yet: a network and the generator of its kernels, in float."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bittrue.flow.engine import kernels, training
from bittrue.flow.engine.statistics import share
from bittrue.flow.engine.steps import Workspace
from bittrue.flow.systems.nern.recipe import Recipe
from bittrue.sim.errors import BittrueError

if TYPE_CHECKING:
    from bittrue.models.data.sets import Data
    from bittrue.models.nern.generator import Generator
    from bittrue.models.nern.target import Target


@training.one_thread
def train(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """Float training of the original, tours over its kernels, float training of the generator; leaves `network.pt`
    (the original) and `generator.pt`. `accuracy` is that of the original with generated kernels."""
    from bittrue.models.nern import evaluate, original
    from bittrue.models.nern import train as generate
    from bittrue.models.nern.networks import Resnet
    from bittrue.models.nern.target import Target
    from bittrue.models.nern.tours import tours
    from bittrue.models.training import storage
    from bittrue.models.training.loop import accuracy

    data = training.data_of(recipe)
    model = Resnet.for_data(recipe.network, data, recipe.train.seed)
    first = original.fit(
        model, data, recipe.train, side=recipe.nern.output_size, keep=recipe.nern.keep,
        checkpoint=work.scratch / "original.pt", progress=training.watch(work),
    )  # fmt: skip
    storage.save(model, work.folder / "network.pt")
    target = Target(model, recipe.nern.output_size, recipe.nern.keep)
    permutations = recipe.nern.embeddings.permutations

    def tour(weights: Any) -> Any:
        return tours(
            weights, permutations.permute_mode, folder=permutations.path or work.scratch,
            workers=permutations.num_workers, progress=lambda done, of: work.progress("tours", done, of),
        )  # fmt: skip

    generator = evaluate.begin(
        recipe.nern, target, seed=recipe.generate.seed, learn_classifier=recipe.generate.learn_fc_layer, tour=tour
    )
    done = generate.fit(
        generator, target, data, recipe.optim, recipe.generate, checkpoint=work.scratch / "checkpoint.pt",
        folder=work.folder, progress=training.watch(work),
    )  # fmt: skip
    storage.save(generator, work.folder / "generator.pt")
    work.progress("evaluating", 1, 1)
    before, after = accuracy(model, data.test), evaluate.accuracy(target, generator, data.test)
    size = sizes(recipe, generator, target, data)
    words = [f"original {share(before, len(data.test))}", f"with generated kernels {share(after, len(data.test))}"]
    words.append(f"generator of {size['bytes']:,} bytes, {100 * size['share']:.1f} % of the target in INT8")
    return training.history(first, done.history) | {
        "status": "; ".join(words),
        "accuracy": after,
        "accuracy_original": before,
        "step": done.step,
        "greedy_evaluations": done.greedy,
        "size": size,
        "rms": [[e.path, e.weights, e.differences, e.smoothness] for e in evaluate.errors(target, generator)],
        "kernels": kernels.described(),
        "images": {"train": len(data.train), "val": len(data.val), "test": len(data.test)},
    }


def sizes(recipe: Recipe, generator: Generator, target: Target, data: Data) -> dict[str, Any]:
    """Bytes of a generator in INT8, by what they hold, beside those of the generated weights."""
    from bittrue.models.nern.sizes import size

    height, width, channels = data.shape
    found = size(target.network, (channels, height, width), generator.settings, recipe.name)
    parts = found.parts
    return {
        "parts": parts,
        "bytes": sum(parts.values()),
        "target": found.weights,
        "share": found.share,
        "parameters": found.parameters,
        "kernels": found.kernels,
        "macs": {"kernel": found.macs, "all": found.every, "inference": found.inference},
    }


def quantize(recipe: Recipe, work: Workspace) -> dict[str, Any]:  # noqa: ARG001 - a step is called so
    """Not there yet: says so."""
    raise BittrueError(
        f"quantize: the network of {recipe.name} and the generator of its kernels are trained, but generators are not "
        "yet made into integers, so that there is no program, no RTL and no HLS of one; end the flow with --until "
        "train, whose result has the accuracies and the bytes"
    )
