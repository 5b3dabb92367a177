"""The arguments of `python -m cluster`: its own, and the model and people options that it shares with run_video.py."""

from __future__ import annotations

import argparse

from cluster.jobs import Recipe
from commands.arguments import add_model_options, add_people_options, add_video_options, shared_options
from commands.records import digest_of
from core.command_line import CommandParser, count

TABLES = ("csv", "parquet")

EXAMPLES = """
SOURCE is a video or image file, a folder (with its subfolders), a glob, or the same on object storage (s3://…).
For each file, OUT gets <its path>.jsonl, with --table also <its path>.csv or .parquet, with --save the annotated copy.

examples:
  python -m cluster videos/ --out people/                            processes of this machine, one per core or GPU
  python -m cluster s3://films/2026 --out s3://people --table parquet
  python -m cluster videos/ --out people/ --address auto             every machine of the Ray cluster of this machine
  python -m cluster videos/ --out people/ --address ray://head:10001 the same from a machine outside the cluster
  python -m cluster videos/ --out people/                            again: only files that are not done yet
  python -m cluster videos/ --out people/ --retry-failed             also the files in people/failed.jsonl

A file that fails three times (on different machines where there are several) is listed in OUT/failed.jsonl, and the
run continues with the other files. OUT/summary.json reports the run. With --address, OUT and SOURCE must be the same
for every machine: a folder that all of them mount, or object storage.

The exit status is 1 if any file of SOURCES failed, in this run or in an earlier one; 143 and 129: ended by SIGTERM,
SIGHUP.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="python -m cluster",
        description="Find every person's pose in many files, on many machines.",
        epilog=EXAMPLES,
    )
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="files, folders, globs, s3://…")
    output = parser.add_argument_group("output")
    output.add_argument("--out", required=True, metavar="DIR|URL", help="where to write results: a folder, or s3://…")
    output.add_argument("--save", action="store_true", help="also write an annotated copy of each file")
    output.add_argument("--no-audio", dest="audio", action="store_false", help="copies without sound")
    output.add_argument("--table", choices=TABLES, help="also write a table per file: one row per person and frame")
    output.add_argument("--retry-failed", action="store_true", help="try the files in OUT/failed.jsonl again")
    workers = parser.add_argument_group("workers")
    workers.add_argument(
        "--workers",
        type=_workers,
        metavar="auto|N",
        help="number of workers (default: auto, one per GPU or group of cores)",
    )
    workers.add_argument(
        "--cores", type=count, metavar="N", help="cores per worker without a GPU (default: 1, or all / workers)"
    )
    workers.add_argument(
        "--address", metavar="auto|HOST:PORT|ray://…", help="Ray cluster (default: processes of this machine)"
    )
    add_model_options(parser)
    add_people_options(parser)
    add_video_options(parser)
    return parser


def recipe_of(arguments: argparse.Namespace) -> Recipe:
    """The options to process each file with. Raises ModelError or ValueError if the model does not exist."""
    if arguments.gpu is not None:
        raise ValueError("--gpu is set for each worker; omit it, and select GPUs with CUDA_VISIBLE_DEVICES")
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
