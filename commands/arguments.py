"""The arguments of run_video.py: their names, accepted values and help texts."""

from __future__ import annotations

import argparse

from commands.records import Option
from core.command_line import CommandParser, add_gpu_option, count, file_path, input_side, number, parsed_by
from export.zoo import DEFAULT_MODEL, MODELS
from kernels.options import MAX_PEOPLE_LIMIT
from pipeline.hardware import CHOICES
from pipeline.models import DEVICES, ENGINES
from pipeline.pose import LIVE_OPTIONS
from pipeline.sinks.web.address import Address
from pipeline.sources.camera import CameraMode

MAX_BATCH = 64

EXAMPLES = f"""
SOURCE is a video file, an image, a folder of either, a glob, a camera's number, a URL (rtsp://, http://), or
`browser`: the camera of the visitor of the page of --web. An http:// URL is live if what it gives has no end, such as
a camera's MJPEG or a live HLS playlist; else it is a file.

examples:
  python run_video.py street.mp4 --save out.mp4 --json out.jsonl   annotated video, and people as JSON lines
  python run_video.py 0 --show                                     live, from the first camera; q quits
  python run_video.py rtsp://host/stream --show --json out.jsonl   live, from the network
  python run_video.py 0 --web 8000                                 live, on a page: open http://127.0.0.1:8000/
  python run_video.py browser --web 8000                           your browser's camera; from another machine use
                                                                   ssh -L 8000:localhost:8000 HOST, or add --tls
  python run_video.py 0 1 rtsp://host/stream --web 8000            several cameras on one page, in one batch
  python run_video.py street.mp4 --web 8000 --realtime --loop      a file on the page, repeated
  python run_video.py photo.jpg --save pose.jpg                    one picture
  python run_video.py photos/ 'clips/*.mp4' --save poses/          many inputs, one output each
  python run_video.py clips/ --save poses/ --skip-done             continue an interrupted run of this command
  python run_video.py street.mp4 --model w32-512 --flip            the large model; downloaded once
  python run_video.py street.mp4 --benchmark --plot stages.png     measure the speed, and plot the stages
  python run_video.py street.mp4 --realtime --stats json           measure latency and drops, as with a camera

models: {", ".join(MODELS)};
or an .onnx file made by `python -m export`, a checkpoint, or a .plan made by `python -m engine`.
A plan is code that your machine will run: load only plans that you built or trust.

"""


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `open_pose` reads to open a model."""
    model = parser.add_argument_group("model")
    model.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="NAME|FILE", help=f"the network (default: {DEFAULT_MODEL}, bundled)"
    )
    model.add_argument(
        "--engine",
        default="auto",
        choices=ENGINES,
        help="the runtime of the network (default: auto, a GPU if there is one, else the CPU)",
    )
    model.add_argument("--device", choices=DEVICES, help="OpenVINO's device; GPU is Intel graphics (default: CPU)")
    add_gpu_option(model)
    model.add_argument(
        "--size", type=input_side, metavar="N", help="short side of the network's input (default: the model's)"
    )
    model.add_argument(
        "--flip", action="store_true", help="average with the mirrored frame: more accurate, half as fast"
    )
    model.add_argument(
        "--batch",
        type=number(int, 1, MAX_BATCH, f"a whole number from 1 to {MAX_BATCH}"),
        default=1,
        metavar="N",
        help="frames per pass, of a file or of several live sources: higher throughput on a GPU (default: 1)",
    )


def add_people_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `open_pose` reads to decide which people are shown."""
    people = parser.add_argument_group("people")
    limit = number(int, 1, MAX_PEOPLE_LIMIT, f"a whole number from 1 to {MAX_PEOPLE_LIMIT}")
    share = number(float, 0, 1, "a number from 0 to 1")
    defaults = LIVE_OPTIONS
    people.add_argument(
        "--max-people", type=limit, default=defaults.max_people, metavar="N", help="default: %(default)s"
    )
    people.add_argument(
        "--min-score",
        type=share,
        default=defaults.min_score,
        metavar="X",
        help="hide people with a lower score (default: %(default)s)",
    )
    people.add_argument(
        "--min-joint",
        type=share,
        default=defaults.min_joint,
        metavar="X",
        help="hide joints with a lower score (default: %(default)s)",
    )
    people.add_argument(
        "--ids",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="assign ids that follow people from frame to frame, in videos and live sources (default: yes)",
    )
    people.add_argument(
        "--smooth",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="reduce jitter (default: only if a live source is displayed)",
    )


def add_video_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of where videos are decoded and encoded. They do not change the people that are found."""
    video = parser.add_argument_group("video hardware")
    video.add_argument(
        "--decoder",
        choices=CHOICES,
        default="auto",
        help="what decodes videos (default: auto, an NVIDIA GPU's NVDEC where it can, else the CPU)",
    )
    video.add_argument(
        "--encoder",
        choices=CHOICES,
        default="auto",
        help="what encodes annotated copies (default: auto, an NVIDIA GPU's NVENC where it has one, else the CPU)",
    )


def shared_options(arguments: argparse.Namespace) -> dict[str, Option]:
    """The model and people options by name; they determine a source's results, for every command."""
    parser = argparse.ArgumentParser()
    add_model_options(parser)
    add_people_options(parser)
    return {name: getattr(arguments, name) for name in vars(parser.parse_args([]))}


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="run_video.py",
        description="Find every person's pose in videos, images or live streams.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="files run one after another, live sources at the same time",
    )
    parser.add_argument(
        "--camera", type=parsed_by(CameraMode.parse), metavar="WxH[@FPS]", help="mode of cameras, such as 1280x720@30"
    )
    parser.add_argument(
        "--reconnect", action="store_true", help="open a camera or stream again if it fails, also at the start"
    )
    add_model_options(parser)
    add_people_options(parser)
    add_video_options(parser)
    _add_output_options(parser)
    _add_measuring_options(parser)
    return parser


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    output = parser.add_argument_group("output")
    output.add_argument(
        "--save", type=file_path, metavar="FILE|DIR", help="annotated copy; a folder if several sources"
    )
    output.add_argument("--no-audio", dest="audio", action="store_false", help="write the copy without sound")
    output.add_argument(
        "--json", type=file_path, metavar="FILE", help="people as JSON lines, one per frame; - is stdout"
    )
    output.add_argument(
        "--table",
        type=file_path,
        metavar="FILE",
        help="one row per person and frame: .csv, .parquet, or .json (COCO results)",
    )
    output.add_argument("--show", action="store_true", help="show a window; q quits")
    output.add_argument(
        "--web",
        type=parsed_by(Address.parse),
        metavar="[HOST:]PORT",
        help="show a web page; with a HOST that other machines can reach, it needs a token (default: 127.0.0.1)",
    )
    output.add_argument(
        "--tls",
        type=file_path,
        nargs=2,
        metavar=("CERT", "KEY"),
        help="serve the page by https; PEM files, KEY without a password",
    )
    output.add_argument("--loop", action="store_true", help="repeat files without end")
    output.add_argument(
        "--skip-done",
        action="store_true",
        help="with --save DIR: skip sources that a run with the same options has finished in DIR",
    )
    output.add_argument("--limit", type=count, metavar="N", help="stop after N frames")


def _add_measuring_options(parser: argparse.ArgumentParser) -> None:
    speed = parser.add_argument_group("measuring")
    speed.add_argument(
        "--benchmark", action="store_true", help="warm up, then measure stages, engine alone and end to end"
    )
    speed.add_argument("--serial", action="store_true", help="run one stage after another, without overlap")
    speed.add_argument(
        "--realtime", action="store_true", help="play files at their own speed, like a camera, and drop frames"
    )
    speed.add_argument(
        "--plot", type=file_path, metavar="FILE", help="draw the stages over time into FILE (needs matplotlib)"
    )
    speed.add_argument("--stats", choices=("json",), help="json: print a summary as the last line of stdout")
