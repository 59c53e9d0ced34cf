"""What a stage, a plan or a schedule refuses, beside the nearest that it takes."""

import numpy as np
import pytest

from bittrue.rtl.bus.ports import StreamPort
from bittrue.rtl.dataflow.folding import check_folding
from bittrue.rtl.dataflow.plan import plan
from bittrue.rtl.dataflow.schedule import simulate
from bittrue.rtl.dataflow.spikes.events import EventLinearStage
from bittrue.rtl.dataflow.stage import Stage
from bittrue.rtl.dataflow.stages.fs_neuron import FsNeuronStage
from bittrue.rtl.dataflow.stages.transpose import TransposeStage
from bittrue.rtl.dataflow.stages.upsample import UpsampleStage
from bittrue.rtl.dataflow.stages.window import WindowStage
from bittrue.rtl.dataflow.timing import Blocks
from bittrue.rtl.light.jobs import Geometry
from bittrue.sim.contract import INT8, Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.encode import SPIKE
from bittrue.sim.operations.fs_neuron import FsNeuron
from bittrue.sim.operations.spiking_linear import SpikingLinear
from bittrue.sim.operations.transpose import Transpose
from bittrue.sim.operations.upsample import Upsample
from bittrue.sim.operations.window import Window
from bittrue.sim.requantize import Requantize
from tests.helpers.programs import resmlp

IMAGE = TensorType((2, 2, 4), INT8)
SPIKING = SpikingLinear(TensorType((2, 4), SPIKE), np.ones((2, 4), int), np.array([2, 1]), Requantize(2, 0), Format(4))
NEURON = FsNeuron(TensorType((4,), INT8), np.array([1]), np.array([1]))

#: How a stage is made of its lanes, simd and pe; what is refused and in which words; what is taken.
FOLDINGS = {
    "window": (
        lambda *of: stage(WindowStage, Window(IMAGE, (2, 2)), *of),
        (1, 2, 1),
        "2 codes in every beat, not 1",
        (2, 2, 1),
    ),
    "upsample": (
        lambda *of: stage(UpsampleStage, Upsample(IMAGE, (2, 2)), *of),
        (4, 2, 1),
        r"simd = 2 .* not 4",
        (2, 2, 1),
    ),
    "events": (
        lambda *of: stage(EventLinearStage, SPIKING, *of),
        (1, 2, 1),
        r"simd = 2 spikes a beat, not 1",
        (2, 2, 1),
    ),
    "neuron": (
        lambda *of: stage(FsNeuronStage, NEURON, *of),
        (2, 2, 1),
        "simd = 2 and pe = 1 are its lanes",
        (2, 2, 2),
    ),
    "neuron of more lanes": (lambda *of: stage(FsNeuronStage, NEURON, *of), (4, 2, 2), "are its lanes", (4, 4, 4)),
}


def stage(kind, op, lanes, simd, pe):
    return kind(op, lanes=lanes, simd=simd, pe=pe)


@pytest.mark.parametrize("what", FOLDINGS)
def test_lanes_of_a_stage(what):
    make, refused, words, taken = FOLDINGS[what]
    make(*taken)
    with pytest.raises(BittrueError, match=words):
        make(*refused)


def test_operands_of_a_stage_are_those_of_its_timing():
    class Two(Stage):
        def __init__(self, inputs):
            self.timing = Blocks(operands=2)
            super().__init__([(INT8, 1)] * inputs, (INT8, 1))

    Two(2)
    with pytest.raises(ValueError, match="Two: 1 inputs, but timing for 2"):
        Two(1)


def test_what_cannot_be_folded_says_so():
    with pytest.raises(NotImplementedError, match="Stage cannot be folded"):
        Stage.fold(None, 1, "x")
    assert Stage.foldings(None) == []
    assert Stage.intervals(None) == set()
    assert Stage.legal_lanes(None, 3) == 3


def test_operands_of_a_schedule_are_those_of_the_timing():
    assert simulate([Blocks()], [(-1,)], [1], [(0, 1)], 3).complete
    with pytest.raises(ValueError, match="stage 0 has 2 operands and reads 1"):
        simulate([Blocks(operands=2)], [(-1,)], [1], [(0, 1)], 3)


def test_a_set_for_a_plan_without_written_weights():
    with pytest.raises(
        BittrueError, match="plan: no weights of this program are written; plan it with weights='written'"
    ):
        plan(resmlp(tokens=2, channels=2, features=2, hidden=2)).pack_set({})


def port(lanes):
    return StreamPort("s_axis", TensorType((2, 6), Format(10)), lanes)


def read(words):
    return port(3).integers(np.asarray(words))


LINE = np.zeros((1, 4, 6), np.uint8)

#: How something is made, what is refused, and the nearest that is taken.
LIMITS = {
    "rows of an array": (lambda n: Geometry(n, 4, 1), 0, 1),
    "columns of an array": (lambda n: Geometry(4, n, 1), 0, 1),
    "lanes of an array": (lambda n: Geometry(4, 4, n), 0, 1),
    "lanes that are no power of two": (lambda n: Geometry(12, 12, n), 3, 4),
    "lanes that divide the columns alone": (lambda n: Geometry(n, 4, 4), 6, 8),
    "lanes that divide the rows alone": (lambda n: Geometry(4, n, 4), 6, 8),
    "most rows": (lambda n: Geometry(n, 1, 1), 1 << 16, (1 << 16) - 1),
    "most columns": (lambda n: Geometry(1, n, 1), 1 << 16, (1 << 16) - 1),
    "lanes of a port": (port, 0, 1),
    "lanes that divide nothing": (port, 4, 3),
    "lanes that are no number": (port, True, 1),
    "lanes between numbers": (port, 2.0, 2),
    "bytes of words": (read, LINE.astype(np.int8), LINE),
    "frames of words": (read, LINE[0], LINE),
    "beats of words": (read, LINE[:, :3], LINE),
    "bytes of a beat": (read, LINE[:, :, :5], LINE),
    "lanes that divide the tokens alone": (
        lambda n: TransposeStage(Transpose(TensorType((4, 6), INT8)), lanes=n),
        4,
        2,
    ),
    "lanes that divide the channels alone": (
        lambda n: TransposeStage(Transpose(TensorType((4, 6), INT8)), lanes=n),
        3,
        1,
    ),
    "a folding of nothing": (lambda n: check_folding("x", simd=(n, 4)), 0, 1),
    "a folding that does not divide": (lambda n: check_folding("x", simd=(n, 4)), 3, 4),
    "a folding beyond all": (lambda n: check_folding("x", pe=(n, 4)), 8, 4),
}


@pytest.mark.parametrize("what", LIMITS)
def test_what_is_just_too_much_is_refused(what):
    make, refused, taken = LIMITS[what]
    make(taken)
    with pytest.raises(BittrueError):
        make(refused)
