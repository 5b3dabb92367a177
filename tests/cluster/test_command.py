"""The command `python -m cluster` on processes of this machine."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cluster.__main__ import main
from engine.gpu import find_gpu
from tests.cluster.fakes import KILLS, SLEEPS, open_pictures, write_picture
from tests.pipeline.fakes import write_clip
from tests.pipeline.onnx_models import blob_frame, write_blob_model
from tests.run_video.outcomes import WH, Outcome, frames_of, position

ROOT = Path(__file__).parents[2]
SCRIPT = """
    import sys
    from cluster.__main__ import main
    from tests.cluster.fakes import open_pictures
    if __name__ == "__main__":
        sys.exit(main(open_pose=open_pictures))
"""


@pytest.fixture
def run_command(capfd) -> Callable[..., Outcome]:
    """Run the command in this process, with PictureStep."""

    def run(*arguments: object) -> Outcome:
        try:
            status = main([str(argument) for argument in arguments], open_pose=open_pictures)
        except SystemExit as stopped:  # argparse
            status = int(str(stopped.code))
        captured = capfd.readouterr()
        return status, captured.out.splitlines(), captured.err.splitlines()

    return run


def check_refused(outcome: Outcome, message: str, status: int = 2) -> None:
    """Check the exit status, and that stderr is one line that matches `message`."""
    got, _, err = outcome
    assert got == status, err
    assert len(err) == 1, err
    assert re.search(message, err[0]), err
    assert err[0].startswith("python -m cluster: ")


def test_a_run_a_second_one_and_what_failed(run_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for index in range(3):
        write_picture(Path(f"in/{index}.png"), index)
    Path("in/broken.png").write_bytes(b"no picture")
    status, stdout, err = run_command("in", "--out", "out", "--workers", 1, "--table", "csv", "--save")
    assert status == 1
    assert err[-1] == (
        f"python -m cluster: 1 of 4 files failed; {tmp_path}/out/failed.jsonl lists the errors, and --retry-failed "
        "tries these files again"
    )
    assert re.match(r"3 files in .* s: 3 frames, .* FPS, by 1 workers on 1 machines; .*/out", stdout[-1])
    assert json.loads(Path("out/in/2.png.jsonl").read_text())["source"] == "in/2.png"
    assert len(Path("out/in/2.png.csv").read_text().splitlines()) == 2
    assert Path("out/in/2.png").stat().st_size > 0
    summary = json.loads(Path("out/summary.json").read_text())
    assert {name: summary[name] for name in ("files", "done", "failed", "skipped", "left", "retries", "ended")} == {
        "files": 4, "done": 3, "failed": 1, "skipped": 0, "left": 0, "retries": 2, "ended": "finished",
    }  # fmt: skip

    status, _, err = run_command("in", "--out", "out", "--workers", 1, "--table", "csv", "--save")
    assert (status, len(err)) == (1, 1)  # nothing to do, and one file still failed
    write_picture(Path("in/broken.png"), 3)  # mended: another size and time
    status, stdout, err = run_command("in", "--out", "out", "--workers", 1, "--table", "csv", "--save")
    assert status == 0, err
    assert stdout[-1].startswith("1 files in ")
    assert "; 3 were done before; " in stdout[-1]
    assert Path("out/failed.jsonl").read_text() == ""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="a worker cannot be given one core here")
def test_results_equal_those_of_run_video(tmp_path, monkeypatch, capfd):
    """Byte for byte: same engine, one core each. On a Ray cluster: test_ray.py."""
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.chdir(tmp_path)
    model = write_blob_model(tmp_path / "blobs.onnx")
    clip = Path("in/a.mp4")
    clip.parent.mkdir()
    write_clip(clip, 9, wh=WH, picture=lambda index: blob_frame(WH, [(*position(index), 0.5)]))
    options = ["--model", str(model), "--engine", "onnxruntime", "--table"]
    more = ["parquet", "--save", "--workers", "1", "--cores", "1"]
    assert main(["in", "--out", "out", *options, *more]) == 0, capfd.readouterr()
    core = min(os.sched_getaffinity(0))
    command = [sys.executable, str(ROOT / "run_video.py"), str(clip), *options, "alone.parquet"]
    subprocess.run(
        [*command, "--json", "alone.jsonl", "--save", "alone.mp4"],
        check=True,
        stdout=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        timeout=200,
    )
    assert Path("out/in/a.mp4.jsonl").read_bytes() == Path("alone.jsonl").read_bytes()
    assert Path("out/in/a.mp4.jsonl").read_bytes().count(b'"people": [{') == 9
    assert parquet.read_table("out/in/a.mp4.parquet").equals(parquet.read_table("alone.parquet"))
    assert len(frames_of(Path("out/in/a.mp4"))) == 9


def test_what_failed_is_tried_again_when_asked(run_command, tmp_path):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    run_command(bad, "--out", tmp_path / "out")
    before = json.loads((tmp_path / "out" / "failed.jsonl").read_text())["at"]
    status, _, _ = run_command(bad, "--out", tmp_path / "out", "--retry-failed")
    assert status == 1
    assert json.loads((tmp_path / "out" / "failed.jsonl").read_text())["at"] > before


def test_what_is_refused(run_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    picture = write_picture(tmp_path / "a.png", 1)
    check_refused(run_command("none.mp4", "--out", "out"), r"none\.mp4 does not exist")
    check_refused(run_command("0", "--out", "out"), "0 is live and may never end")
    check_refused(run_command("a.png"), "the following arguments are required: --out")
    check_refused(
        run_command("a.png", "--out", "out", "--workers", "0"), "--workers: got 0, expected a positive whole number"
    )
    check_refused(run_command("a.png", "--out", "out", "--workers", "some"), "--workers: got some")
    check_refused(run_command("a.png", "--out", "out", "--gpu", "1"), "--gpu is set for each worker; omit it")
    check_refused(run_command("a.png", "--out", "out", "--table", "xlsx"), "--table: invalid choice")
    check_refused(run_command("a.png", "--out", "out", "--model", "huge"), "no model is called 'huge'")
    check_refused(run_command("a.png", "--out", "out", "--model", "none.onnx"), r"none\.onnx does not exist")
    check_refused(
        run_command(picture, "--out", "/", "--save"),
        rf"result {picture} would replace that source; choose another --out",
    )
    for name in ("b.avi", "b.avi.mp4"):
        Path(name).write_bytes(b"a video")
    check_refused(
        run_command("b.avi", "b.avi.mp4", "--out", "out", "--save"),
        r"b\.avi and b\.avi\.mp4 would share the result .*/out/b\.avi\.mp4; rename one",
    )
    (tmp_path / "in").mkdir()
    write_picture(tmp_path / "in" / "a.png", 1)
    for source in ("in", "in/**/*.png", str(tmp_path / "in")):
        out = tmp_path / "in" if source.startswith("in") else Path("/")
        message = rf"--out {out} would put annotated copies among the sources in {re.escape(source.split('/**')[0])}"
        check_refused(run_command(source, "--out", out, "--save"), message)
    check_refused(run_command("a.png", "--out", "a.png"), r"a\.png/.* cannot be made: (Not a directory|File exists)")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["127.0.0.1:9", "ray://127.0.0.1:9", "no-such-host.invalid:6379"])
def test_where_no_cluster_is(run_command, tmp_path, address):
    pytest.importorskip("ray", reason="the extra `cluster` is not installed")
    write_picture(tmp_path / "a.png", 1)
    outcome = run_command(tmp_path / "a.png", "--out", tmp_path / "out", "--address", address)
    check_refused(outcome, f"no cluster answers at {address}: .*; start one with `ray start --head`")


def test_ray_that_is_not_installed(run_command, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    write_picture(tmp_path / "a.png", 1)
    outcome = run_command(tmp_path / "a.png", "--out", tmp_path / "out", "--address", "auto")
    check_refused(outcome, r"--address needs Ray, which is not installed; pip install '\.\[cluster\]'")


def test_an_output_that_another_driver_holds(run_command, tmp_path):
    from cluster.local_store import LocalStore

    write_picture(tmp_path / "a.png", 1)
    with LocalStore(tmp_path / "out").locked():
        check_refused(
            run_command(tmp_path / "a.png", "--out", tmp_path / "out"), r"in use by another driver \(process \d+ on "
        )


def test_a_disk_that_fills_in_the_middle(tmp_path):
    """Finished files stay, and the next run continues. On a real file system of a few MB."""
    out = tmp_path / "out"
    out.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(out)]
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or subprocess.run(mounted, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        for index in range(6):  # an annotated copy of each has half a megabyte
            write_picture(tmp_path / "in" / f"{index}.png", index, wh=(480, 360), noise=True)
        finished = command(tmp_path, "--workers", "1", "--save")
        assert finished.returncode == 1, finished.stderr
        (line,) = [line for line in finished.stderr.splitlines() if line.startswith("python -m cluster: ")]
        assert "No space left on device" in line
        done = len(list((out / ".higherpose" / "records").iterdir()))
        assert 1 <= done <= 4
        assert len(list(out.rglob("*.jsonl"))) >= done
        assert not any((out / ".higherpose" / "partial").iterdir())

        subprocess.run(["mount", "-o", "remount,size=20m", out], check=True)
        finished = command(tmp_path, "--workers", "1", "--save")
        assert finished.returncode == 0, finished.stderr
        assert f"{6 - done} files in " in finished.stdout
        assert f"{done} were done before" in finished.stdout
    finally:
        subprocess.run(["umount", out], check=True)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "status", "by"), [(signal.SIGINT, 130, ""), (signal.SIGTERM, 143, " by SIGTERM")])
def test_a_signal_ends_the_run_and_its_workers(tmp_path, number, status, by):
    for index in range(9):
        write_picture(tmp_path / "in" / f"{index}.png", index, what=SLEEPS)
    write_picture(tmp_path / "in" / "kills.png", 1, what=KILLS)
    arguments = arguments_of(tmp_path, "--workers", "1")
    process = subprocess.Popen(arguments, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    records = tmp_path / "out" / ".higherpose" / "records"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (records.is_dir() and any(records.iterdir())):
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == status
    assert err.splitlines()[-1] == (
        f"python -m cluster: interrupted{by}; finished files are kept; run the same command to continue"
    )
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["ended"] == f"interrupted{by}"
    assert summary["done"] + summary["failed"] + summary["left"] == 10
    assert not any((tmp_path / "out" / ".higherpose" / "partial").iterdir())


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def arguments_of(folder: Path, *more: str) -> list[str]:
    script = folder / "driver.py"
    script.write_text(textwrap.dedent(SCRIPT))
    return [sys.executable, str(script), str(folder / "in"), "--out", str(folder / "out"), *more]


def command(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments_of(folder, *more), env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=120
    )


@pytest.mark.skipif(find_gpu()[0] is not None, reason="there is a GPU here")
def test_a_video_gpu_that_no_worker_has_ends_the_run(run_command, tmp_path, monkeypatch):
    """Each worker looks for itself: the driver's machine may have none while theirs have."""
    monkeypatch.chdir(tmp_path)
    write_picture(Path("in/a.png"), 1)
    for option, more in (("--decoder", []), ("--encoder", ["--save"])):
        status, _, err = run_command("in", "--out", "out", "--workers", 1, option, "gpu", *more)
        assert status == 2
        assert f"{option} gpu: no GPU {option[2:-1]}s videos here: no NVIDIA driver is installed" in err[-1]
