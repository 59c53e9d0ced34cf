"""The fused layers against plain autograd of their equations, and the exact ones against `sim`."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bittrue.models.layers.exact import (
    POWERS,
    expand,
    interpolate_codes,
    interpolate_codes_plain,
    requantize,
    requantize_plain,
    round_through,
)
from bittrue.models.layers.integer import (
    CodeStep,
    IntegerLinear,
)
from bittrue.models.layers.psa import LerpPsa, Psa, interpolate, interpolate_plain
from bittrue.sim.contract import Format, round_shift, saturate
from bittrue.sim.operation import TensorType
from bittrue.sim.operations.lerp import Lerp


def gradients(function, *inputs):
    """The function's value and the gradients of a fixed weighting of it."""
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    y = function(*inputs)
    weight = torch.linspace(-1, 1, y.numel()).view(y.shape)
    return y.detach(), torch.autograd.grad((y * weight).sum(), inputs)


def randomized(layer):
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    return layer


def test_psa_is_the_published_equation():
    torch.manual_seed(1)
    psa = randomized(Psa(3, terms=5)).double()
    names = ("value", "centre", "width", "gain", "offset")
    v, centre, width, gain, offset = (getattr(psa, name).detach().numpy() for name in names)
    x = torch.randn(4, 2, 3, dtype=torch.float64)
    y = psa(x)
    for i, j, c in np.ndindex(4, 2, 3):
        value = float(x[i, j, c])
        d = [(value - centre[c, k]) ** 2 / (width[c, k] ** 2 + 1) for k in range(5)]
        a = np.exp(-np.array(d)) / np.exp(-np.array(d)).sum()
        expected = gain[c] * (a * v[c]).sum() * value + offset[c] + value
        assert float(y[i, j, c].detach()) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(("points", "span"), [(64, 4.0), (7, 2.5), (2, 1.0)])
def test_fused_interpolation_agrees_with_autograd_of_its_equation(points, span):
    torch.manual_seed(2)
    x = torch.randn(5, 3, 6) * 3
    x.view(-1)[:4] = torch.tensor([-1e6, 1e6, span, -span])
    grid = torch.randn(6, points)
    fast, plain = (gradients(lambda a, b, f=f: f(a, b, span), x, grid) for f in (interpolate, interpolate_plain))
    exact, exact_grads = gradients(lambda a, b: interpolate_plain(a, b, span), x.double(), grid.double())
    for value in (fast, plain):
        torch.testing.assert_close(value[0].double(), exact, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(value[1][0].double(), exact_grads[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(value[1][1].double(), exact_grads[1], rtol=1e-4, atol=1e-2)


def test_lerp_psa_meets_psa_at_its_grid_and_continues_beyond():
    torch.manual_seed(3)
    lerp = randomized(LerpPsa(4, points=9, span=2.0))
    at = torch.linspace(-2, 2, 9)[:, None].expand(-1, 4).contiguous()
    torch.testing.assert_close(lerp(at), lerp.exact(at), rtol=1e-5, atol=1e-5)
    beyond = torch.tensor([2.0, 2.5, 3.0])[:, None].expand(-1, 4).contiguous()
    y = lerp(beyond)
    torch.testing.assert_close(y[1] - y[0], y[2] - y[1], rtol=1e-3, atol=1e-3)


def test_lerp_psa_trains_the_parameters_of_its_psa():
    torch.manual_seed(4)
    lerp = randomized(LerpPsa(3, points=33))
    x = torch.randn(20, 3)
    for parameter in lerp.parameters():
        fast = torch.autograd.grad(lerp(x).square().sum(), parameter)[0]
        plain = torch.autograd.grad(interpolate_plain(x, lerp.grid(), 4.0).square().sum(), parameter)[0]
        torch.testing.assert_close(fast, plain, rtol=1e-3, atol=1e-3)
        assert fast.abs().max() > 0


def test_nan_does_not_reach_outside_a_table():
    x = torch.full((2, 3), float("nan"))
    assert interpolate(x, torch.randn(3, 5), 1.0).isnan().all()
    assert interpolate_codes(x, torch.zeros(3, 65), -128, 2).isfinite().all()


def test_rounding_is_half_up_and_lets_gradients_through():
    y, (dx,) = gradients(round_through, torch.tensor([-1.5, -0.5, 0.49, 0.5, 2.5]))
    assert y.tolist() == [-1, 0, 0, 1, 3]
    assert dx.tolist() == torch.linspace(-1, 1, 5).tolist()


@pytest.mark.parametrize("kind", [torch.float32, torch.float64])
@pytest.mark.parametrize(("low", "high"), [(-128, 127), (0, 127), (-8, 7)])
def test_requantise_is_the_contract_and_its_gradient_that_of_the_equation(kind, low, high):
    rng = np.random.default_rng(5)
    acc = torch.from_numpy(rng.integers(-(1 << 23), 1 << 23, (6, 10, 7)))
    acc.view(-1)[:5] = torch.tensor([0, 1, -1, 2, -2])
    shift, bias = (torch.from_numpy(rng.integers(*ends, 7)) for ends in ((1, 17), (-128, 128)))
    expected = np.clip(round_shift(acc.numpy(), shift.numpy()) + bias.numpy(), low, high)

    def plain(acc, bias):
        return requantize_plain(acc, (1 / POWERS[shift]).to(acc.dtype), bias, low, high)

    inputs = acc.to(kind), bias.float()
    y, grads = gradients(lambda acc, bias: requantize(acc, shift, bias, low, high), *inputs)
    y_plain, grads_plain = gradients(plain, *inputs)
    assert np.array_equal(y.numpy(), expected)
    assert torch.equal(y, y_plain)
    for a, b in zip(grads, grads_plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("bits", "segments"), [(8, 64), (8, 256), (6, 16), (8, 2), (4, 16)])
def test_table_is_the_operation_and_its_gradient_that_of_the_interpolation(bits, segments):
    rng = np.random.default_rng(6)
    fmt = Format(bits)
    knots = rng.integers(fmt.low, fmt.high + 1, (3, segments + 1))
    x = np.stack([rng.permutation(fmt.codes()) for _ in range(3)], axis=1).reshape(2, -1, 3)
    operation = Lerp(TensorType(x.shape[1:], fmt), knots, fmt)
    fraction_bits = operation.fraction_bits
    tensors = torch.from_numpy(x).float(), torch.from_numpy(knots).float()
    y, (dx, dknots) = gradients(lambda a, b: interpolate_codes(a, b, fmt.low, fraction_bits), *tensors)
    y_plain, (dx_plain, dknots_plain) = gradients(
        lambda a, b: interpolate_codes_plain(a, b, fmt.low, fraction_bits), *tensors
    )
    assert np.array_equal(y.numpy(), operation.reference(x))
    assert torch.equal(y, y_plain)
    assert torch.equal(expand(tensors[1], fraction_bits).long(), torch.from_numpy(operation.table()).long())
    torch.testing.assert_close(dx, dx_plain)
    torch.testing.assert_close(dknots, dknots_plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("inputs", [9, 1021, 1022, 1500])
def test_linear_layers_are_exact_even_where_float32_is_not(inputs):
    torch.manual_seed(7)
    layer = IntegerLinear(inputs, 5, CodeStep(0.5), CodeStep(0.02 * inputs), 8)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(5, inputs))
        layer.bias.copy_(torch.randn(5) * inputs)
    assert layer.kind == (torch.float32 if inputs <= 1021 else torch.float64)
    codes = torch.randint(-128, 128, (3, 4, inputs))
    codes.view(-1)[: codes.numel() // 2] = 127
    with torch.no_grad():
        y = layer(codes.float())
        weight, shift, bias = (v.long().numpy() for v in layer.integers())
    expected = saturate(round_shift(codes.numpy() @ weight.T, shift) + bias, Format(8))
    assert np.array_equal(y.numpy(), expected)
    assert np.abs(weight).max() > 60
    assert len(np.unique(expected)) > 3


def test_parameters_follow_the_scales_by_powers_of_two():
    layer = IntegerLinear(1, 4, CodeStep(1 / 64), CodeStep(1 / 32), 8)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0], [-0.3], [0.0], [1e-9]]))
        layer.bias.copy_(torch.tensor([0.5, -9.0, 0.0, 1 / 64]))
    weight, shift, bias = layer.integers()
    assert weight[:, 0].tolist() == [64, -77, 0, 0]
    assert shift.tolist() == [7, 9, 16, 16]
    assert bias.tolist() == [16, -128, 0, 1]


def test_scale_gradient_is_that_of_a_learned_step_size():
    layer = IntegerLinear(1, 1, CodeStep(1.0), CodeStep(0.5), 8)
    layer.target.log.requires_grad_()
    with torch.no_grad():
        layer.weight.fill_(0.0)
        layer.bias.fill_(1.3)
    y = layer(torch.zeros(1, 1)) * layer.target.value
    y.sum().backward()
    step = 0.5  # d(step * round(b / step)) / d log(step) = step * (round(b / step) - b / step)
    assert float(layer.target.log.grad) == pytest.approx(step * (3 - 1.3 / step), rel=1e-5)
