"""Sets of weights that a run writes while frames go through the RTL, and what its frames met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bittrue.rtl.bus.ports import StreamPort
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Set

#: Counters at the top: sets that have taken effect, sets that were refused, both with so many bits.
SETS, ERRORS, COUNT_BITS = "weights_sets", "weights_errors", 8


@dataclass(frozen=True, eq=False)
class Write:
    """A set, as words, that a run writes.

    words  codes of the weight port, as `Plan.pack_set` gives them
    after  it is offered once so many frames have begun, behind the sets before it
    by     the frame that waits until this set has taken effect; None: no frame waits for it
    """

    words: np.ndarray
    after: int = 0
    by: int | None = None


def check_writes(port: StreamPort | None, writes: Sequence[Write], frames: int) -> np.ndarray:
    """The beats of all sets, uint8 `[sets, words, bytes]`, or an error that says why they cannot be written."""
    if not writes:
        return np.zeros((0, 1, 1), np.uint8)
    if port is None:
        raise BittrueError("this RTL has no port for weights; plan the program with weights='written'")
    starts, waits = [w.after for w in writes], [w.by for w in writes if w.by is not None]
    if starts != sorted(starts) or waits != sorted(waits) or min(starts) < 0 or max(starts) > frames:
        raise BittrueError(f"sets are written after {starts} of {frames} frames and before frames {waits}; both ascend")
    for w in writes:
        if w.by is not None and w.by < w.after:
            raise BittrueError(f"a set is written once {w.after} frames have begun, so frame {w.by} cannot wait for it")
    return port.pack(np.stack([w.words for w in writes]))


def met(contents: Sequence[Set], meets: np.ndarray) -> list[tuple[int, Set]]:
    """The sets of a run as golden and kernels take them: `contents[k]` from the first frame that met set k on."""
    changes = np.flatnonzero(np.diff(meets, prepend=-1))
    return [(int(frame), contents[int(meets[frame])]) for frame in changes]
