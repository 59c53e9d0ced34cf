"""Defaults, bounds and choices of every key of every recipe, against a written list: a bound that moves is seen.

What is changed on purpose is written anew:  python -m tests.flow.test_recipe_bounds
"""

import json
from pathlib import Path

from bittrue.flow.engine import registry

WRITTEN = Path(__file__).with_name("recipe_bounds.json")
TOLD = (
    "default",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minItems",
    "maxItems",
    "enum",
    "const",
)


def limits(part: object, place: str = "") -> dict[str, object]:
    """Of a JSON schema: by place, what it says of values."""
    found: dict[str, object] = {}
    if isinstance(part, list):
        for number, inner in enumerate(part):
            found |= limits(inner, f"{place}/{number}")
    elif isinstance(part, dict):
        found |= {f"{place}:{name}": part[name] for name in TOLD if name in part and not isinstance(part[name], dict)}
        for name, inner in part.items():
            if name not in ("default", "enum"):
                found |= limits(inner, f"{place}/{name}")
    return found


def told() -> dict[str, dict[str, object]]:
    return {name: limits(system.recipe.model_json_schema()) for name, system in sorted(registry.systems().items())}


def test_recipes_have_the_written_defaults_and_bounds():
    written, now = json.loads(WRITTEN.read_text()), json.loads(json.dumps(told()))
    assert written.keys() <= now.keys()
    for name, expected in written.items():
        assert now[name] == expected, f"recipes of {name}; meant so? python -m {__spec__.name}"
    assert sum(map(len, written.values())) > 200


if __name__ == "__main__":
    WRITTEN.write_text(json.dumps(told(), indent=1, sort_keys=True) + "\n")
