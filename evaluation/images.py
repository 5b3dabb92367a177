"""AnnotatedImages: the annotated pictures of a folder or a video, as a Source of the pipeline."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from core.errors import SourceError
from pipeline.sources import Source, open_source
from pipeline.types import Frame


class AnnotatedImages(Source):
    """Each annotated picture once. A frame's index is its position in `images`; unreadable pictures leave gaps.

    path: a folder of images, or a video, whose frame indices are the image ids.
    images: (image id, file name), as from `Annotations.first`; the file name is ignored for a video.
    missing, unreadable: names of the files that do not exist or are no pictures. Filled while iterating.
    """

    def __init__(self, path: Path, images: Sequence[tuple[int, str]]) -> None:
        self.name = str(path)
        self.images = list(images)
        self.missing: list[str] = []
        self.unreadable: list[str] = []
        self.frame_count = len(self.images)
        self._path = path
        self._video = None if path.is_dir() else open_source(path)
        self._interrupted = False

    def __iter__(self) -> Iterator[Frame]:
        yield from self._from_folder() if self._video is None else self._from_video(self._video)

    def interrupt(self) -> None:
        self._interrupted = True
        if self._video is not None:
            self._video.interrupt()

    def close(self) -> None:
        if self._video is not None:
            self._video.close()

    def _from_folder(self) -> Iterator[Frame]:
        for index, (_, name) in enumerate(self.images):
            if self._interrupted:
                return
            path = _find(self._path, name)
            if path is None:
                self.missing.append(name)
                continue
            image = read_unrotated(path)
            if image is None:
                self.unreadable.append(name)
                continue
            yield Frame(image, index, captured_at=time.monotonic(), source=name)

    def _from_video(self, video: Source) -> Iterator[Frame]:
        positions = {image_id: index for index, (image_id, _) in enumerate(self.images)}
        wanted = set(positions)
        for frame in video:
            if frame.index in wanted:
                wanted.discard(frame.index)
                # timestamps and order are the video's
                yield Frame(frame.image, positions[frame.index], frame.time_s, frame.captured_at, self.name)
            if not wanted:
                return
        self.missing += [f"frame {index}" for index in sorted(wanted)]


def find_images(path: Path, images: Sequence[tuple[int, str]]) -> int:
    """The number of images that exist in `path`; all of them for a video. Raises SourceError if there is none."""
    if not path.exists():
        raise SourceError(f"{path} does not exist; expected a folder of images or a video")
    if not path.is_dir():
        return len(images)
    found = sum(_find(path, name) is not None for _, name in images)
    if not found:
        raise SourceError(f"none of the {len(images)} annotated images is in {path}; the first is {images[0][1]}")
    return found


def read_unrotated(path: Path) -> NDArray[np.uint8] | None:
    """(H, W, 3) uint8 BGR. The EXIF orientation is ignored, as in the annotations. None if it is no picture."""
    import cv2

    try:
        coded = np.fromfile(path, np.uint8)
        image = cv2.imdecode(coded, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if coded.size else None
    except (OSError, cv2.error):
        return None
    return None if image is None else np.asarray(image, np.uint8)


def _find(folder: Path, name: str) -> Path | None:
    """The picture's path, or None. In some annotation files the name starts with a folder, perhaps `folder` itself."""
    for candidate in (folder / name, folder / Path(name).name):
        if candidate.is_file():
            return candidate
    return None
