"""What is at the ports of a design beside the streams of its program: feeds, AXI4-Lite, and whatever else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bittrue.rtl.bus.access import Access, in_order
from bittrue.rtl.design import Feed, Port, other_ports
from bittrue.sim.errors import BittrueError

if TYPE_CHECKING:
    from bittrue.rtl.bus.registers import RegisterMap
    from bittrue.rtl.design import Design


@dataclass(frozen=True, eq=False)
class Surroundings:
    """As a `Design` declares them."""

    feeds: tuple[Feed, ...] = ()
    map: RegisterMap | None = None
    others: tuple[Port, ...] = ()

    @classmethod
    def of(cls, design: Design) -> Surroundings:
        return cls(design.feeds, design.map, design.others)

    @property
    def ports(self) -> tuple[Port, ...]:
        """Every port of the top that is none of the streams of the program."""
        return other_ports(self.feeds, self.map, self.others)

    @property
    def signals(self) -> dict[str, int]:
        """Their widths by name."""
        return {port.name: port.width for port in self.ports}

    def check(self, accesses: Sequence[Access]) -> tuple[Access, ...]:
        """The accesses in the order in which simulators make them."""
        if accesses and self.map is None:
            raise BittrueError(f"the RTL has no AXI4-Lite port, so {accesses[0].name} cannot be accessed")
        return in_order(accesses)


#: Nothing.
ALONE = Surroundings()
