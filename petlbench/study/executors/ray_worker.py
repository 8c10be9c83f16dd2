"""A run on a Ray cluster, from the inside: what Ray calls on another process, perhaps on another machine.

Nothing heavy is imported at the top: the event queue lives in a small process.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from petlbench.core.interrupt import install_handlers
from petlbench.study.executors.job import Action, EpochDone, Event, Started

Message = tuple[str, bytes]
"""The id of an attempt and a pickled event."""


@dataclass(frozen=True)
class TaskInput:
    """All that another machine needs for a run.

    Args:
        attempt_id: Names one attempt at one job.
        job: The job, pickled: it is taken out when the environment is as it should be.
        spent: Seconds that earlier attempts took.
        folder: The driver's working folder, where a catalogue may lie.
        environment: Variables that are to be as they are for the driver.
    """

    attempt_id: str
    job: bytes
    spent: float
    folder: str
    environment: Mapping[str, str]


class EventQueue:
    """Takes events from runs and gives them to the driver, and takes the driver's answers back; a Ray actor."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._arrived = asyncio.Event()
        self._answers: dict[str, asyncio.Future[str]] = {}

    async def put(self, message: Message) -> None:
        """Take an event to which no answer is wanted."""
        self._messages.append(message)
        self._arrived.set()

    async def ask(self, message: Message) -> str:
        """Take an event, and wait for the answer to it."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._answers[message[0]] = answer
        await self.put(message)
        return await answer

    async def collect(self, seconds: float) -> list[Message]:
        """Give all messages; where there are none, wait for one so long at most."""
        if not self._messages and seconds:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), seconds)
            except TimeoutError:
                return []
        messages, self._messages = self._messages, []
        return messages

    async def answer(self, attempt_id: str, action: str) -> None:
        """Answer the event that a run waits with."""
        waiting = self._answers.pop(attempt_id, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(action)


def carry_out(task_input: TaskInput, events: Any) -> None:
    """Carry out one job and tell the driver about it through the event queue."""
    os.environ.update(task_input.environment)  # before torch is imported, which reads some of it
    if Path(task_input.folder).is_dir():
        os.chdir(task_input.folder)
    from petlbench.study.executors.run_job import perform
    from petlbench.study.executors.worker import clean_up

    tell = partial(_tell, task_input.attempt_id, events)
    with same_handlers():
        install_handlers()  # a request to stop is remembered while the run is under way
        tell(Started(f"{socket.gethostname()}, process {os.getpid()}"))
        job = pickle.loads(task_input.job)  # noqa: S301 - the driver's own
        ended = perform(job, tell, spent=task_input.spent, kept_parts=_kept_parts())
        tell(ended)
        if ended.status == "interrupted":
            os._exit(1)  # this process remembers that it was asked to stop: no other run can use it
    clean_up()


@cache
def _kept_parts() -> Any:
    """What this process keeps: Ray has it carry out many jobs."""
    from petlbench.run.parts import KeptParts

    return KeptParts()


def _tell(attempt_id: str, events: Any, event: Event) -> Action:
    import ray

    message = (attempt_id, pickle.dumps(event))
    try:
        if isinstance(event, EpochDone):
            return Action(ray.get(events.ask.remote(message)))
        ray.get(events.put.remote(message))
    except ray.exceptions.RayActorError:  # the driver is gone, and nobody waits for this run any more
        os._exit(1)
    return Action.GO_ON


@contextmanager
def same_handlers() -> Iterator[None]:
    """Put back what handled SIGINT and SIGTERM before the block: Ray has handlers of its own, and so have we."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
