"""Find the people of a video: `python run_video.py street.mp4 --save out.mp4 --json out.jsonl`.

This file only connects sources, pipeline and outputs, and prints the report.
"""

from __future__ import annotations

from core.signals import end_at_once, stop_of

if __name__ == "__main__":
    end_at_once("run_video.py")  # before the long imports
    from core.memory import limit_arenas, set_aside

    limit_arenas()  # before their threads

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext, redirect_stdout, suppress
from functools import partial

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from commands.arguments import build_parser
from commands.done import DoneSources, mark_done, skip_done
from commands.interrupts import Interrupts
from commands.machine import describe_machine
from commands.pose import open_pose, open_steps
from commands.video import describe_video
from core.command_line import FAILED, OK, REFUSED, complain
from core.errors import PartsFailed, PoseError, SinkError, SourceError, describe
from core.memory import FreedMemory
from core.progress import progress_bar, progress_console
from pipeline import Frame, PosePipeline, Source, open_source
from pipeline.models import HOST_ENGINES
from pipeline.sinks import check_display
from pipeline.sinks.outputs import Outputs, check_outputs, open_sinks
from pipeline.sinks.pipes import is_stdout, waiting_for_readers
from pipeline.sinks.web import WebSink
from pipeline.sources.base import BROWSER
from pipeline.sources.browser import BrowserSource
from pipeline.sources.reconnect import Reconnecting
from pipeline.sources.several import Several, SourceState
from pipeline.stats import Meter, Percentiles, Recorder, Summary, check_plot, save_plot

PROG = "run_video.py"
WARM_UP_FRAMES = 10  # of a benchmark; they are not measured
ENGINE_SECONDS = 1.0  # measurement of the engine alone, before and after the run, since a machine's speed drifts
PARTS_SECONDS = 1.0  # measurement of the parts of a frame on a GPU


def main(argv: Sequence[str] | None = None, *, before_frames: Callable[[], None] = lambda: None) -> int:
    """Run the command; returns the exit status. Every failure is one line on stderr.

    before_frames: called when all is open.
    """
    arguments = build_parser().parse_args(argv)
    recorder = Recorder()
    meter = Meter(skip=WARM_UP_FRAMES if arguments.benchmark else 0)
    opened = False
    try:
        with Interrupts() as interrupts, ExitStack() as stack:
            if is_stdout(arguments.json):
                stack.enter_context(redirect_stdout(sys.stderr))  # the lines alone are stdout
            done = skip_done(arguments) if arguments.skip_done else None
            if done is not None and not arguments.sources:
                print(f"every source is done already in {arguments.save}")
                return OK
            source, pose, outputs = open_all(arguments, stack, recorder, interrupts, done=done)
            measured = arguments.benchmark or arguments.stats is not None
            concurrent = not source.is_single_camera and not arguments.serial
            engine_ms = time_engine(pose, source, concurrent=concurrent) if measured else []
            opened = True
            before_frames()
            last, failed = run(arguments, source, pose, outputs, recorder=recorder, meter=meter, interrupts=interrupts)
            if done is not None and last is not None and not outputs.quit and meter.frames != arguments.limit:
                mark_done(done, source, last.source)
            engine_ms += time_engine(pose, source, concurrent=concurrent) if measured else []
            states = source.states() if isinstance(source, Several) else []
            report(
                arguments,
                pose,
                recorder=recorder,
                meter=meter,
                last=last,
                engine_ms=engine_ms,
                concurrent=concurrent,
                sources=states,
            )
            if failed is not None:
                raise failed
    except KeyboardInterrupt as error:
        stop = stop_of(error)
        return complain(PROG, f"{stop} after {meter.frames} frames; the outputs so far are complete", stop.status)
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  (else writing its buffer fails again at exit)
        return complain(PROG, f"stdout was closed by its reader after {meter.frames} frames", FAILED)
    except (PoseError, ValueError, OSError) as error:
        unread = isinstance(error, SourceError) and meter.frames == 0  # the source was opened but has no frame
        return complain(PROG, str(error), FAILED if opened and not unread else REFUSED)
    return OK


def open_all(
    arguments: argparse.Namespace,
    stack: ExitStack,
    recorder: Recorder,
    interrupts: Interrupts,
    *,
    done: DoneSources | None,
) -> tuple[Source, PosePipeline, Outputs]:
    """Open sources, then the model, then outputs, so that a run that cannot start overwrites nothing."""
    open_steps(arguments)  # reports invalid options before anything is opened
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
        raise ValueError("--serial measures one source; give one source")
    check_outputs(
        source.parts,
        save=arguments.save,
        others=[arguments.json, arguments.plot],
        table=arguments.table,
        model=arguments.model,
    )
    if arguments.plot is not None:
        check_plot(arguments.plot)
    video_lines = describe_video(
        source.parts,
        arguments.save,
        decoder=arguments.decoder,
        encoder=arguments.encoder,
        gpu=arguments.gpu or 0,
    )
    web = open_page(arguments, source, visitor, stack) if arguments.web is not None else None
    show = source.name if arguments.show else None
    if show is not None:
        check_display()
    with progress_bar() as progress:
        pose = stack.enter_context(open_pose(arguments, progress, frame_wh=source.frame_wh))
        if pose.step.engine not in HOST_ENGINES and source.frame_wh is not None:
            pose.warm_up(source.frame_wh)  # builds the plan, compiles the kernels
    print(pose.step.about, *video_lines, sep="\n")
    # a signal before its closing is arranged would leave an opened file, empty
    with waiting_for_readers([arguments.json, arguments.table, arguments.save]), interrupts.held():
        sinks = open_sinks(
            save=arguments.save,
            json=arguments.json,
            table=arguments.table,
            show=show,
            side_by_side=several is not None,
            audio=arguments.audio,
            encoder=arguments.encoder,
            gpu=arguments.gpu or 0,
            finished=partial(mark_done, done, source),
        )
        outputs = Outputs([*sinks, *([web] if web is not None else [])], recorder, overlap=not arguments.serial)
        stack.callback(outputs.close)  # if an error comes before `run`, which closes them
    return source, pose, outputs


def open_page(
    arguments: argparse.Namespace, source: Source, visitor: BrowserSource | None, stack: ExitStack
) -> WebSink:
    """Serve the page before the model is loaded, so that it can show that the program starts. Prints its address."""
    several = source if isinstance(source, Several) else None
    web = WebSink(
        arguments.web,
        source.parts,
        side_by_side=several is not None,
        live=source.live,
        tls=arguments.tls,
        camera=visitor if BROWSER in source.parts else None,
    )
    if several is not None:
        several.on_change = partial(show_state, web)
    elif isinstance(source, Reconnecting):
        source.on_change = partial(show_reconnecting, web, source.name)
    stack.callback(web.close)
    print(web.url, flush=True)
    return web


def is_watched(arguments: argparse.Namespace, source: Source) -> bool:
    """Whether a live source is displayed."""
    return source.live and (arguments.show or arguments.web is not None)


def show_state(web: WebSink, state: SourceState) -> None:
    """Show on the page why a source is not live."""
    if state.state != "live":
        web.set_state(state.name, state.state, state.text)


def show_reconnecting(web: WebSink, name: str, reason: str | None) -> None:
    """As `show_state`, for the only source. reason: None if the source is live."""
    if reason is not None:
        web.set_state(name, "reconnecting", reason)


def time_engine(pose: PosePipeline, source: Source, *, concurrent: bool) -> list[float]:
    """Milliseconds of passes of the network alone, on the source's input shape, after a warm-up.

    concurrent: run as many passes at the same time as the pipeline does, instead of one after another.
    """
    frame_wh = source.frame_wh or (640, 480)
    pose.warm_up(frame_wh)
    return pose.step.time_engine(frame_wh, seconds=ENGINE_SECONDS, concurrent=concurrent)


def run(
    arguments: argparse.Namespace,
    source: Source,
    pose: PosePipeline,
    outputs: Outputs,
    *,
    recorder: Recorder,
    meter: Meter,
    interrupts: Interrupts,
) -> tuple[Frame | None, PartsFailed | None]:
    """Run the pipeline and write its results; finish the outputs also after an error.

    Returns the last frame, and the error that tells which of several files could not be read to their end.
    """
    last, failed = None, None
    counts = [count for count in (source.frame_count, arguments.limit) if count is not None]
    try:
        with frames_bar() as progress:
            freed = FreedMemory()
            task = progress.add_task("", total=min(counts) if counts else None, fps=0.0, people=0)
            meter.start()
            steps = open_steps(arguments, watched=is_watched(arguments, source))
            results = pose.run(
                source,
                steps=steps,
                limit=arguments.limit,
                serial=arguments.serial,
                recorder=recorder,
                stop=interrupts.asked,
            )
            try:
                while True:
                    # an exception within a wait may leave a lock behind; a stage in this thread may take long
                    with nullcontext() if arguments.serial else interrupts.held():
                        result = next(results, None)
                    if result is None:
                        break
                    with interrupts.held():
                        outputs.write(result)
                        meter.count(len(result.people), result.timings["latency"])
                        last = result.frame
                        freed.give_back()
                        progress.update(task, advance=1, fps=meter.fps, people=len(result.people))
                    if outputs.quit:
                        break
            except PartsFailed as error:
                if last is None:
                    raise
                failed = error
            finally:
                with interrupts.held(forget=True):  # joins the threads; the next `held` ends the program
                    results.close()
    except BaseException as error:
        # an error of closing is suppressed: the first error is reported
        with interrupts.held(forget=True), suppress(SinkError):
            outputs.set_end_text(
                "The program was stopped." if isinstance(error, KeyboardInterrupt) else describe(error)
            )
            outputs.close()
        raise
    outputs.set_end_text(f"{source.name} has ended.")
    with interrupts.held():
        outputs.close()
    meter.stop()
    return last, failed


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
    concurrent: bool,
    sources: Sequence[SourceState],
) -> None:
    """Print the table of stages and the end-to-end line; with --benchmark also the machine, with --stats the JSON."""
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
        frames_per_pass=pose.step.batch,
        concurrent_passes=pose.step.concurrency if concurrent else 1,
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
    sys.exit(main(before_frames=set_aside))
