"""The recorded results of the authors' code on drawn crowds (tests/golden).

Where the best matching is unique people, order, positions, values and scores agree: measured, to 0 px and 1.2e-7. Where
several are best, the authors' pick is one of them and ours may be another: with the authors' own people of the joints
before as the state, the total cost of the next joint's matching must be the same.
"""

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from kernels import DecodeOptions
from kernels.cpu import decode, decode_scales, match
from tests.reference import decode as reference
from tests.reference.golden import generate_inputs, network_outputs

MODES = {
    "plain": DecodeOptions(),
    "no_refine": DecodeOptions(refine=False),
    "half_resolution": DecodeOptions(project=False),
    "flip": DecodeOptions(),
}
# Besides the messy cases, this one has ties of the authors' cost too: at the left shoulder 0 + 400 against 200 + 200.
TIED = (*(case for case in generate_inputs.CASES if case.startswith("messy")), "late_eight_512x704")
UNIQUE = tuple(case for case in generate_inputs.CASES if case not in TIED)


@pytest.fixture(scope="module")
def recorded(golden_dir: Path):
    with np.load(golden_dir / "decode.npz") as file:
        return dict(file)


@pytest.mark.parametrize("case", UNIQUE)
def test_people_are_those_of_the_authors(case, recorded):
    for mode, options in MODES.items():
        heatmaps, tags = network_outputs(case, flip=mode == "flip")
        keypoints, scores = decode(heatmaps, tags, options)
        if mode == "half_resolution":
            keypoints[..., :2] /= 2  # recorded in pixels of the heatmap
        people = recorded[f"{case}/{mode}/people"].reshape(-1, 17, 5 if mode == "flip" else 4)
        assert keypoints.shape == (len(people), 17, 3)
        np.testing.assert_allclose(keypoints[..., :2], people[..., :2], atol=1e-3, rtol=0, err_msg=mode)
        np.testing.assert_allclose(keypoints[..., 2], people[..., 2], atol=1e-4, rtol=0, err_msg=mode)
        np.testing.assert_allclose(scores, recorded[f"{case}/{mode}/scores"], atol=1e-4, rtol=0, err_msg=mode)


@pytest.mark.parametrize("case", ["three_256x384", "late_four_256x384"])
def test_one_scale_alone_is_decode(case, recorded):
    for mode in ("plain", "flip"):
        maps = network_outputs(case, flip=mode == "flip")
        keypoints, scores = decode_scales([maps], generate_inputs.CASES[case][2:])
        people = recorded[f"{case}/{mode}/people"]
        np.testing.assert_allclose(keypoints[..., :2], people[..., :2], atol=1e-3, rtol=0)
        np.testing.assert_allclose(keypoints[..., 2], people[..., 2], atol=1e-4, rtol=0)
        np.testing.assert_allclose(scores, recorded[f"{case}/{mode}/scores"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("case", TIED)
def test_where_matchings_tie_the_total_cost_is_that_of_the_authors(case, recorded):
    for mode, options in MODES.items():
        if mode == "plain":
            continue  # its people before refine are those of no_refine
        heatmaps, tags = network_outputs(case, flip=mode == "flip")
        heat, tag = reference.unmirror(heatmaps, tags, options)
        tag = reference.upsample2(tag)
        if options.project:
            heat, tag = reference.upsample2(heat), reference.upsample2(tag)
        people = recorded[f"{case}/{mode}/people"]
        found = (people[..., 2] > 0) & (people[..., 3:] != 0).any(-1)  # joints that refine filled have tag 0
        checked = 0
        earlier: list[int] = []
        for k in options.order_for(17):
            recorded_state = (people, found, earlier)
            checked += _compare_one_joint(recorded_state, k, heat[k], tag[:, k], options)
            earlier.append(k)
        assert checked >= 10


def _compare_one_joint(recorded_state, k, heat, tag, options) -> int:
    """Ours against the recorded matching of joint k, the joints before as recorded. 1 if there was one to compare."""
    people, found, earlier = recorded_state
    ys, xs = reference.top_k(heat, reference.peaks(heat, options), options.max_people).T
    value, own = heat[ys, xs], tag[:, ys, xs].T
    groups = [p for p in range(len(people)) if found[p, earlier].any()][: options.max_people]
    if not groups or not len(ys):
        return 0
    centres = [reference.mean(people[p, [j for j in earlier if found[p, j]], 3:].astype(np.float32)) for p in groups]
    distance = reference.tag_distance(own[:, None], np.stack(centres)[None])  # (R, C)

    # The authors' cost in their own fixed point, an appended column for each candidate too many.
    R, C = distance.shape
    cost = np.zeros((R, max(R, C)))
    cost[:, :C] = 100 * np.rint(distance) * 2**14 - np.rint(value * 2**14)[:, None]
    best = cost[linear_sum_assignment(cost)].sum()

    columns = match(distance, value)
    assert (columns >= 0).sum() == min(R, C)
    assert cost[np.flatnonzero(columns >= 0), columns[columns >= 0]].sum() == best

    # What the authors picked: a joint that joined a group says its column; one that opened a person had any column
    # left over whose distance is at least 1.
    theirs = cost.copy()
    theirs[:, :C][distance < 1] = np.inf
    for p in np.flatnonzero(found[:, k]).tolist():
        (row,) = np.flatnonzero((xs == int(people[p, k, 0])) & (ys == int(people[p, k, 1])))
        if p in groups:
            theirs[row] = np.inf
            theirs[row, groups.index(p)] = cost[row, groups.index(p)]
    assert theirs[linear_sum_assignment(theirs)].sum() == best
    return 1


def test_where_matchings_tie_no_joint_is_lost(recorded):
    for case in TIED[:2]:  # fewer people than max_people: every candidate is someone's joint
        for mode in ("no_refine", "flip"):
            heatmaps, tags = network_outputs(case, flip=mode == "flip")
            keypoints, _ = decode(heatmaps, tags, DecodeOptions(refine=False))
            people = recorded[f"{case}/{mode}/people"]
            ours = np.sort(keypoints[keypoints[..., 2] > 0][:, 2])
            theirs = np.sort(people[(people[..., 2] > 0) & (people[..., 3:] != 0).any(-1)][:, 2])
            np.testing.assert_allclose(ours, theirs, atol=1e-6)
