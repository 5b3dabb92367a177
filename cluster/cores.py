"""Assigns the cores of one machine to workers that do not know each other."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from engine.onnx_runner import usable_cores

MAX_SHARES = 4096


class Share:
    """`count` cores for this process, exclusive while there are enough of them. Held until the process ends.

    An engine, a decoder and an encoder each start as many threads as the process has cores, so a pinned process needs
    no option for each of them. Where a system cannot pin (macOS, Windows), every worker uses all cores.
    """

    def __init__(self, count: int) -> None:
        if count < 1:
            raise ValueError(f"a worker has {count} cores; expected at least 1")
        self.cores: tuple[int, ...] = ()
        self._held: BinaryIO | None = None
        if not hasattr(os, "sched_setaffinity"):
            return
        usable = sorted(os.sched_getaffinity(0))
        if count >= usable_cores():
            return
        index = self._claim()
        # after the last core it starts again at the first: more workers than groups of cores must share
        self.cores = tuple(usable[(index * count + i) % len(usable)] for i in range(count))
        os.sched_setaffinity(0, self.cores)

    def _claim(self) -> int:
        """The lowest number that no running worker on this machine holds. The lock ends with the process."""
        import fcntl

        folder = Path(tempfile.gettempdir()) / f"higherpose-cores-{os.getuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        for index in range(MAX_SHARES):
            file = (folder / str(index)).open("ab")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                continue
            self._held = file
            return index
        return 0
