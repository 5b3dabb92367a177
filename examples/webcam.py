"""Count raised hands in front of a camera, live: python examples/webcam.py [CAMERA|VIDEO] [FRAMES]"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from core.joints import COCO
from pipeline import PosePipeline, open_source

WRISTS = [COCO.index("left_wrist"), COCO.index("right_wrist")]
NOSE = COCO.index("nose")


def main(source: str = "0", frames: str = "1000000") -> None:
    with PosePipeline("small") as pose:
        # a camera drops frames when the pipeline is slower, so that each result is the newest frame
        for result in pose.run(open_source(source), limit=int(frames)):
            people = result.people
            seen = people.keypoint_scores > 0  # (P, K)
            above = people.keypoints[:, WRISTS, 1] < people.keypoints[:, [NOSE], 1]  # y grows downwards
            raised = (above & seen[:, WRISTS] & seen[:, [NOSE]]).any(axis=1)
            print(f"{result.frame.time_s:7.2f} s: {len(people)} people, {int(raised.sum())} with a raised hand")


if __name__ == "__main__":
    main(*sys.argv[1:])
