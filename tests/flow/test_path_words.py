"""Critical paths in words: paths that nextpnr gave for designs of this project, and what is to be said of them."""

import pytest

from bittrue.flow.synth.netlist import cell_type
from bittrue.flow.synth.words import PathStep, helps, where

P = "pipeline.blocks_1_token_"
BETWEEN = "from register x0 of blocks_1_token_norm through a multiplier to register product0 of blocks_1_token_residual"
#: Clock-to-output of a block RAM whose register lies in the fabric, behind a LUT.
RAM = (
    PathStep("clk-to-q", 5.83, "pipeline.layer0.vectors.0.3.DOB16", "DP16KD"),
    PathStep("routing", 2.91, "pipeline.layer0.x15_TRELLIS_FF_Q_7_DI_LUT4_Z.D", "LUT4"),
    PathStep("logic", 0.24, "pipeline.layer0.x15_TRELLIS_FF_Q_7_DI_LUT4_Z.F", "LUT4"),
    PathStep("routing", 0.13, "pipeline.layer0.x15_TRELLIS_FF_Q_7.DI", "TRELLIS_FF"),
    PathStep("setup", 0, "pipeline.layer0.x15_TRELLIS_FF_Q_7.DI", "TRELLIS_FF"),
)
#: From a register of one stage through a multiplier of the next.
MULTIPLIER = (
    PathStep("clk-to-q", 0.525, f"{P}norm.x0_TRELLIS_FF_Q_4.Q", "TRELLIS_FF"),
    PathStep("routing", 1.387, f"{P}residual.$1_MULT18X18D_P9.A14", "MULT18X18D"),
    PathStep("logic", 3.927, f"{P}residual.$1_MULT18X18D_P9.P10", "MULT18X18D"),
    PathStep("routing", 3.806, f"{P}residual.product0_TRELLIS_FF_Q_7.M", "TRELLIS_FF"),
    PathStep("setup", 0, f"{P}residual.product0_TRELLIS_FF_Q_7.M", "TRELLIS_FF"),
)
#: An adder from register to register, and a net into it that is not long.
ADDER = (
    PathStep("clk-to-q", 0.5, "pipeline.fc.tree3_0_1_TRELLIS_FF_Q_2.Q", "TRELLIS_FF"),
    PathStep("routing", 0.9, "pipeline.fc.acc0_TRELLIS_FF_Q_DI_CCU2C_S0$CCU2_COMB0.A", "CCU2C"),
    PathStep("logic", 0.45, "pipeline.fc.acc0_TRELLIS_FF_Q_DI_CCU2C_S0$CCU2_COMB0.FCO", "CCU2C"),
    PathStep("logic", 0.9, "pipeline.fc.acc0_TRELLIS_FF_Q_DI_CCU2C_S0$CCU2_COMB1.F", "CCU2C"),
    PathStep("setup", 0, "pipeline.fc.acc0_TRELLIS_FF_Q_3.DI", "TRELLIS_FF"),
)
#: Control: LUT after LUT.
CONTROL = (
    PathStep("clk-to-q", 0.5, "pipeline.y.outlet.available_TRELLIS_FF_Q.Q", "TRELLIS_FF"),
    *(PathStep("logic", 0.24, f"pipeline.y.token_LUT4_{k}.F", "LUT4") for k in range(5)),
    PathStep("setup", 0, "pipeline.y.bank_TRELLIS_FF_Q.CE", "TRELLIS_FF"),
)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (RAM, "9.1 ns from block RAM vectors of layer0 through 1 LUT to register x15 of the same (5.8 clk-to-q, 3.0 "),
        (MULTIPLIER, f"9.6 ns {BETWEEN} (0.5 clk-to-q, 5.2 routing, 3.9 logic)"),
        (ADDER, "2.8 ns from register tree3_0_1 of fc through an adder to register acc0 of the same"),
        (CONTROL, "1.7 ns from register outlet.available of y through 5 LUTs to register bank of the same"),
        ((), ""),
    ],
)
def test_where_it_goes(path, words):
    assert where(path).startswith(words)
    assert bool(where(path)) == bool(path)


@pytest.mark.parametrize(
    ("path", "first", "others"),
    [
        (RAM, "a register right behind block RAM vectors of layer0", 0),
        (MULTIPLIER, "the net from a multiplier of blocks_1_token_residual to register product0", 1),
        (ADDER, "narrower sums", 0),
        (CONTROL, "a register among the 5 LUTs in a row of y", 0),
    ],
)
def test_what_would_help(path, first, others):
    found = helps(path)
    assert found[0].startswith(first)
    assert len(found) == 1 + others


def test_a_multiplier_with_registers_needs_none():
    fast = [PathStep(s.kind, min(s.ns, 1.9), s.at, s.cell) for s in MULTIPLIER]
    assert any("both sides of the multiplier" in text for text in helps(MULTIPLIER))
    assert not any("both sides of the multiplier" in text for text in helps(fast))
    assert helps(()) == ()


def test_what_takes_long_is_told_by_what_it_is():
    """A long way into an adder is no adder, nor into a multiplier one; a net is told with the cell it begins at."""
    for cell in ("CCU2C", "MULT18X18D"):
        path = (
            PathStep("clk-to-q", 0.5, "pipeline.a.x0_TRELLIS_FF_Q.Q", "TRELLIS_FF"),
            PathStep("routing", 4.0, "pipeline.b.s0_CCU2C_S0.A", cell),
            PathStep("logic", 0.1, "pipeline.b.s0_CCU2C_S0.F", cell),
            PathStep("setup", 0, "pipeline.b.s0_TRELLIS_FF_Q.DI", "TRELLIS_FF"),
        )
        (only,) = helps(path)
        assert only.startswith("the net from register x0 of a to ")
        swapped = (path[0], PathStep("routing", 0.1, *_of(path[1])), PathStep("logic", 4.0, *_of(path[2])), path[3])
        (only,) = helps(swapped)
        assert only.startswith({"CCU2C": "narrower sums", "MULT18X18D": "a register on both sides"}[cell])


def test_what_would_help_is_said_of_the_stage_that_it_is_in():
    """A path that begins in a block of one stage and ends in a register of another."""
    path = (
        PathStep(RAM[0].kind, RAM[0].ns, *_of(RAM[0])),
        *RAM[1:3],
        *(PathStep(s.kind, s.ns, *_of(s)) for s in CONTROL[-1:]),
    )
    first, *_ = helps(path)
    assert first.startswith("a register right behind block RAM vectors of layer0, which its block")
    assert where(path).endswith(" of y (5.8 clk-to-q, 2.9 routing, 0.2 logic)")


def _of(step: PathStep) -> tuple[str, str]:
    return step.at, step.cell


def test_a_cell_that_was_split_is_of_the_type_of_the_whole():
    types = {"a": "LUT4", "b$1": "CCU2C", "b": "DP16KD", "c$d": "TRELLIS_FF"}
    wanted = {"a": "LUT4", "b$1": "CCU2C", "b$2": "DP16KD", "c$d$7": "TRELLIS_FF", "c": "cell", "e$1": "cell"}
    assert {name: cell_type(types, name) for name in wanted} == wanted


def test_names_of_other_families_and_of_ports():
    assert PathStep("clk-to-q", 1, "pipeline.fc.weights.memory.0.0.RDATA", "SB_RAM40_4K").what == "block RAM weights"
    assert PathStep("logic", 1, "pipeline.fc.$3_MULT9X9.DOUT", "MULT9X9").what == "a multiplier"
    table = PathStep("setup", 0, "design.pipeline.lif.membranes.1$DPRAM_COMB1.DI", "TRELLIS_DPR16X4")
    assert (table.stage, table.what) == ("lif", "distributed RAM membranes")
    assert PathStep("setup", 0, "errors_TRELLIS_FF_Q_7.CE", "TRELLIS_FF").stage == "the ports"
    assert PathStep("setup", 0, "errors_TRELLIS_FF_Q_7.CE", "TRELLIS_FF").what == "register errors"
