"""Published configuration files: a YAML file, changes as `--a.b.c value`, and what belongs to both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from bittrue.flow.engine import plain_yaml
from bittrue.flow.engine import recipe as recipes
from bittrue.models.nern.settings import BLOCKS, Config, TargetSettings
from bittrue.sim.errors import BittrueError

if TYPE_CHECKING:
    from bittrue.models.data.sets import Data
    from bittrue.models.nern.target import Target


def load(path: Path, changes: Sequence[str] = ()) -> Config:
    """The configuration of a file with these words behind it, `--key value` or `--key=value`.

    A key that is unknown, a value out of range and a word without a key are refused with the nearest that is known.
    """
    try:
        content = plain_yaml.load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BittrueError(f"configuration {path}: cannot be read ({error})") from error
    except yaml.YAMLError as error:
        raise BittrueError(f"configuration {path}: not YAML ({' '.join(str(error).split())})") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise BittrueError(
            f"configuration {path}: it holds a {type(content).__name__}; expected keys such as nern, optim"
        )
    places: dict[str, str] = {}
    for override in overrides(changes):
        recipes.apply(content, override, places)
    told = {key: f"--{text.replace('=', ' ', 1)}" for key, text in places.items()}
    return recipes.checked(Config, content, f"configuration {path}", told, "a configuration")


def overrides(words: Sequence[str]) -> list[str]:
    """`--a.b value` and `--a.b=value` as `a.b=value`."""
    found, left = [], list(words)
    while left:
        word = left.pop(0)
        if not word.startswith("--") or len(word) < 3:
            raise BittrueError(
                f"{word!r}: a value without a key; write --key value, such as --nern.hidden_layer_size 180"
            )
        key, equals, value = word[2:].partition("=")
        if not equals:
            if not left or left[0].startswith("--"):
                raise BittrueError(f"{word}: its value is missing; write {word} VALUE")
            value = left.pop(0)
        found.append(f"{key}={value}")
    return found


@dataclass(frozen=True)
class Setting:
    """What a configuration names: its data and the original with the kernels that are generated."""

    data: Data
    target: Target


def setting(config: Config, where: str) -> Setting:
    """Read the data and the original network."""
    from bittrue.models.data import sets
    from bittrue.models.nern import networks
    from bittrue.models.nern.target import Target

    task, name = config.task, config.task.original_model_name
    if task.task_name == "imagenet":
        raise BittrueError(
            f"{where}: bittrue reads no ImageNet (task.task_name); take cifar10, cifar100, fashion-mnist, mnist or "
            "digits, and see bittrue nern sizes and bittrue nern tours for what ResNet18 costs"
        )
    known = [*BLOCKS, "ResNet18"]
    if name not in known:
        raise BittrueError(
            f"{where}: no original is named {name!r} (task.original_model_name); those are {', '.join(known)}"
        )
    if config.original_model_path is None:
        raise BittrueError(
            f"{where}: it names no original_model_path; train one with bittrue nern original {name} --out FILE"
        )
    data = sets.load(task.task_name, task.data_path)
    network = TargetSettings(architecture=name)  # type: ignore[arg-type]
    path = config.original_model_path
    model = networks.load(path, network, data.shape, len(data.classes), data.gain)
    if (tuple(model.shape), model.classes) != (tuple(data.shape), len(data.classes)):
        raise BittrueError(
            f"original {path}: it takes images {list(model.shape)} of {model.classes} classes, and {task.task_name} "
            f"has {list(data.shape)} of {len(data.classes)}; name the data set it was trained on"
        )
    architecture = getattr(model.network, "architecture", name)
    if architecture != name:
        raise BittrueError(
            f"original {path}: it is a {architecture}, and task.original_model_name says {name}; let both agree"
        )
    return Setting(data, Target(model, config.nern.output_size, config.nern.keep))


def described(setting: Setting, accuracies: tuple[float, float], generator: Any) -> dict[str, Any]:
    """What `train` and `evaluate` tell of a generator."""
    from bittrue.models.nern import evaluate, sizes

    height, width, channels = setting.data.shape
    size = sizes.size(setting.target.network, (channels, height, width), generator.settings)
    return {
        "original": accuracies[0],
        "generated": accuracies[1],
        "images": len(setting.data.test),
        "bytes": size.parts,
        "target_bytes": size.weights,
        "share": size.share,
        "rms": evaluate.rms(setting.target, generator),
        "layers": [
            {"path": e.path, "rms": e.weights, "difference": e.differences, "neighbours": e.smoothness}
            for e in evaluate.errors(setting.target, generator)
        ],
    }
