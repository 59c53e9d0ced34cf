"""Accesses on AXI4-Lite for a simulation: what is done when, what must come back, and what did.

The accesses with a frame are made in their order, the one with frame n when all frames before n have gone in; frame n
waits until it is answered. Those `MEANWHILE` are repeated while frames go through, at most `REPEATS` of them in all;
those at the `END` come when all results are there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bittrue.rtl.bus.registers import OKAY, SLVERR

#: For `Access.frame`.
MEANWHILE, END = -1, 1 << 62
#: Most accesses of the kind MEANWHILE in a run.
REPEATS = 256
_ANSWERS = {OKAY: "OKAY", SLVERR: "SLVERR"}


@dataclass(frozen=True)
class Access:
    """One access, and what must come back.

    name      of what is accessed, for people
    address   in bytes
    value     the word written; None: a read
    response  OKAY or SLVERR
    read      the word that a read must give; None: any
    frame     when it is made: before this frame goes in, or MEANWHILE, or at the END
    until     a read is made again and again until it gives `read`; only the last answer counts
    """

    name: str
    address: int
    value: int | None = None
    response: int = OKAY
    read: int | None = None
    frame: int = 0
    until: bool = False

    @property
    def row(self) -> list[int]:
        """For simulators: frame, address, 0 (a read), 1 (a write) or 2 (a read until it gives the word); the word."""
        word = self.read if self.until else self.value
        return [self.frame, self.address, 2 if self.until else int(self.value is not None), (word or 0) & 0xFFFFFFFF]

    @property
    def phase(self) -> str:
        """When it is made, for reports."""
        known = {MEANWHILE: "during", END: "after", 0: "before"}
        return known.get(self.frame, f"before number {self.frame} of")

    def problem(self, answer: Answer) -> str | None:
        """What is wrong with its answer, or None."""
        verb = "read of" if self.value is None else "write to"
        if answer.response != self.response:
            got, wanted = (_ANSWERS.get(code, f"response {code}") for code in (answer.response, self.response))
            return f"AXI4-Lite: a {verb} {self.name} was answered {got}, not {wanted}"
        if self.value is None and self.read is not None and answer.value != self.read & 0xFFFFFFFF:
            return f"AXI4-Lite: {self.name} is 0x{answer.value:x}, not 0x{self.read & 0xFFFFFFFF:x}"
        return None


@dataclass(frozen=True)
class Answer:
    """What came back to an access: the response, the word of a read, and the cycle."""

    access: Access
    response: int
    value: int | None
    cycle: int


def in_order(accesses: Iterable[Access]) -> tuple[Access, ...]:
    """As simulators take them: those with a frame first, frames ascending, then those at the END, then MEANWHILE."""
    return tuple(sorted(accesses, key=lambda access: END + 1 if access.frame == MEANWHILE else access.frame))


def answers(accesses: Sequence[Access], record: Iterable[Sequence[int]]) -> tuple[Answer, ...]:
    """The answers of a simulation's record: rows of access, response, word, cycle."""
    found = []
    for index, response, word, cycle in record:
        access = accesses[index]
        found.append(Answer(access, int(response), None if access.value is not None else int(word), int(cycle)))
    return tuple(found)


def problems(accesses: Sequence[Access], found: Sequence[Answer]) -> list[str]:
    """A sentence for every kind of answer that is not as it must be, and for answers that never came."""
    wrong = [problem for answer in found if (problem := answer.access.problem(answer))]
    due = sum(access.frame != MEANWHILE for access in accesses)
    came = sum(answer.access.frame != MEANWHILE for answer in found)
    if came < due:
        access = in_order(accesses)[came]
        verb = "read of" if access.value is None else "write to"
        wrong.append(f"AXI4-Lite: a {verb} {access.name} {access.phase} the frames was not answered")
    return list(dict.fromkeys(wrong))


def shown(found: Sequence[Answer]) -> list[dict[str, Any]]:
    """For reports: one row for each access, with its first answer and how often it was made."""
    rows: dict[Access, dict[str, Any]] = {}
    for answer in found:
        access = answer.access
        row = {"phase": access.phase, "register": access.name, "wrote": access.value, "times": 0}
        row = rows.setdefault(access, row | {"response": answer.response, "read": answer.value})
        row["times"] += 1
    return list(rows.values())
