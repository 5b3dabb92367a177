"""Backgrounds and foregrounds: sky, houses, foliage, rooms, noise; and the camera's noise."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Picture = NDArray[np.float32]  # (H, W, 3) BGR, 0..255
Fill = tuple[float, float, float]


def scenery(
    rng: np.random.Generator, size_wh: tuple[int, int], *, kind: str | None = None, horizon: int | None = None
) -> Picture:
    """A background. kind: street, park, room or noise; horizon: the row where the ground ends; None: random."""
    width, height = size_wh
    kind = kind or str(rng.choice(["street", "park", "room", "noise"], p=[0.32, 0.26, 0.27, 0.15]))
    horizon = int(height * rng.uniform(0.35, 0.65)) if horizon is None else horizon
    picture = np.empty((height, width, 3), np.float32)
    if kind == "noise":
        picture[:] = _tone(rng)
        for _ in range(int(rng.integers(5, 25))):
            _shape(rng, picture)
    elif kind == "room":
        _room(rng, picture, horizon)
    else:
        _sky_and_ground(rng, picture, horizon)
        if kind == "street":
            _houses(rng, picture, horizon)
        for _ in range(int(rng.integers(1, 4)) if kind == "street" else int(rng.integers(4, 9))):
            _tree(rng, picture, horizon)
    picture += octaves(rng, size_wh) * float(rng.uniform(4, 26))
    return picture


def octaves(rng: np.random.Generator, size_wh: tuple[int, int]) -> Picture:
    """Noise at four scales, the finer the weaker; about -2..2."""
    width, height = size_wh
    total = np.zeros((height, width, 3), np.float32)
    chroma = np.array([0.25, 0.2, 0.25], np.float32)
    for step in (64, 24, 9, 3):
        shape = (height // step + 2, width // step + 2, 3)
        grey = rng.random((*shape[:2], 1), np.float32) * 2 - 1
        coarse = (grey + (rng.random(shape, np.float32) * 2 - 1) * chroma) * np.float32(0.45 + step / 80)
        total += cv2.resize(coarse, size_wh, interpolation=cv2.INTER_LINEAR)
    return total


def foreground(rng: np.random.Generator, size_wh: tuple[int, int]) -> tuple[Picture, NDArray[np.bool_]]:
    """An object in front of all people, a bush, a board or a pole: its colours and its mask."""
    width, height = size_wh
    mask = np.zeros((height, width), np.uint8)
    x, top = int(rng.integers(0, width)), int(rng.uniform(0.55, 0.9) * height)
    kind = int(rng.integers(0, 3))
    if kind == 0:
        for _ in range(20):
            centre = (x + int(rng.normal(0, width * 0.10)), top + int(abs(rng.normal(0, height * 0.10))))
            cv2.circle(mask, centre, int(rng.uniform(0.02, 0.06) * width), 1, -1)
        colour = (40.0, float(rng.uniform(60, 130)), 50.0)
    elif kind == 1:
        cv2.rectangle(mask, (x, top), (x + int(rng.uniform(0.1, 0.5) * width), height), 1, -1)
        colour = _tone(rng)
    else:
        cv2.rectangle(mask, (x, 0), (x + max(2, int(rng.uniform(0.01, 0.05) * width)), height), 1, -1)
        colour = _tone(rng)
    return np.asarray(colour, np.float32) + octaves(rng, size_wh) * 18, mask.astype(bool)


def finish(rng: np.random.Generator, picture: Picture) -> NDArray[np.uint8]:
    """Simulate a camera: exposure, slight blur and grain; converts to uint8."""
    if rng.random() < 0.4:
        picture = np.asarray(cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.4, 1.1))), np.float32)
    colour = rng.uniform(0.9, 1.1, 3).astype(np.float32) * np.float32(rng.uniform(0.8, 1.25))
    grain = int(rng.integers(1, 10))
    noise = rng.integers(-grain, grain + 1, picture.shape, np.int8)
    return np.asarray(np.clip(picture * colour + noise, 0, 255), np.uint8)


def _tone(rng: np.random.Generator, low: float = 40, high: float = 220) -> Fill:
    grey, tint = rng.uniform(low, high), rng.normal(0, 18, 3)
    blue, green, red = np.clip(grey + tint, 5, 250)
    return float(blue), float(green), float(red)


def _sky_and_ground(rng: np.random.Generator, picture: Picture, horizon: int) -> None:
    height = picture.shape[0]
    sky = np.array([235, 205, 170]) * rng.uniform(0.6, 1.05) + rng.normal(0, 12, 3)
    ground = np.array(_tone(rng, 70, 180)) if rng.random() < 0.6 else np.array([60, 125, 95]) * rng.uniform(0.6, 1.2)
    fade = np.linspace(0, 1, max(horizon, 1), dtype=np.float32)[:, None, None]
    picture[:horizon] = sky + fade * 25
    near = np.linspace(0.8, 1.1, height - horizon, dtype=np.float32)[:, None, None]
    picture[horizon:] = ground * near
    vanishing = int(rng.uniform(0, picture.shape[1]))
    for offset in np.arange(-6, 7) * picture.shape[1] * 0.25:  # joints of the pavement, in perspective
        cv2.line(
            picture, (vanishing, horizon), (int(vanishing + offset * 3), height), tuple(ground * 0.85), 1, cv2.LINE_AA
        )


def _houses(rng: np.random.Generator, picture: Picture, horizon: int) -> None:
    width = picture.shape[1]
    x = int(rng.uniform(-0.2, 0.1) * width)
    while x < width:
        wide, tall = int(rng.uniform(0.15, 0.45) * width), int(rng.uniform(0.5, 1.1) * horizon)
        wall, window = _tone(rng), _tone(rng, 20, 120)
        top = horizon - tall
        cv2.rectangle(picture, (x, top), (x + wide, horizon), wall, -1)
        rows, columns = int(rng.integers(2, 5)), int(rng.integers(2, 6))
        for row in range(rows):
            for column in range(columns):
                left, upper = x + int((column + 0.25) * wide / columns), top + int((row + 0.25) * tall / rows)
                right, lower = left + int(wide / columns * 0.45), upper + int(tall / rows * 0.5)
                cv2.rectangle(picture, (left, upper), (right, lower), window, -1)
                cv2.rectangle(picture, (left, upper), (right, lower), tuple(0.8 * v for v in wall), 1)
        x += wide + int(rng.uniform(-0.02, 0.12) * width)


def _tree(rng: np.random.Generator, picture: Picture, horizon: int) -> None:
    height, width = picture.shape[:2]
    x, foot = int(rng.uniform(0, width)), horizon + int(rng.uniform(0, 0.12) * height)
    tall = rng.uniform(0.2, 0.7) * horizon
    trunk = max(2, int(tall * 0.07))
    cv2.rectangle(picture, (x - trunk, int(foot - tall)), (x + trunk, foot), (45, 62, 80), -1)
    spread = tall * 0.28
    for _ in range(45):
        centre = (int(x + rng.normal(0, spread)), int(foot - tall + rng.normal(0, spread * 0.8)))
        light = float(rng.uniform(0.45, 1.2))
        cv2.circle(
            picture, centre, max(1, int(rng.uniform(0.1, 0.4) * spread)), (45 * light, 125 * light, 80 * light), -1
        )


def _room(rng: np.random.Generator, picture: Picture, horizon: int) -> None:
    height, width = picture.shape[:2]
    floor = min(height - 1, int(horizon * 1.3))
    wall, boards = np.array(_tone(rng, 90, 225)), np.array([70, 105, 150]) * rng.uniform(0.5, 1.2)
    picture[:floor] = wall
    if rng.random() < 0.4:  # wallpaper
        period = rng.uniform(0.02, 0.1) * width
        stripes = np.sin(np.arange(width, dtype=np.float32) * np.float32(2 * np.pi / period)) > 0
        picture[:floor, stripes] *= 0.9
    picture[floor:] = boards
    for offset in np.linspace(-2, 3, 14):
        cv2.line(
            picture,
            (int(width * (0.5 + (offset - 0.5) * 0.6)), floor),
            (int(width * offset), height),
            tuple(boards * 0.8),
            1,
        )
    cv2.line(picture, (0, floor), (width, floor), tuple(wall * 0.7), 3)
    for _ in range(int(rng.integers(1, 7))):  # pictures, shelves, furniture
        wide, tall = int(rng.uniform(0.06, 0.35) * width), int(rng.uniform(0.06, 0.3) * height)
        x = int(rng.uniform(-0.1, 1) * width)
        y = int(rng.uniform(0, floor)) if rng.random() < 0.5 else floor + int(0.05 * height) - tall
        cv2.rectangle(picture, (x, y), (x + wide, y + tall), _tone(rng, 20, 200), -1)
        cv2.rectangle(picture, (x, y), (x + wide, y + tall), _tone(rng, 20, 120), 2)


def _shape(rng: np.random.Generator, picture: Picture) -> None:
    height, width = picture.shape[:2]
    corners = rng.uniform(-0.1, 1.1, 2) + rng.normal(0, 0.15, (int(rng.integers(3, 7)), 2))
    points = (corners * [width, height]).astype(np.int32)
    if rng.random() < 0.5:
        cv2.fillPoly(picture, [cv2.convexHull(points)], _tone(rng, 10, 245))
    else:
        cv2.polylines(picture, [points], False, _tone(rng, 10, 245), int(rng.integers(1, 12)), cv2.LINE_8)
