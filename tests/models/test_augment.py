"""Training images moved and mirrored: each is what it says, and a training with them resumes to the same weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import nn

from bittrue.models.data.augment import augmented
from bittrue.models.data.sets import load
from bittrue.models.int8.convert import convert
from bittrue.models.networks.convolution import Convolution
from bittrue.models.networks.settings import ConvolutionSettings
from bittrue.models.training import loop
from bittrue.models.training.settings import Qat, Train
from bittrue.sim.errors import BittrueError


def images(height, width, n=300):
    """No two images are alike, and no pixel is 0."""
    rng = np.random.default_rng(1)
    return rng.integers(1, 256, (n, height, width, 2)).astype(np.uint8)


def moved(image, down, right, mirrored=False):
    """An image moved by whole pixels, slowly; zeros move in, or the image as mirrored at its outermost pixels."""
    height, width, channels = image.shape
    result = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            y, x = row - down, column - right
            if mirrored:
                y, x = min(abs(y), 2 * height - 2 - y), min(abs(x), 2 * width - 2 - x)
            if 0 <= y < height and 0 <= x < width:
                result[row, column] = image[y, x]
    return result


@pytest.mark.parametrize("how", ["shift", "flip", "flip-shift", "flip-reflect", "none"])
@pytest.mark.parametrize("size", [(16, 9), (8, 24), (17, 1)])
def test_each_image_is_changed_as_was_said_and_all_ways_occur(how, size):
    given = images(*size)
    found = augmented(given, how, np.random.default_rng(3))
    assert found.shape == given.shape
    assert found.dtype == np.uint8
    reach = [n // 8 if how in ("shift", "flip-shift", "flip-reflect") else 0 for n in size]
    ways = {
        (flip, down, right)
        for flip in ((False, True) if "flip" in how and size[1] > 1 else (False,))
        for down in range(-reach[0], reach[0] + 1)
        for right in range(-reach[1], reach[1] + 1)
    }
    seen = set()
    for before, after in zip(given, found, strict=True):
        for flip, down, right in ways:
            after_all = moved(before, down, right, how == "flip-reflect")
            if np.array_equal(after, after_all[:, ::-1] if flip else after_all):
                seen.add((flip, down, right))
                break
        else:
            raise AssertionError("an image is none of those that it may become")
    assert seen == ways


def test_the_generator_decides():
    given = images(16, 16)
    first, again, other = (augmented(given, "flip-shift", np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


class Stop(Exception):
    pass


def test_an_interrupted_training_with_changed_images_ends_with_the_same_weights(tmp_path):
    data = load("digits")
    settings = Train(epochs=3, batch=300, lr=0.03, augment="shift", seed=4)

    def network():
        return Convolution.for_data(ConvolutionSettings(kind="plain", widths=(4,)), data, 1)

    def stop(report):
        if report.epoch == 3:
            raise Stop

    whole, parts, plain = network(), network(), network()
    assert loop.fit(whole, data, settings).kept
    with pytest.raises(Stop):
        loop.fit(parts, data, settings, checkpoint=tmp_path / "c", progress=stop)
    parts = network()
    loop.fit(parts, data, settings, checkpoint=tmp_path / "c")
    loop.fit(plain, data, settings.model_copy(update={"augment": "none"}))
    state = whole.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in parts.state_dict().items())
    assert not all(torch.equal(state[name], tensor) for name, tensor in plain.state_dict().items())


def test_every_batch_sees_images_changed_anew(monkeypatch):
    data = load("digits")
    seen = []

    def watched(images, how, rng):
        seen.append(images.copy())
        return augmented(images, how, rng)

    monkeypatch.setattr(loop, "augmented", watched)
    network = Convolution.for_data(ConvolutionSettings(kind="plain", widths=(2,)), data, 1)
    loop.fit(network, data, Train(epochs=2, batch=400, augment="flip"))
    assert [len(batch) for batch in seen] == [400, 400] * 2  # of 1,197, in batches that are whole
    keys = [{bytes(image) for image in np.concatenate(seen[k : k + 2])} for k in (0, 2)]
    assert all(len(key) > 790 for key in keys)
    assert keys[0] != keys[1]  # another order leaves out other ones


@pytest.mark.parametrize("settings", [Train, Qat])
def test_other_changes_are_refused_by_name(settings):
    with pytest.raises(ValidationError, match="augment"):
        settings(augment="rotate")


def test_samples_that_are_no_images_are_refused():
    """Of floats as a model takes them nobody says which axes are rows and columns."""
    x = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    network, labels = convert(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).eval(), x), np.arange(64) % 3
    with pytest.raises(BittrueError, match=r"augment='flip' moves and mirrors images uint8 .*; set augment to none"):
        network.fit(((x, labels), (x, labels)), Qat(epochs=1, batch=16, augment="flip"))
