"""Training in several processes at once, on one machine or on several, each a rank of Lightning's DDP.

`train` starts a process for each device of its machine and waits for them, so it can be called from a command, a
script or a notebook alike. On several machines the same command is given on each of them, with `MASTER_ADDR`,
`MASTER_PORT` and `NODE_RANK` (from 0) in the environment, and a run's folder that all of them share. Where a launcher
such as torchrun has started the processes, `LOCAL_RANK` says so, and none are started.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from edgeser.runtime.errors import EdgeSerError, InputError
from edgeser.runtime.names import start_logging

_ADDRESS = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
_GRACE_S = 10.0
_INTERRUPTED = 130


@dataclass(frozen=True)
class Group:
    """The processes that train one model together.

    Attributes:
        devices: On each machine.
        nodes: Machines.
        rank: Which one this process is.
    """

    devices: int = 1
    nodes: int = 1
    rank: int = 0

    @property
    def size(self) -> int:
        return self.devices * self.nodes

    @classmethod
    def here(cls, devices: int, nodes: int) -> Group:
        """Return the group as this process sees it, which is one of its ranks."""
        return cls(devices, nodes, _node() * devices + _number("LOCAL_RANK"))


def is_first() -> bool:
    """Whether this process is the one of several that reports to the user."""
    return _node() == 0 and _number("LOCAL_RANK") == 0


def run_ranks(work: Callable[[], None], devices: int, nodes: int) -> None:
    """Run `work` in as many processes as there are devices here, and wait for them.

    Args:
        work: A function of a module, or a partial of one, with arguments that can be pickled.
        devices: Processes on this machine.
        nodes: Machines.

    Raises:
        InputError: Too few devices, or the environment does not say where the first machine is; or `work` raised it.
        EdgeSerError: A process failed; the others are stopped.
    """
    check_environment(devices, nodes)
    if "LOCAL_RANK" in os.environ:
        work()
        return
    environment = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port()), "NODE_RANK": "0"}
    environment.update({name: os.environ[name] for name in _ADDRESS if name in os.environ})
    threads = max(1, torch.get_num_threads() // devices)
    # Importing torch and Lightning takes 10 s; a server does it once for all, but a GPU does not survive its forks.
    context: SpawnContext | ForkServerContext = multiprocessing.get_context("spawn")
    if not torch.cuda.device_count():
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["edgeser.training.train"])
    receiver, sender = context.Pipe(duplex=False)
    processes: list[BaseProcess] = [
        context.Process(
            target=_rank,
            args=(work, {**environment, "LOCAL_RANK": str(rank)}, threads, logging.getLogger().level, sender),
            name=f"rank {rank}",
            daemon=True,
        )
        for rank in range(devices)
    ]
    with _stopped(processes):
        for process in processes:
            process.start()
        _wait(processes, receiver)


def check_environment(devices: int, nodes: int) -> None:
    """Check that this machine has the devices, and knows the others.

    Raises:
        InputError: It does not.
    """
    there = torch.cuda.device_count()
    if there and devices > there:
        raise InputError(f"devices: got {devices}, this machine has {there} GPUs: ask for {there} or fewer")
    missing = [name for name in _ADDRESS if name not in os.environ]
    if nodes > 1 and missing and "LOCAL_RANK" not in os.environ:
        raise InputError(
            f"nodes: got {nodes} without {', '.join(missing)} in the environment: give on each machine the address and "
            "a free port of the first one, and the machine's own number from 0"
        )
    size = _number("WORLD_SIZE", devices * nodes)
    if "LOCAL_RANK" in os.environ and size != devices * nodes:
        raise InputError(f"devices: got {devices} on {nodes} nodes, the launcher has started {size} processes")


def _node() -> int:
    return _number("NODE_RANK" if "NODE_RANK" in os.environ else "GROUP_RANK")  # torchrun's name for it


def _number(variable: str, otherwise: int = 0) -> int:
    return int(os.environ.get(variable) or otherwise)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _rank(
    work: Callable[[], None], environment: Mapping[str, str], threads: int, level: int, errors: Connection
) -> None:
    """Do the work of one process; its status is 0 where it came to an end."""
    # Lightning sets the threads itself where the environment does not.
    os.environ.update({**environment, "OMP_NUM_THREADS": str(threads)})
    torch.set_num_threads(threads)
    start_logging(level if is_first() else logging.ERROR)
    if not is_first():
        warnings.simplefilter("ignore")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        work()
    except EdgeSerError as error:
        errors.send((isinstance(error, InputError), str(error)))
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(_INTERRUPTED)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _wait(processes: Sequence[BaseProcess], errors: Connection) -> None:
    """Return when all processes have come to their end.

    Raises:
        InputError: What a process raised.
        EdgeSerError: A process failed otherwise.
    """
    running: dict[Any, BaseProcess] = {process.sentinel: process for process in processes}
    while running:
        for sentinel in wait(list(running)):
            process = running.pop(sentinel)
            process.join()
            if process.exitcode == _INTERRUPTED:
                raise KeyboardInterrupt
            if process.exitcode != 0:
                is_input, message = errors.recv() if errors.poll() else (False, "")
                reason = message or f"{process.name} of {len(processes)} processes ended with status {process.exitcode}"
                raise InputError(reason) if is_input else EdgeSerError(reason)


@contextlib.contextmanager
def _stopped(processes: Sequence[BaseProcess]) -> Iterator[None]:
    """See to it that no process outlives the block; an interrupted one may leave its epoch first."""
    try:
        yield
    except KeyboardInterrupt:
        _signal(processes, signal.SIGINT)
        raise
    finally:
        _signal(processes, signal.SIGTERM)
        _signal(processes, signal.SIGKILL)


def _signal(processes: Sequence[BaseProcess], number: signal.Signals) -> None:
    alive = [process for process in processes if process.pid is not None and process.is_alive()]
    for process in alive:
        os.kill(int(process.pid or 0), number)
    for process in alive:
        process.join(_GRACE_S)
