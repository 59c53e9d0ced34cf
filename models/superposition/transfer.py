"""The parameters of another network, as far as their names and shapes are the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bittrue.models.superposition.networks import Superposition
from bittrue.models.training import storage
from bittrue.sim.errors import BittrueError


@dataclass(frozen=True)
class Transferred:
    """What came of it, by the names of parameters.

    taken     they have the other network's values
    shapes    of another shape there: name, shape there, shape here; they stay as they were
    absent    not there; they stay as they were
    unused    there, and not here
    """

    taken: tuple[str, ...]
    shapes: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]
    absent: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        words = [f"{len(self.taken)} tensors transferred"]
        if self.shapes:
            told = ", ".join(f"{name} ({list(there)} there, {list(here)} here)" for name, there, here in self.shapes)
            words.append(f"of another shape: {told}")
        words += [
            f"{what}: {', '.join(names)}"
            for what, names in (("not there", self.absent), ("not here", self.unused))
            if names
        ]
        return "; ".join(words)


def transfer(model: Superposition, path: str | Path) -> Transferred:
    """Take from the network in a file what has the same name and shape here, in place."""
    other, own = storage.load(path, Superposition).state_dict(), model.state_dict()
    taken = tuple(name for name in own if name in other and own[name].shape == other[name].shape)
    if not taken:
        raise BittrueError(f"transfer {path}: it shares no parameter with this network; leave the key transfer out")
    model.load_state_dict({name: other[name] for name in taken}, strict=False)
    differ = [name for name in own if name in other and name not in taken]
    shapes = tuple((name, tuple(other[name].shape), tuple(own[name].shape)) for name in differ)
    absent, unused = (tuple(name for name in a if name not in b) for a, b in ((own, other), (other, own)))
    return Transferred(taken, shapes, absent, unused)
