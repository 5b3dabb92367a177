"""Makes jobs of the user's sources: files, folders with their subfolders, globs, and the same on object storage."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from itertools import takewhile
from pathlib import Path

from cluster.jobs import Job
from cluster.remote import RemoteFile, exists, list_remote, prefix_of
from core.errors import SourceError
from pipeline.sources import IMAGE_SUFFIXES, is_camera, is_stream, is_url
from pipeline.sources.base import VIDEO_SUFFIXES, natural_order

SUFFIXES = IMAGE_SUFFIXES | VIDEO_SUFFIXES


def find_jobs(sources: Sequence[str], *, out: str) -> list[Job]:
    """A job for every file of `sources`, each file once, in natural order within each source.

    A folder or a prefix on object storage gives every image and video below it, a glob every file, except those in
    `out` if it lies below the source's folder.
    Raises SourceError for a source that is missing, empty or unreadable; ValueError for a camera or a live stream.
    """
    jobs: dict[str, Job] = {}
    for source in sources:
        if not source:
            raise ValueError("an empty source was given; expected a file, folder, glob or URL")
        if is_camera(source) or is_stream(source):
            raise ValueError(f"{source} is live and may never end; expected files; use run_video.py for it")
        for job in _remote_jobs(source, out) if is_url(source) else _local_jobs(source, out):
            other = jobs.setdefault(job.path, job)
            if other.where != job.where:
                raise ValueError(
                    f"{other.where} and {job.where} would share the results {job.path}; run them separately"
                )
    return list(jobs.values())


def _local_jobs(source: str, out: str) -> Iterator[Job]:
    path = Path(source)
    hidden = None if is_url(out) or not _is_inside(out, folder_of(source)) else os.path.realpath(out)
    if path.is_dir():
        found = sorted(_below(source, hidden), key=natural_order)
        if not found:
            raise SourceError(f"folder {source} holds no images or videos, nor does a folder below it")
    elif not path.exists() and glob.has_magic(source):
        matches = glob.glob(source, recursive=True)  # noqa: PTH207
        found = [name for name in matches if Path(name).is_file() and not (hidden and _is_inside(name, hidden))]
        if not found:
            raise SourceError(f"no file matches {source}")
        found.sort(key=natural_order)
    elif path.is_file():
        found = [source]
    else:
        raise SourceError(f"{source} does not exist; expected a file, folder, glob or URL")
    for name in found:
        yield _local_job(name)


def folder_of(source: str) -> str:
    """The folder that a local folder or glob searches; a file's own name."""
    if os.path.exists(source) or not glob.has_magic(source):  # noqa: PTH110
        return source
    return str(Path(*takewhile(lambda part: not glob.has_magic(part), Path(source).parts)))


def is_gone(name: str, path: str, sources: Sequence[str]) -> bool:
    """Whether a file that an earlier run found no longer exists, though `sources` search the place where it was.

    name, path: as in its Job. A local name is compared only in the working directory in which it has this path.
    Raises SourceError if object storage does not answer.
    """
    if is_url(name):
        return any(is_url(source) and _is_below(name, prefix_of(source)) for source in sources) and not exists(name)
    if _result_path(name) != path or os.path.lexists(name):
        return False
    where = Path(os.path.abspath(name))  # noqa: PTH100
    folders = [os.path.abspath(folder_of(source)) for source in sources if not is_url(source)]  # noqa: PTH100
    return any(Path(folder) in where.parents for folder in folders)


def check_copies(source: str, out: str) -> None:
    """Raises ValueError if annotated copies in `out` would be sources of the next run."""
    if is_url(source) or is_url(out) or not (Path(source).is_dir() or "**" in source):
        return
    folder = folder_of(source)
    copies = os.path.realpath(Path(out, _result_path(folder)))
    is_around = os.path.realpath(folder) == copies or _is_inside(copies, folder)
    if is_around and not _is_inside(out, folder):  # a folder below that of the sources is passed over
        raise ValueError(f"--out {out} would put annotated copies among the sources in {folder}; choose another --out")


def _is_inside(name: str, folder: str) -> bool:
    """Whether a path lies below a folder, also through links."""
    return Path(os.path.realpath(folder)) in Path(os.path.realpath(name)).parents


def _below(folder: str, hidden: str | None) -> Iterator[str]:
    """Images and videos in `folder` and below, except in `hidden` and in folders whose name starts with a dot."""

    def fail(error: OSError) -> None:
        raise SourceError(f"folder {error.filename} cannot be read: {error.strerror}") from error

    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if name[0] != "." and os.path.realpath(Path(parent, name)) != hidden]
        for name in files:
            if Path(name).suffix.lower() in SUFFIXES and name[0] != ".":
                yield str(Path(parent, name))


def _local_job(name: str) -> Job:
    where = os.path.abspath(name)  # noqa: PTH100  (without resolving, so that a link keeps its name)
    try:
        status = Path(where).stat()
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror}") from error
    version = str(status.st_mtime_ns)
    return Job(name=name, where=where, path=_result_path(name), size_bytes=status.st_size, version=version)


def _result_path(name: str) -> str:
    """`Job.path` of a local file: as it was typed, or absolute without the root if it is not below this folder."""
    typed = os.path.normpath(name)
    if not Path(typed).is_absolute() and not typed.startswith(os.pardir):
        return Path(typed).as_posix()
    where = Path(os.path.abspath(name))  # noqa: PTH100
    return where.relative_to(where.anchor).as_posix()


def _remote_jobs(source: str, out: str) -> Iterator[Job]:
    files = [file for file in list_remote(source) if not _is_below(file.url, out)]
    wanted = files if len(files) == 1 and files[0].url == source else [f for f in files if _is_media(f)]
    if not wanted:
        raise SourceError(f"{source} holds no images or videos")
    for file in sorted(wanted, key=lambda file: natural_order(file.url)):
        if ".." in file.url.split("/"):  # a key may be any text; its results would lie outside the output folder
            raise SourceError(f"{file.url} has a part .. in its key; rename it, or name the other files by a glob")
        yield Job(
            name=file.url,
            where=file.url,
            path=file.url.split("://", 1)[1].lstrip("/"),
            size_bytes=file.size_bytes,
            version=file.version,
        )


def _is_media(file: RemoteFile) -> bool:
    return os.path.splitext(file.url)[1].lower() in SUFFIXES  # noqa: PTH122  (a URL is no path)


def _is_below(url: str, out: str) -> bool:
    return url.startswith(f"{out.rstrip('/')}/")
