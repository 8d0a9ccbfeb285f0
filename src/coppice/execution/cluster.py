# SPDX-License-Identifier: Apache-2.0
"""A Dask cluster that does pieces of work: each where a worker declares what it needs.

Workers declare what they can do as Dask resources: an architecture (``x86_64``), and where they have it ``root`` and
``kvm``. The number is how many pieces of work they do at a time. The cluster says who does what; everything else is
done here: what needs what, and what follows when something fails.
"""

from __future__ import annotations

import itertools
import pickle
import secrets
import shutil
import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from coppice.atomic import storage_errors
from coppice.errors import ClusterError, InterruptedRunError
from coppice.execution.model import ENDED_WORKERS
from coppice.execution.relay import Relay
from coppice.execution.scheduler import connect
from coppice.execution.worker import LOCK, MOST_TRIES, STOP, TOKEN, begun_mark, code_version, describe, is_held, serve
from coppice.schedule.lock import run_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from distributed import Client, Future

    from coppice.monitor import Monitor
    from coppice.settings.model import ClusterSettings

ARCHITECTURES = frozenset({"x86_64", "aarch64"})
ROOT, KVM = "root", "kvm"
GUARD = "cluster.lock"
"""The lock under which a run makes its directory, and removes those that ended runs left."""
_GUARD_SECONDS = 60.0
_POLL_SECONDS = 0.2
_LOOK_SECONDS = 5.0
_END_SECONDS = 15.0

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """A worker that declares an architecture.

    Attributes:
        address: Of it.
        declared: What it can do, and how often at a time.
    """

    address: str
    declared: Mapping[str, float]

    def fits(self, needs: frozenset[str]) -> bool:
        """Whether it declares all of ``needs``."""
        return all(self.declared.get(each, 0) >= 1 for each in needs)


@contextmanager
def opened_cluster(settings: ClusterSettings, *, shared: Path) -> Iterator[Cluster]:
    """Yield the cluster of the settings, with workers that see ``shared`` and run this very Coppice.

    Args:
        settings: Where it is.
        shared: A directory that this machine and all workers see under the same path, with locks that all see.

    Raises:
        ClusterError: It cannot be reached, or a worker does not do.
        StorageError: The directory cannot be written to.
    """
    with ExitStack() as stack:
        run = stack.enter_context(_run_directory(shared))
        client = stack.enter_context(connect(settings))
        cluster = Cluster(client, run=run, lost_seconds=settings.lost_seconds)
        stack.callback(cluster.end)
        cluster.meet()
        yield cluster


class Cluster:
    """Workers that do what they are handed.

    Args:
        client: Of the scheduler.
        run: The directory of this run, which the workers see.
        lost_seconds: How long work waits for a worker when there is none any more that can do it.
    """

    def __init__(self, client: Client, *, run: Path, lost_seconds: float) -> None:
        self._client = client
        self._run = run
        self._lost_seconds = lost_seconds
        self._topic = f"coppice-{run.name}"
        self._calls = itertools.count()
        self._relays: dict[str, Relay] = {}
        self._futures: set[Future[Any]] = set()

    def meet(self) -> None:
        """See that each worker does.

        Raises:
            ClusterError: There is none, or one of them does not do.
        """
        workers = self.workers()
        if not workers:
            raise ClusterError(
                "no worker of the cluster declares an architecture",
                resolution='Start workers with what they can do: dask worker ADDRESS --resources "x86_64=1".',
            )
        addresses = [each.address for each in workers]
        with _asking():
            told = self._client.run(describe, self._order(), workers=addresses, on_error="return")
            self._client.subscribe_topic(self._topic, self._take)
        problems = [f"{address}: {_problem(each)}" for address, each in sorted(told.items()) if _problem(each)]
        if problems:
            raise ClusterError(
                f"{len(problems)} of {len(workers)} workers of the cluster cannot work for this run",
                details="\n".join(problems),
                resolution="Workers need this very Coppice, and the state directory under the same path, on a file "
                "system whose locks all of them see.",
            )

    def workers(self) -> tuple[Worker, ...]:
        """Return the workers that declare an architecture, as the scheduler knows them now.

        Raises:
            ClusterError: The scheduler does not answer.
        """
        with _asking():
            known = self._client.scheduler_info(n_workers=-1)["workers"]
        found = (Worker(address=address, declared=each.get("resources") or {}) for address, each in known.items())
        return tuple(each for each in found if ARCHITECTURES & each.declared.keys())

    def capacity(self) -> int:
        """Return how many pieces of work can be under way at a time."""
        return int(sum(sum(each.declared.get(name, 0) for name in ARCHITECTURES) for each in self.workers()))

    def has(self, needs: frozenset[str]) -> bool:
        """Tell whether there is a worker now that declares all of ``needs``."""
        return any(each.fits(needs) for each in self.workers())

    def do(
        self,
        what: Callable[..., Result],
        *arguments: object,
        name: str,
        needs: frozenset[str],
        monitor: Monitor,
        stopped: Callable[[], bool],
    ) -> Result:
        """Have a worker do ``what``, and return what it gave. When the worker dies, one other try is made.

        Args:
            what: A function that a worker imports; called with ``arguments``, a ``monitor`` and ``stopped``.
            arguments: For it; they and what it returns must pickle.
            name: For people.
            needs: What its worker must declare.
            monitor: Where progress is told.
            stopped: Asked now and then; when it says so, nobody waits any more.

        Raises:
            ClusterError: No worker can, two of them died over it, or the cluster is gone.
            InterruptedRunError: ``stopped`` said so.
            CoppiceError: What the work raised.
        """
        if not self.has(needs):
            raise self._nobody(name, needs)
        call = str(next(self._calls))
        relay = self._relays[call] = Relay(monitor)
        order = self._order() | {"call": call, "work": pickle.dumps((what, arguments))}
        resources = dict.fromkeys(sorted(needs), 1)
        key = f"{self._topic}-{call}"
        with _asking():
            future = self._client.submit(serve, order, key=key, resources=resources, retries=0, pure=False)
        self._futures.add(future)
        is_done = False
        try:
            result: Result = self._answer(future, call, name, needs, stopped)
            is_done = True
        finally:
            relay.end(failed=not is_done)
            del self._relays[call]
            self._futures.discard(future)
            future.release()
        return result

    def end(self) -> None:
        """Withdraw what is still under way."""
        if self._futures:
            # A scheduler that is gone has nothing under way, and what is being raised is the news.
            with suppress(OSError, RuntimeError):
                self._client.cancel(list(self._futures), force=True)

    def _order(self) -> dict[str, Any]:
        with storage_errors("reading", self._run):
            token = (self._run / TOKEN).read_text(encoding="ascii")
        return {"version": code_version(), "run": str(self._run), "token": token, "topic": self._topic}

    def _take(self, event: tuple[float, Any]) -> None:
        note = event[1]
        if isinstance(note, dict) and note.get("call") in self._relays:
            self._relays[note["call"]].take(note)

    def _answer(
        self, future: Future[Any], call: str, name: str, needs: frozenset[str], stopped: Callable[[], bool]
    ) -> Any:
        self._wait(future, call, name, needs, stopped)
        if future.status != "finished":
            problem = future.exception() if future.status == "error" else None
            if problem is not None and type(problem).__name__ != "KilledWorker":
                raise problem
            raise _lost(name) if problem is not None else _gone(None)
        match future.result():
            case {"result": bytes(pickled)}:
                return pickle.loads(pickled)  # noqa: S301 - of a worker, which runs what it is told as this user
            case {"error": bytes(pickled)}:
                raise pickle.loads(pickled)  # noqa: S301 - likewise
            case {"lost": True}:
                raise _lost(name)
            case {"refusal": str(why)}:
                raise ClusterError(f"a worker that was to do {name} cannot work for this run: {why}")
            case other:
                raise ClusterError(f"a worker gave an answer that is none: {str(other)[:200]}")

    def _wait(
        self, future: Future[Any], call: str, name: str, needs: frozenset[str], stopped: Callable[[], bool]
    ) -> None:
        fitted = looked = time.monotonic()
        until: float | None = None
        while not future.done():
            now = time.monotonic()
            if until is None and stopped():
                until = now + _END_SECONDS
                with storage_errors("writing in", self._run):
                    (self._run / STOP).touch()
            if self._client.status not in {"running", "connecting"}:
                raise _gone(None)
            if until is not None and now >= until:
                break
            if now - looked >= _LOOK_SECONDS:
                looked = now
                if self.has(needs):
                    fitted = now
                elif self._is_given_up(call) or now - fitted >= self._lost_seconds:
                    future.cancel(force=True)
                    raise _lost(name) if self._is_given_up(call) else self._nobody(name, needs)
            time.sleep(_POLL_SECONDS)
        if until is not None:
            future.cancel(force=True)
            raise InterruptedRunError("the run has ended")

    def _is_given_up(self, call: str) -> bool:
        """Tell whether it was begun as often as it may be."""
        return begun_mark(self._run, call, MOST_TRIES - 1).exists()

    def _nobody(self, name: str, needs: frozenset[str]) -> ClusterError:
        there = [f"{each.address}: {', '.join(sorted(each.declared))}" for each in self.workers()]
        wanted = ", ".join(sorted(needs))
        return ClusterError(
            f"no worker of the cluster can do {name}: it needs {wanted}",
            details="\n".join(there) or "There are no workers.",
            resolution=f'Start one that declares it: dask worker ADDRESS --resources "{_resources(needs)}".',
            context={"needs": sorted(needs)},
        )


@contextmanager
def _asking() -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, TimeoutError) as problem:
        raise _gone(problem) from problem


@contextmanager
def _run_directory(shared: Path) -> Iterator[Path]:
    place = shared / "cluster"
    with storage_errors("making a directory in", place):
        place.mkdir(parents=True, exist_ok=True)
    run = place / secrets.token_hex(8)
    with ExitStack() as stack:
        # Another run may be about to have its lock: until it does, its directory looks like one that was left.
        with run_lock(shared / GUARD, _GUARD_SECONDS), storage_errors("clearing", place):
            for left in place.iterdir():
                if left.is_dir() and not is_held(left / LOCK):
                    shutil.rmtree(left, ignore_errors=True)
            stack.enter_context(run_lock(run / LOCK))
        with storage_errors("writing", run):
            (run / TOKEN).write_text(secrets.token_hex(16), encoding="ascii")
        try:
            yield run
        finally:
            shutil.rmtree(run, ignore_errors=True)


def _problem(told: object) -> str:
    if isinstance(told, BaseException):
        return f"it has no Coppice that it can run ({type(told).__name__}: {str(told)[:200]})"
    return str(told.get("refusal", "")) if isinstance(told, dict) else "it gave no answer"


def _resources(needs: frozenset[str]) -> str:
    return " ".join(f"{each}=1" for each in sorted(needs))


def _lost(name: str) -> ClusterError:
    return ClusterError(
        f"{name} was begun {MOST_TRIES} times, and each time the worker that did it ended",
        resolution="Look at the workers' logs: too little memory is the usual reason. Then run again.",
        context={ENDED_WORKERS: MOST_TRIES},
    )


def _gone(problem: BaseException | None) -> ClusterError:
    return ClusterError(
        "the cluster's scheduler does not answer any more",
        details=None if problem is None else f"{type(problem).__name__}: {problem}",
        resolution="Look whether it runs, then run again: builds that are done are found.",
    )
