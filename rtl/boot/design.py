"""A system that boots as a `Design`: what a generator makes is written into what an accelerator holds, then it runs."""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from bittrue.rtl.boot.machine import LEAD, TAIL
from bittrue.rtl.boot.places import Section, locate, sections
from bittrue.rtl.boot.registers import Address, register_map
from bittrue.rtl.boot.sequence import Samples
from bittrue.rtl.boot.system import BootedAccelerator
from bittrue.rtl.bus import framing
from bittrue.rtl.bus.access import END, Access
from bittrue.rtl.dataflow.effort import Effort
from bittrue.rtl.dataflow.estimate import Area, area, estimate
from bittrue.rtl.dataflow.packed import unsuited
from bittrue.rtl.dataflow.plan import Plan, plan
from bittrue.rtl.dataflow.stage import Structure
from bittrue.rtl.design import Cycles, Design, Part, Probe
from bittrue.rtl.verilog import convert
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Set, check_set
from bittrue.sim.program import Program, unpack
from bittrue.sim.sequence import columns
from bittrue.sim.storage import MAX_ENTRIES, packed
from bittrue.sim.system import Link, System
from bittrue.sim.written import at_first, held_only

#: STATUS when frames are taken and nothing is under way.
READY = 0b1001


class BootDesign(Design):
    """A system of a generator, an accelerator and a link with places (`sim.system`), in hardware.

    system       two programs and the link; the generator's samples are its `boots`
    generator    plan of the generator, an ordinary one
    accelerator  plan of the program that is written to
    banks        2: a boot does not disturb the frames that go through; 1: half the memory for what is held, frames wait
                 while it boots, and nothing is written over the bus
    auto         whether it boots after a reset; else it waits for a start, or for a set over the bus

    `program` is the accelerator's after a boot: with two banks its held inputs hold at first what the generator makes,
    with one bank these are constants. Held inputs that no link writes are constants. A boot takes `boot_cycles`, from
    its start (or the first cycle out of reset) to the first one in which frames are taken.
    """

    kind = "boot"
    name, title = "boot", "accelerator with boot"

    def __init__(self, system: System, generator: Plan, accelerator: Plan, banks: int = 2, auto: bool = True) -> None:
        if banks not in (1, 2):
            raise BittrueError(f"boot: {banks} banks; what is held has 1 or 2")
        self.system, self.link, self.banks, self.auto = system, _link(system), banks, auto
        self.generator = replace(generator, serial=True)
        self.accelerator = replace(accelerator, scatter=banks)
        source, target = system.programs[self.link.source], written_target(system)
        for plan_, program in ((generator, source), (accelerator, target)):
            if plan_.program.sha256 != program.sha256:
                raise BittrueError("boot: a plan was made for another program; plan with `rtl.boot.design.boot`")
        self.codes = system.boot(self.link.source)
        self.checksum = system.checksum(self.link, self.codes)
        values = system.scattered(self.link, self.codes)
        self.program = target.bind(values) if banks == 1 else at_first(target, values)
        self.inputs, self.outputs = self.accelerator.inputs, self.accelerator.outputs
        self.interval, self.latency = accelerator.estimated_interval, accelerator.estimated_latency
        self.steady = not accelerator.dynamic
        words = self.accelerator.network.words
        assert words is not None
        located = locate(words.tables, system.held(self.link), self.link.places)
        self.sections: list[Section] = sections(words.tables, self.link.places, located)
        samples, firsts = columns(system.boots[self.link.source])
        lanes = self.generator.input_lanes
        self.samples = [
            Samples(kind, lanes[name], samples, first)
            for (name, kind), first in zip(source.inputs.items(), firsts, strict=True)
        ]
        own = self.generator.network.words
        self.map = register_map(words if banks == 2 else None, own, self.checksum)
        self.patience = 4 * (self.boot_cycles + self.latency + self.interval) + (1 << 14)

    @property
    def top(self) -> BootedAccelerator:
        """The hardware, made anew."""
        made = replace(self.generator), replace(self.accelerator)
        return BootedAccelerator(*made, self.samples, self.sections, self.map, self.auto)

    def verilog(self) -> str:
        top = self.top
        header = f"// bittrue: program {self.program.sha256}\n// boots in {self.boot_cycles} cycles\n"
        return header + convert(top, top.ports)

    # -- cycles and energy -----------------------------------------------------------------------------
    @cached_property
    def boot_cycles(self) -> int:
        """Cycles of a boot."""
        work = self.generator.network.work(*self.system.boots[self.link.source])
        flow = self.generator.network.schedule(len(self.link.places), work=work)
        return LEAD + int(flow.output_ends.reshape(-1)[-1]) + TAIL

    def expect(self, *x: np.ndarray) -> Cycles:
        flow = self.accelerator.expect(*x)
        return Cycles(flow.first, flow.output_ends)

    @property
    def boot_effort(self) -> Effort:
        """What a boot does: the generator's work on every sample, the words of the places, and the writes."""
        total, samples = Effort(), len(self.link.places)
        for element in self.generator.network.elements:
            if element.node is None:
                continue
            one = element.stage.effort()
            for bits, times in one.additions.items():
                total.add(bits, times * samples)
            for widths, times in one.multiplications.items():
                total.multiply(*widths, times * samples)
            for t in one.memory:
                total.access(t.purpose, t.size, t.read * samples, t.written * samples)
        words = self.accelerator.network.words
        assert words is not None
        for section in self.sections:
            width = sum(section.bits)
            total.access("values", width * len(section), width * len(section))
            for kind in section.tables:
                if kind >= 0:
                    table = words.tables[kind]
                    bits = table.format.bits
                    total.access("weights", bits * table.index.size, 0, bits * len(section))
        return total

    # -- for verification and reports ------------------------------------------------------------------
    def accesses(self, frames: int) -> tuple[Access, ...]:  # noqa: ARG002
        """At the end: what it found, and how long it took."""

        def told(name: str, value: int) -> Access:
            return Access(name, int(Address[name]), read=value, frame=END)

        if not self.auto:
            return ()
        boot = (told("BOOTS", 1), told("CYCLES", self.boot_cycles), told("FOUND", self.checksum))
        return (*boot, told("ERRORS", 0), told("STATUS", READY))

    def pack_set(self, values: Set) -> np.ndarray:
        words = self.accelerator.network.words
        if self.banks == 1 or words is None:
            return super().pack_set(values)
        return words.pack(check_set(self.program.written, values))

    def write_set(self, values: Set, frame: int, sets: int) -> tuple[Access, ...]:
        if self.banks == 1:
            return super().write_set(values, frame, sets)
        idle = self._idle(frame)
        made = self._words("WEIGHTS", self.pack_set(values), "commit", frame)
        return (idle, *made, idle, Access("SETS", Address.SETS, read=(sets + self.auto) % 256, frame=frame))

    def boot_again(self, frame: int, held: Set | None = None) -> tuple[Access, ...]:
        """The accesses after which frame `frame` of a run and those behind it meet what a boot of the generator makes;
        `held` is what it holds itself from then on."""
        made = (self._idle(frame),)
        if held is not None:
            words = self.generator.network.words
            if words is None:
                raise BittrueError("boot: the generator has constants only, so no set can be written to it")
            made = self._words(
                "GENERATOR", words.pack(check_set(self.generator.program.written, held)), "commit_generator", frame
            )
            made += (self._idle(frame),)
            expected = self.system.checksum(self.link, self.system.boot(self.link.source, held))
            made += (Access("EXPECTED", Address.EXPECTED, expected, frame=frame),)
        start = self.map["CONTROL"].fields[0].mask
        hold = Access("PAUSE", Address.PAUSE, 1, frame=frame)
        return (*made, hold, Access("CONTROL", Address.CONTROL, start, frame=frame))

    @staticmethod
    def _idle(frame: int) -> Access:
        """Nothing is under way, and what is held may be used."""
        return Access("STATUS", Address.STATUS, read=READY, frame=frame, until=True)

    def _words(self, window: str, words: np.ndarray, commit: str, frame: int) -> tuple[Access, ...]:
        into = self.map.window(window)
        made = [Access(window, into.at(k % into.dimensions[0]), int(v), frame=frame) for k, v in enumerate(words)]
        bit = next(field.mask for field in self.map["CONTROL"].fields if field.name == commit)
        return (*made, Access("CONTROL", Address.CONTROL, bit, frame=frame))

    @property
    def parts(self) -> tuple[Part, ...]:
        """The generator, what stands between, and the accelerator's stages."""
        between = [Part(name, (name,)) for name in ("generator", "scatter", "machine", "registers")]
        stages = [Part(e.name, ("pipeline", e.name), e.node) for e in self.accelerator.network.elements]
        return (*between, *stages)

    @property
    def probes(self) -> tuple[Probe, ...]:
        from bittrue.rtl.dataflow.design import PipelineDesign

        return PipelineDesign(self.accelerator).probes

    @property
    def estimate(self) -> Area:
        parts = [
            estimate(self.generator.network, Structure()),
            estimate(self.accelerator.network, framing.structure(self.inputs, self.outputs)),
            area(self.top.structure(), stages=0),
        ]
        return Area(*(sum(getattr(part, name) for part in parts) for name in ("lut", "ff", "dsp", "bram")))

    def describe(self) -> dict[str, Any]:
        return super().describe() | {
            "fifos": dict(self.accelerator.fifos),
            "stages": self.accelerator.stages(),
            "boot_cycles": self.boot_cycles,
            "generator": self.generator.stages(),
            "place_bits": sum(len(s) * sum(s.bits) for s in self.sections),
        }

    def unsuited(self, target: str) -> str | None:
        return unsuited({**self.accelerator.folding, **self.generator.folding}, target)

    # -- files -----------------------------------------------------------------------------------------
    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "program": self.program.sha256,
            "banks": self.banks,
            "auto": self.auto,
            "generator": self.generator.to_json(),
            "accelerator": self.accelerator.to_json(),
            "system": _written_down(self.system, self.link),
        }

    @classmethod
    def from_json(cls, program: Program, value: Mapping[str, Any]) -> BootDesign:
        system = _read(value["system"])
        link = _link(system)
        target = written_target(system)
        generator = replace(Plan.from_json(system.programs[link.source], value["generator"]), serial=False)
        accelerator = replace(Plan.from_json(target, value["accelerator"]), scatter=0)
        made = cls(system, generator, accelerator, value["banks"], value["auto"])
        same = {made.program.sha256, made.program.bind(made.program.initial).sha256}
        if value["program"] != made.program.sha256 or program.sha256 not in same:
            raise BittrueError("the booting accelerator was made for another program; make it again")
        return made


def boot(
    system: System,
    generator: Mapping[str, Any] | None = None,
    accelerator: Mapping[str, Any] | None = None,
    banks: int = 2,
    auto: bool = True,
) -> BootDesign:
    """Plan both programs of a system, each with its options of `rtl.dataflow.plan.plan`, and make the design."""
    link = _link(system)
    target = written_target(system)
    plans = plan(system.programs[link.source], **(generator or {})), plan(target, **(accelerator or {}))
    return BootDesign(system, *plans, banks, auto)


def written_target(system: System) -> Program:
    """The program that is written, with the held inputs of the link alone; others are constants."""
    link = _link(system)
    return held_only(system.programs[link.target], link.names)


def _link(system: System) -> Link:
    """The only link, which has to write all that it can."""
    link = system.boot_link
    places = link.places
    assert places is not None
    total = sum(held.size for held in system.held(link))
    if (places >= 0).sum() < total:
        raise BittrueError(
            f"boot: {link} {int((places >= 0).sum())} of {total} entries; a boot in hardware "
            "writes all of a bank; make the others constants"
        )
    return link


def _written_down(system: System, link: Link) -> dict[str, Any]:
    """A system as JSON: programs in the bytes of their files, arrays as they lie in memory."""

    def array(values: np.ndarray) -> dict[str, Any]:
        values = np.ascontiguousarray(values, dtype="<i8")
        return {"shape": list(values.shape), "codes": _text(zlib.compress(values.tobytes()))}

    assert link.places is not None
    return {
        "programs": {name: _text(packed(program)) for name, program in system.programs.items()},
        "source": link.source,
        "target": link.target,
        "held": list(link.names),
        "places": array(link.places),
        "samples": [array(np.asarray(batch)) for batch in system.boots[link.source]],
    }


def _read(value: Mapping[str, Any]) -> System:
    """What was written down."""

    def array(written: Mapping[str, Any]) -> np.ndarray:
        shape = tuple(int(n) for n in written["shape"])
        count = math.prod(shape)
        if not 0 < count <= MAX_ENTRIES:
            raise BittrueError(f"boot: its file has an array of {count} numbers; make the design again")
        content = zlib.decompressobj().decompress(base64.b64decode(written["codes"]), 8 * count)
        return np.frombuffer(content, "<i8").reshape(shape)

    try:
        programs = {
            name: unpack(base64.b64decode(text), f"{name!r} of a booting accelerator")
            for name, text in value["programs"].items()
        }
        link = Link(value["source"], value["target"], tuple(value["held"]), array(value["places"]))
        return System(programs, [link], {link.source: [array(batch) for batch in value["samples"]]})
    except zlib.error as error:
        raise BittrueError(f"boot: its file is damaged ({error}); make the design again") from error


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
