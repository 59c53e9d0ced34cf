"""Every registered operation, on random geometries, full-range values and corners: fast run == reference."""

from dataclasses import fields

import numpy as np
import pytest

from bittrue.sim.conformance import batches, make, run_equals_reference
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import Operation, discover, same
from bittrue.sim.program import Node, Program

OPERATIONS = discover()
SEEDS = range(25)


@pytest.mark.parametrize("name", [name for name, cls in OPERATIONS.items() if cls.table is not Operation.table])
def test_table_is_the_function(name):
    tried = 0
    for seed in SEEDS:
        op, rng = make(name, seed)
        table = op.table()
        assert (table is None) == (op.inputs[0].format.bits > 8)
        if table is not None:
            (x,) = next(iter(batches(op, rng)))
            expected = table[np.arange(op.inputs[0].channels), x.astype(int) - op.inputs[0].format.low]
            np.testing.assert_array_equal(expected, op.reference(x))
            tried += 1
    assert tried > len(SEEDS) // 4


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", OPERATIONS)
class TestOperation:
    def test_run_equals_reference(self, name, seed):
        run_equals_reference(*make(name, seed))

    def test_saved_and_loaded_is_the_same(self, name, seed, tmp_path):
        op, _ = make(name, seed)
        inputs = {f"x{k}": t for k, t in enumerate(op.inputs)}
        program = Program(inputs, (Node("y", op, tuple(inputs)),), "y", {"note": "one operation"})
        again = Program.load(program.save(tmp_path / "p.npz"))
        assert again.sha256 == program.sha256
        assert same(again["y"], op)
        assert again.meta == program.meta

    def test_wrong_operands_are_refused(self, name, seed):
        op, rng = make(name, seed)
        x = next(iter(batches(op, rng)))
        with pytest.raises(BittrueError, match="operands, got"):
            op(*x, x[0])
        with pytest.raises(BittrueError, match="expected shape"):
            op(*(v[..., None] for v in x))
        with pytest.raises(BittrueError, match="codes are integers"):
            op(*(v.astype(float) for v in x))
        with pytest.raises(BittrueError, match="do not fit"):
            op(*(np.full(v.shape, t.format.high + 1, np.int64) for v, t in zip(x, op.inputs, strict=True)))


@pytest.mark.parametrize("name", OPERATIONS)
def test_constants_are_complete(name):
    """Hardware is told every parameter array under the operation's own name for it, each within its format."""
    op = OPERATIONS[name].example(np.random.default_rng(0))
    told = {key: value for key, value in op.constants.items() if isinstance(value, tuple)}
    for key, (fmt, array) in told.items():
        assert fmt.holds(array), key
    owners = [op, op.requantize] if hasattr(op, "requantize") else [op]
    arrays = {f.name: getattr(owner, f.name) for owner in owners for f in fields(owner)}
    arrays = {key: array for key, array in arrays.items() if isinstance(array, np.ndarray)}
    if name == "PhotonicMac":  # the light of both rails is the weight's and, without an input, the pedestal's
        plus, minus = arrays.pop("plus").astype(int), arrays.pop("minus").astype(int)
        np.testing.assert_array_equal(told["weight"][1], plus - minus)
        dark = [minus[:, part].sum(axis=1) * op.input.format.high for _, part in op.parts()]
        np.testing.assert_array_equal(told["pedestal"][1], dark)
    for key, array in arrays.items():
        np.testing.assert_array_equal(told[key][1], array, err_msg=key)
