"""What is measured: speed of the golden simulator and of the RTL simulators, against honest baselines."""
