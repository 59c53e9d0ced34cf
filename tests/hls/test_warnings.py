"""The generated C++ of every system, compiled with every usual warning as an error."""

from __future__ import annotations

import subprocess

import pytest

from bittrue.hls import host, project
from bittrue.sim.written import written
from tests.helpers import grouped, programs
from tests.helpers.lengths import long_but
from tests.helpers.photonic_programs import photonic_network

PROGRAMS = {
    "kinds": programs.every_kind,
    "resmlp": programs.resmlp,
    "spiking": lambda: programs.spiking(halving=True, shape=(2, 6)),
    "photonic": lambda: programs.photonic(noisy=True),
    "controller": lambda: photonic_network(noise=True, per_channel=True, seed=1),
    "written": lambda: written(programs.two_inputs()),
    "groups": lambda: grouped.network(1, 3, together=True),
}
#: Pragmas and the labels of loops are for the vendor's tool.
FLAGS = ("-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-Wno-unused-label")


def said_of(folder) -> str:
    """What g++ says about the sources; AMD's headers are not ours to mend."""
    flags = [flag for flag in host.FLAGS if flag not in ("-w", "-O3")]
    include = [f"-I{folder / 'host'}", f"-I{folder}", "-isystem", str(host.find_headers())]
    command = [host.find_compiler(), *flags, *FLAGS, "-fsyntax-only", *include, str(folder / "host" / "batch.cpp")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    return done.stderr + (f"exit status {done.returncode}" if done.returncode else "")


@pytest.mark.parametrize("name", long_but(PROGRAMS, "controller", "kinds", "groups"))
def test_no_warning(name, tmp_path):
    project.write(PROGRAMS[name](), tmp_path)
    assert said_of(tmp_path) == ""


def test_a_warning_is_an_error(tmp_path):
    project.write(programs.two_inputs(), tmp_path)
    kernel = tmp_path / "host" / "batch.cpp"
    kernel.write_text(kernel.read_text() + "\nstatic int forgotten(int given) { return 1; }\n")
    assert "unused-parameter" in said_of(tmp_path)
