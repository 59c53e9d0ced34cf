"""The controller of a photonic array as a `Design`: with the array's twin, or alone for synthesis."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any

import numpy as np

from bittrue.rtl.bus.access import END, MEANWHILE, Access
from bittrue.rtl.bus.registers import SLVERR
from bittrue.rtl.design import Cycles, Design, Feed, Part, Port, Sighting, Tap, read_codes
from bittrue.rtl.light.buffers import LEAVING
from bittrue.rtl.light.jobs import Geometry, Jobs
from bittrue.rtl.light.registers import Address, Errors
from bittrue.rtl.light.system import WEIGHTS, PhotonicSystem, emit
from bittrue.rtl.light.weights import stream_words
from bittrue.sim.errors import BittrueError
from bittrue.sim.program import Program

#: Most images of a waveform: of an array of 64x64 it has some 50 MB an image.
SHOWN = 8


class PhotonicDesign(Design):
    """`rtl.light.system.PhotonicSystem`; the parameters are those of `rtl.light.controller.PhotonicController`.

    With weights="stream" they come in over `s_axis_weights`, for every batch; with twin=False the array's own port
    `fe_*` is outside, and the design can be emitted and synthesised, but not run.

    Frames come out in batches, so each takes its own time: `expect` knows it. `interval` is that of full batches.
    """

    kind = "light"
    name = "controller"
    steady = False
    shown = SHOWN

    def __init__(
        self,
        program: Program,
        geometry: Geometry,
        settling: int = 8,
        weights: str = "memory",
        images: int = 16,
        *,
        twin: bool = True,
    ) -> None:
        self.system = system = PhotonicSystem(program, geometry, settling, weights, images, twin=twin)
        self.title = "controller with the array's twin" if twin else "controller"
        self.program, self.jobs = program, system.jobs
        self.options = {"settling": settling, "weights": weights, "images": images, "twin": twin}
        self.inputs, self.outputs = (system.input,), (system.output,)
        self.map = system.controller.map
        if system.streamed:
            self.feeds = (Feed(WEIGHTS, stream_words(self.jobs)),)
        self.others = tuple(
            Port(signal.name, "input" if flow == "In" else "output", len(signal)) for signal, flow in system.front
        )
        self.interval = -(-self.batch(images) // images)
        self.latency = self.jobs.input.channels // geometry.lanes + self.batch(1) + LEAVING + 2
        self.patience = max(1 << 14, 4 * self.batch(images))

    def batch(self, images: int) -> int:
        """Cycles of a batch of so many images; for a controller alone, with an array that converts at once."""
        first, pace = (1, 1) if self.system.twin is None else self.system.twin.answers
        return self.system.controller.cycles(images, self.options["settling"], first, pace)

    @cached_property
    def _batches(self) -> dict[int, int]:
        return {images: self.batch(images) for images in range(1, self.options["images"] + 1)}

    def verilog(self) -> str:
        return emit(self.system)

    def expect(self, *x: np.ndarray) -> Cycles:
        """A batch begins when the controller is idle and an image is there; its results leave one after the other.

        What never decides is left out: there is room for the images and for the results of two batches, and an image
        takes longer to be measured than to come in.
        """
        if self.system.twin is None:
            raise BittrueError("photonic controller: alone it does not run; build the design with its twin")
        count, size, most = len(x[0]), self.outputs[0].beats, self.options["images"]
        arrived = self.inputs[0].beats * np.arange(1, count + 1) - 1  # cycle of every image's last beat
        ends, done = np.empty(count, np.int64), 0
        finished = left = -1  # the end of the last batch; and of the leaving of its results
        while done < count:
            begin = max(finished, int(arrived[done])) + 1
            images = min(most, int(np.searchsorted(arrived, begin)) - done)
            finished = begin + self._batches[images]
            leave = max(finished, left) + 1
            ends[done : done + images] = leave + size * np.arange(1, images + 1) - 1
            left = leave + size * images - 1
            done += images
        ends += LEAVING + 1  # from the issue of a result to its being offered
        return Cycles(int(ends[0]) - size + 1, ends)

    @property
    def parts(self) -> tuple[Part, ...]:
        names = ("controller",) if self.system.twin is None else ("controller", "twin")
        return tuple(Part(name, (name,)) for name in names)

    def accesses(self, frames: int) -> tuple[Access, ...]:
        """Who is there; an illegal write, which is seen and cleared; the state meanwhile, and at the end."""
        flag = 1 << Errors.ACCESS

        def access(address: Address, *rest: Any, **more: Any) -> Access:
            return Access(address.name, int(address), *rest, **more)

        return (
            access(Address.GEOMETRY, read=self.map["GEOMETRY"].reset),
            access(Address.PROGRAM, read=self.map["PROGRAM"].reset),
            access(Address.PROGRAM, 1, SLVERR),
            access(Address.ERRORS, read=flag),
            access(Address.ERRORS, flag),
            access(Address.STATUS, frame=MEANWHILE),
            access(Address.FRAMES, read=frames, frame=END),
            access(Address.ERRORS, read=0, frame=END),
            access(Address.STATUS, read=0b10, frame=END),
        )

    def tap(self) -> Tap:
        return FrontEndTap(self.jobs)

    def to_json(self) -> dict[str, Any]:
        geometry = asdict(self.jobs.geometry)
        return {"kind": self.kind, "program": self.program.sha256, "geometry": geometry} | self.options

    @classmethod
    def from_json(cls, program: Program, value: Mapping[str, Any]) -> PhotonicDesign:
        if value["program"] != program.sha256:
            raise BittrueError("the controller was made for another program; make it again")
        options = {name: value[name] for name in ("settling", "weights", "images", "twin")}
        return cls(program, Geometry(**value["geometry"]), **options)


class FrontEndTap(Tap):
    """Looks between controller and array (`rtl.light.ports.FrontEnd`): what passes there are tensors of the program.

    The codes of the rows are a layer's input, those of the converter its `PhotonicMac`; so the layer that is wrong
    first is found without looking inside the controller.
    """

    def __init__(self, jobs: Jobs) -> None:
        self.jobs = jobs
        self.operands = {node.name: node.operands[0] for node in jobs.program.nodes}
        words = ("input_valid", "sample", "adc_valid", "input_data", "adc_data", "job", "image")
        self.signals = {word: (f"front__{word}",) for word in words}
        self.inputs, self.known, self.group = np.zeros(jobs.geometry.rows, np.int64), True, jobs.geometry.groups
        self.job = self.image = 0

    def see(self, cycle: int, value: Callable[[str], str]) -> Iterable[Sighting]:
        jobs, g = self.jobs, self.jobs.geometry
        if value("input_valid") == "1":
            self.inputs, self.known = read_codes(value("input_data"), jobs.codes, g.rows)
        if value("sample") == "1":  # by now the numbers of the measurement are there
            self.job, self.image, self.group = int(value("job"), 2), int(value("image"), 2), 0
            work = jobs.work[self.job]
            source = self.operands[jobs.layers[work.layer].name]
            if source not in jobs.program.inputs:
                top = work.row_tile * g.rows
                places = np.arange(top, top + work.rows)
                yield Sighting(source, self.image, places, self.inputs[: work.rows], cycle, self.known)
        if value("adc_valid") == "1" and self.group < g.groups:
            work = jobs.work[self.job]
            layer = jobs.layers[work.layer]
            codes, known = read_codes(value("adc_data"), jobs.adc, g.lanes)
            first = self.group * g.lanes
            count = min(g.lanes, work.columns - first)
            self.group += 1
            if count > 0:
                start = work.row_tile * layer.outputs + work.column_tile * g.columns + first
                yield Sighting(layer.name, self.image, np.arange(start, start + count), codes[:count], cycle, known)
