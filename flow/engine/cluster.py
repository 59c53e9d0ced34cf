"""Where Dask tasks run: on processes of this machine, or on a cluster by the address of its scheduler."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bittrue.sim.errors import BittrueError

#: Seconds to wait for a scheduler and for its first worker.
PATIENCE = 30


@contextmanager
def client(scheduler: str | None, workers: int) -> Iterator[Any]:
    """A client of the scheduler at that address, or of one that ends with it."""
    from distributed import Client, LocalCluster

    # what goes wrong in a point is raised; what Dask logs of it, or of an interruption, only hides that
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    if scheduler is None:
        options = {"threads_per_worker": 1, "processes": True, "dashboard_address": "127.0.0.1:0"}
        with _uninterrupted():
            local = LocalCluster(n_workers=workers, silence_logs=logging.CRITICAL, **options)
        with local, Client(local) as made:
            yield made
        return
    try:
        made = Client(scheduler, timeout=PATIENCE)
    except (OSError, ValueError) as error:
        raise BittrueError(
            f"sweep: no Dask scheduler answers at {scheduler!r} ({error}); start one with `dask scheduler`, or leave "
            "--scheduler out to use this machine"
        ) from error
    with made:
        try:
            made.wait_for_workers(1, timeout=PATIENCE)
        except TimeoutError as error:
            raise BittrueError(
                f"sweep: the scheduler at {scheduler} has no worker; start one with `dask worker {scheduler}`"
            ) from error
        yield made


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Processes started within do not hear Ctrl-C, which a terminal sends to all: this one hears it and ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield  # where signals cannot be set
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
