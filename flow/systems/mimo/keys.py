"""What `bittrue mimo keys` does: the integers of a trained network with keys of several widths, in every mode."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bittrue.flow.cli import options
from bittrue.flow.systems.mimo import validate
from bittrue.sim.errors import BittrueError


def widths(text: str) -> list[int]:
    """`8,4,2` as numbers."""
    wanted = f"--bits {text!r}: write widths of keys from 2 to 8, such as 8,4,2"
    return options.numbers(text, 2, 8, wanted, f"--bits {text!r}: a width")


def run(
    source: str | Path,
    overrides: Sequence[str],
    bits: Sequence[int],
    pairings: int,
    *,
    seed: int = 0,
    split: str = "test",
    network: Path | None = None,
    flow: Path | None = None,
    listener: Any = None,
) -> dict[str, Any]:
    """Quantise the recipe's trained network, or that of a file, with keys of each width, and all else by its section
    `convert`; nothing is trained in integers.

    Arguments are those of `validate.run`. Returns `modes`, the numbers of images at a time; `float`, the accuracies of
    the network in floats by these (text) and pairing; and `rows`, for each width `bits` and its `accuracies`.
    """
    from bittrue.models.superposition import evaluate, integers
    from bittrue.models.training.loop import share
    from bittrue.models.training.precision import threads

    given = validate.opened("keys", source, overrides, split, network, flow, listener)
    if not integers.has_keys(given.model):
        raise BittrueError(
            f"mimo keys: the network of {given.recipe.name} has one slot and binds nothing, so it has no keys; give it "
            "a binding or more slots (network.binding, network.slots)"
        )
    modes, images = given.recipe.modes, getattr(given.data, split)

    orders = {n: [evaluate.pairing(len(images), seed, k) for k in range(1 if n == 1 else pairings)] for n in modes}
    rows = []
    with threads(given.recipe.train.threads):
        given.listener.progress("in floats", 0, 1 + len(bits))
        floating = {n: [evaluate.judge(given.model, images, n, order)[0] for order in orders[n]] for n in modes}
        made = integers.by_key_bits(given.model, given.data, given.recipe.convert, modes, bits)
        for done, width in enumerate(bits, 1):
            given.listener.progress(f"keys of {width} bits", done, 1 + len(bits))
            _, integer = next(made)
            program, codes = integer.lower(), integer.encode(images.images)
            found = {
                n: [share(integers.logits(program, codes, n, order), images.labels) for order in orders[n]]
                for n in modes
            }
            rows.append({"bits": width, "accuracies": _named(found)})
    told = {"network": given.recipe.name, "file": str(given.path), "images": len(images), "split": split}
    return told | {"modes": list(modes), "float": _named(floating), "rows": rows}


def _named(found: dict[int, list[float]]) -> dict[str, list[float]]:
    """By images at a time, as JSON has names."""
    return {str(n): accuracies for n, accuracies in found.items()}
