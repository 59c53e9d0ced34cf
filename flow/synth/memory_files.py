"""Contents of memories as files, for yosys: it reads the words of an `initial` block in quadratic time.

7,168 words take it 33 seconds, 19,456 some minutes; the same words in a `$readmemh` file less than one second. The
emitted Verilog stays one file with its contents inside; only the copy that is synthesised is rewritten.
"""

from __future__ import annotations

import re

#: Memories with fewer words stay as they are.
FEWEST_WORDS = 64

_BLOCK = re.compile(r"^  initial begin\n((?:    \S+ ?\[\d+\] = \d+'h[0-9a-f]+;\n)+)  end\n", re.MULTILINE)
_WORD = re.compile(r"^    (\S+ ?)\[(\d+)\] = \d+'h([0-9a-f]+);$", re.MULTILINE)


def contents_to_files(verilog: str) -> tuple[str, dict[str, str]]:
    """The text with `$readmemh` in place of long `initial` blocks, and the files it reads, by name.

    A block is replaced if it does nothing but give one memory its words, all of them in order from word 0; any other
    is left alone.
    """
    files: dict[str, str] = {}

    def replaced(block: re.Match) -> str:
        words = _WORD.findall(block[1])
        names = {name for name, _, _ in words}
        if len(words) < FEWEST_WORDS or len(names) > 1 or [int(at) for _, at, _ in words] != list(range(len(words))):
            return block[0]
        file = f"memory{len(files)}.hex"
        files[file] = "".join(f"{digits}\n" for _, _, digits in words)
        return f'  initial $readmemh("{file}", {names.pop()});\n'

    return _BLOCK.sub(replaced, verilog), files
