"""The one exception a user is meant to read."""


class BittrueError(ValueError):
    """Something the user gave cannot be used; the message names the thing, the place and the remedy."""
