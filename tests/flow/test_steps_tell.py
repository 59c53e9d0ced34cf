"""What the steps of every system keep to: one thread, and a word before anything long begins."""

import inspect
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest

from bittrue.flow import stages
from bittrue.flow.engine import training
from bittrue.flow.synth import tools
from bittrue.flow.systems import cnn, fs, lerp_psa, light
from bittrue.flow.verify import verify

torch = pytest.importorskip("torch", reason="torch is not installed")

MODULES = {system.__name__: import_module(f"{system.__name__}.steps") for system in (cnn, fs, lerp_psa, light)}
#: The steps of the systems that take the data set, which is the first thing that they do.
WITH_DATA = [
    (name, step)
    for name, module in MODULES.items()
    for step in ("train", "quantize", "lower")
    if hasattr(module, step) and "data_of" in inspect.unwrap(getattr(module, step)).__code__.co_names
]


class Begun(Exception):  # noqa: N818
    """The long part of a step was called."""


def begin(*_given, **_options):
    raise Begun


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("system", "step"), WITH_DATA)
def test_steps_that_compute_with_torch_use_one_thread(system, step, monkeypatch):
    """Figures depend on the order of sums, and that on the threads."""
    seen = []

    def data_of(_recipe):
        seen.append(torch.get_num_threads())
        raise Begun

    monkeypatch.setattr(training, "data_of", data_of)
    with pytest.raises(Begun):
        getattr(MODULES[system], step)(None, SimpleNamespace())
    assert seen == [1]
    assert torch.get_num_threads() == 2


SYSTEMS = "bittrue.flow.systems"
#: A step, or what it is made of: what it is given, and where the long part of it begins.
LONG = {
    "cnn": (f"{SYSTEMS}.cnn.steps.quantize", 2, ["bittrue.models.int8.quantize.of_codes"]),
    "fs": (f"{SYSTEMS}.fs.steps.quantize", 2, ["bittrue.models.int8.quantize.post_training"]),
    "fs in hardware": (
        f"{SYSTEMS}.fs.steps.hardware",
        2,
        [f"{SYSTEMS}.fs.raster.of_program", f"{SYSTEMS}.fs.raster.of_rtl"],
    ),
    "lerp_psa": (f"{SYSTEMS}.lerp_psa.steps.quantize", 2, ["bittrue.models.int8.quantize.post_training"]),
    "light": (f"{SYSTEMS}.light.steps._converted", 6, ["bittrue.models.light.convert.convert"]),
    "alphas": (f"{SYSTEMS}.light.alphas.table", 4, [f"{SYSTEMS}.light.alphas._rows"]),
    "planning": ("bittrue.flow.stages.rtl", 2, ["bittrue.rtl.dataflow.plan.activity"]),
}


class Anything(dict):
    """A recipe, a workspace, a network whose every part is another of these, and empty."""

    def __getattr__(self, name):
        return Anything()

    def __call__(self, *_given, **_options):
        return Anything()

    def __truediv__(self, _name):
        return Anything()

    def __getitem__(self, _name):
        return Anything()

    def __format__(self, _spec):
        return "any"


@pytest.mark.parametrize("case", LONG)
def test_a_long_part_of_a_step_is_told_before_it_begins(case, monkeypatch):
    """One thing, of which nothing is done: (words, 0, 1)."""
    from bittrue.models.training import storage

    step, given, long = LONG[case]
    told = []
    monkeypatch.setattr(training, "data_of", lambda _: Anything())
    monkeypatch.setattr(storage, "load", lambda *_: Anything())
    for module in (training, stages):
        monkeypatch.setattr(module, "read_lowered", lambda _: (Anything(), [], None))
    monkeypatch.setattr(stages, "built", lambda *_: Anything())
    monkeypatch.setattr(stages, "read_design", lambda *_: (Anything(), ""))
    for name in long:
        monkeypatch.setattr(name, begin)
    module, name = step.rsplit(".", 1)
    calibrate = Anything()
    calibrate.__dict__ |= {"method": "bound", "percentile": 99.0}
    arguments = [Anything() for _ in range(given)]
    for argument in arguments:
        argument.__dict__ |= {"progress": lambda *row: told.append(row), "calibrate": calibrate}
    with pytest.raises(Begun):
        getattr(import_module(module), name)(*arguments)
    ((words, done, total),) = told
    assert words
    assert (done, total) == (0, 1)


def test_seconds_of_a_stage_of_synthesis_are_those_from_its_begin_to_its_end(monkeypatch):
    clock = iter([1000.0, 1002.504, 2000.0, 2060.0])
    monkeypatch.setattr(tools, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    told = []
    run = SimpleNamespace(progress=told.append, seconds={}, target=SimpleNamespace(name="a device"))
    for name in ("read", "route"):
        with tools.Tools._stage(run, name):
            assert len(told) == len(run.seconds) + 1
    assert run.seconds == {"read": 2.5, "route": 60.0}


def test_verification_leaves_the_codes_of_rtl_and_kernels_and_their_accuracy(tmp_path, monkeypatch):
    """Of those that ran, and on as many images as they ran."""
    labels = np.array([1, 0, 2, 1])
    logits = np.eye(3, dtype=np.int8)[[1, 0, 0, 1]]
    found = verify.Verification([], outputs={"compiled": (logits,), "gxx": (logits[:3],)})
    monkeypatch.setattr(stages, "read_lowered", lambda _: (None, [], labels))
    monkeypatch.setattr(stages, "built", lambda *_: None)
    monkeypatch.setattr(stages, "read_design", lambda *_: (None, ""))
    monkeypatch.setattr(stages, "Build", lambda *_, **__: None)
    monkeypatch.setattr(verify, "verify", lambda *_: found)
    recipe, work = Anything(), Anything()
    recipe.__dict__["verify"] = SimpleNamespace(
        **dict.fromkeys(("reference", "compiled", "gxx", "icarus", "verilator"), 4), idle=0.0, backpressure=0.0, seed=0
    )
    work.__dict__["folder"] = tmp_path
    assert stages.verify(recipe, work)["accuracy"] == {"rtl": 3 / 4, "hls": 2 / 3}
    np.testing.assert_array_equal(np.load(tmp_path / "rtl_outputs.npy"), logits)
    np.testing.assert_array_equal(np.load(tmp_path / "hls_outputs.npy"), logits[:3])
