"""`python -m bittrue` is the command `bittrue`."""

from bittrue.flow.cli.main import main

if __name__ == "__main__":
    main()
