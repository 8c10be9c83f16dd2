"""A search's trials as slots of a queue: each used up once, by however many drivers and whatever happens to them."""

from __future__ import annotations

import contextlib
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Self

import optuna
from filelock import FileLock
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from petlbench.core.file_lock import QUESTION, is_held, locked
from petlbench.sweep.storage import GRACE, HEARTBEAT

_SLOT, _STATUS, _DRIVER, _REOPENED = "ticket", "status", "driver", "reopened"


class TrialQueue:
    """Hands out the trials of a study.

    Every slot is one trial that is to be; it waits in the study until a driver takes it. A slot is used up when one
    of its trials has ended: finished, pruned, or failed with a status. A trial whose driver died has failed without
    one; another trial with the same values then takes its place. Where two drivers made the same slot twice, the
    trial with the lower number counts.

    Args:
        study: Optuna's study.
        points: Values to begin with, for each slot; empty where the sampler chooses.
        liveness: This driver.
        lock: File of the lock that keeps drivers on this folder from making or taking slots at the same moment.
        retry_failed: Whether slots that were used up by a failure are used again.
    """

    def __init__(
        self,
        study: optuna.Study,
        points: Sequence[Mapping[str, Any]],
        liveness: Liveness,
        lock: Path,
        *,
        retry_failed: bool = False,
    ) -> None:
        self._study = study
        self._storage: Any = study._storage
        self._points = points
        self._liveness = liveness
        self._lock = lock
        self._reopened: frozenset[int] = frozenset()
        if retry_failed:
            # Noted in the study, where every driver sees it: these failures use no slot up any more.
            failed = {trial._trial_id for trial in self._all() if trial.state == TrialState.FAIL}
            reopened = self._study.user_attrs.get(_REOPENED, ())
            self._study.set_user_attr(_REOPENED, sorted({*reopened, *failed}))
        self._mine: set[int] = set()
        self._closed = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="petlbench-heartbeat", daemon=True)

    def __enter__(self) -> Self:
        """Begin to give signs of life."""
        self._heart.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Give back what was not finished, so that it need not be waited for."""
        self._closed.set()
        self._heart.join(timeout=1)
        for trial_id in tuple(self._mine):
            self._give_up(trial_id)

    def _beat(self) -> None:
        while not self._closed.wait(HEARTBEAT):
            for trial_id in tuple(self._mine):
                with contextlib.suppress(Exception):  # a missed beat is not worth a search; the next one follows
                    self._storage.record_heartbeat(trial_id)

    def all_used(self) -> bool:
        """Whether every slot is used up."""
        return all(any(map(self._ends, trials)) for trials in self._by_slot().values())

    def trials(self) -> list[FrozenTrial]:
        """The trial that counts, or else the last one, of each slot that has any."""
        return [
            next((trial for trial in trials if self._ends(trial)), trials[-1])
            for trials in self._by_slot().values()
            if trials
        ]

    @property
    def retries(self) -> int:
        """How many trials were begun and lost, with their driver, in all."""
        return sum(
            trial.state == TrialState.FAIL and _STATUS not in trial.user_attrs and trial.datetime_start is not None
            for trial in self._all()
        )

    def take(self, prepare: Callable[[int], None]) -> optuna.Trial | None:
        """Return the trial of the next slot; None where all slots are used up or in other hands.

        Args:
            prepare: Called with the slot's number before the sampler is asked.
        """
        with locked(self._lock):
            self._give_up_lost()
            slots = self._by_slot()
            if self._fill(slots):
                slots = self._by_slot()
            # SQLite reads a trial's state and writes it in two steps, between which another driver may do the same.
            trial = next(filter(self._begin, self._waiting(slots)), None)
        if trial is None:
            return None
        prepare(trial.user_attrs[_SLOT])
        return optuna.Trial(self._study, trial._trial_id)

    def end(self, trial: optuna.Trial, status: str, value: float | None = None, **facts: Any) -> None:
        """Say how a trial ended; its slot is used up.

        A trial that others gave up meanwhile stays so: the one in its place finds the result on the disk.
        """
        state = {"finished": TrialState.COMPLETE, "pruned": TrialState.PRUNED}.get(status, TrialState.FAIL)
        with contextlib.suppress(UpdateFinishedTrialError):
            for name, fact in {**facts, _STATUS: status}.items():
                trial.set_user_attr(name, fact)
            self._study.tell(trial, value, state=state, skip_if_finished=True)
        self._mine.discard(trial._trial_id)

    def give_back(self, trial: optuna.Trial) -> None:
        """Leave a trial to whoever goes on."""
        self._give_up(trial._trial_id)

    def _begin(self, trial: FrozenTrial) -> bool:
        """Take a trial; false where another driver has taken it, or given it up."""
        with contextlib.suppress(UpdateFinishedTrialError):
            if self._storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING):
                self._storage.set_trial_user_attr(trial._trial_id, _DRIVER, self._liveness.mark)
                self._mine.add(trial._trial_id)
                self._storage.record_heartbeat(trial._trial_id)
                return True
        return False

    def _all(self) -> list[FrozenTrial]:
        trials: list[FrozenTrial] = self._storage.get_all_trials(self._study._study_id, deepcopy=False)
        return trials

    def _by_slot(self) -> dict[int, list[FrozenTrial]]:
        """The trials of each slot in the order of their numbers."""
        self._reopened = frozenset(self._study.user_attrs.get(_REOPENED, ()))
        by_slot: dict[int, list[FrozenTrial]] = {slot: [] for slot in range(len(self._points))}
        for trial in self._all():
            if trial.user_attrs.get(_SLOT) in by_slot:
                by_slot[trial.user_attrs[_SLOT]].append(trial)
        return by_slot

    def _ends(self, trial: FrozenTrial) -> bool:
        """Whether a trial uses its slot up."""
        failed = trial.state == TrialState.FAIL and _STATUS in trial.user_attrs
        ended = trial.state in (TrialState.COMPLETE, TrialState.PRUNED) or failed
        return ended and trial._trial_id not in self._reopened

    def _counts(self, trial: FrozenTrial) -> bool:
        return self._ends(trial) or not trial.state.is_finished()

    def _fill(self, slots: Mapping[int, Sequence[FrozenTrial]]) -> bool:
        """Make a trial for each slot that has none on its way; say whether there were any."""
        unfilled = [slot for slot, trials in slots.items() if not any(map(self._counts, trials))]
        for slot in unfilled:
            self._study.add_trial(self._new_trial(slot, slots[slot]))
        return bool(unfilled)

    def _new_trial(self, slot: int, earlier: Sequence[FrozenTrial]) -> FrozenTrial:
        """A trial in waiting; one that takes the place of another has its values, so that its run goes on."""
        begun = next((trial for trial in reversed(earlier) if trial.params), None)
        names = ("params", "distributions", "intermediate_values")
        carried = {} if begun is None else {name: getattr(begun, name) for name in names}
        fixed = {"fixed_params": carried.get("params", dict(self._points[slot]))}
        return create_trial(state=TrialState.WAITING, user_attrs={_SLOT: slot}, system_attrs=fixed, **carried)

    def _waiting(self, slots: Mapping[int, Sequence[FrozenTrial]]) -> Iterator[FrozenTrial]:
        """Trials that may be taken, the first slot first; those that are one too many go."""
        for trials in slots.values():
            counts = next(filter(self._counts, trials), None)
            for trial in trials:
                if trial.state == TrialState.WAITING:
                    if trial is counts:
                        yield trial
                    else:
                        self._give_up(trial._trial_id)

    def _give_up_lost(self) -> None:
        running = [trial for trial in self._all() if trial.state == TrialState.RUNNING]
        others = [trial for trial in running if trial._trial_id not in self._mine]
        stale = set(self._storage._get_stale_trial_ids(self._study._study_id)) if others else set()
        for trial in others:
            driver, began = trial.user_attrs.get(_DRIVER), trial.datetime_start
            if driver is None:  # killed in the moment of taking it
                is_lost = began is None or datetime.now() - began > timedelta(seconds=GRACE)
            else:
                is_lost = trial._trial_id in stale or self._liveness.is_gone(driver)
            if is_lost:
                self._give_up(trial._trial_id)

    def _give_up(self, trial_id: int) -> None:
        self._mine.discard(trial_id)
        with contextlib.suppress(UpdateFinishedTrialError):
            self._storage.set_trial_state_values(trial_id, state=TrialState.FAIL)


class Liveness:
    """Says who this driver is, and of another one on this machine whether it is gone.

    The system lets go of a dead process's locks at once, so nobody has to wait for a heartbeat to fail.

    Args:
        output: Folder of all results.
    """

    def __init__(self, output: Path) -> None:
        folder = output.absolute() / ".work" / "drivers"
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / f"{uuid.uuid4().hex}.lock"
        self._lock = FileLock(self._file, timeout=QUESTION)
        self.mark = f"{socket.gethostname()}:{self._file}"

    def __enter__(self) -> Self:
        """Be there."""
        self._lock.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        """Be gone."""
        self._file.unlink(missing_ok=True)
        self._lock.release()

    def is_gone(self, mark: str) -> bool:
        """Whether the driver of a mark is known to be gone; of one on another machine this cannot be known."""
        host, _, file = mark.partition(":")
        if host != socket.gethostname():
            return False
        return not is_held(Path(file))
