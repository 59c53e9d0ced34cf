"""What a user runs: the staged flow, verification, synthesis, the report, and the command `bittrue`."""
