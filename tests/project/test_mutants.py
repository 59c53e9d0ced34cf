"""The tool that draws mutants: its operators, its draws, the list of equivalent ones, and a tree that it judges."""

import ast
from collections import Counter
from dataclasses import replace

import pytest
from cosmic_ray.mutating import mutate_code

from tools.mutants.__main__ import COPIED, OUTCOMES, Sound, equivalent, judge, key, record_all, runs_of, verdict
from tools.mutants.child import COMPUTING, Result, Runner
from tools.mutants.covered import Record, Watch, batches, followed, statement
from tools.mutants.operators import OWN
from tools.mutants.sample import ROOT, Mutant, changed, modules, mutants, sample, works
from tools.mutants.select import BY_OPERATION, Files, narrow

CODE = """from typing import TYPE_CHECKING

if TYPE_CHECKING:
    A = 1 + 1


def limit(a: int | None, b: int) -> int | None:
    if a < b:
        raise ValueError(a)
    return max(a - b, 0)


def example(rng):
    return 1 + 2
"""


@pytest.fixture
def tree(tmp_path):
    """A tree of one module and its tests: one that says little, and one that says all."""
    root = tmp_path / "tree"
    for folder in ("sim", "tests", "bittrue"):
        (root / folder).mkdir(parents=True)
    (root / "sim" / "limit.py").write_text(CODE)
    (root / "bittrue" / "__init__.py").touch()
    (root / "bittrue" / "sim").symlink_to("../sim")
    (root / "sim" / "__init__.py").touch()
    test = "from bittrue.sim.limit import limit\n\n\ndef test_limit():\n    assert limit(3, 3) == 0\n"
    (root / "sim" / "test_little.py").write_text(test)
    (root / "sim" / "test_limit.py").write_text(test + "    assert limit(5, 3) == 2\n")
    (root / "pyproject.toml").write_text("[tool.pytest.ini_options]\npythonpath = ['.']\n")
    (tmp_path / "tmp").mkdir()
    (tmp_path / "numba").mkdir()
    return root


@pytest.mark.parametrize("operator", OWN)
def test_operators_make_what_their_examples_say(operator):
    for example in operator.examples():
        made = mutate_code(example.pre_mutation_code, operator(), example.occurrence)
        assert made == example.post_mutation_code
    assert mutate_code("x = 1\n", operator(), 0) is None


def test_what_is_drawn_depends_on_the_seed_alone(tree):
    drawn = [sample(seed, 5, root=tree) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len({(m.line, m.operator, m.occurrence) for m in drawn[0]}) == 5


def test_annotations_types_and_examples_are_left_alone(tree):
    found = {m.line for _, m in mutants("sim/limit.py", tree)}
    assert found == {8, 9, 10}
    for _, mutant in mutants("sim/limit.py", tree):
        assert mutant.names == ("limit",)
        assert works(mutant, tree) == (mutant.change(tree) != ("", ""))
        ast.parse(mutant.apply(CODE))


def test_a_mark_among_parameters_is_no_operator(tree):
    (tree / "sim" / "limit.py").write_text(
        "def f(a, *, b):\n    return (lambda x, /, *, y: x)(a, y=b)\n\n\nf(1, b=3 * 4)\n"
    )
    found = [m for _, m in mutants("sim/limit.py", tree) if m.operator.startswith("ReplaceBinaryOperator")]
    assert {m.line for m in found} == {5}


def test_a_mutant_is_judged_and_the_file_is_as_before(tree):
    first, *_ = (m for _, m in mutants("sim/limit.py", tree) if m.operator == "ReplaceBinaryOperator_Sub_Add")
    assert first.change(tree) == ("return max(a - b, 0)", "return max(a + b, 0)")
    sound = Sound(Runner(heavy=()))
    files = Files(tree)
    assert files.ranked(first)[0] == "sim/test_limit.py"
    killed = judge(first, tree, [(["sim/test_limit.py"], 60)], sound)
    assert killed == Result("failed", "sim/test_limit.py::test_limit")
    (tree / "sim" / "test_spaced.py").write_text(
        "import pytest\nfrom bittrue.sim.limit import limit\n\n\n"
        "@pytest.mark.parametrize('a', [5], ids=['just one more'])\ndef test_it(a):\n    assert limit(a, 3) == 2\n"
    )
    spaced = judge(first, tree, [(["sim/test_spaced.py"], 60)], sound)
    assert spaced == Result("failed", "sim/test_spaced.py::test_it[just one more]")
    swapped = replace(first, operator="ReplaceBinaryOperator_Sub_Mod")
    assert judge(swapped, tree, [(["sim/test_little.py"], 60), (["sim/test_limit.py"], 60)], sound) == Result(
        "passed", ""
    )
    (tree / "sim" / "test_place.py").write_text(
        f"import tempfile\n\n\ndef test_place():\n    assert tempfile.gettempdir().startswith({str(tree)!r})\n"
    )
    assert sound.passes("sim/test_place.py::test_place", tree)
    (tree / "sim" / "test_wrong.py").write_text("def test_wrong():\n    assert False\n")
    assert judge(swapped, tree, [(["sim/test_wrong.py"], 60)], sound) == Result("passed", "")
    assert sound.left_out == ["--deselect=sim/test_wrong.py::test_wrong"]
    assert (tree / "sim" / "limit.py").read_text() == CODE
    assert set(OUTCOMES) == {"passed", "failed", "timeout"}


def test_a_mutant_meets_the_tests_that_run_its_line(tree, tmp_path, capsys):
    """Shortest first; those of a file whose shared fixture ran it, too; and no longer those of a file that changed."""
    (tree / "sim" / "test_shared.py").write_text(
        "import pytest\nfrom bittrue.sim.limit import limit\n\n\n"
        "@pytest.fixture(scope='module')\ndef refused():\n"
        "    with pytest.raises(ValueError):\n        limit(1, 2)\n\n\n"
        "def test_one(refused):\n    pass\n\n\ndef test_two(refused):\n    pass\n"
    )
    files, runner = Files(tree), Runner(heavy=())
    record = Record(tmp_path / "lines", tree)
    record_all(record, files.tests, tree, runner)
    assert "3 of 3, sim/test_shared.py" in capsys.readouterr().out
    refusal = next(m for _, m in mutants("sim/limit.py", tree) if m.line == 9)
    clip = next(m for _, m in mutants("sim/limit.py", tree) if m.line == 10)
    shared = {"sim/test_shared.py::test_one", "sim/test_shared.py::test_two"}
    limits = {"sim/test_little.py::test_limit", "sim/test_limit.py::test_limit"}
    assert set(record.of(refusal)) == shared
    assert set(record.of(clip)) == limits
    assert [record.seconds[test] for test in record.of(clip)] == sorted(record.seconds[test] for test in limits)
    quick = list(runs_of(clip, record, files, {}, first=True))
    assert {test for run, _ in quick for test in run} == limits | {"-m=not slow"}
    assert [limit for _, limit in quick] == [30] * len(quick)
    assert next(runs_of(clip, record, files, {}, first=False)) == (["sim/test_limit.py"], COMPUTING)
    assert record.missing(files.tests) == []
    module = tree / "sim" / "limit.py"
    module.write_text("# another line\n" + module.read_text())
    moved = Record(tmp_path / "lines", tree)
    moved.read(files.tests)
    assert set(moved.of(replace(clip, line=11))) == limits
    assert set(moved.of(replace(refusal, line=10))) == shared
    for text in (tmp_path / "lines" / "modules").iterdir():
        text.unlink()
    unknown = Record(tmp_path / "lines", tree)
    unknown.read(files.tests)
    assert set(unknown.of(replace(clip, line=11))) == shared | limits  # which of them run it now, nobody knows
    (tree / "sim" / "test_little.py").write_text("")
    assert record.missing(files.tests) == ["sim/test_little.py"]


def test_lines_are_followed_from_one_version_to_the_next():
    assert followed("a\nb\nc\n", "a\nb\nc\n") == {1: [1], 2: [2], 3: [3]}
    assert followed("a\nb\nc\n", "a\nx\ny\nc\n") == {1: [1], 2: [2, 3], 3: [4]}
    assert followed("a\nb\nc\n", "a\nc\n") == {1: [1], 2: [], 3: [2]}
    assert followed("a\nc\n", "a\nb\nc\n") == {1: [1, 2], 2: [2, 3]}


def test_a_record_begins_with_one_case_of_every_test():
    names = ("f::a[1]", "f::a[2]", "f::b", "f::c[1]", "f::a[3]", "f::c[2]")
    items = [type("Item", (), {"nodeid": name})() for name in names]
    Watch().pytest_collection_modifyitems(items)
    assert [item.nodeid for item in items] == ["f::a[1]", "f::b", "f::c[1]", "f::a[2]", "f::c[2]", "f::a[3]"]


def test_many_cases_of_one_test_are_not_asked_at_once(tree, tmp_path):
    record = Record(tmp_path / "lines", tree)
    record.seconds = {"t[a]": 0.1, "t[b]": 0.1, "t[c]": 0.1, "u": 0.15, "v": 0.5}
    record.tests["sim/limit.py", 10] = set(record.seconds)
    assert record.of(Mutant("sim/limit.py", 10, "x", 0, ())) == ["t[a]", "u", "t[b]", "t[c]", "v"]
    assert record.of(Mutant("sim/limit.py", 10, "x", 0, ()), lambda file: 9.0 * (file == "v"))[0] == "v"


def test_lines_of_a_statement_and_runs_of_growing_length():
    code = "if a(\n    1\n):\n    b = [\n        2,\n    ]\n"
    assert [statement(code, line) for line in (1, 2, 5)] == [range(1, 4), range(1, 4), range(4, 7)]
    seconds = {"f::a": 1.0, "f::b": 1.5, "g::c": 2.0, "h::d": 9.0, "h::e": 9.0}
    assert list(batches(list(seconds), seconds, (3.0, 3.0, 5.0))) == [["f::a", "f::b"], ["g::c"], ["h::d"]]
    assert list(batches(list(seconds), seconds, (2.9, 4.5, 5.0))) == [["f::a"], ["f::b", "g::c"], ["h::d"]]
    assert list(batches("", seconds, (3.0,))) == []


def test_tests_of_an_operation_are_its_own():
    ids = [f"{BY_OPERATION[0]}::test_x[{name}-0]" for name in ("Lerp", "Lif", "Linear")]
    mutant = Mutant("rtl/dataflow/stages/lif.py", 1, "x", 0, ())
    assert narrow(BY_OPERATION[0], mutant, {BY_OPERATION[0]: ids}) == [ids[1]]
    assert narrow("sim/test_held.py", mutant, {}) == ["sim/test_held.py"]
    assert narrow(BY_OPERATION[0], replace(mutant, path="sim/held.py"), {BY_OPERATION[0]: ids}) == [BY_OPERATION[0]]


def test_every_equivalent_mutant_is_of_the_code_as_it_is():
    for (path, where, before, after), why in equivalent().items():
        assert path in modules()
        code = (ROOT / path).read_text()
        assert " ".join(before.split()) in " ".join(code.split()), f"{path}: {before} is no more; take it off the list"
        assert before != after
        assert where.split(".")[-1] in code
        assert len(why) > 20


def test_a_change_is_told_by_its_lines():
    assert changed("a\nb\nc\n", "a\n  d\nc\n") == ("b", "d")
    mutant = Mutant("sim/x.py", 3, "x", 0, ("A", "f"))
    assert key(mutant, ("b", "d")) == ("sim/x.py", "A.f", "b", "d")


@pytest.mark.parametrize(
    ("killed", "equivalent_ones", "alive", "status", "said"),
    [(19, 5, 1, 0, "95.0% of the 20"), (18, 5, 1, 1, "94.7% of the 19"), (0, 3, 0, 0, "100.0% of the 0")],
)
def test_the_share_that_is_wanted(killed, equivalent_ones, alive, status, said, capsys):
    assert verdict(Counter(killed=killed, equivalent=equivalent_ones, alive=alive)) == status
    assert verdict(Counter(killed=killed - 1, timeout=1, alive=alive)) == status or not killed
    assert said in capsys.readouterr().out


def test_what_is_copied_is_all_that_tests_need():
    assert {p.name for p in ROOT.iterdir() if p.is_dir() and any(p.rglob("*.py"))} <= {
        *COPIED,
        ".venv",
        ".cache",
        "dist",
    }
