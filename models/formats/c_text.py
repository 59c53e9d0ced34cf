"""The text of a C header of arrays as a compiler sees it: without comments and directives, or refused.

A directive can hide an array or change what it holds (`#if 0`, `#define` of one name as another), so those that are not
known to be harmless are refused, and with them what makes a line end elsewhere than it seems to.
"""

from __future__ import annotations

import re
from pathlib import Path

from bittrue.sim.errors import BittrueError

_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_DIRECTIVE = re.compile(r"^[ \t]*#[ \t]*([^\n]*)", re.MULTILINE)
#: Characters beside printable ones and ends of lines, and what continues a line.
_ODD = re.compile(r"[^\n\t\x20-\x7e]|\\|\?\?/")
_FILE = r"[\w.+-]+(?:/[\w.+-]+)*"
#: What changes no array. A macro does not if no array mentions it, which is looked at apart.
_HARMLESS = re.compile(rf'pragma\s+(?:once|HLS\b.*)|include\s*(?:<{_FILE}>|"{_FILE}")|define\s+\w+(?:\s.*)?|')
#: An include guard is named after its file; other names could be defined, and the file would be empty.
_GUARD = re.compile(r"ifndef\s+(\w*_H(?:PP)?_*)", re.IGNORECASE)


def read(path: Path) -> tuple[str, bool]:
    """The text of a header, ASCII, each comment and directive replaced by blanks; and whether its guard is closed.

    Allowed are one include guard around everything, `#include`, `#pragma once` and `#pragma HLS`, and macros whose name
    is no word of an array.
    """
    try:
        text = Path(path).read_bytes().decode("ascii").replace("\r\n", "\n")
    except OSError as error:
        raise BittrueError(f"header {path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise BittrueError(f"header {path}: it is no C header, byte {error.start} is not ASCII") from error
    if odd := _ODD.search(text):
        raise BittrueError(
            f"header {path}: line {_line(text, odd.start())} holds {odd[0]!r}; arrays need no continued lines and no "
            "control characters, so remove it"
        )
    code = _COMMENT.sub(lambda comment: "\n" * comment[0].count("\n") or " ", text)
    body = _DIRECTIVE.sub("", code)
    found = [(match.start(), match[1].strip()) for match in _DIRECTIVE.finditer(code)]
    words = set(re.findall(r"\w+", body))
    inside, closed = _inside_guard(code, found)
    for place, directive in inside:
        macro = re.match(r"define\s+(\w+)", directive)
        if not _HARMLESS.fullmatch(directive) or (macro and macro[1] in words):
            why = f"it changes what {macro[1]} means" if macro and macro[1] in words else "it may change the arrays"
            raise BittrueError(
                f"header {path}: line {_line(code, place)} is '#{directive[:60]}', and {why} for a compiler; write the "
                "arrays out as the compiler sees them (g++ -E), without such directives"
            )
    return body, closed


def _inside_guard(code: str, found: list[tuple[int, str]]) -> tuple[list[tuple[int, str]], bool]:
    """The directives without an include guard (`#ifndef NAME`, `#define NAME`, all else, `#endif`), and if it ends."""
    guard = _GUARD.fullmatch(found[0][1]) if found else None
    if not guard or code[: found[0][0]].strip():
        return found, True
    between = code[found[0][0] : found[1][0] if len(found) > 1 else None]
    if _DIRECTIVE.sub("", between).strip() or (len(found) > 1 and found[1][1] != f"define {guard[1]}"):
        return found, True  # it guards nothing
    if len(found) < 3 or found[-1][1] != "endif":
        return found[2:], False
    after = _DIRECTIVE.sub("", code[found[-1][0] :])
    return (found if after.strip() else found[2:-1]), True


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1
