"""The port between the photonic controller and the array: the analogue front end."""

from __future__ import annotations

from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out

from bittrue.rtl.dataflow.stage import counting, shape_of
from bittrue.rtl.light.jobs import Jobs
from bittrue.sim.contract import Format

#: Bits of an image's index, of the settling time and of the converter's time limit, both in cycles.
INDEX_BITS, SETTLING_BITS, TIMEOUT_BITS = 32, 16, 20


def weight_beat(jobs: Jobs) -> data.StructLayout:
    """A beat for the weight DACs: the codes of a row for a group of columns, or the offsets of a group (`bias`).

    row, group   which row, and which group of `lanes` columns
    plus, minus  codes of the two rails
    bias         the beat sets offsets instead of cells; it comes after the rows of its job
    offset       what is subtracted from the light of a column before conversion
    """
    g = jobs.geometry
    cells, offsets = (data.ArrayLayout(shape_of(fmt), g.lanes) for fmt in (jobs.cells, jobs.offset))
    numbers = {"row": counting(g.rows), "group": counting(g.groups)}
    return data.StructLayout(numbers | {"plus": cells, "minus": cells, "bias": 1, "offset": offsets})


class FrontEnd(wiring.Signature):
    """What lies between the controller and the array, as the controller sees it.

    Weights are set once for a job and serve all images of a batch: the first of them comes with `swap` and
    `input_valid` in one cycle, each later one with `input_valid` alone.

    weight        the weights and offsets of the next job, into the bank that is not in use (valid and ready)
    swap          the banks change places: the weights sent last are in use from now on
    input_valid   the input DACs take `input_data`, the codes q of all rows, and hold them; Q - q goes to their
                  complement
    sample        the settling time, counted from `input_valid`, is over: convert
    adc_valid     codes of a group of columns, after `sample`; all groups follow in order, at any pace that the register
                  TIMEOUT allows; there is no ready
    adc_data      those codes
    shift         range of the converter: a step is 2^shift counts; it holds from `swap` on
    job, image    which measurement this is, and of which image: for records, and for the noise of a digital twin;
                  `job` holds from `swap` on, `image` from `input_valid` on
    """

    def __init__(self, jobs: Jobs):
        g = jobs.geometry
        shifts = max(layer.mac.shift for layer in jobs.layers) + 1
        super().__init__(
            {
                "weight": Out(stream.Signature(weight_beat(jobs))),
                "swap": Out(1),
                "input_data": Out(data.ArrayLayout(shape_of(jobs.codes), g.rows)),
                "input_valid": Out(1),
                "sample": Out(1),
                "adc_valid": In(1),
                "adc_data": In(data.ArrayLayout(shape_of(jobs.adc), g.lanes)),
                "shift": Out(counting(shifts)),
                "job": Out(counting(len(jobs.work))),
                "image": Out(INDEX_BITS),
            }
        )


def padded(fmt: Format) -> int:
    """Bits of a code on a stream: whole bytes."""
    return 8 * -(-fmt.bits // 8)
