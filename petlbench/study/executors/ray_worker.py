"""A run on a Ray cluster, from the inside: what Ray calls on another process, perhaps on another machine.

Nothing heavy is imported at the top: the mailbox lives in a small process.
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
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from petlbench.study.executors.job import Action, Event

__all__ = ["Letter", "Mailbox", "Parcel", "carry_out"]

Letter = tuple[str, bytes]
"""A ticket and a pickled event."""


@dataclass(frozen=True)
class Parcel:
    """All that another machine needs for a run.

    Args:
        ticket: Names one attempt at one job.
        job: The job, pickled: it is taken out when the environment is as it should be.
        spent: Seconds that earlier attempts took.
        folder: The driver's working folder, where a catalogue may lie.
        environment: Variables that are to be as they are for the driver.
    """

    ticket: str
    job: bytes
    spent: float
    folder: str
    environment: Mapping[str, str]


class Mailbox:
    """Takes events from runs and gives them to the driver, and takes the driver's answers back; a Ray actor."""

    def __init__(self) -> None:
        self._letters: list[Letter] = []
        self._arrived = asyncio.Event()
        self._answers: dict[str, asyncio.Future[str]] = {}

    async def put(self, letter: Letter) -> None:
        """Take an event to which no answer is wanted."""
        self._letters.append(letter)
        self._arrived.set()

    async def ask(self, letter: Letter) -> str:
        """Take an event, and wait for the answer to it."""
        answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._answers[letter[0]] = answer
        await self.put(letter)
        return await answer

    async def collect(self, seconds: float) -> list[Letter]:
        """Give all letters; where there are none, wait for one so long at most."""
        if not self._letters and seconds:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), seconds)
            except TimeoutError:
                return []
        letters, self._letters = self._letters, []
        return letters

    async def answer(self, ticket: str, action: str) -> None:
        """Answer the event that a run waits with."""
        waiting = self._answers.pop(ticket, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(action)


def carry_out(parcel: Parcel, mailbox: Any) -> None:
    """Carry out one job and tell the driver about it.

    Args:
        parcel: The job and what belongs to it.
        mailbox: The handle of the mailbox.
    """
    os.environ.update(parcel.environment)  # before torch is imported, which reads some of it
    if Path(parcel.folder).is_dir():
        os.chdir(parcel.folder)
    from petlbench.study.executors.job import Started
    from petlbench.study.executors.run_job import perform
    from petlbench.study.executors.worker import clean_up

    post = _Post(parcel.ticket, mailbox)
    with _signals_remembered():
        post(Started(f"{socket.gethostname()}, process {os.getpid()}"))
        job = pickle.loads(parcel.job)  # noqa: S301 - the driver's own
        ended = perform(job, post, spent=parcel.spent)
        post(ended)
        if ended.status == "interrupted":
            os._exit(1)  # this process remembers that it was asked to stop: no other run can use it
    clean_up()


class _Post:
    def __init__(self, ticket: str, mailbox: Any) -> None:
        self._ticket = ticket
        self._mailbox = mailbox

    def __call__(self, event: Event) -> Action:
        import ray

        from petlbench.study.executors.job import Action, EpochDone

        letter = (self._ticket, pickle.dumps(event))
        try:
            if isinstance(event, EpochDone):
                return Action(ray.get(self._mailbox.ask.remote(letter)))
            ray.get(self._mailbox.put.remote(letter))
        except ray.exceptions.RayActorError:  # the driver is gone, and nobody waits for this run any more
            os._exit(1)
        return Action.GO_ON


@contextmanager
def _signals_remembered() -> Iterator[None]:
    """Let a request to stop be remembered while a run is under way, and leave Ray its own handlers before and after."""
    from petlbench.core.interrupt import install_handlers

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    install_handlers()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
