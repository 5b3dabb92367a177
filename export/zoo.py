"""Named models: location, origin and accuracy of their weights. Downloads into the cache. No torch."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from core.errors import DownloadError, ModelError
from core.files import cache_folder, locked
from core.joints import JointSetName
from core.progress import Progress, unseen

logger = logging.getLogger(__name__)

MODELS_FOLDER = Path(__file__).resolve().parent.parent / "models"  # bundled with the checkout
DEFAULT_MODEL = "small"
TRIES = 5  # consecutive attempts without a new byte
PAUSE_S = 1.0  # before the second try; doubled each time
TIMEOUT_S = 30.0
CHUNK_BYTES = 1 << 18

Received = Callable[[int, int | None], None]  # bytes so far, bytes in total if the server reports it


@dataclass(frozen=True, kw_only=True)
class ZooModel:
    """A named set of weights. url None: bundled with the project, in `models/`.

    sha256: the first hex digits of the file's. published_ap: of the authors or MMPose, single scale with flip test.
    """

    name: str
    file: str
    architecture: str
    joint_set: JointSetName = "coco"
    short_side: int = 512
    url: str | None = None
    sha256: str = ""
    licence: str = ""
    published_ap: float | None = None


def _mmpose(
    name: str, file: str, ap: float, *, architecture: str = "w32", side: int = 512, joints: JointSetName = "coco"
) -> ZooModel:
    return ZooModel(
        name=name,
        file=file,
        architecture=architecture,
        joint_set=joints,
        short_side=side,
        url=f"https://download.openmmlab.com/mmpose/bottom_up/{file}",
        sha256=file.rpartition("-")[2].partition("_")[0],  # MMPose puts the hash's first eight digits into the name
        licence="Apache-2.0 (MMPose)",
        published_ap=ap,
    )


MODELS: dict[str, ZooModel] = {
    model.name: model
    for model in (
        ZooModel(name="tiny", file="tiny.safetensors", architecture="tiny", short_side=320, licence="models/README.md"),
        ZooModel(
            name="small", file="small.safetensors", architecture="small", short_side=448, licence="models/README.md"
        ),
        _mmpose("w32-512", "higher_hrnet32_coco_512x512-8ae85183_20200713.pth", 67.7),
        _mmpose("w32-640", "higher_hrnet32_coco_640x640-a22fe938_20200712.pth", 68.6, side=640),
        _mmpose("w48-512", "higher_hrnet48_coco_512x512-60fedcbc_20200712.pth", 68.6, architecture="w48"),
        _mmpose(
            "w32-512-crowdpose", "higher_hrnet32_crowdpose_512x512-1aa4a132_20201017.pth", 65.5, joints="crowdpose"
        ),
    )
}


def locate(name: str, *, folder: Path | None = None, progress: Progress = unseen) -> Path:
    """The weights of a named model on disk, verified; downloaded into `folder` (default: the cache) if need be.

    Raises ValueError for an unknown name, DownloadError if the download fails, ModelError if bundled ones are missing.
    """
    if name not in MODELS:
        raise ValueError(f"no model is called {name!r}; expected one of {', '.join(MODELS)}")
    model = MODELS[name]
    if model.url is None:
        path = MODELS_FOLDER / model.file
        if not path.is_file():
            raise ModelError(f"{path} is missing; it comes with the project: restore it from the repository")
        return path
    return fetch(model, cache_folder("weights") if folder is None else folder, progress=progress)


def fetch(
    model: ZooModel, folder: Path, *, progress: Progress = unseen, tries: int = TRIES, pause_s: float = PAUSE_S
) -> Path:
    """`folder / model.file`, verified; downloaded if it is not there, after `.part` is resumed or begun.

    Safe when two processes fetch the same file.
    Raises DownloadError, one line with the URL and where to put the file by hand.
    """
    path = folder / model.file
    part = path.with_name(path.name + ".part")

    def received(done: int, total: int | None) -> None:
        progress(f"downloading {model.name}", done / total if total else None)

    by_hand = f"fetch {model.url} by other means and put it at {path}"
    try:
        with locked(part.with_name(part.name + ".lock")):
            if path.is_file():
                _verify(path, model, f"delete it, or {by_hand}")
                return path
            reason = _download(model, part, received, tries=tries, pause_s=pause_s)
            if reason:
                raise DownloadError(f"{model.name} could not be downloaded: {reason}; try again later, or {by_hand}")
            try:
                _verify(part, model, by_hand)
            except DownloadError:
                part.unlink()
                raise
            part.replace(path)
    except DownloadError:
        raise
    except OSError as error:
        raise DownloadError(f"{path} cannot be written: {error}; free some space, or set XDG_CACHE_HOME") from error
    return path


def _download(model: ZooModel, part: Path, received: Received, *, tries: int, pause_s: float) -> str | None:
    """Download all of model.url to `part`, over several connections if needed, while they bring new bytes.

    Returns None, or the error of the last attempt after `tries` consecutive attempts without a new byte.
    """
    failures = 0
    with part.open("ab") as file:
        while True:
            size = file.seek(0, os.SEEK_END)
            try:
                if _receive(str(model.url), file, received):
                    return None
                reason = f"the connection was cut after {file.tell()} bytes"
            except urllib.error.HTTPError as error:
                reason = f"the server answered {error.code} {error.reason}"
                if 400 <= error.code < 500 and error.code not in (408, 429):
                    failures = tries
            except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
                cause = error.reason if isinstance(error, urllib.error.URLError) else error
                reason = f"{cause}" or type(cause).__name__
            failures = 1 if file.tell() > size else failures + 1
            if failures >= tries:
                return reason
            logger.info("%s: %s; trying again", model.url, reason)
            time.sleep(pause_s * 2 ** (failures - 1))


def _receive(url: str, file: IO[bytes], received: Received) -> bool:
    """Append what one connection delivers of `url` to `file`. Returns whether the file is then complete."""
    start = file.tell()
    request = urllib.request.Request(url, headers={"User-Agent": "higherpose"})
    if start:
        request.add_header("Range", f"bytes={start}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE or not start:
            raise
        if error.headers.get("Content-Range") == f"bytes */{start}":
            return True  # the last connection delivered all bytes, but broke before its end
        file.truncate(0)
        return False
    with response:
        if start and response.status != http.HTTPStatus.PARTIAL_CONTENT:
            file.truncate(0)  # the server sends it from the beginning
            start = file.seek(0)
        length = response.headers.get("Content-Length")
        total = start + int(length) if length and length.isdigit() else None
        done = start
        while chunk := response.read(CHUNK_BYTES):
            file.write(chunk)
            done += len(chunk)
            received(done, total)
        file.flush()
    return total is None or done >= total


def _verify(path: Path, model: ZooModel, remedy: str) -> None:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(model.sha256):
        raise DownloadError(
            f"{path} is not {model.name}: SHA-256 {digest[:8]}…, expected {model.sha256}… from {model.url}; {remedy}"
        )
