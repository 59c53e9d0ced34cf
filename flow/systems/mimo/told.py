"""What the report tells of a program that takes several images in one pass, beside its accuracy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bittrue.sim.operations.bundle import Bundle

if TYPE_CHECKING:
    from bittrue.models.superposition.settings import SuperpositionSettings
    from bittrue.sim.program import Program

#: Of the order in which images share their passes with other companions.
SEED = 1


def of(program: Program, codes: np.ndarray, network: SuperpositionSettings, shape: Any, classes: int) -> dict[str, Any]:
    """Keys `macs` and `ordinary` (multiply-accumulates for an image, by images at a time, and of the ordinary network),
    `keys` and `cross_talk`."""
    from bittrue.models.superposition.macs import table

    modes = (1,) if program.grouping is None else program.grouping.modes
    rows = table([network], shape=tuple(shape), classes=classes, summed=True)
    ordinary = rows[0][0].total
    macs = {
        str(count.images): {"macs": count.total, "speed_up": speed, "over_one_slot": alone or 1.0}
        for count, speed, alone in rows
        if count.network == network and count.images in modes
    }
    talk = {str(n): cross_talk(program, codes, n) for n in modes if n > 1}
    return {"macs": macs, "ordinary": ordinary, "keys": keys(program), "cross_talk": talk}


def cross_talk(program: Program, codes: np.ndarray, n: int) -> float:
    """The share of images whose largest result is another one when they share their pass with others at random."""
    run = program.in_groups_of(n)
    whole = codes[: len(codes) // n * n]
    order = np.random.default_rng([SEED, n]).permutation(len(whole))
    first, again = run(whole), run(whole[order])
    decided = [results.reshape(len(results), -1).argmax(1) for results in (first, again)]
    return float((decided[0][order] != decided[1]).mean())


def keys(program: Program) -> list[dict[str, Any]]:
    """By slot: cosines with the keys of all, the length over the mean of all, and the magnitudes of the Fourier
    coefficients over the largest of all; of matrices that are not circulant, of all their entries, without a spectrum.
    Nothing where images are not bound."""
    bundle = next((node.operation for node in program.nodes if isinstance(node.operation, Bundle)), None)
    if bundle is None:
        return []
    whole = (bundle.keys if bundle.circulant else bundle.weight.reshape(bundle.slots, -1)).astype(float)
    lengths = np.linalg.norm(whole, axis=1)
    units = whole / np.maximum(lengths, 1)[:, None]
    spectra = np.abs(np.fft.rfft(whole, axis=1)) if bundle.circulant else np.zeros((bundle.slots, 0))
    most = max(spectra.max(initial=0.0), 1.0)
    return [
        {
            "cosines": [round(float(v), 6) for v in units @ units[slot]],
            "length": float(lengths[slot] / lengths.mean()),
            "spectrum": [round(float(v), 4) for v in spectra[slot] / most],
        }
        for slot in range(bundle.slots)
    ]
