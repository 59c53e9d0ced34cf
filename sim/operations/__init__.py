"""One operation a module; importing all of them is `sim.operation.discover`."""
