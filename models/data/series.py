"""Windows of a smart watch's inertial sensors, as images one pixel wide.

140 recordings of 20 repetitions each: ten persons, seven exercises of the shoulder, both arms; three accelerations and
three rates of turn, 50 samples a second (D. M. Burns et al. 2018, arXiv:1802.01489). The Python package seglearn
carries them (BSD licence); its file is read where it is installed, and nothing of the package is run.

A sample becomes a pixel by the full scale of its sensor, which no recording has a say in:

    pixel = clip(rint(128 + 128 x / full), 0, 255)      full = 4 (accelerations, g) or 8 (rates, rad/s)
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np

from bittrue.sim.errors import BittrueError

EXERCISES = ("PEN", "ABD", "FEL", "IR", "ER", "TRAP", "ROW")
FULL_SCALE = np.array([4.0] * 3 + [8.0] * 3)
#: Samples of a window (2.56 s), and from the start of one to that of the next.
LENGTH, STEP = 128, 64
#: Persons of training, of validation and of the test.
PERSONS = ((1, 2, 3, 4, 5, 6, 7), (8,), (9, 10))


def watch(file: Path | None = None) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Windows uint8 `[n, 128, 1, 6]` and exercises int64 `[n]`, of training, validation and test.

    file   the package's `watch_dataset.npy`; by default that of the package that is installed
    """
    recordings = _read(file or _installed())
    return tuple(_windows([r for r in recordings if r[2] in persons]) for persons in PERSONS)


def _installed() -> Path:
    found = importlib.util.find_spec("seglearn")
    if found is None or not found.submodule_search_locations:
        raise BittrueError("the package seglearn is not installed")
    return Path(found.submodule_search_locations[0]) / "data" / "watch_dataset.npy"


def _read(file: Path) -> list[tuple[np.ndarray, int, int]]:
    """Samples `[time, 6]`, exercise and person of each recording."""
    try:
        content = np.load(file, allow_pickle=True).item()  # as trusted as the installed package it belongs to
    except OSError as error:
        raise BittrueError(f"{file} cannot be read ({error.strerror or error})") from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise BittrueError(f"{file} is damaged ({error})") from error
    try:
        samples = [np.asarray(one, np.float64) for one in content["X"]]
        exercises, persons = (np.asarray(content[key]).astype(np.int64) for key in ("y", "subject"))
        names = tuple(content["y_labels"])
    except (KeyError, TypeError, ValueError) as error:
        raise BittrueError(f"{file} is of another format: it has no X, y, subject and y_labels as it should") from error
    if names != EXERCISES or not len(samples) == len(exercises) == len(persons):
        raise BittrueError(f"{file} is of another format: {len(samples)} recordings of {', '.join(map(str, names))}")
    for number, one in enumerate(samples):
        if one.ndim != 2 or one.shape[1] != len(FULL_SCALE) or not np.isfinite(one).all():
            raise BittrueError(f"{file}: recording {number} is not [time, 6] of finite numbers")
    return list(zip(samples, exercises.tolist(), persons.tolist(), strict=True))


def _windows(recordings: list[tuple[np.ndarray, int, int]]) -> tuple[np.ndarray, np.ndarray]:
    images, labels = [], []
    for samples, exercise, _ in recordings:
        pixels = np.clip(np.rint(128 + 128 * samples / FULL_SCALE), 0, 255).astype(np.uint8)
        windows = np.lib.stride_tricks.sliding_window_view(pixels, LENGTH, 0)[::STEP]  # [n, 6, 128]
        images.append(windows.transpose(0, 2, 1)[:, :, None])
        labels += [exercise] * len(windows)
    return np.concatenate(images), np.array(labels, np.int64)
