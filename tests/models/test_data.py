"""Data sets: frozen splits, the encoding, the file formats, and what is said about files that cannot be read."""

from __future__ import annotations

import gzip
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from bittrue.models.data import sets
from bittrue.models.data.files import read_idx, read_plain_pickle
from bittrue.models.data.sets import encode, load
from bittrue.sim.errors import BittrueError


def test_digits_are_split_once_and_for_all():
    data = load("digits")
    assert [len(s) for s in (data.train, data.val, data.test)] == [1197, 150, 450]
    assert data.shape == (8, 8, 1)
    assert data.train.images.dtype == np.uint8
    assert data.test.labels.dtype == np.int64
    assert max(s.images.max() for s in (data.train, data.val, data.test)) == 16
    assert data.test.labels[:12].tolist() == load("digits").test.labels[:12].tolist()
    whole = np.concatenate([s.images for s in (data.train, data.val, data.test)]).reshape(1797, -1)
    from sklearn.datasets import load_digits

    assert sorted(map(bytes, whole)) == sorted(map(bytes, load_digits().data.astype(np.uint8)))
    with pytest.raises(ValueError, match="read-only"):
        data.train.images[0] = 0


@pytest.mark.parametrize(("shape", "patch", "gain"), [((8, 12, 3), 4, 1), ((6, 4, 1), 2, 16), ((5, 5, 2), 5, 1)])
def test_encoding_is_what_the_docstring_says(shape, patch, gain):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 17 if gain == 16 else 256, (3, *shape), dtype=np.uint8)
    codes = encode(images, patch, gain)
    height, width, channels = shape
    assert codes.dtype == np.int8
    assert codes.shape == (3, height // patch * (width // patch), patch * patch * channels)
    for n, h, w, c in np.ndindex(3, *shape):
        token = (h // patch) * (width // patch) + w // patch
        feature = ((h % patch) * patch + w % patch) * channels + c
        assert codes[n, token, feature] == min(gain * int(images[n, h, w, c]) - 128, 127)


def test_encoding_refuses_what_it_cannot_tile():
    with pytest.raises(BittrueError, match="patches of 3 x 3 pixels do not tile images of 8 x 8"):
        encode(np.zeros((1, 8, 8, 1), np.uint8), 3)
    with pytest.raises(BittrueError, match="integers"):
        encode(np.zeros((1, 8, 8, 1), np.float32), 2)


def write_idx(path, array, compress=False):
    content = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if compress else content)
    return path


@pytest.fixture
def mnist(tmp_path):
    rng = np.random.default_rng(2)
    for stem, count, dot, end in (("train", 2100, "-", ".gz"), ("t10k", 30, ".", "")):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        write_idx(tmp_path / f"{stem}-images{dot}idx3-ubyte{end}", images, bool(end))
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        write_idx(tmp_path / f"{stem}-labels{dot}idx1-ubyte{end}", labels, bool(end))
    return tmp_path


@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_files_are_read_plain_and_compressed(mnist, name):
    data = load(name, mnist)
    assert [len(s) for s in (data.train, data.val, data.test)] == [100, 2000, 30]
    published = read_idx(mnist / "train-images-idx3-ubyte.gz", 3)
    assert np.array_equal(data.train.images[..., 0], published[:100])
    assert np.array_equal(data.val.images[..., 0], published[100:])


def damage(path, how):
    content = path.read_bytes()
    path.write_bytes(how(content))


@pytest.mark.parametrize(
    ("how", "says"),
    [
        (lambda f: f.unlink(), "has no file train-images-idx3-ubyte"),
        (lambda f: damage(f, lambda c: c[:-20000]), "damaged or truncated gzip"),
        (lambda f: damage(f, lambda c: b"\x89PNG" + c), "not an idx file"),
        (lambda f: damage(f, lambda c: gzip.compress(gzip.decompress(c)[:-1])), "truncated: 1646415 bytes"),
        (lambda f: damage(f, lambda c: gzip.compress(b"\0\0\x0d" + gzip.decompress(c)[3:])), "type 13 with 3 axes"),
        (lambda f: write_idx(f, np.zeros((2099, 28, 28), np.uint8)), "2100 labels for 2099 images"),
    ],
)
def test_a_bad_idx_file_is_named_with_a_remedy(mnist, how, says):
    how(mnist / "train-images-idx3-ubyte.gz")
    with pytest.raises(BittrueError, match=says) as error:
        load("mnist", mnist)
    assert str(mnist) in str(error.value)
    assert "name a folder with" in str(error.value)


def test_a_missing_set_says_where_to_get_it(tmp_path, monkeypatch):
    with pytest.raises(BittrueError, match="no/such does not exist.*cs.toronto.edu"):
        load("cifar10", tmp_path / "no/such")
    with pytest.raises(BittrueError, match="no folder was given.*cs.toronto.edu"):
        load("cifar100")
    monkeypatch.setattr(sets, "debian_folder", lambda *_: None)
    with pytest.raises(BittrueError, match="dataset-fashion-mnist"):
        load("fashion-mnist")
    with pytest.raises(BittrueError, match="unknown data set 'imagenet'; known are digits"):
        load("imagenet")
    with pytest.raises(BittrueError, match="comes with scikit-learn"):
        load("digits", tmp_path)


def cifar_files(folder, name, kind):
    """Write a small data set in one of the two published versions; gives pixels `[n, 3072]` and labels."""
    rng = np.random.default_rng(3)
    ten = name == "cifar10"
    trains = [f"data_batch_{k}" for k in range(1, 6)] if ten else ["train"]
    classes = 10 if ten else 100
    folder.mkdir()
    kept = {}
    for batch in (*trains, "test_batch" if ten else "test"):
        count = 500 if ten else 2500
        pixels, labels = rng.integers(0, 256, (count, 3072), dtype=np.uint8), rng.integers(0, classes, count)
        kept[batch] = pixels, labels
        if kind == "binary":
            columns = [labels[:, None]] if ten else [labels[:, None] // 5, labels[:, None]]
            rows = np.concatenate([*columns, pixels], axis=1).astype(np.uint8)
            (folder / f"{batch}.bin").write_bytes(rows.tobytes())
        else:
            content = {b"data": pixels, b"labels" if ten else b"fine_labels": labels.tolist()}
            (folder / batch).write_bytes(pickle.dumps(content, protocol=2))
    names = [f"class {k}" for k in range(classes)]
    if kind == "binary":
        (folder / ("batches.meta.txt" if ten else "fine_label_names.txt")).write_text("\n".join(names) + "\n\n")
    else:
        content = {b"label_names" if ten else b"fine_label_names": [n.encode() for n in names]}
        (folder / ("batches.meta" if ten else "meta")).write_bytes(pickle.dumps(content, protocol=2))
    return kept


FOLDERS = {
    ("cifar10", "binary"): "cifar-10-batches-bin",
    ("cifar10", "python"): "cifar-10-batches-py",
    ("cifar100", "binary"): "cifar-100-binary",
    ("cifar100", "python"): "cifar-100-python",
}


@pytest.mark.parametrize(("name", "kind"), FOLDERS)
def test_cifar_is_read_in_both_versions(tmp_path, name, kind):
    folder = tmp_path / FOLDERS[name, kind]
    kept = cifar_files(folder, name, kind)
    data = load(name, tmp_path)
    assert data.classes[3] == "class 3"
    test_pixels, test_labels = kept["test_batch" if name == "cifar10" else "test"]
    assert np.array_equal(data.test.labels, test_labels)
    assert data.test.images[4, 2, 7].tolist() == [test_pixels[4, 1024 * c + 32 * 2 + 7] for c in range(3)]
    assert len(data.train) == 500
    assert np.array_equal(load(name, folder).train.images, data.train.images)


def test_a_truncated_or_foreign_cifar_file_is_named(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    cifar_files(folder, "cifar10", "binary")
    damage(folder / "data_batch_2.bin", lambda c: c[:-1])
    with pytest.raises(BittrueError, match=r"data_batch_2.bin is truncated.*cs.toronto.edu"):
        load("cifar10", tmp_path)
    with pytest.raises(BittrueError, match="has neither test.bin nor test"):
        load("cifar100", tmp_path)


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def test_a_pickle_that_wants_more_than_arrays_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "cifar-10-batches-py"
    cifar_files(folder, "cifar10", "python")
    (folder / "data_batch_3").write_bytes(pickle.dumps({b"data": Harmful()}, protocol=2))
    with pytest.raises(BittrueError, match="data_batch_3.*wants posix.system"):
        load("cifar10", tmp_path)
    assert not (tmp_path / "harmed").exists()


def test_pickled_arrays_other_than_bytes_and_cut_pickles_are_refused(tmp_path):
    path = tmp_path / "batch"
    path.write_bytes(pickle.dumps(np.zeros(3, object), protocol=2))
    with pytest.raises(BittrueError, match="not of unsigned bytes"):
        read_plain_pickle(path)
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    path.write_bytes(pickle.dumps(np.asfortranarray(array), protocol=2))
    assert np.array_equal(read_plain_pickle(path).array, array)
    damage(path, lambda c: c[:-10])
    with pytest.raises(BittrueError, match="truncated"):
        read_plain_pickle(path)


def test_a_small_gzip_file_of_many_bytes_is_not_unfolded(tmp_path):
    """A header of 16 TB, and one of 2 GB before a trap of zeros: read up to what the header says, or not at all."""
    for shape, zeros in (((1 << 20, 4096, 4096), 100), ((2, 3, 4), 1 << 26)):
        content = struct.pack(">BBBB3I", 0, 0, 8, 3, *shape) + bytes(zeros)
        (tmp_path / "x.gz").write_bytes(gzip.compress(content, 9, mtime=0))
        tracemalloc.start()
        with pytest.raises(BittrueError, match="is truncated" if zeros == 100 else "is too long"):
            read_idx(tmp_path / "x.gz", 3)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
        tracemalloc.stop()
    (tmp_path / "none").write_bytes(struct.pack(">BBBB3I", 0, 0, 8, 3, 0, 1 << 31, 1 << 31))
    with pytest.raises(BittrueError, match="is empty: its header says"):
        read_idx(tmp_path / "none", 3)


def test_a_pickle_takes_no_memory_for_a_number(tmp_path):
    """LONG_BINPUT of the last index of 32 bits: the unpickler in C makes room for so many marks."""
    (tmp_path / "p").write_bytes(b"\x80\x02}r\xff\xff\xff\xff.")
    tracemalloc.start()
    assert read_plain_pickle(tmp_path / "p") == {}
    assert tracemalloc.get_traced_memory()[1] < 4 << 20
    tracemalloc.stop()
