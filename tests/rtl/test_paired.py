"""Two vectors at once, a weight and two codes in a multiplier: exact in every folding, taken for odd outputs."""

import re

import numpy as np
import pytest
from amaranth.back import rtlil

from bittrue.rtl.dataflow.folding import Folding
from bittrue.rtl.dataflow.packed import unsuited
from bittrue.rtl.dataflow.paired import PairedProducts, Unpair
from bittrue.rtl.dataflow.plan import Plan, foldable, plan, size_fifos
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.program import Program
from tests.helpers.exact import exact
from tests.helpers.flip_flops import flip_flops
from tests.helpers.lengths import long_but
from tests.helpers.products import FORMATS, S8, program
from tests.helpers.programs import resmlp
from tests.helpers.stage_bench import StageBench
from tests.helpers.stages import batches, exact_to_the_cycle


@pytest.mark.parametrize("seed", long_but(range(5), *range(3)))
def test_any_folding_is_exact_to_the_cycle(seed):
    """Codes, latency, intervals, and under stalls nothing but time; steps that do not divide the inputs, too."""
    rng = np.random.default_rng(seed)
    weight_format, code = FORMATS[seed % len(FORMATS)]
    outputs, inputs = int(rng.integers(1, 6)), int(rng.integers(2, 7))
    weight = rng.integers(weight_format.low, weight_format.high + 1, (outputs, inputs))
    weight.reshape(-1)[:2] = [weight_format.low, weight_format.high]
    p = program(weight, weight_format, code, 4, rng)
    foldings = foldable(p, "paired")["y"].foldings(p["y"])
    for folding in foldings:
        lanes = int(rng.choice([n for n in range(1, inputs + 1) if not inputs % n and not folding.simd % n]))
        planned = size_fifos(Plan(p, {"y": folding}, {"x": lanes}))
        bench, x = StageBench(planned), batches(planned, rng, 5)
        exact_to_the_cycle(bench, x)
        np.testing.assert_array_equal(bench.run(x, 0.3, 0.4, seed).outputs, p.reference(*x))
        (stage,) = [e.stage for e in planned.network.elements if e.node == "y"]
        assert stage.multipliers == folding.simd * folding.pe
        for element in planned.network.elements if folding.pe == outputs else ():
            assert element.stage.structure().registers == flip_flops(element.stage), element.name
        steps = -(-inputs // folding.simd)
        assert planned.estimated_interval == 2 * max(2 * inputs // lanes, outputs // folding.pe * steps)


def test_ranges_are_those_of_every_two_codes():
    """The second vector's products lack what the first one's borrow, whatever the codes of both are."""
    weight = np.array([[3, -2, 0]])
    products = PairedProducts(weight, Format(3), 2, 1)
    assert products.steps == 2
    first, second = products.levels[0]
    codes = np.arange(-4, 4)
    for k, weights in enumerate(([3, 0], [-2, 0])):
        x, y = np.meshgrid(codes, codes)
        low = np.stack([w * x for w in weights])
        high = np.stack([w * y - (w * x < 0) for w in weights])
        assert (first[k].low, first[k].high) == (low.min(), low.max())
        assert (second[k].low, second[k].high) == (high.min(), high.max())
    assert products.sums[0] == products.sums[1]


def odd(tokens: int = 4, outputs: int = 7) -> Program:
    rng = np.random.default_rng(5)
    return program(rng.integers(-128, 128, (outputs, 9)), S8, S8, tokens, rng)


def test_it_is_taken_for_packed_where_outputs_are_odd():
    """Half the multipliers, and one where their number is odd; not where it takes no fewer, or vectors are no pairs."""
    p = odd()
    assert plan(p, 4 * 9, architecture="packed").folding["y"] == Folding(5, 1, "paired")
    assert plan(p, 4 * 9).folding["y"] == Folding(1, 7)
    assert plan(p, 4 * 63, architecture="packed").folding["y"] == Folding(1, 1)  # one multiplier in any case
    assert plan(odd(3), 3 * 9, architecture="packed").folding["y"].architecture == "parallel"
    assert plan(odd(4, 8), 4 * 9, architecture="packed").folding["y"].architecture == "packed"
    assert plan(odd(4, 8), 4 * 9, architecture="paired").folding["y"].architecture == "paired"  # as asked


@pytest.mark.parametrize(
    ("tokens", "weights", "interval"), long_but([(5, None, 60), (9, "written", 60)], (9, "written", 60))
)
def test_a_network_of_odd_tokens(tokens, weights, interval):
    """Token mixing over five tokens, or nine: written weights, which are exchanged as ever, have no columns of 0."""
    program = resmlp(tokens=tokens, channels=4, classes=3)
    planned = plan(program, interval, architecture="packed", weights=weights)
    kinds = {name: folding.architecture for name, folding in planned.folding.items()}
    assert kinds["block0.token.linear"] == "paired"
    assert kinds["classifier"] == "parallel"  # three classes, one vector
    exact(planned, 1)


@pytest.mark.parametrize(
    ("p", "folding", "message"),
    [
        (odd(3), Folding(3, 1, "paired"), "3 vectors are no pairs; take the architecture 'parallel'"),
        (odd(), Folding(9, 1, "paired"), "simd = 9 of 9 inputs: a sum has to take two steps"),
        (odd(), Folding(3, 2, "paired"), "pe = 2 does not divide 7"),
        (program(np.ones((3, 1), int), S8, S8, 2), Folding(1, 1, "paired"), "a sum of one product takes no two steps"),
        (program(np.ones((3, 2), int), S8, Format(1, signed=False), 2), Folding(1, 1, "paired"), "codes of one bit"),
        (program(np.ones((3, 2), int), S8, Format(10), 2), Folding(1, 1, "paired"), "a multiplier of 29x8 bits, over"),
    ],
)
def test_what_cannot_be_built_says_why(p, folding, message):
    with pytest.raises(BittrueError, match=message):
        _ = Plan(p, {"y": folding}, {"x": 1}).network


def test_an_interval_that_pairs_cannot_reach_and_targets_without_wide_multipliers():
    with pytest.raises(BittrueError, match="y: 2 pairs of vectors need more than 3 cycles a frame"):
        plan(odd(), 3, architecture="paired")
    message = "y: packed products need multipliers of 25x18 bits, which ecp5-85k does not have"
    assert message in str(unsuited({"y": Folding(5, 1, "paired")}, "ecp5-85k"))
    assert unsuited({"y": Folding(5, 1, "paired")}, "xilinx-us+") is None


def test_outputs_of_pairs_are_written_and_read_once_more():
    """Beside what the same folding without pairs does: they come alternately, and leave one vector after the other."""
    p = odd()
    paired, alone = (
        next(e.stage for e in plan(p, 4 * 63, folding={"y": Folding(3, 1, kind)}).network.elements if e.node == "y")
        for kind in ("paired", "parallel")
    )
    written = [sum(t.written for t in one.effort().memory if t.purpose == "values") for one in (paired, alone)]
    assert written[1] == p["y"].input.size * 8
    assert written[0] - written[1] == p["y"].output.size * p["y"].output.format.bits
    assert paired.effort().additions == alone.effort().additions
    assert paired.effort().multiplications == alone.effort().multiplications


@pytest.mark.parametrize("beats", [1, 3, 9])
def test_the_memory_that_puts_pairs_in_order_is_counted(beats):
    """In distributed RAMs of 16 words of 4 bits, as they are found in what yosys is given."""
    stage = Unpair(Format(7), 2, beats, 1)
    found = re.findall(r"memory width (\d+) size (\d+)", rtlil.convert(stage))
    assert len(found) == 2  # and the outlet's
    assert stage.structure().lutrams == sum(-(-int(width) // 4) * -(-int(size) // 16) for width, size in found)
