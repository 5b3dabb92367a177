"""Write a JSON lines file for each video of a folder: python examples/folder.py [FOLDER] [OUT] [FRAMES]"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from core.errors import PoseError
from pipeline import PosePipeline, open_source
from pipeline.sinks import JsonSink
from pipeline.sources.base import VIDEO_SUFFIXES


def main(folder: str = str(ROOT / "samples"), out: str = "people", frames: str = "25") -> None:
    Path(out).mkdir(exist_ok=True)
    with PosePipeline("small") as pose:  # opened once for all videos
        for video in sorted(path for path in Path(folder).iterdir() if path.suffix.lower() in VIDEO_SUFFIXES):
            lines = Path(out) / f"{video.stem}.jsonl"
            try:
                with JsonSink(lines) as sink:
                    for result in pose.run(open_source(video), limit=int(frames)):
                        sink.write(result, result.frame.image)
            except PoseError as error:  # continue after a damaged file; its earlier frames are written
                print(f"{video}: {error}", file=sys.stderr)
            print(f"{video.name}: {lines}")


if __name__ == "__main__":
    main(*sys.argv[1:])
