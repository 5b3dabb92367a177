"""What all commands share: their exit statuses, and how they tell a wrong argument."""

from __future__ import annotations

import argparse
from typing import NoReturn

OK, FAILED, REFUSED, INTERRUPTED = 0, 1, 2, 130  # exit statuses; argparse, too, refuses with 2


class CommandParser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, without the usage: `--help` is a better reader's guide."""
        self.exit(REFUSED, f"{self.prog}: {message} (see --help)\n")
