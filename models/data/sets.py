"""Data sets with frozen splits, and the encoding of images as int8 codes of patches.

    digits          scikit-learn's 1,797 images 8x8, values 0..16    1197 / 150 / 450, permutation of seed 123
    mnist           idx files                                        58,000 / 2,000 / 10,000
    fashion-mnist   idx files                                        58,000 / 2,000 / 10,000
    cifar10         batches, binary or python version                48,000 / 2,000 / 10,000
    cifar100        batches, binary or python version, fine labels   48,000 / 2,000 / 10,000
    watch           seglearn's smart watch, as windows of time       2,460 / 372 / 773, by person

The validation split is the last part of the published training set; of `watch` (`models.data.series`) each split is of
other persons. Nothing is ever downloaded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bittrue.models.data.files import cifar, debian_folder, idx
from bittrue.sim.contract import whole
from bittrue.sim.errors import BittrueError

VALIDATION = 2000
CODE_LOW, CODE_HIGH = -128, 127
#: Real value of one step of a code, and its width.
INPUT_SCALE, INPUT_BITS = 1 / 128, 8


@dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 `[n, height, width, channels]` and labels int64 `[n]`, both read-only.

    Labels may be of any integer type. Raises BittrueError for anything that would have to be changed to be such.
    """

    images: np.ndarray
    labels: np.ndarray

    def __post_init__(self) -> None:
        images, labels = np.asarray(self.images), np.asarray(self.labels)
        if images.dtype != np.uint8:
            raise BittrueError(
                f"split: images are uint8, pixels 0..255, but the array is {images.dtype}{_span(images)}; scale them "
                "to 0..255 and round, for example np.rint(255 * images).astype(np.uint8) for floats of 0..1"
            )
        if labels.dtype.kind not in "iu":
            raise BittrueError(
                f"split: labels are integers, the number of each image's class, but the array is {labels.dtype}; for "
                "one-hot rows give labels.argmax(1), else labels.astype(np.int64) once they are whole"
            )
        if images.ndim != 4 or labels.shape != images.shape[:1]:
            raise BittrueError(
                f"split: images are [n, height, width, channels] and labels [n], got {images.shape} and "
                f"{labels.shape}; give grey images a last axis of 1, and one label for each image"
            )
        labels = whole(labels, "split: labels")
        for name, given, dtype in (("images", images, np.uint8), ("labels", labels, np.int64)):
            array = np.ascontiguousarray(given, dtype)
            array = array if array is not getattr(self, name) else array.view()
            array.flags.writeable = False
            object.__setattr__(self, name, array)

    def __len__(self) -> int:
        return len(self.labels)


def _span(array: np.ndarray) -> str:
    """The range of an array's numbers, in words."""
    return f" of {array.min():g}..{array.max():g}" if array.size and array.dtype.kind in "iuf" else ""


@dataclass(frozen=True, eq=False)
class Data:
    """A data set: three splits, the names of its classes, and `gain`, the code steps of one pixel step.

    Raises BittrueError for a label that no class has, and for splits whose images differ in size.
    """

    name: str
    classes: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    gain: int = 1

    def __post_init__(self) -> None:
        for name in ("train", "val", "test"):
            split = getattr(self, name)
            if len(split) and not 0 <= split.labels.min() <= split.labels.max() < len(self.classes):
                raise BittrueError(
                    f"data set {self.name}: labels of {name} are {split.labels.min()}..{split.labels.max()}, but there "
                    f"are {len(self.classes)} classes, numbered from 0; number them so, or name all classes"
                )
            if split.images.shape[1:] != self.train.images.shape[1:]:
                raise BittrueError(
                    f"data set {self.name}: images of {name} are {split.images.shape[1:]}, those of train "
                    f"{self.train.images.shape[1:]}; bring all to one size"
                )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        height, width, channels = self.train.images.shape[1:]
        return height, width, channels


def encode(images: np.ndarray, patch: int, gain: int = 1) -> np.ndarray:
    """`min(gain * pixel - 128, 127)` of every pixel, grouped by patches: int8 `[n, tokens, features]`.

    Images `[n, height, width, channels]` of whole numbers from 0; token = patch_row * (width / patch) +
    patch_column; feature = (row * patch + column) * channels + channel, row and column within the patch.
    `gain` is 1 for 8-bit pixels and 16 for `digits` (`Data.gain`).
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.dtype.kind not in "iu":
        raise BittrueError(
            f"encode: images are integers [n, height, width, channels], got {images.dtype} {images.shape}"
        )
    if images.size and images.min() < 0:
        raise BittrueError(f"encode: a pixel is {images.min()}, and pixels begin at 0; shift or clip them first")
    n, height, width, channels = images.shape
    if patch < 1 or height % patch or width % patch:
        raise BittrueError(
            f"encode: patches of {patch} x {patch} pixels do not tile images of {height} x {width}; "
            f"choose a patch that divides both"
        )
    codes = images.astype(np.int64) * gain + CODE_LOW
    codes = np.clip(codes, CODE_LOW, CODE_HIGH).astype(np.int8)
    grid = codes.reshape(n, height // patch, patch, width // patch, patch, channels).transpose(0, 1, 3, 2, 4, 5)
    return np.ascontiguousarray(grid.reshape(n, (height // patch) * (width // patch), patch * patch * channels))


def load(name: str, folder: str | Path | None = None) -> Data:
    """Read a data set, from `folder` where one is needed.

    `fashion-mnist` is also found where the Debian package dataset-fashion-mnist puts it. A set or a file that
    is missing, truncated or of another format is refused with its name and where to get it.
    """
    if name not in _LOADERS:
        raise BittrueError(f"unknown data set {name!r}; known are {', '.join(_LOADERS)}")
    place = None if folder is None else Path(folder).expanduser()
    if place is not None and not place.is_dir():
        raise BittrueError(f"{name}: the folder {place} does not exist; {_SOURCES[name]}")
    try:
        return _LOADERS[name](name, place)
    except BittrueError as error:
        raise BittrueError(f"{name}: {error}; {_SOURCES[name]}") from error


def _digits(name: str, folder: Path | None) -> Data:
    if folder is not None:
        raise BittrueError(f"this set comes with scikit-learn, so the folder {folder} is of no use")
    from sklearn.datasets import load_digits

    bunch = load_digits()
    order = np.random.RandomState(123).permutation(len(bunch.target))  # noqa: NPY002  (this stream is frozen)
    images, labels = bunch.images.astype(np.uint8)[order, :, :, None], bunch.target[order]
    parts = (slice(0, 1197), slice(1197, 1347), slice(1347, 1797))
    train, val, test = (Split(images[part], labels[part]) for part in parts)
    return Data(name, tuple(map(str, range(10))), train, val, test, gain=16)


def _published(name: str, classes: tuple[str, ...], train: tuple, test: tuple) -> Data:
    """Split the published training set; labels are checked against the classes."""
    for kind, (images, labels) in (("training", train), ("test", test)):
        if len(labels) and int(labels.max()) >= len(classes):
            raise BittrueError(f"a label of the {kind} set is {labels.max()}, but there are {len(classes)} classes")
        if not len(images):
            raise BittrueError(f"its {kind} set is empty")
    images, labels = train
    if len(images) <= VALIDATION:
        raise BittrueError(f"its training set has {len(images)} images; {VALIDATION} are for validation alone")
    return Data(
        name,
        classes,
        Split(images[:-VALIDATION], labels[:-VALIDATION]),
        Split(images[-VALIDATION:], labels[-VALIDATION:]),
        Split(*test),
    )


def _mnist(name: str, folder: Path | None) -> Data:
    if folder is None and name == "fashion-mnist":
        folder = debian_folder("dataset-fashion-mnist", Path("/usr/share/datasets/fashion-mnist"))
    if folder is None:
        raise BittrueError("no folder was given and it is not installed")
    train = idx(folder, "train-images", "train-labels")
    test = idx(folder, "t10k-images", "t10k-labels")
    return _published(name, _FASHION if name == "fashion-mnist" else tuple(map(str, range(10))), train, test)


def _watch(name: str, folder: Path | None) -> Data:
    from bittrue.models.data import series

    if folder is not None:
        raise BittrueError(f"this set comes with seglearn, so the folder {folder} is of no use")
    train, val, test = (Split(*part) for part in series.watch())
    return Data(name, series.EXERCISES, train, val, test)


def _cifar(name: str, folder: Path | None) -> Data:
    if folder is None:
        raise BittrueError("no folder was given")
    train, test, classes = cifar(folder, name)
    return _published(name, classes, train, test)


_FASHION = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
_LOADERS: dict[str, Callable[[str, Path | None], Data]] = {
    "digits": _digits,
    "fashion-mnist": _mnist,
    "mnist": _mnist,
    "cifar10": _cifar,
    "cifar100": _cifar,
    "watch": _watch,
}
_SOURCES = {
    "digits": "load it without a folder; it is installed with scikit-learn",
    "fashion-mnist": "install the Debian package dataset-fashion-mnist, or name a folder with the four files "
    "{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz from github.com/zalandoresearch/fashion-mnist",
    "watch": "install the Python package seglearn, which carries it (pip install seglearn), and give no folder",
    "mnist": "name a folder with the four files {train,t10k}-{images-idx3,labels-idx1}-ubyte, plain or .gz, "
    "from yann.lecun.com/exdb/mnist or a mirror of it",
    "cifar10": "name a folder with the unpacked cifar-10-binary.tar.gz or cifar-10-python.tar.gz "
    "from www.cs.toronto.edu/~kriz/cifar.html",
    "cifar100": "name a folder with the unpacked cifar-100-binary.tar.gz or cifar-100-python.tar.gz "
    "from www.cs.toronto.edu/~kriz/cifar.html",
}
