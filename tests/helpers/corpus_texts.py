"""Formats of all else: recipes, neuron sets, data sets, and the files that only bittrue writes."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from bittrue.flow import stages
from bittrue.flow.engine import recipe as recipes
from bittrue.flow.engine import steps
from bittrue.flow.report import report
from bittrue.hls import host
from bittrue.models.data import files as data_files
from bittrue.models.fs import sets
from bittrue.models.networks.resmlp import ResMLP
from bittrue.models.networks.settings import ResMLPSettings
from bittrue.models.training import storage as networks
from bittrue.rtl.dataflow.design import PipelineDesign
from bittrue.rtl.dataflow.plan import plan
from bittrue.sim import reading
from bittrue.sim.errors import BittrueError
from tests.helpers import damage
from tests.helpers.corpus_kinds import OCTETS, SEALED, Damage, Format
from tests.helpers.corpus_models import small_program, text
from tests.helpers.damage import Rng, pick

# -- recipes -----------------------------------------------------------------------------------------------
LINES = (
    *(
        "epochs: 3",
        "!!timestamp 2020-01-01",
        "&a x",
        "*a",
        "<<: *a",
        "? [a]\n: b",
        "--- ",
        "%YAML 1.1",
        "!!python/name:os.x y",
    ),
    *(
        "{{{{",
        "[" * 500,
        "train:\n  epochs: 150\n",
        "\t x: 1",
        "x: !!binary aGk=",
        "seed: 0o17",
        "- 5",
        "\x00",
        "...",
        "@",
    ),
)


def _lines(rng: Rng, text: str) -> str:
    lines = text.split("\n")
    where = int(rng.integers(len(lines)))
    if rng.random() < 0.4:
        lines.insert(int(rng.integers(len(lines))), lines[where])  # a key given twice, or a value somewhere else
    else:
        indent = lines[where][: len(lines[where]) - len(lines[where].lstrip())]
        lines.insert(where, indent + pick(rng, LINES))
    return "\n".join(lines)


def _recipe_values(rng: Rng, content: bytes) -> bytes:
    strange = (*damage.STRANGE, damage.Raw(".inf"), damage.Raw("-.inf"), damage.Raw(".nan"), damage.Raw("2020-01-01"))
    return damage.json_text(damage.tree(rng, yaml.safe_load(content), strange), rng, 0.5).encode()


def recipe_format(name: str) -> Format:
    def read(place: Path) -> Any:
        return json.loads(recipes.load(place / "mine.yaml").model_dump_json())

    def says(place: Path, file: str) -> Any:
        """The defaults of the system with what another reader finds in the file."""
        text = (place / file).read_text()
        if _given_twice(yaml.compose(text)):
            return None
        try:
            given = json.loads(text, parse_constant=int)  # YAML's older reader takes 1e-310 for text
        except ValueError:
            given = yaml.safe_load(text)
        base = json.loads(recipes.parse({"system": given["system"]} | _needed(given)).model_dump_json())
        return _over(base | {"name": "mine"}, given)

    ways: tuple[Damage, ...] = (OCTETS, ("values", _recipe_values, False), ("lines", text(_lines), False))
    return Format(
        name,
        lambda place: (place / "mine.yaml").write_text(recipes.load(name).to_yaml()),
        read,
        {"mine.yaml": ways},
        says,
    )


def _needed(given: dict) -> dict:
    return {"network": {"kind": given["network"]["kind"]}} if "kind" in given.get("network", {}) else {}


def _given_twice(node: yaml.Node) -> bool:
    """Whether a key of any mapping is there twice."""
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        return len(set(map(str, keys))) < len(keys) or any(_given_twice(inner) for _, inner in node.value)
    return isinstance(node, yaml.SequenceNode) and any(_given_twice(inner) for inner in node.value)


def _over(base: Any, given: Any) -> Any:
    """The values of `base` where `given` says nothing; a whole number where a fraction can be is one."""
    if isinstance(base, dict) and isinstance(given, dict):
        return base | {key: _over(base.get(key), value) for key, value in given.items()}
    return float(given) if isinstance(base, float) and type(given) is int else given


# -- neuron sets -------------------------------------------------------------------------------------------
def read_set(place: Path) -> Any:
    return sets.load(place / "set.json").to_json()


def set_says(place: Path, name: str) -> Any:
    given = json.loads((place / name).read_bytes())
    plain = {"function": "", "source": "", "fit": {}}
    plain |= {
        key: given[key] for key in ("format", "version", "name", "function", "source", "steps", "fit") if key in given
    }
    plain["version"], plain["steps"] = int(plain["version"]), int(plain["steps"])
    floats = {key: [sets._shortest(np.float32(v)) for v in given[key]] for key in ("h", "d", "T")}
    return plain | floats | {"range": [None if end is None else float(end) for end in given["range"]]}


def as_json(rng: Rng, content: bytes) -> bytes:
    return damage.json_text(damage.tree(rng, json.loads(content)), rng).encode()


# -- data sets ---------------------------------------------------------------------------------------------
def write_idx(place: Path) -> None:
    rng = np.random.default_rng(0)
    for stem, array, ending in (
        ("train-images-idx3", rng.integers(0, 256, (6, 4, 4), np.uint8), ""),
        ("train-labels-idx1", rng.integers(0, 10, 6, np.uint8), ".gz"),
    ):
        content = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()
        (place / f"{stem}-ubyte{ending}").write_bytes(gzip.compress(content, mtime=0) if ending else content)


def read_idx(place: Path) -> Any:
    return list(data_files.idx(place, "train-images", "train-labels"))


def idx_says(place: Path, name: str) -> Any:  # noqa: ARG001
    found = []
    for name, axes in (("train-images-idx3-ubyte", 3), ("train-labels-idx1-ubyte.gz", 1)):
        content = (place / name).read_bytes()
        content = gzip.decompress(content) if name.endswith(".gz") else content
        found.append(
            np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(np.frombuffer(content, ">u4", axes, 4))
        )
    return [found[0][..., None], found[1].astype(np.int64)]


def write_cifar(place: Path) -> None:
    rng = np.random.default_rng(0)
    for batch in [f"data_batch_{k}" for k in range(1, 6)] + ["test_batch"]:
        content = {b"data": rng.integers(0, 256, (2, 3072), np.uint8), b"labels": [1, 2], b"batch_label": b"a"}
        (place / batch).write_bytes(pickle.dumps(content, protocol=2))
    (place / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"c%d" % k for k in range(10)]}, protocol=2))


def read_cifar(place: Path) -> Any:
    return data_files.cifar(place, "cifar10")


# -- what is sealed ----------------------------------------------------------------------------------------
def write_network(place: Path) -> None:
    model = ResMLP(ResMLPSettings(patch=2, embed=4, blocks=1, hidden_factor=1.0), (4, 4, 1), 3, 1)
    networks.save(model, place / "network.pt")


def read_network(place: Path) -> Any:
    model = networks.load(place / "network.pt", ResMLP)
    return model.describe(), {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def forged_network(rng: Rng, content: bytes) -> bytes:
    """Other descriptions and parameters under a right hash."""
    value = torch.load(io.BytesIO(content[: -64 - 7]), weights_only=True)
    state = {name: None for name in value["state"]}
    changed = damage.tree(rng, {**value, "description": json.loads(value["description"]), "state": state})
    if isinstance(changed.get("state"), dict):
        changed["state"] = {name: value["state"].get(name, inner) for name, inner in changed["state"].items()}
    if "description" in changed and rng.random() < 0.95:
        changed["description"] = damage.json_text(changed["description"])
    buffer = io.BytesIO()
    torch.save(changed, buffer)
    return damage.with_hash(buffer.getvalue() + b"sha256:")


def forged(rng: Rng, content: bytes) -> bytes:
    """Sealed JSON with other values, and a right seal; what its writer would not write is left out."""
    value = json.loads(content)
    del value["seal"]
    return reading.sealed(damage.tree(rng, value, tuple(v for v in damage.STRANGE if not isinstance(v, damage.Raw))))


SEALED_JSON: tuple[Damage, ...] = (SEALED, ("values", as_json, True))
FORGED: Damage = ("forged values", forged, False)


def write_design(place: Path) -> None:
    stages.write_design(PipelineDesign(plan(small_program())), place)


def read_design(place: Path) -> Any:
    design, text = stages.read_design(small_program(), place)
    return design.to_json(), str(text), design.describe()


def read_project(place: Path) -> Any:
    return host.read_project(place)


def read_stamp(place: Path) -> Any:
    found = steps.stamp(place)
    if found is None:
        raise BittrueError("the step runs again")
    return found


def stamp(place: Path) -> None:
    content = {"step": "train", "seconds": 1.5, "inputs": {"a": "b"}, "files": {"x": "0" * 64}, "result": {"c": [1]}}
    (place / steps.STAMP).write_bytes(reading.sealed(content | {"digest": "0" * 64}))


def write_report(place: Path) -> None:
    keys = [
        "recipe",
        "system",
        "accuracy",
        "verify",
        "golden",
        "skipped",
        "synth",
        "operations",
        "functions",
        "pipeline",
    ]
    (place / report.JSON).write_bytes(reading.sealed({key: [1, {"a": 2.5}] for key in keys}))
