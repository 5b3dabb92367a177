"""`python -m cluster SOURCES... --out DIR|s3://…`: many files on this machine's processes or on a Ray cluster."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from rich.console import Console

from cluster.arguments import build_parser, recipe_of
from cluster.driver import Driver
from cluster.inputs import check_copies, find_jobs
from cluster.jobs import Job, Recipe
from cluster.quarantine import FAILED, Plan, Quarantine, plan
from cluster.recipes import open_pose
from cluster.report import Report, Summary
from cluster.start import open_pool
from cluster.stores import open_store
from cluster.worker import OpenPose, Setup
from core import command_line
from core.command_line import OK, REFUSED, complain
from core.errors import PoseError
from core.signals import stop_of, stop_signals
from pipeline.sources import is_url

PROG = "python -m cluster"


def main(argv: Sequence[str] | None = None, *, open_pose: OpenPose = open_pose) -> int:
    """Run the command; returns the exit status. Every failure is one line on stderr.

    open_pose: opens the pipeline of a worker; a function of a module that every worker can import.
    """
    arguments = build_parser().parse_args(argv)
    report: Report | None = None
    try:
        with stop_signals(once=True):
            recipe = recipe_of(arguments)
            jobs = find_jobs(arguments.sources, out=arguments.out)
            check_targets(jobs, recipe, arguments.out, sources=arguments.sources)
            store = open_store(arguments.out)
            with store.locked() as token:
                quarantine = Quarantine(store)
                quarantine.drop_gone(jobs, arguments.sources)
                todo = plan(jobs, recipe, store.contents(), quarantine, retry_failed=arguments.retry_failed)
                report = Report(todo, recipe, store, quarantine, Console(stderr=True))
                setup = Setup(recipe=recipe, store=store, token=token, open_pose=open_pose)
                run(arguments, setup, todo, report)
    except KeyboardInterrupt as error:
        stop = stop_of(error)
        return complain(PROG, f"{stop}; finished files are kept; run the same command to continue", stop.status)
    except (PoseError, ValueError, OSError) as error:
        started = report is not None and report.summary.machines > 0
        return complain(PROG, error, command_line.FAILED if started else REFUSED)
    print(summary_line(report.summary))
    if report.summary.failed:
        message = (
            f"{report.summary.failed} of {report.summary.files} files failed; {store.where}/{FAILED} lists the errors, "
            "and --retry-failed tries these files again"
        )
        return complain(PROG, message, command_line.FAILED)
    return OK


def run(arguments: argparse.Namespace, setup: Setup, todo: Plan, report: Report) -> None:
    """Do the jobs that are not done, if there are any. The report is written in any case."""
    if not todo.todo:
        with report:
            return
    with open_pool(arguments, setup, len(todo.todo)) as pool, report:
        Driver(pool, report, discard=setup.store.discard).run(todo.todo)


def check_targets(jobs: Sequence[Job], recipe: Recipe, out: str, *, sources: Sequence[str]) -> None:
    """Raises ValueError if a result would overwrite a source or another result, or be a source of the next run."""
    if recipe.save:
        for source in sources:
            check_copies(source, out)
    inputs = {job.where if is_url(job.where) else os.path.realpath(job.where) for job in jobs}
    targets: dict[str, Job] = {}
    for job in jobs:
        for name in recipe.results(job).names:
            target = f"{out.rstrip('/')}/{name}" if is_url(out) else os.path.realpath(os.path.join(out, name))  # noqa: PTH118
            if target in inputs:
                raise ValueError(f"result {target} would replace that source; choose another --out")
            other = targets.setdefault(target, job)
            if other is not job:
                raise ValueError(f"{other.name} and {job.name} would share the result {target}; rename one")


def summary_line(summary: Summary) -> str:
    done = f"{summary.done} files in {summary.seconds:.1f} s: {summary.frames} frames, {summary.fps:.1f} FPS"
    skipped = f"; {summary.skipped} were done before" if summary.skipped else ""
    return f"{done}, by {summary.workers} workers on {summary.machines} machines{skipped}; {summary.out}"


if __name__ == "__main__":
    sys.exit(main())
