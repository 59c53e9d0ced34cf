"""Where hard blocks are put: sites that the device has, springs against a dense elimination, and what lies near."""

import json

import numpy as np
import pytest

from bittrue.flow.synth.floorplan import Floorplan, _springs
from bittrue.flow.synth.synthesis import _Run
from bittrue.flow.synth.targets import TARGETS, Site, target

SIZES = [name for name, device in TARGETS.items() if device.sites]


def cell(kind, **pins):
    return {
        "type": kind,
        "parameters": {},
        "attributes": {},
        "port_directions": {pin: "output" if pin in ("Q", "P0", "DOA0") else "input" for pin in pins},
        "connections": {pin: bits if isinstance(bits, list) else [bits] for pin, bits in pins.items()},
    }


def blocks(*connections):
    """A module of multipliers `m0, m1, ...` of these wires."""
    return {"cells": {f"m{k}": cell("MULT18X18D", P0=bits) for k, bits in enumerate(connections)}}


def grid(columns, rows, kind="MULT18X18D"):
    return {kind: tuple(Site(x, y, f"X{x}/Y{y}") for y in range(rows) for x in range(columns))}


@pytest.mark.parametrize("name", SIZES)
def test_nextpnr_has_every_site(name, tmp_path):
    device, cells, net = target(name), {}, iter(range(10, 1000))
    for kind, sites in device.sites.items():
        assert len({site.name for site in sites}) == len(sites) == device.holds[{"DP16KD": "bram"}.get(kind, "dsp")]
        for site in sites:
            assert site.name.startswith(f"X{site.x}/Y{site.y}/")
            made = cell(kind, **({"P0": next(net)} if kind == "MULT18X18D" else {"DOA0": next(net), "CLKA": 2}))
            made["attributes"]["BEL"] = site.name
            cells[site.name] = made
    top = {"attributes": {"top": "1"}, "ports": {"clk": {"direction": "input", "bits": [2]}}, "cells": cells}
    (tmp_path / "p.json").write_text(json.dumps({"creator": "test", "modules": {"top": top | {"netnames": {}}}}))
    run = _Run(device, tmp_path, "top", lambda _: None, 600)
    command, *told = device.router
    told += ["--json", "p.json", "--write", "placed.json", "--no-route", *device.bare]
    assert run._tool("route", command, told), run._tail("route")
    placed = json.loads((tmp_path / "placed.json").read_text())["modules"]["top"]["cells"]
    assert {name: c["attributes"]["NEXTPNR_BEL"] for name, c in placed.items() if name in cells} == {
        n: n for n in cells
    }


def test_a_way_of_n_registers_pulls_with_one_nth_of_a_wire():
    module = blocks([1, 2], [1, 5])
    module["cells"]["m2"] = cell("MULT18X18D", P0=[4])
    module["cells"] |= {"f0": cell("TRELLIS_FF", D=2, Q=3), "f1": cell("TRELLIS_FF", D=3, Q=4)}
    pulls = Floorplan(module, grid(3, 1)).pulls
    assert pulls[0, 1] == pulls.max() > 0
    assert pulls[0, 2] == pytest.approx(pulls[0, 1] / 3, rel=1e-3)  # three wires, two registers between
    assert pulls[1, 2] == 0


def test_springs_are_those_of_a_dense_elimination():
    draw = np.random.default_rng(3)
    count, soft, wires = 12, 40, 60
    nets = [draw.choice(count + soft, draw.integers(2, 12), replace=False) for _ in range(wires)]
    pins = [[10 + n for n, ends in enumerate(nets) if k in ends] for k in range(count + soft)]
    module = blocks(*pins[:count])
    module["cells"] |= {f"f{k}": cell("TRELLIS_FF", Q=bits) for k, bits in enumerate(pins[count:])}
    stiffness = np.zeros((count + soft, count + soft))
    for ends in nets:
        stiffness[np.ix_(ends, ends)] += 1 / (len(ends) - 1)
    np.fill_diagonal(stiffness, 0)
    laplace = np.diag(stiffness.sum(1) + 1e-9) - stiffness
    kept = laplace[:count, count:] @ np.linalg.solve(laplace[count:, count:], laplace[count:, :count])
    expected = kept - laplace[:count, :count]
    np.fill_diagonal(expected, 0)
    pulls = Floorplan(module, grid(4, 4)).pulls
    np.testing.assert_allclose(pulls / pulls.max(), expected / expected.max(), atol=1e-3)


@pytest.mark.parametrize("chain", [False, True])
def test_springs_of_a_net_hold_its_pins_together_as_those_between_all_of_them_do(chain):
    """Whether each pulls each or all pull their middle, and then no more of them than a pin has: pins may be many."""
    draw, few = np.random.default_rng(1), 0
    for size in range(2, 40):
        nets = [([int(k) for k in draw.permutation(50)[:size]], chain)]
        count, stiffness, one, other = _springs(nets, 50)
        assert count in (50, 51)
        full = np.zeros((count, count))
        np.add.at(full, (one, other), stiffness)
        np.testing.assert_array_equal(full, full.T)
        laplace = np.diag(full.sum(1)) - full
        kept = laplace[:50, :50]
        if count > 50:  # the middle moves to where nothing pulls it
            kept = kept - np.outer(laplace[:50, 50], laplace[50, :50]) / laplace[50, 50]
            assert len(stiffness) == 2 * size
        few = max(few, size if count == 50 else 0)
        pins = nets[0][0]
        expected = np.zeros((50, 50))
        expected[np.ix_(pins, pins)] = -1 / (size - 1)
        expected[pins, pins] = 1
        scale = kept[pins[0], pins[0]]
        assert scale > 0
        np.testing.assert_allclose(kept, scale * expected, atol=1e-12)
        if not chain:
            assert scale == pytest.approx(1, rel=1e-12)
    assert 2 <= few < 10
    assert all(_springs([(list(range(size)), chain)], 50)[0] == 50 + (size > few) for size in range(2, 40))


@pytest.mark.parametrize("stiffness", [None, 1])
def test_a_ring_of_blocks_is_laid_as_a_ring(stiffness):
    """However weak its springs are beside others: by whole numbers, the least of which is 1."""
    around = 16
    module = blocks(*([k + 2, (k + 5) % around + 2] for k in range(around)))
    plan = Floorplan(module, grid(4, 4))
    if stiffness is not None:
        plan.__dict__["pulls"] = stiffness * (plan.pulls > 0).astype(np.int64)
    at = plan.places(1)
    assert len(set(at.values())) == around
    ring = {k: at[f"m{k}"] for k in range(around)}
    length = sum(
        abs(ring[k].x - ring[(k + 5) % around].x) + abs(ring[k].y - ring[(k + 5) % around].y) for k in range(around)
    )
    assert length <= around + 2  # each beside the next, once or so not
    assert plan.places(1) == at != plan.places(2)


def test_blocks_lie_on_sites_of_their_kind_and_are_told_so():
    module = blocks([2], [2, 3])
    module["cells"]["ram"] = cell("DP16KD", DOA0=3)
    sites = grid(5, 2) | {"DP16KD": tuple(Site(x, 9, f"X{x}/Y9") for x in range(5))}
    plan = Floorplan(module, sites)
    assert "3 multipliers and block RAMs" in plan.place(4)
    at = {name: made["attributes"]["BEL"] for name, made in module["cells"].items()}
    assert at["ram"].endswith("Y9")
    assert not {at["m0"], at["m1"]} & {s.name for s in sites["DP16KD"]}
    assert abs(plan.places(4)["m0"].x - plan.places(4)["m1"].x) <= 1


def test_nothing_to_place():
    plan = Floorplan({"cells": {"f": cell("TRELLIS_FF", D=2, Q=3)}}, target("ecp5-25k").sites)
    assert plan.blocks == []
    assert plan.places(1) == {}


@pytest.mark.parametrize(("count", "pays"), [(2, False), (3, True), (10, True), (11, False)])
def test_places_are_given_where_many_multipliers_are_used(count, pays):
    """Of ten sites three are many, and eleven do not fit; block RAMs alone do not count."""
    sites = grid(5, 2) | {"DP16KD": tuple(Site(x, 9, f"X{x}/Y9") for x in range(5))}
    module = blocks(*([2, k + 3] for k in range(count)))
    module["cells"] |= {f"ram{k}": cell("DP16KD", DOA0=2) for k in range(5)}
    assert Floorplan(module, sites).pays == pays
    assert not Floorplan(blocks([2, 3]), {"DP16KD": sites["DP16KD"]}).pays


@pytest.mark.parametrize("across", [True, False])
def test_a_register_is_made_again_where_its_blocks_lie_far_apart(across):
    """Two groups of blocks that have nothing in common but one register lie at both ends of a long row, or column."""
    pairs = [cell("MULT18X18D", A0=9, P0=[10 + k // 4 * 10, 11 + k // 4 * 10]) for k in range(8)]
    module = {"cells": {f"m{k}": made for k, made in enumerate(pairs)} | {"f": cell("TRELLIS_FF", CLK=1, DI=2, Q=9)}}
    far_and_near = (0, 1, 2, 3, 200, 201, 202, 203)
    ends = [Site(at, 0, f"X{at}/Y0") if across else Site(at % 2, at, f"X{at}/Y0") for at in far_and_near]
    plan = Floorplan(module, {"MULT18X18D": tuple(ends)})
    before = json.dumps(module)
    told = plan.place(1)
    copies = [name for name, made in module["cells"].items() if made["type"] == "TRELLIS_FF" and name != "f"]
    assert len(copies) == 1
    assert "1 registers made again" in told
    copy = module["cells"][copies[0]]
    assert {pin: bits for pin, bits in copy["connections"].items() if pin != "Q"} == {"CLK": [1], "DI": [2]}
    source = {9: "f", copy["connections"]["Q"][0]: copies[0]}
    assert len(source) == 2
    side = {}
    for made in (module["cells"][f"m{k}"] for k in range(8)):
        far = made["attributes"]["BEL"].startswith("X2") and made["attributes"]["BEL"] != "X2/Y0"
        assert side.setdefault(source[made["connections"]["A0"][0]], far) == far  # a register, an end
    plan.place(2)
    assert len(module["cells"]) == 10  # what the first seed made again has gone
    for name in plan.copies:
        del module["cells"][name]
    for pins, pin, bits in plan.undo:
        pins[pin] = bits
    for made in module["cells"].values():
        made["attributes"].clear()
    assert json.dumps(module) == before
