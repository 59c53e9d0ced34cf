"""What the documents name exists: paths, modules and their members, links, targets of make, extras, code examples."""

import ast
import itertools
import re
import tomllib
from pathlib import Path

import pytest

import bittrue
from bittrue.sim.operation import Operation

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")
#: Where paths begin that only exist once something was built, or on a user's machine.
ELSEWHERE = ("build/", "dist/", "~/", "/", ".venv/", "docs.")
#: Words with a slash that are no paths.
NO_PATHS = {"valid/ready"}


def text_of(document: str) -> str:
    return (ROOT / document).read_text()


def code_of(document: str) -> list[str]:
    """The spans in backticks of a document, without its blocks of code."""
    text = re.sub(r"^```.*?^```", "", text_of(document), flags=re.DOTALL | re.MULTILINE)
    text = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)]


def expanded(path: str) -> list[str]:
    """`rtl/{verilog,readback}.py` as two paths, and `<op>` as `*`."""
    parts = re.split(r"\{([^}]*)\}", re.sub(r"<[\w ]+>", "*", path))
    choices = [part.split(",") if index % 2 else [part] for index, part in enumerate(parts)]
    return ["".join(chosen) for chosen in itertools.product(*choices)]


def paths_of(document: str) -> list[str]:
    """What looks like a path in a document: with a slash, or a file of the repository's top."""
    found = [span for span in code_of(document) if re.fullmatch(r"[\w.<>{},*~-]*(/[\w.<>{},* -]*)+", span)]
    found += [
        span for span in code_of(document) if re.fullmatch(r"[A-Z]+\.md|Makefile|\w+\.toml|constraints\.txt", span)
    ]
    return [path for path in found if not path.startswith(ELSEWHERE) and path not in NO_PATHS]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_paths_exist(document):
    missing = []
    for path in paths_of(document):
        for one in expanded(path):
            places = [place for place in ROOT.glob(one.rstrip("/")) if place.is_dir() or not one.endswith("/")]
            missing += [] if places else [one]
    assert not missing, f"{document} names what does not exist"
    assert paths_of(document) or document == "CHANGELOG.md"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document):
    links = re.findall(r"\]\(([^)]+)\)", text_of(document))
    local = [link.partition("#")[0] for link in links if "://" not in link and not link.startswith("#")]
    assert not [link for link in local if not (ROOT / link).exists()]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_modules_and_their_members_exist(document):
    """Of `bittrue.sim.program.Program` the module is there and has the name; `bittrue.load` is in the public face."""
    missing = []
    for span in code_of(document):
        for name in re.findall(r"(?<![\w./])bittrue(?:\.\w+)+", span):
            _, *parts = name.split(".")
            if parts[0] in bittrue.__all__ or parts[0].startswith("__"):
                continue
            place = ROOT
            while parts and (place / parts[0]).is_dir():
                place /= parts.pop(0)
            if parts and (place / f"{parts[0]}.py").is_file():
                place /= f"{parts.pop(0)}.py"
            file = place / "__init__.py" if place.is_dir() else place
            missing += [name] if parts and not re.search(rf"\b{parts[0]}\b", file.read_text()) else []
    assert not missing, f"{document} names what does not exist"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_targets_of_make_and_extras_exist(document):
    text = text_of(document)
    targets = set(re.findall(r"(?:`|^    )make ([a-z][\w-]*)", text, re.MULTILINE))
    known = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert targets <= known
    extras = {name for names in re.findall(r"pip install [^\n]*?\[([\w,]+)\]", text) for name in names.split(",")}
    project = tomllib.loads(text_of("pyproject.toml"))["project"]
    assert extras <= project["optional-dependencies"].keys()


def examples() -> list[tuple[str, str]]:
    """The blocks of Python in the documents: where, and the text."""
    return [
        (f"{document}:{1 + text_of(document)[: block.start()].count(chr(10))}", block[1])
        for document in DOCUMENTS
        for block in re.finditer(r"^```python\n(.*?)^```", text_of(document), re.DOTALL | re.MULTILINE)
    ]


def test_examples_use_names_that_exist():
    assert examples()
    for place, text in examples():
        for node in ast.walk(ast.parse(text, place)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "bittrue":
                assert hasattr(bittrue, node.attr), f"{place}: bittrue.{node.attr}"
            if isinstance(node, ast.ImportFrom) and node.module.startswith("bittrue"):
                file = ROOT.joinpath(*node.module.split(".")[1:]).with_suffix(".py")
                for alias in node.names:
                    assert re.search(rf"\b{alias.name}\b", file.read_text()), f"{place}: {node.module}.{alias.name}"


def test_the_architecture_can_be_read_at_one_sitting():
    assert len(text_of("ARCHITECTURE.md").splitlines()) <= 200


def test_an_operation_is_asked_for_what_is_said_of_it():
    """What CONTRIBUTING says that an operation has: one that lacks any of it cannot be made."""
    text = " ".join(text_of("CONTRIBUTING.md").split())
    named = re.search(r"a frozen dataclass with (.*?) Subclassing", text)[1]
    assert set(re.findall(r"`(\w+)`", named)) == Operation.__abstractmethods__
