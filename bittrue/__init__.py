"""One integer program as golden model, RTL and HLS kernels, equal bit for bit.

What a user calls is here; everything else lies in the packages `bittrue.sim`, `bittrue.models`, `bittrue.rtl`,
`bittrue.hls` and `bittrue.flow`, whose module names are import paths (`bittrue.sim.operations.lerp`).

Programs, with numpy and numba alone:

    Program, Builder        a network of integer operations; `program(x)` runs it, `program.trace(x)` shows every tensor
    Operation               what every operation is; they have a module each below `bittrue.sim.operations`
    TensorType, Format      what a tensor is: a shape, and the width and sign of its codes
    load, save              programs on disk

Networks in PyTorch, to programs (`pip install 'bittrue[train]'`):

    dataset                 images and labels by name, for example `dataset("digits")`
    train                   trains a float network
    quantize, fine_tune     makes it one of 8-bit integers; trains that in its own integers
    to_spikes, to_light     makes it a network of FS-neurons; one for a photonic array
    convert                 any network of your own that torch.fx can follow, to one of integers; what it may be
                            made of is listed by `supported`
    lower                   the program of an integer network of any of these kinds

Hardware from programs (`pip install 'bittrue[rtl]'`, and `synth` for the last):

    plan, emit              balances the stages of a pipeline; its Verilog, which `emit(plan).write(path)` puts in files
    write_hls               the HLS project: kernels, test bench, Tcl
    verify, Build           holds RTL and HLS kernels to the golden simulator, bit for bit and cycle for cycle
    synthesize              places and routes for an FPGA with open tools

Everything at once (`pip install 'bittrue[all]'`):

    run_recipe              what `bittrue flow` does: from the training of a shipped or own recipe to its report

`BittrueError` is what every function raises for something that it was given and cannot use.

Names are loaded when they are first used: `import bittrue` loads nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bittrue.flow.recipes import run_recipe
    from bittrue.flow.synth.synthesis import synthesize
    from bittrue.flow.verify.backends import Build
    from bittrue.flow.verify.verify import verify
    from bittrue.hls.project import write as write_hls
    from bittrue.models.data.sets import load as dataset
    from bittrue.models.fs.convert import convert as to_spikes
    from bittrue.models.graph.lower import lower
    from bittrue.models.graph.supported import supported
    from bittrue.models.int8.convert import convert
    from bittrue.models.int8.quantize import post_training as quantize
    from bittrue.models.light.convert import convert as to_light
    from bittrue.models.training.loop import fit as train
    from bittrue.models.training.qat import fit as fine_tune
    from bittrue.rtl.dataflow.plan import plan
    from bittrue.rtl.verilog import emit
    from bittrue.sim.builder import Builder
    from bittrue.sim.contract import Format
    from bittrue.sim.errors import BittrueError
    from bittrue.sim.operation import Operation, TensorType
    from bittrue.sim.program import Program, load
    from bittrue.sim.storage import save

__version__ = "0.2.0.dev0"

__all__ = [
    "BittrueError",
    "Build",
    "Builder",
    "Format",
    "Operation",
    "Program",
    "TensorType",
    "convert",
    "dataset",
    "emit",
    "fine_tune",
    "load",
    "lower",
    "plan",
    "quantize",
    "run_recipe",
    "save",
    "supported",
    "synthesize",
    "to_light",
    "to_spikes",
    "train",
    "verify",
    "write_hls",
]

#: Where each name is: module, and the name that it has there.
_PLACES = {
    "BittrueError": ("bittrue.sim.errors", "BittrueError"),
    "Build": ("bittrue.flow.verify.backends", "Build"),
    "Builder": ("bittrue.sim.builder", "Builder"),
    "Format": ("bittrue.sim.contract", "Format"),
    "Operation": ("bittrue.sim.operation", "Operation"),
    "Program": ("bittrue.sim.program", "Program"),
    "TensorType": ("bittrue.sim.operation", "TensorType"),
    "convert": ("bittrue.models.int8.convert", "convert"),
    "dataset": ("bittrue.models.data.sets", "load"),
    "emit": ("bittrue.rtl.verilog", "emit"),
    "fine_tune": ("bittrue.models.training.qat", "fit"),
    "load": ("bittrue.sim.program", "load"),
    "lower": ("bittrue.models.graph.lower", "lower"),
    "plan": ("bittrue.rtl.dataflow.plan", "plan"),
    "quantize": ("bittrue.models.int8.quantize", "post_training"),
    "run_recipe": ("bittrue.flow.recipes", "run_recipe"),
    "save": ("bittrue.sim.storage", "save"),
    "supported": ("bittrue.models.graph.supported", "supported"),
    "synthesize": ("bittrue.flow.synth.synthesis", "synthesize"),
    "to_light": ("bittrue.models.light.convert", "convert"),
    "to_spikes": ("bittrue.models.fs.convert", "convert"),
    "train": ("bittrue.models.training.loop", "fit"),
    "verify": ("bittrue.flow.verify.verify", "verify"),
    "write_hls": ("bittrue.hls.project", "write"),
}


if not TYPE_CHECKING:  # a type checker is to refuse what is not imported above

    def __getattr__(name: str) -> Any:
        if name not in _PLACES:
            raise AttributeError(f"module 'bittrue' has no attribute {name!r}; it has {', '.join(__all__)}")
        from bittrue.sim.extras import explained

        module, attribute = _PLACES[name]
        with explained():
            value = getattr(import_module(module), attribute)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
