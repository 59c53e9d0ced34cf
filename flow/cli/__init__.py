"""The command `bittrue`: its commands, the terminal, and the check of the machine."""
