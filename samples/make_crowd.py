"""Draws the bundled clip and its annotations: python -m samples.make_crowd [--video FILE] [--annotations FILE].

People on a square walk, cross, approach, leave and wave; the camera is at eye height. The annotations are in COCO's
keypoint format; an image's id is its frame's index, and `track_id` (1, 2 …) identifies a person in all frames. The
annotations are the same each time the program runs.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from core.coco import CocoAnnotation, CocoCategory, CocoFile, CocoImage
from core.joints import COCO
from samples import body
from samples.outfit import Outfit, random_outfit
from samples.paint import NOTHING, Canvas
from samples.people import draw_crowd, label_crowd
from samples.person import PARTS, Person
from samples.scenery import scenery

HERE = Path(__file__).parent
SIZE_WH = (640, 480)
FPS = 25
FRAMES = 250
SEED = 22
FOCAL = 480.0  # pixels; the size of an adult at a distance of 1 height
HORIZON = 150.0  # the picture's row at the height of the camera
CAMERA_HEIGHT = 1.0  # in heights, so that adults' heads are at the horizon
LIGHT = -0.4
COCO_SKELETON = (  # as in COCO's files; joint numbers start at 1
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9), (8, 10), (9, 11),
    (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
)  # fmt: skip


@dataclass(frozen=True)
class Walker:
    """A path: starts at (x, z) at `starts_s` in direction yaw. x and z in heights; z: distance to the camera."""

    x: float
    z: float
    yaw: float
    starts_s: float = 0.0
    size: float = 1.0  # relative to an adult's height
    steps_per_s: float = 1.75
    energy: float = 1.0
    waves: bool = False  # stands and waves instead of walking


# yaw is pi / 2 to the right, -pi / 2 to the left, 0 to the camera. At distances of 1.55 to 3.5, people are 310 to 137
# pixels tall.
CAST = (
    Walker(x=-1.05, z=2.15, yaw=1.50, starts_s=-0.6),
    Walker(x=1.75, z=2.75, yaw=-1.62, starts_s=-0.5, steps_per_s=1.85),
    Walker(x=0.35, z=3.45, yaw=0.15, waves=True),
    Walker(x=-1.75, z=3.35, yaw=0.95, starts_s=-0.4, size=0.95, steps_per_s=1.7),
    Walker(x=1.45, z=1.62, yaw=-1.52, starts_s=2.9, energy=0.95),
    Walker(x=-0.95, z=1.9, yaw=2.45, starts_s=4.2, size=1.03, steps_per_s=1.8),
    Walker(x=2.05, z=2.95, yaw=-1.45, starts_s=4.4, size=0.97),
    Walker(x=-1.45, z=2.05, yaw=1.62, starts_s=6.2, energy=1.05, steps_per_s=1.85),
    Walker(x=1.75, z=2.45, yaw=-1.40, starts_s=6.6, steps_per_s=1.7),
    Walker(x=1.90, z=3.20, yaw=-0.95, starts_s=7.4, size=0.93),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m samples.make_crowd", description=__doc__.partition(":")[0])
    parser.add_argument("--video", type=Path, default=HERE / "crowd.mp4")
    parser.add_argument("--annotations", type=Path, default=HERE / "crowd.json")
    options = parser.parse_args()
    truth = write_clip(options.video)
    options.annotations.write_text(json.dumps(truth, separators=(",", ":")) + "\n")
    people = len(truth["annotations"]) / FRAMES
    print(f"{options.video}: {FRAMES} frames, {people:.1f} people a frame; their joints: {options.annotations}")


def write_clip(path: Path) -> CocoFile:
    """Draw and encode all frames; returns the annotations."""
    pictures: list[CocoAnnotation] = []
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "22", "preset": "slow"})
        stream.width, stream.height = SIZE_WH
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, FPS)
        for index, (image, annotations) in enumerate(draw_frames()):
            pictures.extend(annotations)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return truth_of(pictures)


def truth_of(annotations: list[CocoAnnotation], frames: int = FRAMES) -> CocoFile:
    """The COCO file of the clip's first `frames` frames."""
    width, height = SIZE_WH
    names: list[CocoImage] = [
        {"id": i, "file_name": f"{i:06d}.png", "width": width, "height": height} for i in range(frames)
    ]
    person: CocoCategory = {
        "id": 1,
        "name": "person",
        "supercategory": "person",
        "keypoints": list(COCO.joints),
        "skeleton": [list(edge) for edge in COCO_SKELETON],
    }
    return {
        "info": {"description": "Drawn crowd; true joints", "version": "1"},
        "images": names,
        "annotations": [{"id": i + 1, **annotation} for i, annotation in enumerate(annotations)],
        "categories": [person],
    }


def draw_frames(
    count: int = FRAMES, *, every: int = 1, seed: int = SEED, cast: Sequence[Walker] = CAST
) -> Iterator[tuple[NDArray[np.uint8], list[CocoAnnotation]]]:
    """Each frame, (480, 640, 3) uint8 BGR, with its COCO annotations, without their ids.

    The seed determines the people's looks and the background, the cast their paths.
    """
    rng = np.random.default_rng(seed)
    background = scenery(rng, SIZE_WH, kind="street", horizon=int(HORIZON))
    bodies = [replace(body.random_build(rng), head=1.02) for _ in cast]
    outfits = [random_outfit(rng, height=260.0) for _ in cast]
    for index in range(0, count, every):
        placed = []
        for track_id, (walker, build, outfit) in enumerate(zip(cast, bodies, outfits, strict=True), 1):
            z, person = _place(walker, build, outfit, index / FPS)
            if z > 1.2 and abs(person.foot[0] - SIZE_WH[0] / 2) < SIZE_WH[0] / 2 + person.height * 0.4:
                placed.append((z, person, track_id))
        placed.sort(key=lambda one: -one[0])
        people = [person for _, person, _ in placed]
        track_ids = [track_id for _, _, track_id in placed]
        canvas = Canvas(background.copy(), np.full(SIZE_WH[::-1], NOTHING, np.int32))
        _shadows(canvas, people)
        keypoints, areas = label_crowd(canvas, people, draw_crowd(canvas, people, LIGHT))
        image = np.clip(canvas.image, 0, 255).astype(np.uint8)
        yield image, _annotations(index, canvas, keypoints, areas, track_ids)


def _place(walker: Walker, build: body.Build, outfit: Outfit, time_s: float) -> tuple[float, Person]:
    """The walker's distance and its person at a time."""
    elapsed = time_s - walker.starts_s
    if walker.waves:
        phase, walked = 0.0, 0.0
        pose = _waving(walker.yaw, time_s)
    else:
        phase = math.pi * walker.steps_per_s * elapsed
        walked = body.stride(phase) * walker.energy * walker.size
        pose = body.gait(phase, yaw=walker.yaw, energy=walker.energy)
    x = walker.x + walked * math.sin(walker.yaw)
    z = max(walker.z - walked * math.cos(walker.yaw), 0.5)
    # the camera sees people away from its axis from another angle
    seen_yaw = walker.yaw - math.atan2(x, z)
    figure = body.figure(replace(pose, yaw=seen_yaw), build)
    foot = SIZE_WH[0] / 2 + FOCAL * x / z, HORIZON + FOCAL * CAMERA_HEIGHT / z
    return z, Person(figure, outfit, foot, FOCAL * walker.size / z, pitch=0.5 * CAMERA_HEIGHT / z)


def _waving(yaw: float, time_s: float) -> body.Pose:
    """Standing, looking around, and waving with the left arm during most of every five seconds."""
    up = 0.5 - 0.5 * math.cos(math.pi * min(1.0, max(0.0, 2.2 - abs(time_s % 5.0 - 2.5)) / 0.8))
    wave = 0.35 * math.sin(2 * math.pi * 1.3 * time_s) * up
    return body.Pose(
        yaw=yaw + 0.12 * math.sin(0.7 * time_s),
        head_yaw=0.45 * math.sin(0.9 * time_s),
        tilt=0.02 * math.sin(1.1 * time_s),
        arm_spread=(0.14 + 2.1 * up, 0.14),
        forearm_spread=(0.05 + up * 2.7 + wave, 0.06),
        forearm=(0.25 * (1 - up), 0.25),
        thigh_spread=(0.09, 0.09),
    )


def _shadows(canvas: Canvas, people: list[Person]) -> None:
    """Darken the ground by a blurred projection of each body, away from the light."""
    dark = np.zeros(canvas.owner.shape, np.uint8)
    bones = [(body.CHEST, body.PELVIS), (body.CHEST, body.HEAD)]
    for side in (body.LEFT, body.RIGHT):
        bones += [(body.HIPS[side], body.KNEES[side]), (body.KNEES[side], body.TOES[side])]
        bones += [(body.SHOULDERS[side], body.ELBOWS[side]), (body.ELBOWS[side], body.WRISTS[side])]
    for person in people:
        points = person.figure.points
        across = points[:, 0] - points[:, 1] * 0.55
        down = -0.10 * -points[:, 1] + points[:, 2] * 0.15
        flat = np.stack([person.foot[0] + across * person.height, person.foot[1] + down * person.height], axis=1)
        for a, b in bones:
            start, end = (tuple(int(v) for v in flat[i]) for i in (a, b))
            thick = max(1, int(person.height * (0.15 if (a, b) == bones[0] else 0.07)))
            cv2.line(dark, start, end, 255, thick, cv2.LINE_AA)
    soft = cv2.GaussianBlur(dark, (0, 0), 2.5).astype(np.float32) / 255
    canvas.image[:] *= 1 - 0.4 * soft[..., None]


def _annotations(
    index: int, canvas: Canvas, keypoints: NDArray[np.float32], areas: NDArray[np.float32], track_ids: Sequence[int]
) -> list[CocoAnnotation]:
    """COCO annotations of the people with at least one visible pixel."""
    result: list[CocoAnnotation] = []
    for number, (joints, area) in enumerate(zip(keypoints, areas, strict=True)):
        rows, columns = np.nonzero(canvas.owner // PARTS == number)
        if not len(rows):
            continue
        left, top = int(columns.min()), int(rows.min())
        values = [int(v) if i % 3 == 2 else round(float(v), 1) for i, v in enumerate(joints.ravel())]
        result.append({
            "image_id": index,
            "category_id": 1,
            "iscrowd": 0,
            "keypoints": values,
            "num_keypoints": int((joints[:, 2] > 0).sum()),
            "bbox": [left, top, int(columns.max()) + 1 - left, int(rows.max()) + 1 - top],
            "area": int(area),
            "track_id": track_ids[number],
        })  # fmt: skip
    return result


if __name__ == "__main__":
    main()
