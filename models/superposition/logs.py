"""Figures of a training in TensorBoard, where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bittrue.sim.errors import BittrueError
from bittrue.sim.files import try_folder


@contextmanager
def tensorboard(folder: str | Path | None) -> Iterator[Callable[[int, dict[str, float]], None] | None]:
    """A function that writes an epoch's figures as scalars for TensorBoard into a folder; None without a folder.

    TensorBoard is in no extra of bittrue; who names a folder and lacks it is told so before the training.
    """
    if folder is None:
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise BittrueError(
            f"log.tensorboard = {str(folder)!r}: TensorBoard is not installed; pip install tensorboard, or leave the "
            "key out: the same figures are in the step's result"
        ) from error
    with SummaryWriter(str(try_folder(Path(folder)))) as writer:

        def log(epoch: int, figures: dict[str, float]) -> None:
            for name, value in figures.items():
                writer.add_scalar(name, value, epoch)
            writer.flush()

        yield log
