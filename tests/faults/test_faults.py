"""The campaign: every case is answered in time, in one line, with the right status; what was written is readable.

Without a marker, as in `make test`, a few cases of each kind run; `make faults` runs them all.
"""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from tests.faults import arguments, containers, images, models, names, outputs, signals, streams
from tests.faults.case import Case

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks, signals and links of POSIX")

MODULES = (containers, images, names, arguments, models, outputs, signals, streams)
CASES: list[Case] = [case for module in MODULES for case in module.cases()]
EVERY = 19  # of the cases are in the short part


def test_the_campaign_is_large_and_its_names_are_different():
    counts = Counter(map(str, CASES))
    assert not [name for name, count in counts.items() if count > 1]
    assert len(CASES) >= 500


@pytest.mark.parametrize("case", CASES[::EVERY], ids=str)
def test_a_few_of_each_kind(case, answered):
    assert answered(case) == []


@pytest.mark.faults
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_case(case, answered):
    assert answered(case) == []
