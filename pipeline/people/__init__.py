"""Steps after the decode: remove impossible parts of skeletons, assign ids, smooth."""

from pipeline.people.plausible import drop_impossible
from pipeline.people.smoothing import Smoother
from pipeline.people.steps import PeopleStep, people_steps
from pipeline.people.tracker import Tracker

__all__ = ["PeopleStep", "Smoother", "Tracker", "drop_impossible", "people_steps"]
