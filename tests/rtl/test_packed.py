"""Two products in a multiplier: exact for all operands, in every folding, with written weights, and half the DSPs."""

import numpy as np
import pytest

from bittrue.flow.run.compiled import CompiledRtl
from bittrue.flow.synth.designs import synthesize_design
from bittrue.flow.synth.synthesis import synthesize
from bittrue.rtl.dataflow.design import PipelineDesign
from bittrue.rtl.dataflow.folding import Folding
from bittrue.rtl.dataflow.packed import WIDE, PackedProducts, offset, operand_bits, pack, suited
from bittrue.rtl.dataflow.plan import Plan, foldable, plan, size_fifos
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.program import Node, Program
from tests.helpers.exact import exact
from tests.helpers.lengths import long_but
from tests.helpers.products import FORMATS, S8, U8, program
from tests.helpers.programs import resmlp
from tests.helpers.small import every_input
from tests.helpers.stage_bench import StageBench
from tests.helpers.stages import batches, exact_to_the_cycle

PAIRS = [(S8, S8), (S8, U8), (U8, S8), (U8, U8), (Format(4), U8), (Format(2), S8), (Format(7), Format(9))]


@pytest.mark.parametrize(("weight", "code"), PAIRS)
def test_every_pair_of_weights_and_every_code(weight, code):
    """All of them, 2^24 of INT8: the lower product fits its place, and the upper one lacks what it borrowed."""
    shift, bits = offset(weight, code), operand_bits(weight, code)
    lower, x = weight.codes()[:, None], code.codes()[None, :]
    for upper in weight.codes():
        wide = pack(lower, upper, shift)
        assert -(1 << (bits - 1)) <= wide.min() <= wide.max() < 1 << (bits - 1)
        low, high = unpack(wide * x, shift)
        np.testing.assert_array_equal(low, lower * x)
        np.testing.assert_array_equal(high, np.broadcast_to(upper * x, high.shape))


@pytest.mark.parametrize("simd", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("code", [Format(3), Format(3, signed=False)])
def test_ranges_of_upper_sums_are_those_of_all_codes_and_lack_the_last_carry(simd, code):
    """Of every node of the tree of adders, each of whose leaves has any code of its own."""
    rng = np.random.default_rng(simd)
    for _ in range(4):
        lower, upper = weight = rng.integers(-4, 4, (2, simd))
        products = PackedProducts(weight, code, simd, 2)
        whole = upper[:, None] * code.codes()
        short = whole - (lower[:, None] * code.codes() < 0)
        for depth, level in enumerate(products.levels):
            for node, found in enumerate(level[1]):
                first, end = node << depth, min((node + 1) << depth, simd)
                leaves = [*whole[first : end - 1], short[end - 1]]
                assert (found.low, found.high) == (sum(v.min() for v in leaves), sum(v.max() for v in leaves))
        assert len(products.levels[-1][1]) == 1


def unpack(wide: np.ndarray, shift: int) -> tuple[np.ndarray, np.ndarray]:
    """Both products in a wide one: `lower x` and `upper x`."""
    low = wide & ((1 << shift) - 1)
    low -= (low >> (shift - 1)) << shift
    return low, (wide >> shift) + (low < 0)


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("code", [S8, U8])
def test_every_pair_of_weights_and_every_code_in_hardware(code):
    """The compiled stage, 65,536 pairs of weights times 256 codes, both products of each."""
    lower, upper = np.meshgrid(S8.codes(), S8.codes())
    p = program(np.stack([lower, upper], -1).reshape(-1, 1), S8, code, 1)
    planned = size_fifos(Plan(p, {"y": Folding(1, 2, "packed")}, {"x": 1}))
    x = code.codes().astype(code.dtype).reshape(256, 1, 1)
    compiled = CompiledRtl(PipelineDesign(planned).verilog(), planned.inputs, planned.outputs, optimize="-O2")
    run = compiled.run(x)
    assert run.errors == ()
    assert run.mismatches(p(x)) == 0
    assert run.interval == planned.estimated_interval == 1 << 16


@pytest.mark.parametrize("seed", long_but(range(12), *range(5)))
def test_any_folding_is_exact_to_the_cycle(seed):
    """Codes, latency, intervals, and under stalls nothing but time; registers as counted."""
    rng = np.random.default_rng(seed)
    weight_format, code = FORMATS[seed % len(FORMATS)]
    outputs, inputs = 2 * int(rng.integers(1, 5)), int(rng.integers(1, 10))
    weight = rng.integers(weight_format.low, weight_format.high + 1, (outputs, inputs))
    weight.reshape(-1)[: min(4, weight.size)] = [weight_format.low, weight_format.high, 0, weight_format.low][
        : weight.size
    ]
    p = program(weight, weight_format, code, 2, rng)
    foldings = foldable(p, "packed")["y"].foldings(p["y"])
    assert foldings
    for folding in foldings:
        planned = size_fifos(Plan(p, {"y": folding}, {"x": 1}))
        bench, x = StageBench(planned), batches(planned, rng, 5)
        exact_to_the_cycle(bench, x)
        np.testing.assert_array_equal(bench.run(x, 0.3, 0.4, seed).outputs, p.reference(*x))
        (stage,) = [e.stage for e in planned.network.elements if e.node == "y"]
        assert stage.multipliers * 2 == folding.simd * folding.pe


@pytest.mark.parametrize(("outputs", "architecture"), [(4, "packed"), (5, "paired")])
def test_vectors_go_to_block_ram_where_it_is_worth_less(outputs, architecture):
    """Two words of eight codes: block RAM by default, as the multipliers are of devices that have many; where it is
    worth more LUTs, distributed RAM, the same codes at the same time."""
    rng = np.random.default_rng(5)
    p = program(rng.integers(-128, 128, (outputs, 16)), S8, S8, 4, rng)
    found = []
    for worth in (54, None):
        planned = plan(p, interval=4 * 16 * outputs // 8, architecture="packed", block_luts=worth)
        assert planned.folding["y"].architecture == architecture
        bench, x = StageBench(planned), batches(planned, rng, 4)
        exact_to_the_cycle(bench, x)
        np.testing.assert_array_equal(bench.run(x, 0.3, 0.4, 1).outputs, p.reference(*x))
        found.append(planned.estimate)
    luts, blocks = found
    assert blocks.bram > luts.bram
    assert blocks.lut < luts.lut


def test_ranges_are_those_that_every_input_reaches():
    """Of the upper output of a pair every node lacks the carry of its last leaf; held to all inputs, node by node."""
    rng = np.random.default_rng(3)
    weight, code = rng.integers(-4, 4, (2, 3)), Format(2)
    products = PackedProducts(weight, code, 3, 2)
    p = program(weight, Format(3), code, 1)
    (x,) = every_input(p["y"])
    x = x.reshape(-1, 3).astype(np.int64)
    carry = weight[0] * x < 0
    leaves = weight[1] * x
    short = leaves - carry
    nodes = [
        short,
        np.stack([leaves[:, 0] + short[:, 1], short[:, 2]], 1),
        (leaves[:, :2].sum(1) + short[:, 2])[:, None],
    ]
    for level, found in zip(products.levels, nodes, strict=True):
        assert [(r.low, r.high) for r in level[1]] == list(zip(found.min(0), found.max(0), strict=True))


@pytest.mark.parametrize("code", [Format(2), Format(3, signed=False)])
@pytest.mark.parametrize(("low", "high"), [(-4, 3), (-2, 0), (1, 3), (-3, -1)])
def test_ranges_of_pairs_that_are_written(low, high, code):
    """Of every two weights within the bounds and every code, the lower product's borrow taken off the upper one."""
    ends = np.full((2, 1), low), np.full((2, 1), high)
    products = PackedProducts(ends, code, 1, 2)
    w, v, x = np.meshgrid(np.arange(low, high + 1), np.arange(low, high + 1), code.codes(), indexing="ij")
    borrowed = w * x - (v * x < 0)
    ((lower,), (upper,)) = products.levels[0]
    assert (upper.low, upper.high) == (borrowed.min(), borrowed.max())
    assert (lower.low, lower.high) == ((v * x).min(), (v * x).max())


@pytest.mark.parametrize("weights", [None, "written"])
def test_a_network_with_pairs(weights):
    """All matrices that can be packed are, the others are not; weights that are written are exchanged as ever."""
    planned = plan(resmlp(tokens=4, channels=6, classes=3), interval=96, architecture="packed", weights=weights)
    kinds = {name: folding.architecture for name, folding in planned.folding.items()}
    assert set(kinds.values()) == {"packed", "parallel"}
    assert kinds["classifier"] == "parallel"  # three classes
    plain = plan(planned.program, interval=96).network
    assert [(e.name, e.stage.lanes_out) for e in planned.network.elements] == [
        (e.name, e.stage.lanes_out) for e in plain.elements
    ]  # no more lanes for pairs
    exact(planned, 1)


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (program(np.ones((3, 2), int), S8, S8, 1)["y"], "3 outputs are no pairs"),
        (program(np.ones((2, 2), int), S8, Format(1, signed=False), 1)["y"], "codes of one bit choose weights"),
        (program(np.ones((2, 2), int), S8, Format(9), 1)["y"], f"need a multiplier of 26x9 bits, over {WIDE}x18"),
    ],
)
def test_what_cannot_be_packed_says_why(operation, message):
    p = Program({"x": operation.input}, (Node("y", operation, ("x",)),), "y")
    with pytest.raises(BittrueError, match=message):
        plan(p, architecture={"y": "packed"})
    assert plan(p, architecture="packed").folding["y"].architecture == "parallel"
    with pytest.raises(BittrueError, match="packed: "):
        _ = Plan(p, {"y": Folding(1, 1, "packed")}, {"x": 1}).network


def test_an_odd_number_of_outputs_at_a_time_is_refused():
    p = program(np.ones((6, 2), int), S8, S8, 1)
    with pytest.raises(BittrueError, match="pe = 3 is odd"):
        _ = Plan(p, {"y": Folding(1, 3, "packed")}, {"x": 1}).network


@pytest.mark.slow
@pytest.mark.parametrize(("target", "more"), [("xilinx-us+", 1.05), ("xilinx-7", 1.35)])
@pytest.mark.long
def test_half_the_multipliers(target, more, tmp_path):
    """INT8, 16 products a cycle in 8 DSPs. On 7 series yosys takes adders into the DSPs where one product each leaves
    them free, which costs the packed ones LUTs; on UltraScale+ it does not."""
    p = program(np.random.default_rng(1).integers(-128, 128, (16, 16)), S8, S8, 1, np.random.default_rng(2))
    used = {}
    for architecture in ("parallel", "packed"):
        planned = size_fifos(Plan(p, {"y": Folding(8, 2, architecture)}, {"x": 1}))
        used[architecture] = synthesize(PipelineDesign(planned).verilog(), target, tmp_path / architecture)
    print({name: result.to_dict() for name, result in used.items()})
    assert (used["parallel"].dsp, used["packed"].dsp) == (16, 8)
    assert used["packed"].lut <= more * used["parallel"].lut


@pytest.mark.parametrize(
    ("targets", "architecture"),
    [
        (["xilinx-us+"], "packed"),
        (["xilinx-7", "xilinx-us+"], "packed"),
        (["xilinx-7", "ecp5-85k"], None),
        ([], None),
    ],
)
def test_it_is_taken_where_all_targets_have_wide_multipliers(targets, architecture):
    assert suited(targets) == architecture


def test_an_architecture_that_nothing_has_is_refused():
    p = program(np.ones((2, 2), int), S8, S8, 1)
    with pytest.raises(
        BittrueError, match="has the architecture 'pakced'; use one of adders, events, packed, paired, parallel"
    ):
        plan(p, architecture="pakced")


def test_a_target_with_narrow_multipliers_is_refused(tmp_path):
    """Whatever asked for it; a device of such multipliers is planned for as if nothing were packed."""
    p = resmlp(tokens=4, channels=6, classes=3)
    planned = plan(p, device="ecp5-25k", architecture="packed")
    assert planned.estimated_interval <= plan(p, device="ecp5-25k").estimated_interval
    for target in ("ecp5-85k", "ice40-up5k", "gowin-gw1n9"):
        with pytest.raises(BittrueError, match=f"packed products need multipliers of 25x18 bits, which {target} does"):
            synthesize_design(PipelineDesign(planned), target, tmp_path)
    assert PipelineDesign(planned).unsuited("xilinx-7") is None
    assert PipelineDesign(plan(p, interval=96)).unsuited("ecp5-85k") is None
