import json
import subprocess

import pytest

from commands import audit

GOOD = {"name": "numpy", "version": "2.0", "vulns": []}
BAD = {"name": "pillow", "version": "9.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["9.1"]}]}
UNKNOWN = {"name": "av", "skip_reason": "Dependency not found on PyPI and could not be audited: av (18.1)"}


@pytest.mark.parametrize(
    ("dependencies", "status", "words"),
    [
        ([GOOD], 0, "1 packages audited, none"),
        ([GOOD, BAD], 1, "1 of 2 packages have known"),
        ([GOOD, UNKNOWN], 2, "1 of 2 packages could not be looked up"),
        ([UNKNOWN, BAD], 2, "1 of 2 packages could not be looked up"),
        ([], 2, "nothing was audited"),
    ],
    ids=["clean", "vulnerable", "unknown", "both", "none"],
)
def test_only_a_complete_audit_without_findings_succeeds(dependencies, status, words, capsys):
    assert audit.judge(json.dumps({"dependencies": dependencies, "fixes": []}), "") == status
    said = capsys.readouterr()
    assert words in (said.err if status else said.out)
    assert len(said.err.splitlines()) == (status != 0)
    assert ("pillow 9.0: PYSEC-1, fixed in 9.1" in said.out) == (BAD in dependencies)


def test_a_pip_audit_that_fails_is_one_line(capsys):
    assert audit.judge("", "Traceback\n  many lines\nConnectionError: no route") == 2
    assert capsys.readouterr().err.splitlines() == [
        "python -m commands.audit: pip-audit failed, nothing was audited: ConnectionError: no route"
    ]


def test_a_registry_that_never_answers_is_given_up(monkeypatch, capsys):
    def never(*arguments, timeout, **options):
        raise subprocess.TimeoutExpired(arguments, timeout)

    monkeypatch.setattr(subprocess, "run", never)
    assert audit.main([]) == 2
    assert "did not answer within 600 s" in capsys.readouterr().err


def test_a_file_that_is_missing_is_refused_by_pip_audit_in_one_line(tmp_path, capsys):
    assert audit.main([str(tmp_path / "none.txt")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
