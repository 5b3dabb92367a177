"""The steps of a run after the decode. They are called for every frame; steps with state have one for each source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from pipeline.people.plausible import drop_impossible
from pipeline.people.smoothing import Smoother
from pipeline.people.tracker import Tracker
from pipeline.types import Frame, People


class PeopleStep(Protocol):
    """Returns a frame's people, changed. Called from one thread; frames of several sources may alternate, those of each
    source come in order."""

    def __call__(self, frame: Frame, people: People) -> People: ...


class StatefulStep(Protocol):
    """A step with state for the people of one source: a Tracker or a Smoother."""

    def update(self, people: People, time_s: float) -> People: ...


S = TypeVar("S", bound=StatefulStep)


class PerSource(Generic[S]):
    """A step with one StatefulStep for each source, made at its first frame. People of still images are not changed."""

    def __init__(self, make: Callable[[], S]) -> None:
        self._make = make
        self._steps: dict[str, S] = {}

    def __call__(self, frame: Frame, people: People) -> People:
        from pipeline.sources import is_image

        if is_image(frame.source):  # a still image has no other frames
            return people
        step = self._steps.get(frame.source)
        if step is None:
            step = self._steps[frame.source] = self._make()
        return step.update(people, frame.time_s)


def without_impossible(frame: Frame, people: People) -> People:
    """`drop_impossible` as a step."""
    return drop_impossible(people)


def people_steps(*, plausible: bool = True, ids: bool = True, smooth: bool = False) -> tuple[PeopleStep, ...]:
    """The steps of one run, in order.

    plausible: remove impossible parts of skeletons. ids: assign ids, in videos and live sources.
    smooth: remove jitter; needs ids. Raises ValueError for smoothing without ids.
    """
    if smooth and not ids:
        raise ValueError("smoothing follows people by their ids; enable ids too, or disable both")
    steps: list[PeopleStep] = [without_impossible] if plausible else []
    if ids:
        steps.append(PerSource(Tracker))
    if smooth:
        steps.append(PerSource(Smoother))
    return tuple(steps)
