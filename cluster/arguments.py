"""The arguments of `python -m cluster`: its own, and the model and people options that run_video.py has too."""

from __future__ import annotations

import argparse

from cluster.jobs import Recipe
from commands.arguments import add_model_options, add_people_options, add_video_options, shared_options
from commands.records import digest_of
from core.command_line import CommandParser, count

TABLES = ("csv", "parquet")

EXAMPLES = """
SOURCE is a video or image file, a folder (with what lies below it), a glob, or the same on object storage (s3://…).
For each, OUT gets <its path>.jsonl, with --table <its path>.csv or .parquet, with --save the annotated video.

examples:
  python -m cluster videos/ --out people/                            processes of this machine, one a core or GPU
  python -m cluster s3://films/2026 --out s3://people --table parquet
  python -m cluster videos/ --out people/ --address auto             every machine of the Ray cluster we are in
  python -m cluster videos/ --out people/ --address ray://head:10001 the same from outside
  python -m cluster videos/ --out people/                            once more: what is done is not done again
  python -m cluster videos/ --out people/ --retry-failed             the files in people/failed.jsonl too

A file that fails three times, each time elsewhere if there is an elsewhere, is put aside in OUT/failed.jsonl and stops
nobody. OUT/summary.json says what was done. With --address, OUT and SOURCE must mean the same on every machine: a
folder that all mount, or object storage.

If any file failed, now or in an earlier run, the exit status is 1. 143 and 129: ended by SIGTERM, SIGHUP.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="python -m cluster",
        description="Find every person's pose in many files, on many machines.",
        epilog=EXAMPLES,
    )
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="files, folders, globs, s3://…")
    output = parser.add_argument_group("output")
    output.add_argument("--out", required=True, metavar="DIR|URL", help="where results go: a folder, or s3://…")
    output.add_argument("--save", action="store_true", help="an annotated copy of each file as well")
    output.add_argument("--no-audio", dest="audio", action="store_false", help="leave the sound out of the copies")
    output.add_argument("--table", choices=TABLES, help="a table of each file as well: one row a person a frame")
    output.add_argument("--retry-failed", action="store_true", help="try the files in OUT/failed.jsonl again")
    workers = parser.add_argument_group("workers")
    workers.add_argument(
        "--workers", type=_workers, metavar="auto|N", help="how many (default: auto, one a GPU, or one a core group)"
    )
    workers.add_argument(
        "--cores", type=count, metavar="N", help="of each worker without a GPU (default: 1, or all / workers)"
    )
    workers.add_argument(
        "--address", metavar="auto|HOST:PORT|ray://…", help="of a Ray cluster (default: processes of this machine)"
    )
    add_model_options(parser)
    add_people_options(parser)
    add_video_options(parser)
    return parser


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """What the arguments say is done to each file. Raises ModelError or ValueError if the model is not there."""
    if arguments.gpu is not None:
        raise ValueError("--gpu is chosen for each worker; leave it out, and name GPUs by CUDA_VISIBLE_DEVICES")
    return Recipe(
        options=shared_options(arguments),
        model_digest=digest_of(arguments.model),
        save=arguments.save,
        table=arguments.table,
        audio=arguments.audio,
        decoder=arguments.decoder,
        encoder=arguments.encoder,
    )


def _workers(text: str) -> int | None:
    """None for auto."""
    return None if text == "auto" else count(text)
