"""What `train`, `quantize` and `lower` do: the generator of a network's kernels in floats, then both in integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bittrue.flow.engine import kernels, training
from bittrue.flow.engine.statistics import share
from bittrue.flow.engine.steps import Workspace
from bittrue.flow.systems.nern import original
from bittrue.flow.systems.nern.recipe import Recipe
from bittrue.sim.errors import BittrueError
from bittrue.sim.files import write_whole
from bittrue.sim.reading import sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from bittrue.models.data.sets import Data
    from bittrue.models.int8.converted import Converted
    from bittrue.models.nern.generator import Generator
    from bittrue.models.nern.integers import Integers as Whole
    from bittrue.models.nern.settings import Integers
    from bittrue.models.nern.target import Target
    from bittrue.models.nern.tours import Tour
    from bittrue.models.nern.train import Outcome


@training.one_thread
def train(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """Tours over the original's kernels and float training of their generator; leaves `generator.pt`. `accuracy` is
    that of the original with generated kernels, and `history` begins with the original's."""
    from bittrue.models.nern import evaluate
    from bittrue.models.nern.tours import tours
    from bittrue.models.training import storage

    data, target = original.target(recipe, work)
    permutations = recipe.nern.embeddings.permutations

    def tour(weights: Any) -> Any:
        return tours(
            weights, permutations.permute_mode, folder=permutations.path or work.scratch,
            workers=permutations.num_workers, progress=lambda done, of: work.progress("tours", done, of),
        )  # fmt: skip

    generator, done = trained(
        recipe, target, data, tour, checkpoint=work.scratch / "checkpoint.pt", folder=work.folder,
        progress=training.watch(work),
    )  # fmt: skip
    storage.save(generator, work.folder / "generator.pt")
    work.progress("evaluating", 1, 1)
    before, after = work.results["original"]["accuracy"], evaluate.accuracy(target, generator, data.test)
    size = sizes(generator, target, data)
    words = [f"original {share(before, len(data.test))}", f"with generated kernels {share(after, len(data.test))}"]
    words.append(f"generator of {size['parameters']:,} parameters for {size['target']:,} weights")
    return training.history(done.history, begun=work.results["original"]) | {
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


def trained(
    settings: Any, target: Target, data: Data, tour: Callable[[Sequence[np.ndarray]], list[Tour]], **options: Any
) -> tuple[Generator, Outcome]:
    """A generator of the target's kernels, trained in floats, and what its training did.

    settings   with the recipe's sections `nern`, `optim` and `generate`
    tour       makes the tours of the layers' weights; `options` are those of `models.nern.train.fit`
    """
    from bittrue.models.nern import evaluate
    from bittrue.models.nern import train as generate

    learned = settings.generate.learn_fc_layer
    begun = evaluate.begin(settings.nern, target, seed=settings.generate.seed, learn_classifier=learned, tour=tour)
    return begun, generate.fit(begun, target, data, settings.optim, settings.generate, **options)


def sizes(generator: Generator, target: Target, data: Data) -> dict[str, Any]:
    """Parameters of a generator beside the weights that it makes, and what making them takes; its bytes depend on its
    integers, and `quantize` tells them."""
    from bittrue.models.nern.sizes import size

    height, width, channels = data.shape
    found = size(target.network, (channels, height, width), generator.settings)
    return {
        "target": found.weights,
        "parameters": found.parameters,
        "kernels": found.kernels,
        "macs": {"kernel": found.macs, "all": found.every, "inference": found.inference},
    }


#: What `quantize` leaves beside the target's program: those of the boot, and where its codes go.
BOOT = ("generator.npz", "accelerator.npz", "places.npy", "coordinates.npy", "kernels.npy", "boot.json")


def converted(settings: Integers, generator: Generator, target: Target, data: Data) -> tuple[Whole, Converted]:
    """Generator and target in integers, the target with the kernels that the generator's integers make."""
    from bittrue.models.nern import accelerator, exact
    from bittrue.models.nern.integers import Integers as Whole

    integers = Whole(generator, settings)
    codes, units = exact.codes(integers, generator, target), integers.units.tolist()
    return integers, accelerator.convert(target, codes, units, data, settings.images, generator.others())


def counted(integers: Whole, generator: Generator, target: Target) -> dict[str, Any]:
    """Bytes of a generator in integers by what they hold, and their share of the generated weights, a byte each."""
    parts, weights = integers.bytes(generator), sum(layer.weights for layer in target.layers)
    return {"bytes": parts, "target": weights, "share": sum(parts.values()) / weights}


@training.one_thread
def quantize(recipe: Recipe, work: Workspace) -> dict[str, Any]:
    """Generator and target in integers, and the training of the generator through both; leaves their programs.

    `program.npz`      the target with the generated weights as constants, and what `write_lowered` leaves with it
    `generator.npz`    the program whose frame is a kernel
    `accelerator.npz`  the target's program with the generated weights as held inputs
    `places.npy`, `coordinates.npy`, `kernels.npy`   the boot: its samples, their codes, and where each is written
    `boot.json`        the held inputs that places count through, in their order

    Here it is held that the golden generator makes the codes that were trained, and that the accelerator which booted
    has the logits of the integers on the whole test set.
    """
    import numpy as np
    import torch

    from bittrue.flow.systems.nern import pictures
    from bittrue.models.graph.lower import lower as lowered
    from bittrue.models.layers.lowering import whole
    from bittrue.models.nern import accelerator, boot, exact
    from bittrue.models.nern.generator import Generator
    from bittrue.models.training import storage
    from bittrue.models.training.loop import accuracy, predict
    from bittrue.models.training.loop import share as right

    (data, target), settings = original.target(recipe, work), recipe.integers
    generator = storage.load(work.upstream["train"] / "generator.pt", Generator)
    generator.belongs_to(target)
    work.progress("calibrating", 0, 1)
    integers, network = converted(settings, generator, target, data)
    before = accuracy(network, data.test)
    done = exact.fit(integers, network, generator, target, data, settings, progress=training.watch(work))
    work.progress("evaluating", 1, 1)
    meta = {"name": recipe.name, "dataset": data.name}
    made = lowered(integers.eval(), name=f"{recipe.name} generator", units=integers.units.tolist())
    program = network.lower(**meta, classes=list(data.classes))
    system = boot.system(generator, made, target, network, program)
    booted, layers = system.booted(boot.NETWORK), accelerator.written_layers(network)
    for path, layer in layers.items():
        wrong = int((booted[f"{layer.label}.weight"] != whole(layer.weight)).sum())
        if wrong:
            raise BittrueError(
                f"quantize: {wrong} weights of {path} that the golden generator makes are not those of its network, "
                "which is a fault of bittrue; report it with the recipe"
            )
    x = network.encode(data.test.images)
    logits, expected = (
        system({boot.NETWORK: [x]})[boot.NETWORK],
        whole(torch.from_numpy(predict(network, data.test.images))),
    )
    if wrong := int((logits != expected).sum()):
        raise BittrueError(
            f"quantize: {wrong} of {logits.size} results of the accelerator that booted are not those of its network, "
            "which is a fault of bittrue; report it with the recipe"
        )
    training.write_lowered(work, program, network, data)
    made.save(work.folder / BOOT[0])
    system.programs[boot.NETWORK].save(work.folder / BOOT[1])
    contents = system.links[0].places, system.boots[boot.GENERATOR][0], system.boot(boot.GENERATOR)
    for name, array in zip(BOOT[2:5], contents, strict=True):
        np.save(work.folder / name, array)
    write_whole(work.folder / BOOT[5], sealed({"held": list(system.links[0].names)}))
    after = right(logits, data.test.labels)
    size = counted(integers, generator, target)
    words = [f"generated in INT8 {100 * before:.2f} %, trained in integers {share(after, len(data.test))}"]
    total = sum(size["bytes"].values())
    words.append(f"{total:,} bytes, {100 * size['share']:.1f} % of the target's {size['target']:,}")
    return {
        "status": "; ".join(words),
        "accuracy": after,
        "accuracy_converted": before,
        "history": [{"loss": round(loss, 6), "accuracy": got} for _, got, loss in done.evaluations[1:]],
        "kept": [step for step, _, _ in done.evaluations].index(done.step),
        "generated": size | {
            "kernels": target.kernels,
            "held": list(system.links[0].names), "sha256": made.sha256,
            "checksum": system.checksum(system.links[0], contents[2]),
            "layers": [[str(layer), float(unit)] for layer, unit in zip(target.layers, integers.units, strict=True)],
            "macs": made.macs,
        },
        "pictures": pictures.collect(target, generator, exact.codes(integers, generator, target), integers.units),
    }  # fmt: skip


def lower(recipe: Recipe, work: Workspace) -> dict[str, Any]:  # noqa: ARG001 - a step is called so
    """The program and its boot, which `quantize` left."""
    import shutil

    result = training.copy_lowered(work)
    for name in BOOT:
        shutil.copyfile(work.upstream["quantize"] / name, work.folder / name)
    return result
