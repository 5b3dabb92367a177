"""Benefit and cost of smoothing on the recorded people of the drawn clip: python -m benchmarks.smoothing

In pixels: the error of the acceleration against ground truth (second differences over three consecutive frames), and
the motion from frame to frame of joints that stand still in the ground truth (under 0.4 px a frame). Lag: the number of
frames at 25 FPS by which moving wrists (over 2 px a frame) trail behind their true position. AP is by OKS.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from benchmarks.one_euro import OneEuro
from benchmarks.recorded import clip_truth, recorded_people
from core.joints import COCO
from evaluation import score_results
from evaluation.tracking import true_people
from pipeline import People
from pipeline.people import Smoother, Tracker, drop_impossible

FPS = 25
STILL_PX, MOVING_PX, NEAR_PX = 0.4, 2.0, 25.0
WRISTS = [COCO.index("left_wrist"), COCO.index("right_wrist")]


class Figures(NamedTuple):
    acceleration_px: float
    still_px: float
    lag_frames: float
    ap: float


def measure(found: list[People], shown: list[People]) -> Figures:
    """found, shown: the same people of each frame. Ground truth is matched to `found` for both."""
    annotations = clip_truth()
    truth = true_people(annotations)
    rows = defaultdict(list)
    for frame, (true, people, out) in enumerate(zip(truth, found, shown, strict=True)):
        oks = true.oks(people)
        for t, p in zip(*linear_sum_assignment(-oks), strict=True):
            if oks[t, p] >= 0.5 and people.ids[p]:
                valid = (true.keypoints[t, :, 2] > 0) & (people.keypoint_scores[p] > 0)
                rows[true.track_ids[t], people.ids[p]].append(
                    (frame, true.keypoints[t, :, :2], out.keypoints[p], valid)
                )
    wrong, still = [], []
    behind = moved = 0.0
    for series in rows.values():
        if len(series) < 3:
            continue
        frames, true_xy, xy, valid = (np.array(column) for column in zip(*series, strict=True))
        usable = (frames[2:] - frames[:-2] == 2)[:, None] & valid[2:] & valid[1:-1] & valid[:-2]
        bend, true_bend = (a[2:] - 2 * a[1:-1] + a[:-2] for a in (xy.astype(np.float64), true_xy))
        speed = (true_xy[2:] - true_xy[:-2]) / 2
        wrong.append(_lengths(bend - true_bend)[usable])
        quiet = usable & (_lengths(speed) < STILL_PX) & (_lengths(true_bend) < STILL_PX)
        still.append(_lengths(xy[2:] - xy[1:-1])[quiet])
        error, way = (xy - true_xy)[1:-1][:, WRISTS], speed[:, WRISTS]
        used = usable[:, WRISTS] & (_lengths(way) > MOVING_PX) & (_lengths(error) < NEAR_PX)
        behind -= float((error * way).sum(axis=2)[used].sum())
        moved += float((way**2).sum(axis=2)[used].sum())
    results = [one for frame, people in enumerate(shown) for one in people.to_coco(frame)]
    ap = score_results(annotations, results, list(range(len(shown))))["AP"]
    return Figures(float(np.concatenate(wrong).mean()), float(np.concatenate(still).mean()), behind / moved, ap)


class Filter(Protocol):
    def update(self, people: People, time_s: float) -> People: ...


def main() -> int:
    tracker = Tracker()
    found = [tracker.update(drop_impossible(one), frame / FPS) for frame, one in enumerate(recorded_people())]
    raw = measure(found, found)
    print("| | acceleration error | still joints move | wrists lag, frames | AP |\n| --- | ---: | ---: | ---: | ---: |")
    print(f"| as found | {raw.acceleration_px:.2f} px a frame^2 | {raw.still_px:.2f} px a frame |", end="")
    print(f" {raw.lag_frames:.2f} | {100 * raw.ap:.1f} |")
    filters: dict[str, Filter] = {"`Smoother`": Smoother()}
    filters |= {f"One-Euro, beta {beta} Hz": OneEuro(beta_hz=beta) for beta in (1.5, 4, 8, 20)}
    for name, one in filters.items():
        smooth = measure(found, [one.update(people, frame / FPS) for frame, people in enumerate(found)])
        print(f"| {name} | {100 * (smooth.acceleration_px / raw.acceleration_px - 1):.0f} %", end="")
        print(f" | {100 * (smooth.still_px / raw.still_px - 1):.0f} %", end="")
        print(f" | {smooth.lag_frames:.2f} | {100 * smooth.ap:.1f} |")
    return 0


def _lengths(vectors: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.asarray(np.sqrt((vectors.astype(np.float64) ** 2).sum(axis=-1)))


if __name__ == "__main__":
    sys.exit(main())
