"""Where Dask tasks run: on processes of this machine, or on a cluster by the address of its scheduler."""

from __future__ import annotations

import logging
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import Any

from bittrue.sim.errors import BittrueError

#: Seconds to wait for a scheduler, for its first worker, and for another where all are lost.
PATIENCE = 30
#: Seconds between two looks at the workers.
LOOK = 2
#: What Dask raises where the other side is gone.
GONE = (OSError, TimeoutError, CancelledError)  # its CommClosedError is an OSError


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
    try:
        _wait_for_worker(made, f"the scheduler at {scheduler} has no worker")
        yield made
    except GONE as error:
        raise BittrueError(
            f"sweep: the connection to the scheduler at {scheduler} is lost ({type(error).__name__}); what is done "
            "stays, so start it again, and then the same command evaluates only the rest"
        ) from error
    finally:
        with suppress(*GONE, RuntimeError):
            made.close(timeout=LOOK)


def _wait_for_worker(client: Any, what: str) -> None:
    try:
        client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError as error:
        address = getattr(client.scheduler, "address", "ADDRESS")
        raise BittrueError(f"sweep: {what}; start one with `dask worker {address}`") from error


def ask(client: Any, question: Callable[[], Any]) -> dict[str, Any]:
    """What each worker answers, by address, or an exception where it cannot; one that is lost meanwhile is left out."""
    answers = client.run(question, on_error="return")
    return {address: answer for address, answer in answers.items() if not isinstance(answer, GONE)}


def submit(client: Any, function: Callable[..., Any], *values: Any) -> Any:
    """A task that brings its values along, however large they are: whichever worker is lost, they are not."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sending large graph")
        return client.submit(function, *values, pure=False)


def completed(client: Any, futures: Iterable[Any]) -> Iterator[Any]:
    """Futures as they finish. Raises BittrueError where every worker is lost and none comes for `PATIENCE` seconds.

    A task whose worker is lost is done again by another one.
    """
    from distributed import wait

    pending, alone = set(futures), None
    while pending:
        try:
            done, pending = wait(pending, timeout=LOOK, return_when="FIRST_COMPLETED")
        except TimeoutError:
            if client.status not in ("running", "connecting"):
                raise CancelledError from None
            if client.scheduler_info()["workers"]:
                alone = None
            elif alone is None:
                alone = time.monotonic()
            elif time.monotonic() - alone > PATIENCE:
                raise BittrueError(
                    f"sweep: all workers are lost, and for {PATIENCE} s none came; what is done stays, so start some, "
                    "and then the same command evaluates only the rest"
                ) from None
            continue
        yield from done


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
