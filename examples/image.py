"""Find the people of one picture: python examples/image.py [PICTURE] [OUT]"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the folders are imported from the checkout

import cv2

from pipeline import PosePipeline
from pipeline.draw import draw_people
from pipeline.sources import read_image


def main(picture: str = str(ROOT / "samples" / "crowd.jpg"), out: str = "pose.jpg") -> None:
    image = read_image(picture)  # (H, W, 3) uint8 BGR
    with PosePipeline("small") as pose:
        people = pose(image)
    for number, (score, (x, y, w, h)) in enumerate(zip(people.scores, people.boxes(), strict=True), 1):
        print(f"person {number}: score {score:.2f}, {w:.0f}x{h:.0f} pixels at ({x:.0f}, {y:.0f})")
    cv2.imwrite(out, draw_people(image, people))
    print(f"annotated: {out}")


if __name__ == "__main__":
    main(*sys.argv[1:])
