"""Reads emitted Verilog back: ports and hierarchy against the design, an instantiation template, and lint.

`pyverilog` parses the whole text (about 3 s for 1 MB), so the ports and the hierarchy are found by a parser that
shares nothing with the writer. `pyslang` elaborates it and says where a width or a sign changes without being told to.
"""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from bittrue.rtl.design import TOP, Design, Port
from bittrue.sim.errors import BittrueError

#: Attributes, and the places where `(*` would not begin one: comments, strings and escaped names.
_ATTRIBUTES = re.compile(
    r'(?P<keep>//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"|\\\S+)|\(\*(?!\s*\)).*?\*\)',
    flags=re.DOTALL,
)

#: slang's groups and single warnings that `lint` turns on; the last ones are in none of its groups.
_WARNINGS = (
    "default",
    "extra",
    "conversion",
    "arith-op-mismatch",
    "comparison-mismatch",
    "sign-compare",
    "unsigned-arith-shift",
    "implicit-net",
)


@dataclass(frozen=True)
class Hierarchy:
    """What the Verilog says.

    ports      the ports of `bittrue_top`, in the order of its port list
    instances  every instance below it: path (`pipeline.embed.outlet`) -> name of its module
    """

    ports: tuple[Port, ...]
    instances: Mapping[str, str]


def plain(verilog: str) -> str:
    """The text without attributes `(* ... *)`, which pyverilog's grammar lacks; the lines keep their numbers."""

    def replacement(match: re.Match[str]) -> str:
        return match["keep"] if match["keep"] is not None else "\n" * match[0].count("\n")

    return _ATTRIBUTES.sub(replacement, verilog)


@cache
def _parser() -> Any:
    """pyverilog's parser, kept: it computes its tables (1 s) whenever it is made, and prints that it does."""
    from pyverilog.vparser.parser import VerilogParser

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
        return VerilogParser(outputdir=folder, debug=False)


def _modules(verilog: str) -> dict[str, Any]:
    """The parsed modules by name."""
    from pyverilog.vparser import ast
    from pyverilog.vparser.parser import ParseError

    parser = _parser()
    parser.lexer.lexer.lineno = 1
    try:
        tree = parser.parse(plain(verilog))
    except ParseError as error:
        raise BittrueError(
            f"the emitted Verilog cannot be read back: syntax error at {str(error).strip()}; "
            "emit the text again, and report it if that does not help"
        ) from error
    definitions = tree.description.definitions
    return {_name(item.name): item for item in definitions if isinstance(item, ast.ModuleDef)}


def _name(identifier: str) -> str:
    """An identifier without the backslash that only says that it is escaped."""
    return identifier.removeprefix("\\")


def _width(declaration: Any) -> int:
    """The width in bits of a declaration `[msb:lsb]`, both plain numbers, as the writer makes them."""
    if declaration.width is None:
        return 1
    bounds = declaration.width.msb, declaration.width.lsb
    try:
        msb, lsb = (int(bound.value) for bound in bounds)
    except (AttributeError, ValueError) as error:
        raise BittrueError(
            f"port {declaration.name} of the emitted Verilog: its bounds are no plain numbers; emit the text again"
        ) from error
    return msb - lsb + 1


def _ports(module: Any) -> Iterator[Port]:
    """The ports of a module, whose directions stand in its body (as the writer has them) or in the list itself."""
    from pyverilog.vparser import ast

    declared = {}
    for item in module.items:
        for entry in item.list if isinstance(item, ast.Decl) else ():
            if isinstance(entry, ast.Input | ast.Output | ast.Inout):
                name = _name(entry.name)
                declared[name] = Port(name, type(entry).__name__.lower(), _width(entry))
    for listed in module.portlist.ports:
        here = getattr(listed, "first", None)
        name = _name(getattr(listed, "name", "") or here.name)
        if isinstance(here, ast.Input | ast.Output | ast.Inout):
            declared[name] = Port(name, type(here).__name__.lower(), _width(here))
        if name not in declared:
            raise BittrueError(
                f"port {name} of {_name(module.name)} in the emitted Verilog has no direction; emit the text again"
            )
        yield declared[name]


def _instances(modules: Mapping[str, Any], module: str, path: str = "") -> Iterator[tuple[str, str]]:
    """Path and module name of every instance below `module`, in the order of the text."""
    from pyverilog.vparser import ast

    for item in modules[module].items:
        for instance in item.instances if isinstance(item, ast.InstanceList) else ():
            name = f"{path}{_name(instance.name)}"
            kind = _name(instance.module)
            if kind not in modules:
                raise BittrueError(f"instance {name} of the emitted Verilog: it has no module {kind}; emit it again")
            yield name, kind
            yield from _instances(modules, kind, f"{name}.")


def read(verilog: str) -> Hierarchy:
    """Ports and instances of the module `bittrue_top`.

    BittrueError for a text that cannot be parsed, has no such module, or uses a module that it does not contain.
    """
    modules = _modules(verilog)
    if TOP not in modules:
        raise BittrueError(f"the emitted Verilog has no module {TOP}; emit it again")
    return Hierarchy(tuple(_ports(modules[TOP])), dict(_instances(modules, TOP)))


def check(design: Design, verilog: str) -> Hierarchy:
    """Read the Verilog back and hold its ports and hierarchy against the design.

    Every port must have the design's name, direction and width; an instance that the design lists must contain exactly
    those that it names (a pipeline its stages and forks). BittrueError names every port and instance that differs.
    What they compute is not looked at here: that is what simulation is for.
    """
    hierarchy = read(verilog)
    wanted = {port.name: port for port in design.ports}
    found = {port.name: port for port in hierarchy.ports}
    problems = [f"no port {wanted[name]}" for name in wanted if name not in found]
    problems += [f"port {found[name]}, which nothing asked for" for name in found if name not in wanted]
    problems += [
        f"port {found[name]} instead of {wanted[name]}"
        for name in wanted
        if name in found and found[name] != wanted[name]
    ]
    for above, names in design.instances.items():
        below = {f"{above}.{name}" for name in names}
        present = {path for path in hierarchy.instances if path.rpartition(".")[0] == above}
        problems += [f"no instance {path}" for path in sorted(below - present)]
        problems += [f"instance {path}, which nothing asked for" for path in sorted(present - below)]
    if problems:
        raise BittrueError(
            f"the Verilog read back is not that of the {design.title}: {'; '.join(problems)}. "
            "Emit it again from this design, or make the design again if the text belongs to another one"
        )
    return hierarchy


def template(found: Hierarchy, instance: str = "accelerator") -> str:
    """Verilog that instantiates the accelerator: a wire for every port, named like it, and the instance.

    Written by pyverilog's code generator, to be pasted into a module.
    """
    from pyverilog.ast_code_generator.codegen import ASTCodeGenerator
    from pyverilog.vparser import ast

    def wire(port: Port) -> Any:
        width = ast.Width(ast.IntConst(str(port.width - 1)), ast.IntConst("0")) if port.width > 1 else None
        return ast.Decl((ast.Wire(port.name, width=width),))

    connections = tuple(ast.PortArg(port.name, ast.Identifier(port.name)) for port in found.ports)
    use = ast.InstanceList(TOP, (), (ast.Instance(TOP, instance, connections, ()),))
    generator = ASTCodeGenerator()
    return "".join(generator.visit(node).strip() + "\n" for node in (*map(wire, found.ports), use))


def _harmless(option: str, arguments: list[Any]) -> bool:
    """Whether a warning belongs to one of the two ways in which yosys writes every signed expression.

    Its nets are unsigned and the sign stands in `$signed(...)` around each operand, as in
    `assign sum = $signed(a) + $signed(b);`. That changes no bit and loses no width:

    - sign-conversion, signed to unsigned of the same width: the net takes the bits as they are, and whoever reads it
      as a number says `$signed` again;
    - arith-op-mismatch, operands of different widths but the same sign: both are extended, by that sign, to the width
      of the result; a lost carry is not seen here, only in simulation.

    A conversion that changes the width, and operands of different signs, are neither of the two.
    """
    if option == "sign-conversion":
        source, target = arguments
        return source.isSigned and not target.isSigned and source.bitWidth == target.bitWidth
    if option == "arith-op-mismatch":
        left, right = arguments
        return left.isSigned == right.isSigned
    return False


def lint(verilog: str) -> list[str]:
    """slang's errors and warnings of the elaborated text, one `line: option: message` each; none for a good text.

    All warnings of slang's default, extra and conversion groups count, and those of mixed signs and widths in
    arithmetic, comparisons and shifts, except the two of `_harmless`.
    """
    import pyslang

    tree = pyslang.syntax.SyntaxTree.fromText(verilog)
    compilation = pyslang.ast.Compilation()
    compilation.addSyntaxTree(tree)
    engine = pyslang.DiagnosticEngine(compilation.sourceManager)
    if unknown := [engine.formatMessage(problem) for problem in engine.setWarningOptions(list(_WARNINGS))]:
        raise BittrueError(
            f"lint: this pyslang does not know an option: {unknown[0]}; install the one that constraints.txt names"
        )
    lines = []
    for problem in compilation.getAllDiagnostics():
        severity = engine.getSeverity(problem.code, problem.location)
        option = engine.getOptionName(problem.code)
        if severity == pyslang.DiagnosticSeverity.Ignored or _harmless(option, problem.args):
            continue
        line = compilation.sourceManager.getLineNumber(problem.location)
        lines.append(f"{line}: {option or 'error'}: {engine.formatMessage(problem)}")
    return lines
