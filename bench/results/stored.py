"""What was measured, as JSON files beside this module: sealed, so that no figure is changed by hand without notice.

Kinds, by the key `kind`:

* `flows`: runs of one recipe, condensed from their reports by `bench.results.collect`
* `bench`: the rows of a benchmark, once for every time it was measured (`python -m bench NAME --store`)
* `table`: a table as it was once printed, of which no report is left; its `note` says when and how it was measured
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bittrue.sim.errors import BittrueError
from bittrue.sim.files import write_whole
from bittrue.sim.reading import sealed, unsealed

FOLDER = Path(__file__).parent
VERSION = 1
#: What the kinds hold besides `kind` and `version`.
KEYS = {
    "flows": {"recipe", "runs", "note"},
    "bench": {"bench", "runs", "note"},
    "table": {"columns", "rows", "note"},
}


def save(name: str, content: Mapping[str, Any], folder: Path = FOLDER) -> Path:
    """Write `NAME.json`; `content` has a `kind` and the keys of it."""
    _refuse_other(folder / f"{name}.json", content)
    return write_whole(folder / f"{name}.json", sealed(dict(content) | {"version": VERSION}))


def load(name: str, kind: str, folder: Path = FOLDER) -> dict[str, Any]:
    """What `save` wrote under this name, of this kind."""
    path = folder / f"{name}.json"
    make = {
        "flows": f"python -m bench results collect FOLDER, with the folder of a flow of {name}",
        "bench": f"python -m bench {name} --store",
        "table": "git checkout, for it cannot be measured again",
    }[kind]
    try:
        content = unsealed(path.read_bytes())
    except (OSError, BittrueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise BittrueError(f"results {path.name}: {why}; make it with: {make}") from error
    if content.get("version") != VERSION:
        found = content.get("version")
        raise BittrueError(f"results {path.name}: it is of version {found}, not {VERSION}; make it with: {make}")
    _refuse_other(path, content)
    if content["kind"] != kind:
        raise BittrueError(f"results {path.name}: it holds {content['kind']}, not {kind}; make it with: {make}")
    return content


def _refuse_other(path: Path, content: Mapping[str, Any]) -> None:
    kind = content.get("kind")
    if kind not in KEYS:
        raise BittrueError(f"results {path.name}: there is no kind {kind!r}; the kinds are {', '.join(KEYS)}")
    for key in sorted(KEYS[kind] - content.keys()):
        raise BittrueError(f"results {path.name}: it has no key {key!r}, which every file of the kind {kind} has")
