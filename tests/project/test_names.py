"""Nothing generic names a system: its sources have neither the names of systems nor words that only one of them has."""

import re
from pathlib import Path

import pytest

from bittrue.flow.engine import registry

ROOT = Path(__file__).parents[2]
#: What every system shares. `rtl/dataflow/stages` are operations, `rtl/dataflow/spikes` what several of them share.
GENERIC = (
    "flow/*.py",
    "flow/engine/**/*",
    "flow/cli/**/*",
    "flow/report/**/*",
    "flow/run/**/*",
    "flow/synth/**/*",
    "flow/verify/**/*",
    "models/graph/*",
    "models/training/*",
    "rtl/*.py",
    "rtl/bus/*",
    "rtl/dataflow/*.py",
    "rtl/parts/*",
)
#: Words that belong to one system each, as the beginning of a word; with those that the registry knows.
WORDS = ("photonic", "spik", "neuron", "lerp", "psa", "light")
#: Where such a word means something else: the file, the text, why.
ALLOWED = {
    ("flow/report/figures.py", "readable in light and dark"): "the colours of a page",
    ("flow/report/templates/report.html", "color-scheme"): "the colours of a page",
}


def sources() -> list[Path]:
    paths = {path for pattern in GENERIC for path in ROOT.glob(pattern) if path.is_file()}
    return sorted(p for p in paths if p.suffix in (".py", ".html", ".cpp", ".h") and "__pycache__" not in p.parts)


def mentions(name: str, text: str) -> list[str]:
    """Lines of a generic file that name a system, or a thing that only one has."""
    names = {n for one in registry.systems().values() for n in (one.name, one.folder.name)}
    whole = "|".join(sorted(map(re.escape, names)))
    pattern = re.compile(rf"(?<![a-z])(?:(?:{whole})(?![a-z])|{'|'.join(WORDS)})", re.IGNORECASE)
    parted = re.compile(r"(?<=[a-z])(?=[A-Z])")  # FsNeuron as Fs Neuron
    lines = [line.strip() for line in text.splitlines() if pattern.search(parted.sub(" ", line))]
    return [line for line in lines if not any(name == file and part in line for file, part in ALLOWED)]


def test_generic_sources_are_there():
    assert len(sources()) > 60
    for file, part in ALLOWED:
        assert part in (ROOT / file).read_text(), f"{file} no longer says {part!r}: take it from the list"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_generic_source_names_a_system(path):
    assert mentions(str(path.relative_to(ROOT)), path.read_text()) == []


@pytest.mark.parametrize(
    "line",
    [
        'if recipe.system == "photonic":',
        "from bittrue.flow.systems.fs import raster",
        "SPIKES = 3",
        "spike_monitors.verilog(monitors)",
        "# the lerp-psa recipes",
        "def of_light(x): ...",
        "FsNeuron = 3",
    ],
)
def test_a_name_is_seen(line):
    assert mentions("flow/stages.py", f"import numpy\n{line}\n") == [line]


@pytest.mark.parametrize("line", ["highlight=False", "offset = 3", "upsampled", "the fsync of a file", "slight"])
def test_other_words_are_not(line):
    assert mentions("flow/stages.py", line) == []
