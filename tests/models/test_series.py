"""The watch's recordings: windows, splits by person, what is said of a file that is none; and the network on them."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import torch

from bittrue.models.data import series
from bittrue.models.data.sets import load
from bittrue.models.int8.convert import convert
from bittrue.models.networks.settings import ConvolutionSettings
from bittrue.models.networks.temporal import Temporal
from bittrue.models.training import storage
from bittrue.sim.errors import BittrueError
from tests.helpers.converted import equal_everywhere
from tests.helpers.promises import require


def recordings(**changes):
    """A file's content: ten persons, two recordings each, of a value that tells them apart."""
    length = (128, 128 + 64 + 63)
    content = {
        "X": [np.full((length[k % 2], 6), 0.1 * (k // 2 + 1)) for k in range(20)],
        "y": np.arange(20) % 7,
        "subject": np.repeat(np.arange(1, 11), 2),
        "y_labels": list(series.EXERCISES),
    }
    return content | changes


def written(path, content):
    np.save(path, content, allow_pickle=True)
    return path


def test_windows_are_of_one_person_and_half_apart(tmp_path):
    parts = series.watch(written(tmp_path / "w.npy", recordings()))
    assert [len(images) for images, _ in parts] == [7 * 3, 3, 2 * 3]
    for (images, labels), persons in zip(parts, series.PERSONS, strict=True):
        assert images.shape[1:] == (128, 1, 6)
        assert images.dtype == np.uint8
        expected = [round(128 + 128 * 0.1 * p / 4) for p in persons for _ in range(3)]
        assert images[:, 0, 0, 0].tolist() == expected
        assert images[:, -1, 0, 5].tolist() == [round(128 + 128 * 0.1 * p / 8) for p in persons for _ in range(3)]
        numbers = [2 * p - 2 for p in persons for _ in range(3)]
        assert labels.tolist() == [(n + (k % 3 > 0)) % 7 for k, n in enumerate(numbers)]


def test_a_window_begins_every_64_samples_and_what_is_beyond_the_scale_is_clipped(tmp_path):
    content = recordings()
    ramp = np.zeros((192, 6))
    ramp[:, 0] = np.arange(192) * 4 / 128  # a pixel a sample
    ramp[:, 3] = -9.0
    content["X"][0] = ramp
    images, _ = series.watch(written(tmp_path / "w.npy", content))[0]
    assert images[0, :, 0, 0].tolist() == [min(128 + k, 255) for k in range(128)]
    assert images[1, :, 0, 0].tolist() == [min(128 + 64 + k, 255) for k in range(128)]
    assert (images[:2, :, 0, 3] == 0).all()


def test_the_set_itself_is_split_by_person():
    require("seglearn")
    data = load("watch")
    assert data.shape == (128, 1, 6)
    assert [len(part) for part in (data.train, data.val, data.test)] == [2460, 372, 773]
    assert data.classes == ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
    assert np.bincount(data.test.labels).tolist() == [83, 135, 135, 115, 118, 88, 99]
    assert data.train.images.std() > 20


def test_without_the_package_it_says_where_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(BittrueError, match="watch: the package seglearn is not installed; .*pip install seglearn"):
        load("watch")
    with pytest.raises(BittrueError, match=r"watch: this set comes with seglearn, so the folder .* is of no use"):
        load("watch", tmp_path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"y_labels": ["a", "b"]}, r"20 recordings of a, b"),
        ({"y": np.arange(19) % 7}, "of another format: 20 recordings"),
        ({"X": [np.zeros((200, 5))] * 20}, r"recording 0 is not \[time, 6\]"),
        ({"X": [np.full((200, 6), np.nan)] * 20}, "of finite numbers"),
        ({"subject": None}, "of another format"),
    ],
)
def test_a_file_of_another_format_is_named(tmp_path, change, says):
    path = written(tmp_path / "w.npy", recordings(**change))
    with pytest.raises(BittrueError, match=says) as refused:
        series.watch(path)
    assert str(path) in str(refused.value)


def test_a_damaged_file_is_named(tmp_path):
    path = written(tmp_path / "w.npy", recordings())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(BittrueError, match="w.npy is damaged"):
        series.watch(path)
    with pytest.raises(BittrueError, match="cannot be read"):
        series.watch(tmp_path / "none.npy")


def test_the_network_sees_the_past_alone_and_converts(tmp_path):
    network = Temporal(ConvolutionSettings(kind="tcn", widths=(4, 5), blocks=2), (24, 1, 3), 4).eval()
    images = np.random.default_rng(1).integers(0, 256, (96, 24, 1, 3)).astype(np.uint8)
    later = images.copy()
    later[:, 17:] = 0
    with torch.no_grad():
        parts = [network.features[:-2](network.values(x) / 128) for x in (images, later)]
    assert parts[0].shape == (96, 5, 24)
    assert torch.equal(parts[0][..., :17], parts[1][..., :17])
    assert not torch.equal(parts[0][..., 17], parts[1][..., 17])
    reach = 1 + 2 * 2 * (1 + 2 + 4 + 8)  # samples that a result depends on, more than there are
    assert reach > 24
    integer = convert(network, images, preprocess=network.values, input_range=127.0)
    equal_everywhere(integer, images)
    again = storage.load(storage.save(network, tmp_path / "n.pt"), Temporal)
    assert torch.equal(again(network.values(images)), network(network.values(images)))
