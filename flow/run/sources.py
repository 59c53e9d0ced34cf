"""What the outcome of a simulation depends on besides design and frames, for the steps of a flow that run one."""

#: Sources that decide what the RTL does in a simulator.
SIMULATORS = (
    "flow/run/batch_job.h",
    "flow/run/batch_loop.cpp",
    "flow/run/bus_bench.py",
    "flow/run/bus_master.h",
    "flow/run/compiled.py",
    "flow/run/cosim.py",
    "flow/run/monitors.py",
    "flow/run/ports_header.py",
    "flow/run/registered.py",
    "flow/run/result.py",
    "flow/run/sets.py",
    "flow/run/shares.py",
    "flow/run/surroundings.py",
    "flow/run/testbench.py",
    "flow/run/verilate.py",
    "flow/verify/backends.py",
)
