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


class WithoutImpossible:
    """`drop_impossible` as a step. min_score: the decode's, which has seen the people before this step."""

    def __init__(self, min_score: float = 0.0) -> None:
        self.min_score = min_score

    def __call__(self, frame: Frame, people: People) -> People:
        return drop_impossible(people, min_score=self.min_score)


def people_steps(
    *, plausible: bool = True, ids: bool = True, smooth: bool = False, min_score: float = 0.0
) -> tuple[PeopleStep, ...]:
    """The steps of one run, in order.

    plausible: remove impossible parts of skeletons, and people whose score is below `min_score` then. ids: assign ids,
    in videos and live sources. smooth: remove jitter; needs ids. Raises ValueError for smoothing without ids.
    """
    if smooth and not ids:
        raise ValueError("smoothing follows people by their ids; enable ids too, or disable both")
    steps: list[PeopleStep] = [WithoutImpossible(min_score)] if plausible else []
    if ids:
        steps.append(PerSource(Tracker))
    if smooth:
        steps.append(PerSource(Smoother))
    return tuple(steps)
