"""People out of a video: `python run_video.py street.mp4 --save out.mp4 --json out.jsonl`. Wiring and printing only."""

from __future__ import annotations

from core.signals import end_at_once, stop_of

if __name__ == "__main__":
    end_at_once("run_video.py")  # before the long imports

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from commands.arguments import build_parser, shared_options
from commands.done import DoneSources
from commands.interrupts import Interrupts
from commands.machine import describe_machine
from commands.pose import open_pose, open_steps
from commands.records import digest_of
from commands.video import describe_video
from core.command_line import FAILED, OK, REFUSED, complain
from core.errors import PoseError, SinkError, SourceError, describe
from core.progress import progress_bar, progress_console
from pipeline import Frame, PosePipeline, Source, open_source
from pipeline.models import HOST_ENGINES
from pipeline.sinks import check_display
from pipeline.sinks.outputs import Outputs, check_outputs, is_folder, open_sinks
from pipeline.sinks.web import WebSink
from pipeline.sources.base import BROWSER
from pipeline.sources.browser import BrowserSource
from pipeline.sources.reconnect import Reconnecting
from pipeline.sources.several import Several, SourceState
from pipeline.stats import Meter, Percentiles, Recorder, Summary, save_plot

PROG = "run_video.py"
WARM_UP_FRAMES = 10  # of a benchmark: not in its figures
ENGINE_SECONDS = 1.0  # of the engine alone, before the run and again after it: a machine's speed drifts
PARTS_SECONDS = 1.0  # of a frame's parts on a GPU


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status. Every failure is one line on stderr."""
    arguments = build_parser().parse_args(argv)
    recorder = Recorder()
    meter = Meter(skip=WARM_UP_FRAMES if arguments.benchmark else 0)
    opened = False
    try:
        with Interrupts() as interrupts, ExitStack() as stack:
            done = skip_done(arguments) if arguments.skip_done else None
            if done is not None and not arguments.sources:
                print(f"every source is done already in {arguments.save}")
                return OK
            source, pose, outputs = open_all(arguments, stack, recorder, finished=done.mark if done else ignore)
            measured = arguments.benchmark or arguments.stats is not None
            beside = (source.keeps_newest or not source.live) and not arguments.serial  # as the pipeline runs it
            engine_ms = time_engine(pose, source, beside=beside) if measured else []
            opened = True
            last = run(arguments, source, pose, outputs, recorder=recorder, meter=meter, interrupts=interrupts)
            if done is not None and last is not None and not outputs.quit and meter.frames != arguments.limit:
                done.mark(last.source)
            engine_ms += time_engine(pose, source, beside=beside) if measured else []
            states = source.states() if isinstance(source, Several) else []
            report(
                arguments,
                pose,
                recorder=recorder,
                meter=meter,
                last=last,
                engine_ms=engine_ms,
                beside=beside,
                sources=states,
            )
    except KeyboardInterrupt as error:
        stop = stop_of(error)
        return complain(PROG, f"{stop} after {meter.frames} frames; what was written is finished", stop.status)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  (what its buffer holds would fail again at the end)
        return complain(PROG, f"stdout was closed by its reader after {meter.frames} frames", FAILED)
    except (PoseError, ValueError, OSError) as error:
        unread = isinstance(error, SourceError) and meter.frames == 0  # it opened, but holds nothing
        return complain(PROG, str(error), FAILED if opened and not unread else REFUSED)
    return OK


def ignore(source: str) -> None:
    """Nobody wants to know that a source is finished."""


def skip_done(arguments: argparse.Namespace) -> DoneSources:
    """Leaves in `arguments.sources` what is not done yet. Raises what `open_source` raises, for any of them."""
    if arguments.save is None or not is_folder(arguments.save):
        raise ValueError("--skip-done needs --save DIR: one file a source")
    if arguments.json is not None or arguments.table is not None:
        raise ValueError(
            "--skip-done cannot add to the one --json or --table of all sources; leave them out, or use "
            "python -m cluster, which writes one a source"
        )
    with open_source(*arguments.sources) as source:
        if source.live or arguments.loop:
            raise ValueError("--skip-done is for files, each played once: a live source and --loop have no end")
        parts = source.parts
    done = DoneSources(arguments.save, model_digest=digest_of(arguments.model), options=shared_options(arguments))
    check_outputs(parts, save=arguments.save, others=[])
    arguments.sources = done.left(parts)
    return done


def open_all(
    arguments: argparse.Namespace, stack: ExitStack, recorder: Recorder, *, finished: Callable[[str], None]
) -> tuple[Source, PosePipeline, Outputs]:
    """Sources, then the model, then outputs: nothing is overwritten for a run that cannot start."""
    open_steps(arguments)  # refused before anything is opened
    if arguments.tls is not None and arguments.web is None:
        raise ValueError("--tls is for the page; add --web 8000")
    visitor = BrowserSource() if arguments.web is not None else None
    source = stack.enter_context(
        open_source(
            *arguments.sources,
            realtime=arguments.realtime,
            loop=arguments.loop,
            reconnect=arguments.reconnect,
            camera=arguments.camera,
            browser=visitor,
            decoder=arguments.decoder,
            gpu=arguments.gpu or 0,
        )
    )
    several = source if isinstance(source, Several) else None
    if several is not None and arguments.serial:
        raise ValueError("--serial measures one source; name one")
    check_outputs(
        source.parts,
        save=arguments.save,
        others=[arguments.json, arguments.plot],
        table=arguments.table,
        model=arguments.model,
    )
    video_lines = describe_video(
        source.parts,
        arguments.save,
        decoder=arguments.decoder,
        encoder=arguments.encoder,
        gpu=arguments.gpu or 0,
    )
    web = None
    if arguments.web is not None:  # before the model is loaded: the page says that it starts
        camera = visitor if BROWSER in source.parts else None
        web = WebSink(
            arguments.web,
            source.parts,
            side_by_side=several is not None,
            live=source.live,
            tls=arguments.tls,
            camera=camera,
        )
        if several is not None:
            several.listen(partial(tell_page, web))
        elif isinstance(source, Reconnecting):
            source.told = partial(tell_page_of_one, web, source.name)
        stack.callback(web.close)
        print(web.url, flush=True)
    show = source.name if arguments.show else None
    if show is not None:
        check_display()
    with progress_bar() as progress:
        pose = stack.enter_context(open_pose(arguments, progress, frame_wh=source.frame_wh))
        if pose.step.engine not in HOST_ENGINES and source.frame_wh is not None:
            pose.warm_up(source.frame_wh)  # builds the plan, compiles the kernels
    print(pose.step.about, *video_lines, sep="\n")
    sinks = open_sinks(
        save=arguments.save,
        json=arguments.json,
        table=arguments.table,
        show=show,
        side_by_side=several is not None,
        audio=arguments.audio,
        encoder=arguments.encoder,
        gpu=arguments.gpu or 0,
        finished=finished,
    )
    outputs = Outputs([*sinks, *([web] if web is not None else [])], recorder, overlap=not arguments.serial)
    stack.callback(outputs.close)  # `run` closes them; this is for what fails in between
    return source, pose, outputs


def is_watched(arguments: argparse.Namespace, source: Source) -> bool:
    """Whether somebody looks at what happens now."""
    return source.live and (arguments.show or arguments.web is not None)


def tell_page(web: WebSink, state: SourceState) -> None:
    """What the page says of a source that is not live."""
    if state.state != "live":
        web.tell(state.name, state.state, state.text)


def tell_page_of_one(web: WebSink, name: str, why: str | None) -> None:
    if why is not None:
        web.tell(name, "reconnecting", why)


def time_engine(pose: PosePipeline, source: Source, *, beside: bool) -> list[float]:
    """Milliseconds of passes of the network alone, on the source's input shape; warms up everything before.

    beside: with as many passes at the same time as are fastest, not one after another.
    """
    frame_wh = source.frame_wh or (640, 480)
    pose.warm_up(frame_wh)
    return pose.step.time_engine(frame_wh, seconds=ENGINE_SECONDS, beside=beside)


def run(
    arguments: argparse.Namespace,
    source: Source,
    pose: PosePipeline,
    outputs: Outputs,
    *,
    recorder: Recorder,
    meter: Meter,
    interrupts: Interrupts,
) -> Frame | None:
    """Every frame through the pipeline into the outputs, which are finished however it ends. Returns the last frame."""
    last = None
    counts = [count for count in (source.frame_count, arguments.limit) if count is not None]
    try:
        with frames_bar() as progress:
            task = progress.add_task("", total=min(counts) if counts else None, fps=0.0, people=0)
            meter.start()
            steps = open_steps(arguments, watched=is_watched(arguments, source))
            results = pose.run(source, steps=steps, limit=arguments.limit, serial=arguments.serial, recorder=recorder)
            try:
                for result in results:
                    with interrupts.held():
                        outputs.write(result)
                        meter.count(len(result.people), result.timings["latency"])
                    last = result.frame
                    progress.update(task, advance=1, fps=meter.fps, people=len(result.people))
                    if outputs.quit:
                        break
            finally:
                with interrupts.held(forget=True):  # joins the threads; the next `held` ends the program
                    results.close()
    except BaseException as error:
        # what went wrong first is what is reported
        with interrupts.held(forget=True), suppress(SinkError):
            outputs.say("The program was stopped." if isinstance(error, KeyboardInterrupt) else describe(error))
            outputs.close()
        raise
    outputs.say(f"{source.name} has ended.")
    with interrupts.held():
        outputs.close()
    meter.stop()
    return last


def frames_bar() -> Progress:
    console = progress_console()
    return Progress(
        TextColumn("{task.completed:.0f} frames"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[fps]:.1f} FPS, {task.fields[people]} people"),
        TimeRemainingColumn(compact=True),
        console=console,
        disable=not console.is_terminal,
        transient=True,
        expand=True,
    )


def report(
    arguments: argparse.Namespace,
    pose: PosePipeline,
    *,
    recorder: Recorder,
    meter: Meter,
    last: Frame | None,
    engine_ms: Sequence[float],
    beside: bool,
    sources: Sequence[SourceState],
) -> None:
    """The table, end to end in a sentence; with --benchmark the machine; with --stats the line for programs."""
    batch, height, width = pose.step.input_shape(last.wh) if last is not None else (0, 0, 0)
    parts_ms: dict[str, list[float]] = {}
    if arguments.benchmark and last is not None:
        parts_ms = pose.step.time_parts(last.image, seconds=PARTS_SECONDS)
    summary = Summary(
        frames=meter.frames,
        dropped=recorder.dropped,
        fps=meter.fps,
        engine_fps=1e3 * pose.step.batch / Percentiles.of(engine_ms).p50 if engine_ms else None,
        people=meter.people,
        stages=meter.stages(recorder),
        device={part: Percentiles.of(values) for part, values in parts_ms.items()},
        latency=meter.latency(),
        engine=pose.step.engine,
        model=pose.step.spec.name,
        input_wh=(width, height),
        precision=pose.step.precision,
        batch=batch,
        frames_a_pass=pose.step.batch,
        passes_at_once=pose.step.at_once if beside else 1,
        sources=tuple(sources),
    )
    console = Console(highlight=False)
    console.print(summary.table())
    console.print(summary.sentence(), soft_wrap=True)
    for line in summary.source_lines():
        console.print(line, soft_wrap=True, markup=False)
    machine = describe_machine() if arguments.benchmark else None
    if machine is not None:
        console.print(f"input {width}x{height}, batch {batch}, {summary.precision}", soft_wrap=True)
        for label, text in machine.items():
            console.print(f"{label}: {text}", soft_wrap=True)
    if arguments.plot is not None:
        save_plot(recorder, arguments.plot)
    if arguments.stats == "json":
        print(summary.to_json(machine))


if __name__ == "__main__":
    sys.exit(main())
