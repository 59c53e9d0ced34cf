"""Generated kernels: coordinates, embeddings, the generator, what it writes into a network, its size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from bittrue.models.nern import generator as generators
from bittrue.models.nern import networks, sizes
from bittrue.models.nern.embedding import Embedding
from bittrue.models.nern.generator import Generator
from bittrue.models.nern.settings import Embeddings, Nern, TargetSettings
from bittrue.models.nern.target import Layer, Target, generated
from bittrue.models.networks.convolution import Convolution
from bittrue.models.networks.settings import ConvolutionSettings
from bittrue.models.training import storage
from bittrue.models.training.loop import predict
from bittrue.sim.errors import BittrueError
from tests.helpers.generated import BASE, Small, embeddings, nern, resnet, target


# -- targets ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("architecture", "option", "shape", "kernels", "weights", "parameters", "layers"),
    [
        ("ResNet8", "A", (28, 28, 1), 8_208, 73_872, 75_002, 7),
        ("ResNet20", "A", (32, 32, 3), 29_744, 267_696, 269_722, 19),
        ("ResNet20", "B", (32, 32, 3), 32_304, 270_256, 272_474, 21),
        ("ResNet56", "A", (32, 32, 3), 94_256, 848_304, 853_018, 55),
        ("ResNet18", "A", (224, 224, 3), 1_220_608, 10_985_472, 11_181_642, 16),
    ],
)
def test_the_published_targets(architecture, option, shape, kernels, weights, parameters, layers):
    network = resnet(architecture, shape, option=option)
    found = generated(network)
    assert (sum(one.kernels for one in found), sum(one.weights for one in found)) == (kernels, weights)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(found) == layers
    names = [one.path for one in found]
    assert names[0] == ("layer1.0.conv1" if architecture == "ResNet18" else "conv1")
    assert ("layer2.0.shortcut.0" in names) == (option == "B")
    if option == "B":  # behind the block's own, as published
        assert names.index("layer2.0.shortcut.0") == names.index("layer2.0.conv2") + 1


def test_shortcut_a_is_every_other_pixel_between_channels_of_zeros():
    x = torch.arange(2 * 3 * 5 * 5.0).reshape(2, 3, 5, 5) - 70
    y = networks.Widened(3, 6, 2)(x)
    assert torch.equal(y[:, 1:4], x[:, :, ::2, ::2])
    assert not y[:, :1].any()
    assert not y[:, 4:].any()


def test_pixels_as_pretrained_networks_expect_them():
    network = resnet(shape=(8, 8, 3), pixels="imagenet")
    pixels = torch.tensor([0.0, 128, 255])
    found = network.values_of((pixels - 128)[None, :, None, None].expand(1, 3, 1, 1))
    expected = (pixels / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(found.flatten(), expected)
    with pytest.raises(BittrueError, match="standardises three channels, and these images have 1; take codes"):
        resnet(pixels="imagenet")


def test_a_network_that_is_converted_has_the_same_results():
    """A target goes into integers as any network does, its shortcuts without multipliers included."""
    from bittrue.models.data.sets import load
    from bittrue.models.int8.quantize import of_codes

    data = load("digits")
    network = resnet(stem_stride=2)
    integer = of_codes(network, data, images=64)
    expected, found = (predict(of, data.test.images[:32]) for of in (network, integer))
    assert np.abs(expected - found * integer.scale.numpy()).max() < 0.1 * np.abs(expected).max()


def test_a_network_of_ones_own():
    """Convolutions in their order, of the side that is generated or of one pixel; depthwise ones have one channel."""
    found = generated(Small(), keep=("large",))
    assert found == (Layer("first", 4, 1, 3), Layer("depthwise", 4, 1, 3), Layer("point", 6, 4, 1))
    assert [str(one) for one in found[:1]] == ["first (4 x 1 kernels of 3 x 3)"]
    assert generated(Small(), keep=("others",)) == found
    assert [one.path for one in generated(Small(), 5, ("first", "depthwise"))] == ["point", "large"]
    plain = Convolution(ConvolutionSettings(widths=(4, 8)), (8, 8, 1), 10)
    assert [one.side for one in generated(plain)] == [3, 3, 3, 3, 3, 1]


@pytest.mark.parametrize(
    ("network", "side", "keep", "sentence"),
    [
        (Small(), 3, (), r"large \(5 x 5\) cannot be generated as kernels of 3 x 3; keep it as it is by its path in"),
        (
            Small(),
            3,
            ("larger",),
            "keep: 'larger' is no convolution of this network; those are first, depthwise, point,",
        ),
        (nn.Linear(3, 3), 3, (), "has no convolution that can be generated as 3 x 3 kernels"),
        (nn.Conv1d(3, 3, 3), 3, (), r"\(a Conv1d\) cannot be generated"),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 1, 3)), 3, (), "its weight is not a parameter of its own"),
    ],
)
def test_layers_that_cannot_be_generated(network, side, keep, sentence):
    with pytest.raises(BittrueError, match=sentence):
        generated(network, side, keep)


def test_a_target_that_is_not_finite():
    network = resnet()
    with torch.no_grad():
        network.layer2[0].conv1.weight[3, 2, 1, 1] = np.nan
    with pytest.raises(BittrueError, match="a weight of layer2.0.conv1 is not finite; train the original anew"):
        Target(network)


def test_the_same_kernels_in_their_place_change_nothing():
    """Functional, differentiable, and the network itself stays as it is until it is written into."""
    of = target(option="B")
    x = torch.randn(3, 1, 8, 8) * 50
    weights = [weight.clone().requires_grad_() for weight in of.weights()]
    with of.watched() as maps:
        logits = of.run(weights, x)
    torch.testing.assert_close(logits, of.network(x))
    assert [times for _, times in maps] == [1, 1, 2, 1, 2, 1, 2]  # the stem; of three blocks bn1, and the sum twice
    assert torch.equal(maps[0][0], of.network.bn1(of.network.conv1(of.network.values_of(x))))
    assert [tuple(one.shape[1:]) for one, _ in maps[-2:]] == [(64, 2, 2), (64, 2, 2)]
    logits.sum().backward()
    assert all(weight.grad.any() for weight in weights)
    before = of.sha256()
    with torch.no_grad():
        weights[4].mul_(2)
        assert not torch.allclose(of.run(weights, x), logits)
    assert of.sha256() == before
    assert not torch.equal(of.weights()[4], weights[4])
    of.write(weights)
    assert torch.equal(of.weights()[4], weights[4])
    assert of.sha256() != before


def test_one_value_of_a_kernel_for_a_convolution_of_one_pixel():
    of = Target(Small(), keep=("large",))
    kernels = torch.arange(of.kernels * 9.0).view(-1, 9)
    for how, expected in (("center", 4.0), ("average", 4.0), ("max", 8.0)):
        first, _, point = of.split(kernels, how)
        assert torch.equal(first.flatten(), torch.arange(36.0))
        assert torch.equal(point.flatten(), 9.0 * torch.arange(8, 32) + expected)
    assert of.starts == (0, 4, 8, 32)
    assert of.coordinates()[[0, 3, 4, 8, 31]].tolist() == [[0, 0, 0], [0, 3, 0], [1, 0, 0], [2, 0, 0], [2, 5, 3]]


# -- embeddings ------------------------------------------------------------------------------------------
def test_the_published_embedding():
    """The check vector of coordinate (1, 2, 3), 40 levels of base 0.76."""
    found = Embedding(Embeddings(enc_levels=40, base=BASE))(torch.tensor([[1, 2, 3]]))[0]
    assert found.dtype == torch.float32
    assert found.shape == (240,)
    assert found[:6].numpy() == pytest.approx([0, -1, 0.684547, -0.728969, 0.970431, -0.24138], abs=6e-7)
    assert found[80:84].numpy() == pytest.approx([0, 1, -0.998027, 0.062791], abs=6e-7)
    assert found[160:164].numpy() == pytest.approx([0, -1, 0.770513, 0.637424], abs=6e-7)
    assert found[238:].numpy() == pytest.approx([0.000212, 1], abs=6e-7)
    assert (127 * found).round()[:8].tolist() == [0, -127, 87, -93, 123, -31, 125, 24]


def test_fused_by_a_sum_and_random_fourier_features():
    settings, at = embeddings(fusion_mode="sum", collisions="accept"), torch.tensor([[1, 2, 3], [0, 0, 5]])
    concatenated = Embedding(embeddings())(at)
    assert torch.allclose(Embedding(settings)(at), sum(concatenated.chunk(3, dim=1)))
    fourier = Embedding(embeddings(type="ffn"))
    assert torch.equal(fourier.matrix, Embedding(embeddings(type="ffn")).matrix)  # the same in every run
    found = fourier(at)
    assert found.shape == (2, 96)
    angles = 2 * np.pi * (at.double() @ fourier.matrix.T.double())
    assert found[:, 0::2].numpy() == pytest.approx(angles.sin().numpy(), abs=1e-4)
    assert found[:, 1::2].numpy() == pytest.approx(angles.cos().numpy(), abs=1e-4)
    deviations = fourier.matrix.std(dim=0)
    assert deviations.tolist() == pytest.approx([1, 0.1, 0.1], rel=0.3)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"base": 1.0},
            "base 1 with 16 levels gives the same for layer 0 and layer 2; take another base or more levels",
        ),
        ({"base": 2.0}, "for layer 0 and layer 2"),
        ({"base": 1e-6, "enc_levels": 2}, "for layer 0 and layer 2"),
        (
            {"fusion_mode": "sum"},
            r"\(layer, filter, channel\) = \(0, 1, 0\) and \(1, 0, 0\); take fusion_mode concat, or",
        ),
        (
            {"type": "ffn", "gauss_scale": (1.0, 0.1, 0.0)},
            r"= \(1, 0, 0\) and \(1, 0, 1\); take a larger gauss_scale, or",
        ),
        ({"base": 1e30}, r"base 1e\+30 to the power of 15 is beyond a float; take fewer levels or a smaller base"),
    ],
)
def test_an_embedding_that_cannot_tell_coordinates_apart(changes, sentence):
    of = target()
    with pytest.raises(BittrueError, match=sentence):
        Generator.for_target(nern(embeddings=embeddings(**changes)), of, seed=1)
    if changes.get("base", 1) < 1e3:
        accepted = nern(embeddings=embeddings(**changes, collisions="accept"))
        assert len(Generator.for_target(accepted, of, seed=1).kernels()) == of.kernels


def test_settings_that_do_not_belong_together():
    for settings, values, sentence in (
        (Embeddings, {"type": "ffn", "fusion_mode": "sum"}, "mixes all indices and has nothing to sum"),
        (Nern, {"init": "checkpoint"}, "init checkpoint and checkpoint_path belong together"),
        (Nern, {"checkpoint_path": "a"}, "init checkpoint and checkpoint_path belong together"),
        (Nern, {"task_loss_weight": 1}, "Input should be 0"),
        (Nern, {"method": "kxk_nerf"}, "Input should be 'kxk'"),
    ):
        with pytest.raises(ValidationError, match=sentence):
            settings(**values)


# -- the generator ---------------------------------------------------------------------------------------
@pytest.mark.parametrize("changes", [{}, {"fusion_mode": "sum", "collisions": "accept"}, {"type": "ffn"}])
def test_the_first_layer_in_parts_is_the_layer(changes):
    """Also for few coordinates, and for none."""
    made = Generator.for_target(nern(embeddings=embeddings(**changes)), target(), seed=1)
    for at in (made.placed, made.placed[[5000]], made.placed[:0]):
        torch.testing.assert_close(made.first(at), made.hidden[0](made.embedding(at)), atol=2e-6, rtol=1e-5)
    expected = made.embedding(made.placed)
    for layer in made.hidden:
        expected = made.activation(layer(expected))
    torch.testing.assert_close(made.kernels(), made.final(expected), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("act", sorted(generators.ACTIVATIONS))
def test_activations_and_sizes(act):
    settings = nern(act_layer=act, num_blocks=3, output_size=5)
    made = Generator.for_target(settings, Target(Small(), 5, ("first", "depthwise")), seed=1)
    assert sum(p.numel() for p in made.parameters()) == generators.parameters(settings)
    assert made.kernels().shape == (24 + 12, 25)
    x = torch.linspace(-3, 3, 7)
    function = {"relu": nn.functional.relu, "leaky_relu": nn.functional.leaky_relu}.get(act)
    assert torch.equal(made.activation(x), (function or getattr(nn.functional, act))(x))


def test_the_kernel_at_order_r_has_the_r_th_coordinate():
    of, rng = target(), np.random.default_rng(0)
    orders = [rng.permutation(layer.kernels) for layer in of.layers]
    plain, made = (Generator.for_target(nern(), of, given, 1) for given in (None, orders))
    for layer, first, order, kept in zip(of.layers, of.starts, orders, made.orders(), strict=False):
        assert (order == kept).all()
        own = slice(first, first + layer.kernels)
        # the kernel order[r] of the one is what the other makes for r
        torch.testing.assert_close(made.kernels()[own][order], plain.kernels()[own])
    torch.testing.assert_close(made.kernels(torch.tensor([7, 100, 7])), made.kernels()[[7, 100, 7]])


@pytest.mark.parametrize(
    ("order", "sentence"),
    [
        ([0, 1, 1, 3], "is no permutation, kernel 1 is in it 2 times and kernel 2 is not; give each once"),
        ([0, 1, 2, 4], "order of first: 4 is the number of no kernel; they are 0..3"),
        ([0, 1, 2, -1], "order of first: -1 is the number of no kernel"),
        ([0, 1, 2], r"it is int64 \(3,\); give 4 whole numbers"),
        ([0.0, 1, 2, 3], r"it is float64 \(4,\); give 4 whole numbers"),
    ],
)
def test_an_order_that_is_no_permutation(order, sentence):
    of = Target(Small(), keep=("large",))
    made = Generator.for_target(nern(), of, seed=1)
    with pytest.raises(BittrueError, match=sentence):
        made.set_orders([np.array(order), np.arange(4), np.arange(24)])
    with pytest.raises(BittrueError, match="there are 1 of them for 3 layers; give one for each"):
        made.set_orders([np.arange(4)])


def test_a_generator_in_a_file(tmp_path):
    of, rng = target(), np.random.default_rng(0)
    made = Generator.for_target(
        nern("crossfilter"), of, [rng.permutation(layer.kernels) for layer in of.layers], 1, True
    )
    again = storage.load(storage.save(made, tmp_path / "generator.pt"), Generator)
    assert torch.equal(again.kernels(), made.kernels())
    assert again.layers == of.layers
    assert again.settings.embeddings.permutations.permute_mode == "crossfilter"
    assert torch.equal(again.others()["linear.weight"], of.network.linear.weight)
    again.belongs_to(of)
    with pytest.raises(BittrueError, match=r"of 7 layers instead of 9, which differ in layer2.0.shortcut.0 \(32 x 16"):
        again.belongs_to(target(option="B"))
    with pytest.raises(BittrueError, match="trained for another original of the same layers, whose normalisations and"):
        again.belongs_to(target(seed=2))
    content = storage.read(tmp_path / "generator.pt", "network")
    content["state"]["order"][3] = 4
    storage.write(tmp_path / "generator.pt", "network", {k: v for k, v in content.items() if k != "bittrue"})
    with pytest.raises(BittrueError, match="order of conv1: it is no permutation, kernel 4 is in it 2 times"):
        storage.load(tmp_path / "generator.pt", Generator)


# -- networks in files -----------------------------------------------------------------------------------
def test_an_original_under_published_names(tmp_path):
    """Its JSON file says which shortcuts it has, its images are standardised, and names may begin with `module.`"""
    network = resnet("ResNet20", (8, 8, 3), option="B")
    state = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    path = tmp_path / "resnet20.pt"
    torch.save({"state_dict": state}, path)
    settings, data = TargetSettings(architecture="ResNet20"), ((8, 8, 3), 10, 1)
    with pytest.raises(
        BittrueError, match="it is no ResNet20 with shortcuts A .layer2.0.shortcut.0.weight is only there"
    ):
        networks.load(path, settings, *data)
    path.with_suffix(".json").write_text('{"args": {"basic_block_option": "cifar10"}}')
    found = networks.load(path, settings, *data)
    assert (found.network.option, found.network.pixels) == ("B", "imagenet")
    assert torch.equal(found.layer3[2].conv2.weight, network.layer3[2].conv2.weight)
    with pytest.raises(
        BittrueError, match=r"conv1.weight is \[16, 3, 3, 3\] there and \[16, 1, 3, 3\] here|three channels"
    ):
        networks.load(path, settings, (8, 8, 1), 10, 1)
    with pytest.raises(
        BittrueError, match=r"linear.weight is \[10, 64\] there and \[100, 64\] here; it was trained for"
    ):
        networks.load(path, settings, (8, 8, 3), 100, 1)
    path.with_suffix(".json").write_text("[")
    with pytest.raises(BittrueError, match=r"resnet20.json beside it is not JSON with keys"):
        networks.load(path, settings, *data)
    storage.save(network, path)
    assert networks.load(path, settings, *data).network == network.network
    for content, sentence in (
        (b"x" * 100, "neither a network.pt of bittrue nor a state dictionary"),
        (None, "cannot be"),
    ):
        path.write_bytes(content) if content else path.unlink()
        with pytest.raises(BittrueError, match=sentence):
            networks.load(path, settings, *data)
    torch.save({"a": 3}, path)
    with pytest.raises(BittrueError, match=r"it is no state dictionary of tensors; save model.state_dict\(\)"):
        networks.load(path, settings, *data)


# -- sizes -----------------------------------------------------------------------------------------------
#: Of every published configuration: parameters, of which 3 H^2 + 253 H + 9; ratios; MACs of a kernel; in passes.
TABLE = {
    ("ResNet20-A", 140): (94_229, 2.84, 1.96, 2.32, 93_660, 69),
    ("ResNet20-A", 160): (117_289, 2.28, 1.68, 1.93, 116_640, 86),
    ("ResNet20-A", 180): (142_749, 1.88, 1.45, 1.63, 142_020, 104),
    ("ResNet20-A", 200): (170_609, 1.57, 1.26, 1.39, 169_800, 125),
    ("ResNet56-A", 240): (233_529, 3.63, 2.31, 2.81, 232_560, 175),
    ("ResNet56-A", 280): (306_049, 2.77, 1.93, 2.27, 304_920, 229),
    ("ResNet56-A", 320): (388_169, 2.19, 1.62, 1.86, 386_880, 291),
    ("ResNet56-A", 360): (479_889, 1.77, 1.38, 1.55, 478_440, 359),
    ("ResNet56-A", 400): (581_209, 1.46, 1.19, 1.31, 579_600, 435),
    ("ResNet18", 1024): (3_404_809, 3.23, 1.82, 2.33, 3_400_704, 2_288),
    ("ResNet18", 1140): (4_187_229, 2.62, 1.61, 2.00, 4_182_660, 2_814),
    ("ResNet18", 1256): (5_050_385, 2.18, 1.43, 1.73, 5_045_352, 3_395),
    ("ResNet18", 1372): (5_994_277, 1.83, 1.27, 1.50, 5_988_780, 4_030),
}
PERMUTATIONS = {"ResNet20-A": (42_084, 21_340), "ResNet56-A": (134_244, 68_332), "ResNet18": (2_626_560, 1_306_496)}


@pytest.fixture(scope="module")
def table():
    return sizes.table()


def test_the_published_table(table):
    found = {}
    for one in table:
        ratios = [
            round(ratio, 2) for ratio in (one.weights / one.parameters, one.ratio("crossfilter"), one.ratio("infilter"))
        ]
        key = (one.name, one.settings.hidden_layer_size)
        found[key] = (one.parameters, *ratios, one.macs, round(one.every / one.inference))
        assert (one.permutations("crossfilter"), one.permutations("infilter")) == PERMUTATIONS[one.name]
        assert one.permutations(None) == 0
    assert found == TABLE


def test_exact_bytes_of_an_int8_generator():
    """Of a target of 7 layers: 4 bytes a bias, 4 bits a shift, or 21 a multiplier and its shift; 7 multipliers."""
    settings = nern("crossfilter", hidden_layer_size=80)
    found = sizes.size(resnet(shape=(28, 28, 1), stem_stride=2), (1, 28, 28), settings)
    bits = 16 * 4 + 2 * 256 * 8 + 512 * 9 + 1024 * 10 + 2048 * 11 + 4096 * 12
    scales = -(-(4 * 329 + 15 * 7 + 6) // 8)
    parts = {"weights": 96 * 80 + 3 * 80 * 80 + 80 * 9, "biases": 4 * (4 * 80 + 9), "scales": scales}
    assert found.parts == parts | {"permutations": bits // 8}
    assert found.share == sum(found.parts.values()) / 73_872
    assert replace(found, requantize="multiplier").parts["scales"] == -(-(21 * 329 + 15 * 7 + 6) // 8)
    assert found.inference == 196 * (9 * 16 + 2 * 2304) + 49 * (4608 + 9216) + 16 * (18432 + 36864) + 640
    assert generators.macs(settings) - generators.macs(settings, separable=True) == 96 * 80
    none = sizes.size(resnet(), (1, 8, 8), nern())
    assert none.parts["permutations"] == 0
