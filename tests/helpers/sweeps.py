"""Who watches a sweep."""

from __future__ import annotations

from bittrue.flow.engine import steps


class Watch(steps.Silent):
    """Counts the points that a run evaluates; interrupts it after `limit` of them."""

    def __init__(self, limit=None):
        self.told, self.limit = [], limit

    def progress(self, text, done, total):  # noqa: ARG002
        if "points" in text:
            self.told.append(done)
            if self.limit is not None and self.evaluated >= self.limit:
                raise KeyboardInterrupt

    @property
    def evaluated(self):
        return len(self.told) - 1 if self.told else 0
