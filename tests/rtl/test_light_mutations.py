"""The controller of a photonic array broken in one place: the comparison with the golden program has to fail."""

from __future__ import annotations

from dataclasses import replace

import pytest
from amaranth.hdl import Mux

import bittrue.rtl.light.registers
import bittrue.rtl.light.sums
import bittrue.rtl.light.twin
from bittrue.rtl.light.controller import PhotonicController
from bittrue.rtl.light.jobs import Jobs
from bittrue.rtl.light.noise import TwinNoise
from bittrue.rtl.light.weights import Sender
from tests.helpers.photonic_bench import exact, losing_codes
from tests.helpers.photonic_programs import photonic_network


def spoil_weight(monkeypatch):
    rails = Jobs.rails

    def spoiled(self):
        for k, (plus, minus) in enumerate(rails(self)):
            yield plus ^ 4 * (k < 2), minus

    monkeypatch.setattr(Jobs, "rails", spoiled)


def spoil_table(monkeypatch):
    tables = Jobs.tables
    monkeypatch.setattr(Jobs, "tables", lambda self, lane: (tables(self, lane)[0] ^ 1, tables(self, lane)[1]))


def spoil_scale(monkeypatch):
    monkeypatch.setattr(bittrue.rtl.light.sums.Sums, "scale", lambda self, total, chosen: total << self.steps[0])  # noqa: ARG005


def spoil_converter(monkeypatch):
    monkeypatch.setattr(
        bittrue.rtl.light.twin,
        "Mux",
        lambda c, a, b: Mux(c, a // 2, b) if isinstance(a, int) and a == 63 else Mux(c, a, b),
    )


def spoil_offsets(monkeypatch):
    monkeypatch.setattr(bittrue.rtl.light.registers.Offsets, "word", lambda self, _: [0] * self.jobs.geometry.lanes)


def spoil_noise(monkeypatch):
    numbers = TwinNoise.numbers

    def spoiled(self, m, layer):
        self.noises = [replace(noise, shot=noise.shot + 400) for noise in self.noises]
        return numbers(self, m, layer)

    monkeypatch.setattr(TwinNoise, "numbers", spoiled)


def spoil_dark(monkeypatch):
    used = Sender.used
    monkeypatch.setattr(Sender, "used", lambda self, m, job: used(self, m, job ^ 1))


@pytest.mark.parametrize(
    ("spoil", "noise"),
    [
        (spoil_weight, False),
        (spoil_table, False),
        (spoil_scale, False),
        (spoil_converter, False),
        (spoil_offsets, False),
        (spoil_dark, False),
        (spoil_noise, True),
    ],
)
def test_mutations_are_caught(monkeypatch, spoil, noise):
    program = photonic_network(noise=noise)
    spoil(monkeypatch)
    with pytest.raises(AssertionError):
        exact(program, stalls=0.0)


def rewire(monkeypatch, part: str, wrong) -> None:
    """Add `wrong(controller)` after the wires that a part of the controller makes: the last assignment counts."""
    right = getattr(PhotonicController, part)

    def spoiled(self, m):
        right(self, m)
        m.d.comb += wrong(self)

    monkeypatch.setattr(PhotonicController, part, spoiled)


@pytest.mark.parametrize(
    ("part", "wrong", "noise"),
    [
        ("inputs", lambda c: c.image_buffer.image.eq(0), False),  # every image is the first of its batch
        ("measurements", lambda c: c.front.image.eq(c.slave.image), True),  # or has its noise
        ("measurements", lambda c: c.front.swap.eq(c.sequence.input_valid), False),  # weights change with every image
        ("results", lambda c: c.sums.image.eq(0), False),  # all images have one sum
        ("results", lambda c: c.loader.result_image.eq(0), False),
        ("results", lambda c: c.result_buffer.image.eq(0), False),
    ],
)
def test_images_of_a_batch_that_are_mixed_up_are_caught(monkeypatch, part, wrong, noise):
    program = photonic_network(noise=noise)
    rewire(monkeypatch, part, wrong)
    with pytest.raises(AssertionError):
        exact(program, stalls=0.0)


def test_a_time_limit_that_is_ignored_is_caught(monkeypatch):
    rewire(monkeypatch, "measurements", lambda c: c.sequence.timeout.eq(0))
    with pytest.raises(AssertionError, match="deadlock: .* 0 words came out"):
        losing_codes({0: 0})
