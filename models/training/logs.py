"""Figures of a training in TensorBoard, where it is installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bittrue.sim.errors import BittrueError
from bittrue.sim.files import try_folder


@contextmanager
def tensorboard(
    folder: str | Path | None, key: str = "log.tensorboard", elsewhere: str = "the step's result"
) -> Iterator[Callable[[int, dict[str, float]], None] | None]:
    """A function that writes the figures of an epoch or a step as scalars for TensorBoard into a folder; None without
    a folder. `key` is the one that asks for it; the same figures are `elsewhere`.

    TensorBoard is in no extra of bittrue; who names a folder and lacks it is told so before the training.
    """
    if folder is None:
        yield None
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise BittrueError(
            f"{key} = {str(folder)!r}: TensorBoard is not installed; pip install tensorboard, or leave the key out, as "
            f"the same figures are in {elsewhere}"
        ) from error
    with SummaryWriter(str(try_folder(Path(folder)))) as writer:

        def log(epoch: int, figures: dict[str, float]) -> None:
            for name, value in figures.items():
                writer.add_scalar(name, value, epoch)
            writer.flush()

        yield log
