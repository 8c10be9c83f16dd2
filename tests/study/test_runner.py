"""A study is carried out once, whatever stands already, fails, or is worked on by others."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from petlbench.core.errors import InputError
from petlbench.metrics.efficiency import REFERENCE
from petlbench.results.folder import RunFolder
from petlbench.results.result import Status, iter_results
from petlbench.results.table import load_results, read_study
from petlbench.study.executors.job import Ended, Job, Started
from petlbench.study.planned_run import PlannedRun
from petlbench.study.runner import Study, open_status, run_study
from petlbench.study.status import StudyStatus, study_file
from petlbench.study.summary import summarize
from tests.study.acting import Actor, Notes, On, acted_result, at_once, store
from tests.study.conftest import MakeStudy


def carry_out(study: Study, executor: Actor | None = None, watch: Notes | None = None) -> tuple[Actor, StudyStatus]:
    executor, board = executor or Actor(), open_status(study)
    run_study(study, board, executor, watch or Notes())
    return executor, board


def ids(plans: list[PlannedRun]) -> list[str]:
    return [one.config.run_id for one in plans if one.config is not None]


def results(study: Study) -> dict[str, dict[str, object]]:
    return {one.run_id: {**one.document(), "environment": None} for one in iter_results(study.options.output)}


def test_every_run_is_carried_out_once_and_never_again(make_study: MakeStudy, plans: list[PlannedRun]) -> None:
    first, board = carry_out(make_study())
    assert sorted(first.began) == sorted(ids(plans))
    assert board.counts() == {"finished": len(plans)}
    again, board = carry_out(make_study())
    assert again.jobs == []
    assert board.counts() == {"finished": len(plans)}


def test_the_reference_of_a_dataset_goes_before_its_other_methods(make_study: MakeStudy) -> None:
    jobs = carry_out(make_study())[0].jobs
    order = [(Path(job.config.dataset).name, job.config.method == REFERENCE) for job in jobs]
    assert order == sorted(order, key=lambda one: (one[0], not one[1]))


def test_a_job_knows_its_study(make_study: MakeStudy) -> None:
    job = carry_out(make_study(timeout=7.0))[0].jobs[0]
    assert (job.options.experiment, job.options.group, job.timeout) == ("table", "full on one", 7.0)


@pytest.mark.parametrize("status", ["failed", "oom", "timeout"])
def test_a_failed_run_is_left_alone_until_it_is_asked_for(
    make_study: MakeStudy, plans: list[PlannedRun], status: Status
) -> None:
    broken = ids(plans)[0]
    carry_out(make_study(), Actor(lambda job: status if job.config.run_id == broken else "finished"))
    again, board = carry_out(make_study())
    assert again.jobs == []
    assert board.counts() == {"finished": len(plans) - 1, status: 1}
    failed = next(state for state in board.states if state.run_id == broken)
    assert failed.error is not None
    assert failed.error["message"] == f"acted: {status}"
    once_more, board = carry_out(make_study(retry_failed=True), Actor(lambda job: status))
    assert once_more.began == [broken]
    mended, board = carry_out(make_study(retry_failed=True))
    assert mended.began == [broken]
    assert board.counts() == {"finished": len(plans)}


def test_an_interrupted_run_goes_on(make_study: MakeStudy, plans: list[PlannedRun]) -> None:
    config = plans[0].config
    assert config is not None
    store(make_study().options.output, acted_result(config, "interrupted"))
    assert config.run_id in carry_out(make_study())[0].began


def test_a_refused_combination_is_listed_and_a_defect_is_a_failure(
    make_study: MakeStudy, plans: list[PlannedRun]
) -> None:
    refused = [
        replace(plans[0], method="choosy", config=None, refusal="it wants another one"),
        replace(plans[0], method="broken", config=None, refusal="TypeError: by design", is_defect=True),
    ]
    study = make_study(plans=[*plans, *refused])
    _, board = carry_out(study)
    assert board.counts() == {"finished": len(plans), "unsupported": 1, "failed": 1}
    runs = {one["method"]: one for one in read_study(study_file(study.options.output, "table"))["runs"]}
    assert (runs["choosy"]["status"], runs["choosy"]["run_id"]) == ("unsupported", None)
    assert runs["broken"]["error"] == "TypeError: by design"


def test_the_studys_file_follows_its_runs(make_study: MakeStudy, plans: list[PlannedRun]) -> None:
    study, seen = make_study(), []

    def look(job: Job) -> None:
        runs = read_study(study_file(study.options.output, "table"))["runs"]
        assert len(runs) == len(plans)
        seen.append(sum(one["status"] == "finished" for one in runs))

    carry_out(study, Actor(before=look))
    assert seen == list(range(len(plans)))
    assert all(one["status"] == "finished" for one in read_study(study_file(study.options.output, "table"))["runs"])


def test_a_study_that_is_extended_wants_all_of_it(make_study: MakeStudy, plans: list[PlannedRun]) -> None:
    carry_out(make_study(plans=plans[:3]))
    executor, _ = carry_out(make_study(plans=plans[2:]))
    assert sorted(executor.began) == sorted(ids(plans[3:]))
    document = read_study(study_file(make_study().options.output, "table"))
    assert sorted(one["run_id"] for one in document["runs"]) == sorted(ids(plans))


def test_another_config_for_the_same_place_is_told(make_study: MakeStudy, plans: list[PlannedRun]) -> None:
    carry_out(make_study(plans=plans[:1]))
    config = plans[0].config
    assert config is not None
    other, notes = config.model_copy(update={"threads": 2}), Notes()
    carry_out(make_study(plans=[replace(plans[0], config=other)]), watch=notes)
    assert any("had another config" in text for text in notes.said)


def test_two_drivers_at_once_carry_out_each_run_once(make_study: MakeStudy, plans: list[PlannedRun]) -> None:
    study, actors = make_study(), [Actor(seconds=0.02), Actor(seconds=0.02)]
    boards = [open_status(study) for _ in actors]
    at_once(
        *(lambda a=actor, b=board: run_study(study, b, a, Notes()) for actor, board in zip(actors, boards, strict=True))
    )
    assert Counter(run for actor in actors for run in actor.began) == Counter(ids(plans))
    assert all(actor.began for actor in actors)
    assert all(board.counts() == {"finished": len(plans)} for board in boards)


def test_a_run_that_another_process_fails_is_not_tried_again_by_this_one(
    make_study: MakeStudy, plans: list[PlannedRun]
) -> None:
    study, last = make_study(), plans[-1].config
    assert last is not None

    def fail_elsewhere(job: Job) -> None:
        store(study.options.output, acted_result(last, "failed"))

    executor, board = carry_out(study, Actor(before=fail_elsewhere))
    assert last.run_id not in executor.began
    assert board.counts()["failed"] == 1


def test_a_busy_run_is_asked_for_again_until_it_is_free(make_study: MakeStudy, plans: list[PlannedRun]) -> None:
    study, notes = make_study(plans=plans[:2]), Notes()
    config = plans[0].config
    assert config is not None

    def hold() -> None:
        with RunFolder(study.options.output, config.run_id).locked():
            time.sleep(0.3)

    def drive() -> None:
        time.sleep(0.1)
        executor, board = carry_out(study, watch=notes)
        assert executor.began == [ids(plans)[1], config.run_id]
        assert board.counts() == {"finished": 2}

    at_once(hold, drive)
    assert [status for _, status in notes.changes if status == "elsewhere"] == ["elsewhere"]


class Liar:
    """An executor that says that a run has ended well, and leaves nothing."""

    def run(self, jobs: Iterator[Job | None], on: On) -> None:
        """Lie."""
        for job in jobs:
            if job is not None:
                on(job, Started("a liar"))
                on(job, Ended("finished"))


def test_a_run_is_finished_when_its_result_is_on_the_disk(make_study: MakeStudy, plans: list[PlannedRun]) -> None:
    study = make_study(plans=plans[:1])
    board = open_status(study)
    run_study(study, board, Liar(), Notes())
    assert board.states[0].status == "failed"
    assert board.states[0].error is not None
    assert board.states[0].error["kind"] == "no_result"


class Stopping(Actor):
    """Is stopped by the user in its third run."""

    def run(self, jobs: Iterator[Job | None], on: On) -> None:
        """Act two jobs."""
        acted = (job for job, _ in zip(jobs, range(2), strict=False))
        super().run(acted, on)
        job = next(jobs)
        assert job is not None
        on(job, Started("an actor"))
        store(job.options.output, acted_result(job.config, "interrupted"))
        raise KeyboardInterrupt


def test_what_was_done_before_the_user_stopped_it_stands_in_the_studys_file(
    make_study: MakeStudy, plans: list[PlannedRun]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        carry_out(make_study(), Stopping())
    statuses = Counter(one["status"] for one in read_study(study_file(make_study().options.output, "table"))["runs"])
    assert statuses == {"finished": 2, "interrupted": 1, None: len(plans) - 3}
    _, board = carry_out(make_study())
    assert board.counts() == {"finished": len(plans)}


def test_results_of_other_code_are_refused_unless_they_are_accepted(
    make_study: MakeStudy, plans: list[PlannedRun]
) -> None:
    study, config = make_study(), plans[0].config
    assert config is not None
    old = acted_result(config)
    store(study.options.output, old.model_copy(update={"digests": {**old.digests, "petlbench": "0.0.1"}}))
    executor = Actor()
    with pytest.raises(InputError) as caught:
        carry_out(study, executor)
    assert caught.value.kind == "stale_result"
    assert "petlbench was 0.0.1" in caught.value.message
    assert executor.jobs == []
    assert not study_file(study.options.output, "table").exists()
    accepted, _ = carry_out(make_study(options=replace(study.options, accept=True)))
    assert config.run_id not in accepted.began
    again, _ = carry_out(make_study(options=replace(study.options, rerun=True)))
    assert sorted(again.began) == sorted(ids(plans))


@pytest.mark.parametrize("text", ["{", "", "null", "[]"])
def test_a_damaged_result_is_one_failed_run_and_the_others_are_carried_out(
    make_study: MakeStudy, plans: list[PlannedRun], text: str
) -> None:
    study = make_study()
    broken, neighbour = study.options.output / ids(plans)[0], study.options.output / "linear-other-s0-000000000000"
    for folder in (broken, neighbour):
        folder.mkdir(parents=True)
        (folder / "result.json").write_text(text)
    executor, board = carry_out(study)
    assert sorted(executor.began) == sorted(ids(plans)[1:])
    assert board.counts() == {"finished": len(plans) - 1, "failed": 1}
    (failed,) = (state for state in board.states if state.status == "failed")
    assert failed.run_id == broken.name
    assert failed.error is not None
    assert str(broken) in failed.error["message"]
    runs = read_study(study_file(study.options.output, "table"))["runs"]
    assert [run["run_id"] for run in runs if run["status"] == "failed"] == [broken.name]
    assert len(summarize("table", board, study.options.output).results) == len(plans) - 1


def test_what_killed_drivers_left_goes_with_the_next_study(make_study: MakeStudy) -> None:
    study = make_study()
    work = study.options.output / ".work"
    (work / "drivers").mkdir(parents=True)
    (study.options.output / "studies").mkdir()
    left = [work / "a.lock", work / "drivers" / "b.lock", study.options.output / "studies" / ".c.json.lock"]
    empty, fresh, old = (work / f"worker-{number}-of-1.log" for number in range(3))
    for file in (*left, empty):
        file.touch()
    fresh.write_text("said")
    old.write_text("said")
    os.utime(old, (0, 0))
    (work / "linear-x-s0-0" / "draft").mkdir(parents=True)
    (work / "linear-x-s0-0" / "checkpoint.pt").touch()
    carry_out(study)
    assert sorted(str(path.relative_to(work)) for path in work.rglob("*") if path.is_file()) == [
        "linear-x-s0-0/checkpoint.pt",
        fresh.name,
    ]
    assert [path.name for path in (study.options.output / "studies").iterdir()] == ["table.json"]


def test_a_study_whose_file_is_damaged_on_the_way_loses_no_run(make_study: MakeStudy, plans: list[PlannedRun]) -> None:
    study, notes = make_study(), Notes()
    file = study_file(study.options.output, "table")
    texts: list[str] = []

    def damage(job: Job) -> None:
        texts.append(file.read_text() if len(texts) == 0 else texts[0])
        file.write_text("{" if len(texts) < len(plans) else texts[0])

    _, board = carry_out(study, Actor(before=damage), watch=notes)
    assert board.counts() == {"finished": len(plans)}
    assert any("table.json cannot be written now" in text for text in notes.said)
    assert all(run["status"] == "finished" for run in read_study(file)["runs"])


def test_results_on_other_data_are_noted(make_study: MakeStudy, plans: list[PlannedRun]) -> None:
    study, config = make_study(), plans[0].config
    assert config is not None
    other = acted_result(config)
    store(study.options.output, other.model_copy(update={"digests": {**other.digests, "data": "others"}}))
    notes = run_study(study, open_status(study), Actor(), Notes())
    assert len(notes) == 1
    assert "2 different states of the images" in notes[0]


def test_scores_do_not_depend_on_the_order_in_which_runs_end(
    make_study: MakeStudy, plans: list[PlannedRun], tmp_path: Path
) -> None:
    found = []
    for number in range(3):
        shuffled = random.Random(number).sample(plans, len(plans))
        options = replace(make_study().options, output=tmp_path / str(number))
        for part in (shuffled[:5], shuffled[5:8], plans):
            study = make_study(plans=part, options=options)
            carry_out(study)
        found.append(results(study))
    assert found[0] == found[1] == found[2]
    shown = [load_results(tmp_path / str(number)).runs for number in range(3)]
    scores = [{run.run_id: run.document["scores"] for run in runs} for runs in shown]
    assert scores[0] == scores[1] == scores[2]
    status = open_status(study)
    document = summarize("table", status, tmp_path / "2").document()
    assert {run["run_id"]: run["scores"] for run in document["runs"]} == scores[2]
    for planned in plans:
        assert planned.config is not None
        one = scores[0][planned.config.run_id]
        assert one["pme"] is not None
        own = next(p for p in plans if (p.method, p.dataset, p.seed) == (REFERENCE, planned.dataset, planned.seed))
        assert own.config is not None
        assert one["pme_reference"]["run_id"] == own.config.run_id


def test_more_threads_than_cores_are_told(make_study: MakeStudy) -> None:
    notes = Notes()
    carry_out(make_study(workers=500), watch=notes)
    assert any("500 workers of 1 threads" in text for text in notes.said)


def test_the_summary_chooses_by_validation(make_study: MakeStudy, plans: list[PlannedRun]) -> None:
    study = make_study()
    _, board = carry_out(study)
    summary = summarize("table", board, study.options.output)
    for dataset, best in summary.best.items():
        means = {method: summary.cell(method, dataset).val_auc for method in board.methods}
        assert best.val_auc is not None
        assert best.val_auc.mean == max(one.mean for one in means.values() if one is not None)
    document = summary.document()
    assert {one["run_id"] for one in document["runs"]} == set(ids(plans))
    assert document["best"].keys() == set(board.datasets)


def test_what_another_driver_has_run_again_is_not_run_again_by_this_one(
    make_study: MakeStudy, plans: list[PlannedRun]
) -> None:
    study, last = make_study(plans=plans[:3]), plans[2].config
    assert last is not None
    carry_out(study)

    def run_elsewhere(job: Job) -> None:
        store(study.options.output, acted_result(last, timing={"total": 99.0}))

    executor, board = carry_out(replace(study, options=replace(study.options, rerun=True)), Actor(before=run_elsewhere))
    assert sorted(executor.began) == sorted(ids(plans[:2]))
    assert board.states[2].result is not None
    assert board.states[2].result.timing == {"total": 99.0}
