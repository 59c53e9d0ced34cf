"""What is true: operations on integers, and the programs made of them (numpy and numba, nothing else).

Start with `sim.program.Program`; the numeric contract is `sim.contract`; each operation has a module of
its own (`sim.operations.linear`, `sim.operations.lerp`, ...). This package imports no other package of bittrue.
"""
