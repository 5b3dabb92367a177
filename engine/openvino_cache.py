"""Compiled models of OpenVINO on disk, private to their user. A read returns exactly what was written, or nothing."""

from __future__ import annotations

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from core.files import cache_folder, write_whole

logger = logging.getLogger(__name__)

KEPT_FILES, KEPT_BYTES = 24, 1 << 30  # beyond, the oldest are removed; bundled model 12 MB, w32-512 about 115 MB
PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600
DIGEST_BYTES = hashlib.sha256().digest_size


@dataclass(frozen=True)
class CompiledCache:
    """A folder of files, each named by the inputs of its content. No method raises, since the cache is optional."""

    folder: Path

    @classmethod
    def of_user(cls) -> CompiledCache:
        return cls(cache_folder("openvino"))

    def read(self, *made_of: object) -> bytes | None:
        """The content written for these inputs; None if there is none or it is damaged. A damaged file is removed."""
        path = self._path(made_of)
        try:
            if not self._is_private():
                return None
            content = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        digest, blob = content[:DIGEST_BYTES], content[DIGEST_BYTES:]
        # OpenVINO itself accepts a file with some zeroed weights (tried with 2026.4)
        if hashlib.sha256(blob).digest() == digest:
            return blob
        logger.warning("%s is damaged; it is removed and made again", path)
        self.remove(*made_of)
        return None

    def write(self, blob: bytes, *made_of: object) -> None:
        try:
            self.folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
            if self._is_private():
                path = self._path(made_of)
                write_whole(path, hashlib.sha256(blob).digest() + blob)
                path.chmod(PRIVATE_FILE)
                self._drop_oldest()
        except OSError as error:
            logger.info("a compiled model is not kept: %s", error)

    def remove(self, *made_of: object) -> None:
        try:
            self._path(made_of).unlink(missing_ok=True)
        except OSError as error:
            logger.info("%s", error)

    def _path(self, made_of: tuple[object, ...]) -> Path:
        return self.folder / f"{hashlib.sha256(repr(made_of).encode()).hexdigest()[:32]}.blob"

    def _is_private(self) -> bool:
        """Whether only this user can write here; others could plant models. A folder of ours is made private."""
        if not hasattr(os, "getuid"):
            return True  # Windows: other users have no access to a user's own folder
        found = self.folder.stat()
        if found.st_uid != os.getuid():
            logger.info("%s belongs to another user; compiled models are not kept there", self.folder)
            return False
        if found.st_mode & 0o077:
            self.folder.chmod(PRIVATE_FOLDER)
        return True

    def _drop_oldest(self) -> None:
        files = sorted(self.folder.glob("*.blob"), key=lambda path: path.stat().st_mtime, reverse=True)
        sizes = 0
        for rank, path in enumerate(files):
            sizes += path.stat().st_size
            if rank and (rank >= KEPT_FILES or sizes > KEPT_BYTES):
                path.unlink(missing_ok=True)
