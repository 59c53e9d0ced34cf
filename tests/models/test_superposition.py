"""Several images in one pass: keys, penalties, networks and their multiply-accumulates, against the published rules."""

import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional

from bittrue.models.layers.groups import bundled
from bittrue.models.superposition import macs
from bittrue.models.superposition.binding import Binding, Hrr, Mbat
from bittrue.models.superposition.networks import ShiftedReLU, Superposition
from bittrue.models.superposition.penalties import isometry_penalty, key_penalty
from bittrue.models.superposition.settings import SuperpositionSettings
from bittrue.models.training import storage
from bittrue.sim.errors import BittrueError

SMALL = SuperpositionSettings(kind="MIMONet", initial_width=1, slots=4)
SHAPE, CLASSES = (8, 8, 1), 10


def network(**changes) -> Superposition:
    """A network on 8 x 8 pixels, in evaluation, with normalisations that are not what they begin with."""
    torch.manual_seed(1)
    made = Superposition(SuperpositionSettings.model_validate(SMALL.model_dump() | changes), SHAPE, CLASSES)
    for layer in made.modules():
        if isinstance(layer, nn.BatchNorm2d):
            for values in (layer.weight, layer.bias, layer.running_mean):
                nn.init.normal_(values, 0.5, 0.2)
    return made.eval()


def codes(images: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(3).integers(-128, 128, (images, 1, 8, 8), dtype=np.int8))


def published(weight: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The published binding of x `[rows, N, D]` with weights `[N, D]`: a circular convolution whose first output is
    dropped."""
    slots, channels = weight.shape
    padded = functional.pad(x, (channels // 2, channels // 2), mode="circular")
    return functional.conv1d(padded, weight[:, None], groups=slots)[..., 1:]


class TestBinding:
    def test_the_published_vector(self):
        binding = Hrr(1, 4)
        binding.set_keys([[1, 2, 3, 4]])
        x = torch.tensor([1.0, 0, 0, 0]).reshape(1, 4, 1, 1)
        assert binding(x).flatten().tolist() == [2, 1, 4, 3]
        assert binding.keys.tolist() == [[2, 1, 4, 3]]

    @pytest.mark.parametrize("channels", [2, 6, 32])
    def test_it_is_the_published_convolution_and_a_product_of_spectra(self, channels):
        binding = Hrr(3, channels)
        x = torch.randn(5, 3, channels)
        expected = published(binding.weight, x)
        by_spectra = torch.fft.irfft(torch.fft.rfft(binding.keys) * torch.fft.rfft(x), n=channels)
        torch.testing.assert_close(by_spectra, expected)
        for slot in range(3):
            one = Hrr(1, channels)
            one.set_keys(binding.weight[slot : slot + 1].detach())
            torch.testing.assert_close(one(x[:, slot, :, None, None]).flatten(1), expected[:, slot])

    @pytest.mark.parametrize("kind", [Hrr, Mbat, Binding])
    @pytest.mark.parametrize("n", [1, 2, 4])
    def test_summed_keys_are_the_slots_filled_in_turn(self, kind, n):
        torch.manual_seed(n)
        binding, x = kind(4, 6), torch.randn(3, n, 6, 2, 5)
        slots = x.repeat(1, 4 // n, 1, 1, 1)  # image 0, image 1, ..., image 0, image 1, ...
        if kind is Hrr:
            bound = published(binding.weight, slots.permute(0, 3, 4, 1, 2).flatten(0, 2))
            expected = bound.sum(1).unflatten(0, (3, 2, 5)).permute(0, 3, 1, 2)
        elif kind is Mbat:
            expected = torch.einsum("soi,gsihw->gohw", binding.weight, slots)
        else:
            expected = slots.sum(1)
        binding.at_a_time = n
        torch.testing.assert_close(binding(x.flatten(0, 1)), expected)
        torch.testing.assert_close(bundled(x.flatten(0, 1), binding.matrices(), n), expected)

    def test_how_keys_begin(self):
        torch.manual_seed(0)
        drawn = Hrr(64, 64).weight
        assert drawn.abs().max() <= 1 / 8
        assert drawn.square().sum(1).mean().item() == pytest.approx(1 / 3, rel=0.03)
        assert Mbat(4, 32).weight.square().mean().item() == pytest.approx(2 / (4 * 32), rel=0.1)

    @pytest.mark.parametrize("kind", ["HRR", "MBAT"])
    @pytest.mark.parametrize("train", [True, False])
    def test_fixed_keys_stay(self, kind, train):
        made = network(binding=kind, train_keys=train)
        made(codes(4)).sum().backward()
        assert (made.binding.weight.grad is not None) is train

    @pytest.mark.parametrize(
        ("keys", "sentence"),
        [
            (torch.ones(2, 4), r"keys: they are \[2, 4\], this network has \[2, 6\] \(2 slots, 6 channels\); give"),
            (torch.tensor([[1.0] * 6, [0.0] * 6]), "keys: the key of slot 1 is zero, so that its image is lost; draw"),
            (torch.tensor([[1.0] * 5 + [math.nan], [1.0] * 6]), "keys: the key of slot 0 is not finite; take the file"),
            (torch.tensor([[1.0] * 6, [1.0] * 5 + [math.inf]]), "keys: the key of slot 1 is not finite"),
        ],
    )
    def test_keys_that_cannot_be_used(self, keys, sentence):
        binding = Hrr(2, 6)
        before = binding.weight.clone()
        with pytest.raises(BittrueError, match=sentence):
            binding.set_keys(keys)
        assert torch.equal(binding.weight, before)

    def test_an_odd_number_of_channels(self):
        with pytest.raises(BittrueError, match="binding HRR: 7 channels are an odd number, .* take an even one"):
            Hrr(2, 7)
        with pytest.raises(BittrueError, match="binding: 3 images do not fill 4 slots evenly; give one of 1, 2, 4"):
            Hrr(4, 6).at_a_time = 3


class TestPenalties:
    def test_the_published_keys(self):
        assert key_penalty(torch.tensor([[3.0, 4, 0, 0], [0, 1, 0, 0]])).item() == pytest.approx(8.64)

    def test_one_key_has_no_pair(self):
        assert key_penalty(torch.tensor([[3.0, 4]])).item() == pytest.approx(16)

    def test_pairs_and_lengths_are_means(self):
        same = torch.tensor([[2.0, 0]]).repeat(3, 1)
        assert key_penalty(same).item() == pytest.approx(1 + 1)
        assert key_penalty(torch.eye(3)).item() == 0

    @pytest.mark.parametrize("stride", [1, 2])
    def test_the_published_convolutions(self, stride):
        dirac = torch.empty(4, 4, 3, 3)
        nn.init.dirac_(dirac)
        assert isometry_penalty(dirac, stride).item() == 0
        assert isometry_penalty(2 * torch.eye(2)[:, :, None, None], stride).item() == 9

    @pytest.mark.parametrize(("shape", "stride"), [((3, 4, 3, 3), 1), ((5, 2, 3, 3), 2), ((4, 2, 1, 1), 1)])
    def test_it_is_the_sum_over_shifts(self, shape, stride):
        """Products of the smaller side's filters with each other, moved by every multiple of the stride."""
        weight = np.random.default_rng(5).normal(size=shape)
        w = weight.transpose(1, 0, 2, 3) if shape[1] < shape[0] else weight
        side, reach, total = shape[2], shape[2] - 1, 0.0
        large = np.pad(w, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
        for down in range(0, 2 * side - 1, stride):
            for right in range(0, 2 * side - 1, stride):
                gram = np.einsum("acij,bcij->ab", large[:, :, down : down + side, right : right + side], w)
                total += np.square(gram - (np.eye(len(w)) if (down, right) == (reach, reach) else 0)).sum() / 2
        assert isometry_penalty(torch.from_numpy(weight), stride).item() == pytest.approx(total)


class TestNetworks:
    @pytest.mark.parametrize("n", [1, 2, 4])
    def test_it_computes_what_is_published(self, n):
        """Slots repeated, bound one by one, unbound by a convolution, the copies' means: the source's own way."""
        made, x = network(), codes(8)
        made.at_a_time = n
        stem = made.stem(x / 128)
        slots = stem.reshape(8 // n, n, 16, 8, 8).repeat(1, 4 // n, 1, 1, 1)
        bound = published(made.binding.weight, slots.permute(0, 3, 4, 1, 2).reshape(-1, 4, 16)).sum(1)
        z = made.bulk(bound.reshape(8 // n, 8, 8, 16).permute(0, 3, 1, 2))
        pooled = functional.adaptive_avg_pool2d(z, 1)
        apart = made.unbind[0]
        u = functional.relu(functional.conv2d(pooled, apart.weight[:, :, None, None], apart.bias))
        u = u.reshape(8 // n, 4 // n, n, 64).mean(1).reshape(8, 64)
        torch.testing.assert_close(made(x), functional.linear(u, made.classifier.weight, made.classifier.bias))

    @pytest.mark.parametrize("kind", ["WideResNet", "WideISOReLUNet", "WideISONet", "MIMONet"])
    def test_a_block_is_normalised_first_and_its_shortcut_is_not(self, kind):
        block, x = network(kind=kind).bulk[1], torch.randn(2, 16, 8, 8)
        functions = {
            "WideISONet": lambda v: functional.relu(v + 1) - 1,
            "MIMONet": lambda v: torch.where(v < 0, v / 2, v),
        }
        act = functions.get(kind, functional.relu)
        y = functional.conv2d(act(block.norm1(x)), block.conv1.weight, stride=2, padding=1)
        y = functional.conv2d(act(block.norm2(y)), block.conv2.weight, padding=1)
        shortcut = block.shortcut[1](functional.conv2d(x, block.shortcut[0].weight, stride=2))
        torch.testing.assert_close(block(x), y + shortcut)

    @pytest.mark.parametrize(("depth", "blocks"), [(10, 1), (16, 2), (28, 4)])
    def test_depths_and_widths(self, depth, blocks):
        made = network(depth=depth, width=2, initial_width=3, stem_stride=2)
        shapes = [block.conv1.weight.shape[:2] for block in made.bulk]
        expected, channels = [], 48
        for outputs in (32, 64, 128):
            expected += [(outputs, channels)] + [(outputs, outputs)] * (blocks - 1)
            channels = outputs
        assert [tuple(shape) for shape in shapes] == expected
        convolutions = [layer for layer in made.modules() if isinstance(layer, nn.Conv2d)]
        # stem, two in each block, a shortcut where channels change
        assert len(convolutions) == 1 + 6 * blocks + 3 == depth
        assert made.bulk(made.stem(torch.zeros(1, 1, 8, 8))).shape == (1, 128, 1, 1)

    def test_no_binding(self):
        """One slot is the ordinary network; several images are simply added, and taken apart."""
        assert network(binding="None", slots=1).unbind is None
        assert network(binding="HRR", slots=1).unbind is not None
        made, x = network(binding="None", slots=2), codes(2)
        summed = made.stem(x / 128).sum(0, keepdim=True)
        u = made.unbind(made.pool(made.bulk(summed))).reshape(2, -1)
        torch.testing.assert_close(made(x), made.classifier(u))

    def test_images_that_change_places_with_their_keys_change_logits(self):
        made, x, order = network(), codes(4), [2, 0, 3, 1]
        before = made(x)
        apart = made.unbind[0]
        with torch.no_grad():
            made.binding.weight.copy_(made.binding.weight[order])
            for values in (apart.weight, apart.bias):
                values.copy_(values.unflatten(0, (4, -1))[order].flatten(0, 1))
        torch.testing.assert_close(made(x[order]), before[order])
        assert not torch.allclose(made(x), before, atol=1e-3)

    def test_images_that_are_left_over(self):
        made, x = network(), codes(6)
        filled = torch.cat([x, torch.zeros(2, 1, 8, 8, dtype=torch.int8)])
        assert torch.equal(made(x), made(filled)[:6])
        with pytest.raises(BittrueError, match="batch of 6 images is no multiple of 4, .* leave 2 out, or add 2"):
            made.train()(x)

    def test_modes(self):
        made = network()
        assert made.at_a_time == 4
        assert made.network.modes == (1, 2, 4)
        with pytest.raises(
            BittrueError, match="3 images at a time do not divide the 4 slots; this network takes 1, 2, 4"
        ):
            made.at_a_time = 3
        assert made.at_a_time == 4
        assert SuperpositionSettings(slots=6).modes == (1, 2, 3, 6)

    def test_initialisations(self):
        made = network(skip_init=True, initial_width=1)
        x = torch.randn(1, 16, 8, 8)
        assert torch.equal(made.bulk[0](x), x)
        assert network(dirac_init=True).isometry_penalty().item() == 0
        plain = network()
        assert plain.isometry_penalty().item() == pytest.approx(
            sum(isometry_penalty(layer.weight, layer.stride[0]).item() for layer in plain.isometries)
        )
        assert len(plain.isometries) == 8  # three blocks, two shortcuts; neither stem nor what takes apart
        assert plain.isometry_penalty().item() > 100
        assert network(kind="WideResNet").isometry_penalty().item() == 0
        conv = network(width=4).bulk[2].conv2.weight
        assert conv.square().mean().item() == pytest.approx(2 / (256 * 9), rel=0.02)

    def test_without_normalisation(self):
        assert not [layer for layer in network(batch_norm=False).modules() if isinstance(layer, nn.BatchNorm2d)]

    def test_parameters_of_activations(self):
        slopes = [layer for layer in network(relu_parameter=0.25).modules() if isinstance(layer, nn.PReLU)]
        assert [layer.num_parameters for layer in slopes] == [16, 16, 16, 32, 32, 64]
        assert all((layer.weight == 0.25).all() for layer in slopes)
        shifts = [layer for layer in network(kind="WideISONet").modules() if isinstance(layer, ShiftedReLU)]
        assert all((layer.shift == -1).all() for layer in shifts)
        assert shifts[0](torch.tensor([-2.0, 0.5]).reshape(1, 1, 1, 2).expand(1, 16, 1, 2))[0, 0].tolist() == [
            [-1, 0.5]
        ]
        with pytest.raises(ValidationError, match="relu_parameter does not belong to kind WideResNet"):
            SuperpositionSettings(kind="WideResNet", relu_parameter=0.1)

    def test_files(self, tmp_path):
        made = network()
        path = storage.save(made, tmp_path / "network.pt")
        torch.testing.assert_close(storage.load(path, Superposition)(codes(4)), made(codes(4)))
        with torch.no_grad():
            made.binding.weight[2] = 0
        with pytest.raises(BittrueError, match="binding.weight: the key of slot 2 is zero"):
            storage.load(storage.save(made, path), Superposition)


#: Millions of parameters and of multiply-accumulates for an input (stem, binding, bulk, unbinding, all), and the
#: speed-up, of networks of width 10 on 32 x 32 colours: depth, slots (0: the ordinary one), images at a time. These
#: and those below were counted from the published source.
PUBLISHED = {
    (28, 0, 1): ("36.48", "0.44", "0.00", "5242.88", "0.00", "5243.33", "1.000"),
    (28, 1, 1): ("36.98", "1.77", "4.19", "5321.52", "0.41", "5327.90", "0.984"),
    (28, 2, 2): ("37.39", "1.77", "4.19", "2660.76", "0.41", "2667.14", "1.966"),
    (28, 4, 1): ("38.21", "1.77", "16.78", "5321.52", "1.64", "5341.71", "0.982"),
    (28, 4, 2): ("38.21", "1.77", "8.39", "2660.76", "0.82", "2671.75", "1.963"),
    (28, 4, 4): ("38.21", "1.77", "4.19", "1330.38", "0.41", "1336.76", "3.922"),
}
DEPTH_16 = {
    (16, 0, 1): ("17.12", "2412.17", "1.000"),
    (16, 2, 2): ("18.02", "1251.56", "1.927"),
    (16, 4, 4): ("18.84", "628.97", "3.835"),
}
#: Of depth 10 on 28 x 28 grey: width, initial width, slots.
SMALL_ONES = {
    (1, 1, 0): ("9.35", "1.00"),
    (1, 2, 2): ("6.75", "1.38"),
    (1, 2, 4): ("3.89", "2.40"),
    (2, 1, 0): ("33.83", "1.00"),
    (2, 4, 2): ("26.56", "1.27"),
    (2, 4, 4): ("15.12", "2.24"),
}


class TestMacs:
    def test_the_published_sizes(self):
        found, short = {}, {}
        for one, speed, _ in macs.table(macs.published()):
            of, ordinary = one.network, one.network.kind == "WideResNet"
            key = (of.depth, 0 if ordinary else of.slots, one.images)
            parts = [f"{value / 1e6:.2f}" for value in (one.stem, one.binding, one.bulk, one.unbind, one.total)]
            parameters = f"{one.parameters / 1e6:.2f}"
            found[key] = (parameters, *parts, f"{speed:.3f}")
            short[key] = (parameters, parts[-1], f"{speed:.3f}")
        assert {key: found[key] for key in PUBLISHED} == PUBLISHED
        assert {key: short[key] for key in DEPTH_16} == DEPTH_16
        assert len(found) == 14  # each depth: the ordinary one, and 1 + 2 + 3 modes

    def test_small_ones(self):
        found = {}
        for width, initial in ((1, 2), (2, 4)):
            sizes = [SuperpositionSettings(width=width, initial_width=initial, slots=slots) for slots in (1, 2, 4)]
            for one, speed, _ in macs.table(sizes, shape=(28, 28, 1)):
                ordinary = one.network.kind == "WideResNet"
                if one.images == one.network.slots:
                    key = (one.network.width, one.network.initial_width, 0 if ordinary else one.network.slots)
                    found[key] = (f"{one.total / 1e6:.2f}", f"{speed:.2f}")
        assert {key: found[key] for key in SMALL_ONES} == SMALL_ONES

    def test_keys_summed_beforehand_bind_once_for_each_image(self):
        wide = SuperpositionSettings(depth=28, width=10, initial_width=4, slots=4)
        for n in wide.modes:
            literal, summed = (macs.count(wide, n, summed=choice) for choice in (False, True))
            assert summed.binding == literal.binding * n / 4 == 64 * 64 * 32 * 32
            assert literal.total - summed.total == literal.binding - summed.binding

    @pytest.mark.parametrize(("binding", "bound"), [("HRR", 256 * 64), ("MBAT", 256 * 64), ("None", 0)])
    def test_what_a_binding_costs(self, binding, bound):
        assert macs.count(SuperpositionSettings(binding=binding, slots=2), 2, (8, 8, 1)).binding == bound

    def test_speed_ups_are_of_all_multiplications(self):
        rows = macs.table([SMALL], shape=SHAPE)
        ordinary = rows[0][0]
        assert ordinary.network == SuperpositionSettings(kind="WideResNet", binding="None")
        alone = macs.count(SMALL.model_copy(update={"slots": 1}), 1, SHAPE).total
        assert [speed for _, speed, _ in rows] == [ordinary.total / one.total for one, _, _ in rows]
        assert [speed for _, _, speed in rows[1:]] == [alone / one.total for one, _, _ in rows[1:]]
