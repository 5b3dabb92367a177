"""Known vulnerabilities of the exact versions in a requirements file: python -m commands.audit [constraints.txt]

Runs pip-audit, which asks pypi.org. pip-audit itself ends with 0 when it could look up no package at all; this command
ends with 0 only if every package was looked up and none is vulnerable, with 1 if one is, and with 2 if packages could
not be looked up.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from core.command_line import FAILED, OK, REFUSED, CommandParser, complain

PROG = "python -m commands.audit"
TIMEOUT_S = 600
PIP_AUDIT = ("-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off", "--format", "json")


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser(prog=PROG, description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=Path("constraints.txt"), help="(constraints.txt)")
    path = parser.parse_args(argv).file
    try:
        done = subprocess.run(
            [sys.executable, *PIP_AUDIT, "--requirement", str(path)],
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return complain(PROG, f"pypi.org did not answer within {TIMEOUT_S} s; nothing was audited", REFUSED)
    return judge(done.stdout, done.stderr)


def judge(report: str, messages: str) -> int:
    """Print what pip-audit found, and return the exit status. report: its JSON; messages: its stderr, for a failure."""
    try:
        dependencies = json.loads(report)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = (messages.strip().splitlines() or ["it printed no report"])[-1]
        return complain(PROG, f"pip-audit failed, nothing was audited: {last}", REFUSED)
    unknown = [entry["name"] for entry in dependencies if "vulns" not in entry]
    audited = [entry for entry in dependencies if "vulns" in entry]
    vulnerable = [entry for entry in audited if entry["vulns"]]
    for entry in vulnerable:
        for found in entry["vulns"]:
            fixed = ", ".join(found.get("fix_versions", [])) or "no version yet"
            print(f"{entry['name']} {entry['version']}: {found['id']}, fixed in {fixed}")
    if unknown:
        names = ", ".join(unknown[:3]) + (", ..." if len(unknown) > 3 else "")
        reason = f"{len(unknown)} of {len(dependencies)} packages could not be looked up on pypi.org ({names})"
        return complain(PROG, f"{reason}; run it where https://pypi.org/pypi/ can be reached", REFUSED)
    if vulnerable:
        return complain(PROG, f"{len(vulnerable)} of {len(audited)} packages have known vulnerabilities", FAILED)
    if not audited:
        return complain(PROG, "the file names no package; nothing was audited", REFUSED)
    print(f"{len(audited)} packages audited, none with a known vulnerability")
    return OK


if __name__ == "__main__":
    sys.exit(main())
