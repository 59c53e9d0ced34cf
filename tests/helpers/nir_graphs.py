"""NIR graphs made by hand: chains of nodes, and one with every kind of neuron."""

import nir
import numpy as np

#: Time step of every graph here.
DT = 1e-4
STEPS = 6
#: Bits below a weight's step with which so many steps of a decay by quarters are exact.
EXACT = 2 * STEPS + 2


def chain(*nodes: nir.NIRNode, shape: tuple[int, ...], size: int) -> nir.NIRGraph:
    """Input, the nodes n0, n1, ... and Output in a row."""
    named = {f"n{k}": node for k, node in enumerate(nodes)}
    ends = {"input": nir.Input(input_type=np.array(shape)), "output": nir.Output(output_type=np.array([size]))}
    names = ["input", *named, "output"]
    edges = list(zip(names[:-1], names[1:], strict=True))
    return nir.NIRGraph(nodes=named | ends, edges=edges, type_check=False)


def lif(size: int, tau: float = 4 * DT, **options) -> nir.LIF:
    one = np.ones(size)
    fields = {"tau": tau * one, "r": 4 * one, "v_leak": 0 * one, "v_threshold": one, "v_reset": 0 * one}
    return nir.LIF(**fields | options)


def weights(outputs: int, inputs: int, seed: int = 0) -> np.ndarray:
    weight = np.random.default_rng(seed).integers(-100, 127, (outputs, inputs)) / 64
    weight[:, 0] = 127 / 64
    return weight


def small() -> nir.NIRGraph:
    """Every kind of neuron: LIF with leak potential, current-based, IF with a reset, a threshold, an integrator."""
    one = np.ones(6)
    return chain(
        nir.Affine(weight=weights(6, 5), bias=np.linspace(-0.5, 0.5, 6)),
        lif(6, v_leak=0.25 * one, v_threshold=np.linspace(0.5, 1.5, 6)),
        nir.Linear(weight=weights(6, 6, 1)),
        nir.CubaLIF(tau_syn=2 * DT * one, tau_mem=4 * DT * one, r=2 * one, v_leak=0.125 * one, v_threshold=one),
        nir.Scale(scale=np.linspace(0.25, 1.5, 6)),
        nir.IF(r=one, v_threshold=one, v_reset=-0.5 * one),
        nir.Affine(weight=weights(4, 6, 2), bias=np.zeros(4)),
        nir.Threshold(threshold=np.full(4, 0.75)),
        nir.Linear(weight=weights(3, 4, 3)),
        nir.LI(tau=np.full(3, 2 * DT), r=np.ones(3), v_leak=np.zeros(3)),
        shape=(5,),
        size=3,
    )
