"""Files on object storage through fsspec: lists them and makes local copies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast

from cluster.store import NO_SPACE
from core.errors import EngineError, SourceError

PATTERN = frozenset("*?[")  # characters of a glob

Info = dict[str, object]


class FileSystem(Protocol):
    """The methods of fsspec's AbstractFileSystem that are used here. Paths are without the protocol."""

    def find(self, path: str, detail: bool = False) -> dict[str, Info]: ...
    def info(self, path: str) -> Info: ...
    def glob(self, path: str, detail: bool = False) -> dict[str, Info]: ...
    def get_file(self, rpath: str, lpath: str) -> None: ...
    def put_file(self, lpath: str, rpath: str) -> None: ...
    def cat_file(self, path: str) -> bytes: ...
    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **conditions: str) -> None: ...
    def rm_file(self, path: str) -> None: ...
    def exists(self, path: str) -> bool: ...
    def isfile(self, path: str) -> bool: ...


@dataclass(frozen=True)
class RemoteFile:
    url: str
    size_bytes: int
    version: str


def open_file_system(url: str) -> tuple[FileSystem, str]:
    """The file system of a URL, without a cache of listings, and the URL's path in it.

    Raises EngineError if fsspec, or the package that it needs for this URL, is not installed; ValueError if no package
    knows such URLs.
    """
    protocol, _, path = url.partition("://")
    try:
        import fsspec

        made = fsspec.filesystem(protocol, use_listings_cache=False)
    except ImportError as error:
        raise EngineError(f"{protocol}:// cannot be used: {error}; pip install '.[cluster]'") from error
    return cast(FileSystem, made), path.rstrip("/")


def list_remote(url: str) -> list[RemoteFile]:
    """The files of a URL: an object, all objects below a prefix, or the matches of a glob. Raises SourceError."""
    system, path = open_file_system(url)
    protocol = url.partition("://")[0]
    try:
        pattern = bool(PATTERN & set(path)) and not system.isfile(path)  # a key may have these characters
        found = system.glob(path, detail=True) if pattern else system.find(path, detail=True)
    except Exception as error:  # every backend of fsspec has errors of its own
        raise SourceError(f"{url} cannot be listed: {reason(error)}") from error
    if not found:
        raise SourceError(f"{url} does not exist, or is empty")
    return [
        RemoteFile(f"{protocol}://{name}", int(str(info.get("size") or 0)), version_of(info))
        for name, info in found.items()
        if info.get("type") == "file"
    ]


def prefix_of(url: str) -> str:
    """The prefix below which a URL's files are searched: a glob up to the last "/" before its pattern."""
    start = next((index for index, character in enumerate(url) if character in PATTERN), None)
    return url if start is None else url[:start].rpartition("/")[0]


def exists(url: str) -> bool:
    """Raises SourceError if the storage does not answer."""
    system, path = open_file_system(url)
    try:
        return system.exists(path)
    except Exception as error:  # every backend of fsspec has errors of its own
        raise SourceError(f"{url} cannot be read: {reason(error)}") from error


def version_of(info: Info) -> str:
    """The ETag if the storage has one, else the modification time."""
    for key in ("ETag", "etag", "md5Hash", "content_md5", "mtime", "LastModified", "last_modified", "updated"):
        if info.get(key):
            return str(info[key]).strip('"')
    return ""


def fetch(url: str, target: Path) -> None:
    """Make a local copy. Raises SourceError; its cause is an OSError with ENOSPC if the local disk is full."""
    system, path = open_file_system(url)
    try:
        system.get_file(path, str(target))
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise SourceError(f"{target.parent} has no room for {url}; free it, or set TMPDIR") from error
        raise SourceError(f"{url} cannot be read: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """The error in one line. For a missing file it is often the path alone, which the caller names already."""
    if isinstance(error, FileNotFoundError) and " " not in str(error):
        return "it does not exist"
    text = " ".join(str(error.strerror if isinstance(error, OSError) and error.strerror else error).split())
    return text or type(error).__name__
