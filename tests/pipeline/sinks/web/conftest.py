"""A real browser for the tests of the page: Chromium or Chrome, with a camera that plays a file."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CAMERA_WH = (320, 240)
ARGUMENTS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--deny-permission-prompts",  # only a test grants access to the camera
    "--use-fake-device-for-media-stream",
]


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests. Without a browser tests are skipped, or fail if CI=true."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        missing = f"no browser found (looked for {', '.join(NAMES)})"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    from playwright.sync_api import sync_playwright

    arguments = [*ARGUMENTS, f"--use-file-for-fake-video-capture={_camera_file(tmp_path_factory.mktemp('camera'))}"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        arguments.append("--no-sandbox")  # Chromium refuses to run as root with one
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=arguments)
        yield started
        started.close()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A browser context without stored data; closing it closes its tabs."""
    made = browser.new_context(viewport={"width": 720, "height": 440})
    made.set_default_timeout(10_000)
    yield made
    made.close()


@pytest.fixture
def tab(context: BrowserContext) -> Iterator[Page]:
    """A tab; an error or a warning in its console fails the test."""
    messages: list[str] = []
    made = context.new_page()
    made.on("pageerror", lambda error: messages.append(str(error)))
    made.on("console", lambda said: messages.append(said.text) if said.type in ("error", "warning") else None)
    yield made
    # a page that tries to reconnect after the test's server has ended logs this error
    assert [text for text in messages if "ERR_CONNECTION_REFUSED" not in text] == []


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A self-signed certificate for 127.0.0.1 and its key."""
    folder = tmp_path_factory.mktemp("tls")
    chain, key = folder / "chain.pem", folder / "key.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-out", chain, "-keyout", key],
        capture_output=True, check=False, timeout=30,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl cannot make a certificate here")
    return chain, key


def _camera_file(folder: Path) -> Path:
    """Motion JPEG: a bright square that moves over dark blue."""
    path = folder / "camera.mjpeg"
    with path.open("wb") as file:
        for step in range(30):
            image = np.full((CAMERA_WH[1], CAMERA_WH[0], 3), (90, 30, 20), np.uint8)
            cv2.rectangle(image, (8 * step, 80), (8 * step + 60, 140), (240, 240, 240), -1)
            file.write(cv2.imencode(".jpg", image)[1].tobytes())
    return path
