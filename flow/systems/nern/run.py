"""What `bittrue nern train` and `bittrue nern evaluate` do with a published configuration."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bittrue.flow.engine import kernels
from bittrue.flow.systems.nern import config as configurations
from bittrue.models.nern.settings import Config, Generate
from bittrue.sim.errors import BittrueError
from bittrue.sim.files import try_folder, write_whole

if TYPE_CHECKING:
    from bittrue.models.training.loop import Progress


def train(
    config: Config, where: str, progress: Callable[[Progress], None] | None = None, device: Any = None
) -> dict[str, Any]:
    """Train the configuration's generator, and evaluate it; leaves its files in `log_dir/exp_name`."""
    from bittrue.models.nern import evaluate
    from bittrue.models.nern import train as training
    from bittrue.models.nern.generator import Generator
    from bittrue.models.training import logs, storage
    from bittrue.models.training.loop import accuracy
    from bittrue.models.training.precision import threads

    kernels.hold()
    folder = try_folder(config.logging.log_dir / config.logging.exp_name)
    drawn = folder if config.logging.use_tensorboard and not config.logging.disable_logging else None
    with (
        threads(config.threads),
        logs.tensorboard(drawn, "logging.use_tensorboard", str(folder / "log.jsonl")) as board,
    ):
        setting = configurations.setting(config, where)
        generator = evaluate.begin(
            config.nern, setting.target, seed=config.seed, learn_classifier=config.learn_fc_layer
        )
        write_whole(folder / "config.yaml", yaml.safe_dump(json.loads(config.model_dump_json())).encode())
        checkpoint, log = folder / "checkpoint.pt", _Log(folder / "log.jsonl", config, board)
        if not checkpoint.exists():
            log.begin()
        own = Generate(**{key: getattr(config, key) for key in Generate.model_fields})
        done = training.fit(
            generator, setting.target, setting.data, config.optim, own,
            random_data=config.task.use_random_data, checkpoint=checkpoint, folder=folder, progress=progress, log=log,
            log_interval=config.logging.log_interval, device="cpu" if config.no_cuda else device,
        )  # fmt: skip
        storage.save(generator, folder / "generator.pt")
        checkpoint.unlink(missing_ok=True)
        kept = storage.load(folder / "generator.pt", Generator)
        accuracies = (
            accuracy(setting.target.network, setting.data.test),
            evaluate.accuracy(setting.target, kept, setting.data.test),
        )
    found = configurations.described(setting, accuracies, kept)
    found |= {"generator": str(folder / "generator.pt"), "step": done.step, "validation": done.accuracy}
    write_whole(folder / "result.json", json.dumps(found, indent=1).encode())
    return found


def evaluate(config: Config, where: str) -> dict[str, Any]:
    """Evaluate the generator of `nern.checkpoint_path` on the test images."""
    from bittrue.models.nern import evaluate as evaluating
    from bittrue.models.training.loop import accuracy
    from bittrue.models.training.precision import threads

    if config.nern.checkpoint_path is None:
        raise BittrueError(
            f"{where}: to evaluate it, give nern.init checkpoint and nern.checkpoint_path, a generator.pt"
        )
    kernels.hold()
    with threads(config.threads):
        setting = configurations.setting(config, where)
        generator = evaluating.read(config.nern.checkpoint_path, setting.target, config.nern)
        accuracies = (
            accuracy(setting.target.network, setting.data.test),
            evaluating.accuracy(setting.target, generator, setting.data.test),
        )
    return configurations.described(setting, accuracies, generator)


class _Log:
    """Figures of a training as lines of JSON, and for TensorBoard where there is a `board`."""

    def __init__(self, path: Path, config: Config, board: Callable[[int, dict[str, float]], None] | None) -> None:
        self.path, self.silent, self.board = path, config.logging.disable_logging, board

    def begin(self) -> None:
        self.path.unlink(missing_ok=True)

    def __call__(self, step: int, figures: dict[str, float]) -> None:
        if self.silent:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | figures) + "\n")
        if self.board is not None:
            self.board(step, figures)
