"""What happens to the people of a run after the decode: steps, called for every frame; a memory for each source."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from pipeline.people.plausible import drop_impossible
from pipeline.people.smoothing import Smoother
from pipeline.people.tracker import Tracker
from pipeline.types import Frame, People


class PeopleStep(Protocol):
    """Gives a frame's people changed. Called from one thread, each source's frames in order, sources in any mixture."""

    def __call__(self, frame: Frame, people: People) -> People: ...


class Follower(Protocol):
    """Somebody who remembers one source's people from frame to frame: a Tracker, a Smoother."""

    def update(self, people: People, time_s: float) -> People: ...


F = TypeVar("F", bound=Follower)


class PerSource(Generic[F]):
    """A step with one follower for each source, made when its first frame comes. Pictures are left as they are."""

    def __init__(self, make: Callable[[], F]) -> None:
        self._make = make
        self._followers: dict[str, F] = {}

    def __call__(self, frame: Frame, people: People) -> People:
        from pipeline.sources import is_image

        if is_image(frame.source):  # of a picture nothing comes before or after
            return people
        follower = self._followers.get(frame.source)
        if follower is None:
            follower = self._followers[frame.source] = self._make()
        return follower.update(people, frame.time_s)


def without_impossible(frame: Frame, people: People) -> People:
    """`drop_impossible` as a step."""
    return drop_impossible(people)


def people_steps(*, plausible: bool = True, ids: bool = True, smooth: bool = False) -> tuple[PeopleStep, ...]:
    """The steps of one run, in order.

    plausible: take from skeletons what no body could have. ids: say who is who, in videos and live sources.
    smooth: take out jitter; needs ids, without which nothing is smoothed.
    Raises ValueError for smoothing without ids.
    """
    if smooth and not ids:
        raise ValueError("smoothing follows people by their ids; ask for ids too, or for neither")
    steps: list[PeopleStep] = [without_impossible] if plausible else []
    if ids:
        steps.append(PerSource(Tracker))
    if smooth:
        steps.append(PerSource(Smoother))
    return tuple(steps)
