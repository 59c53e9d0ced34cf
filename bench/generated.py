"""All kernels of ResNet-20 by generators of the published sizes: the golden program beside torch in floats, one thread.

Torch makes them as a training does (`Generator.kernels`, without gradients), its first layer separably, so that it does
less work than the golden program, which makes the first layer of each kernel whole; beside it as the published code
does, the embedding of every kernel times the whole first layer. Weights are random, which changes no time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from bench.timing import Row, best
from bittrue.models.graph.lower import lower
from bittrue.models.nern.generator import Generator
from bittrue.models.nern.integers import Integers
from bittrue.models.nern.networks import Resnet
from bittrue.models.nern.settings import Embeddings, Nern, TargetSettings
from bittrue.models.nern.settings import Integers as Settings
from bittrue.models.nern.target import Target
from bittrue.models.training.precision import threads

#: Published hidden sizes that are measured.
HIDDEN = (140, 180)
#: How many times as fast as torch it is to be.
WANTED = 3.0


def candidates(hidden: int) -> tuple[dict[str, Callable[[], object]], int]:
    """What takes turns, by name, and the kernels that each makes."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        target = Target(Resnet(TargetSettings(architecture="ResNet20"), (32, 32, 3), 10))
    settings = Nern(num_blocks=5, hidden_layer_size=hidden, embeddings=Embeddings(enc_levels=40, base=0.76))
    generator = Generator.for_target(settings, target, seed=1).eval()
    program = lower(Integers(generator, Settings()).eval())
    ((_, kind),) = program.inputs.items()
    codes = np.ascontiguousarray(target.coordinates().astype(kind.format.dtype))

    def whole() -> torch.Tensor:
        x = generator.embedding(generator.placed)
        for layer in generator.hidden:
            x = generator.activation(layer(x))
        return generator.final(x)

    return {"golden": lambda: program(codes), "torch": generator.kernels, "torch, whole": whole}, target.kernels


def measure(repeats: int = 3, hidden: Sequence[int] = HIDDEN) -> list[Row]:
    rows: list[Row] = []
    for size in hidden:
        calls, kernels = candidates(size)
        with torch.inference_mode(), threads(1):
            seconds = best(calls, repeats)
        for name, value in seconds.items():
            note = f"{kernels / value:,.0f} kernels/s"
            if name != "golden":
                note += f", golden {value / seconds['golden']:.2f} times as fast, target {WANTED:g}"
            rows.append(
                {"bench": "generated", "what": f"H = {size}, {name}", "value": value, "unit": "s", "note": note}
            )
    return rows
