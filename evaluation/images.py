"""AnnotatedImages: the pictures that annotations speak of, from a folder or a video, as a Source of the pipeline."""

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
    """Each annotated picture once. A frame's index is its place in `images`; those that cannot be read leave gaps.

    images: (image id, file name or, for a video, the frame with that index), as `Annotations.first` gives them.
    missing: names of what was not there; unreadable: of what was there but is no picture. Filled while iterating.
    """

    def __init__(self, place: Path, images: Sequence[tuple[int, str]]) -> None:
        self.name = str(place)
        self.images = list(images)
        self.missing: list[str] = []
        self.unreadable: list[str] = []
        self.frame_count = len(self.images)
        self._place = place
        self._video = None if place.is_dir() else open_source(place)
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
            path = _find(self._place, name)
            if path is None:
                self.missing.append(name)
                continue
            image = read_unturned(path)
            if image is None:
                self.unreadable.append(name)
                continue
            yield Frame(image, index, captured_at=time.monotonic(), source=name)

    def _from_video(self, video: Source) -> Iterator[Frame]:
        places = {image_id: index for index, (image_id, _) in enumerate(self.images)}
        wanted = set(places)
        for frame in video:
            if frame.index in wanted:
                wanted.discard(frame.index)
                # timestamps and order stay the video's own
                yield Frame(frame.image, places[frame.index], frame.time_s, frame.captured_at, self.name)
            if not wanted:
                return
        self.missing += [f"frame {index}" for index in sorted(wanted)]


def find_images(place: Path, images: Sequence[tuple[int, str]]) -> int:
    """How many of the images are there; a video counts as all of them. Raises SourceError if none is."""
    if not place.exists():
        raise SourceError(f"{place} does not exist; expected a folder of images or a video")
    if not place.is_dir():
        return len(images)
    found = sum(_find(place, name) is not None for _, name in images)
    if not found:
        raise SourceError(f"none of the {len(images)} annotated images is in {place}; the first is {images[0][1]}")
    return found


def read_unturned(path: Path) -> NDArray[np.uint8] | None:
    """(H, W, 3) uint8 BGR, its EXIF orientation ignored as annotations do; None if it is no picture."""
    import cv2

    try:
        coded = np.fromfile(path, np.uint8)
        image = cv2.imdecode(coded, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION) if coded.size else None
    except (OSError, cv2.error):
        return None
    return None if image is None else np.asarray(image, np.uint8)


def _find(folder: Path, name: str) -> Path | None:
    """COCO's file names are plain; other files carry a folder that may be the given one."""
    for candidate in (folder / name, folder / Path(name).name):
        if candidate.is_file():
            return candidate
    return None
