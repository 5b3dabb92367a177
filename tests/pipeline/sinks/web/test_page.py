"""The page in a real browser: people move, switches work, a camera goes round, and trouble is shown in words."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np

from pipeline.sinks.web import WebSink
from pipeline.sources.browser import BrowserSource
from pipeline.types import Frame, People, Result
from tests.pipeline.sinks.web.serving import eventually, page, write

W, H = 320, 240
BLUE, GREEN = (56, 176, 255), (110, 222, 120)  # RGB of draw.COLORS: left limbs, and those across
LIVE = "figure[data-state=live]"


def standing(center: float, *, number: int = 1) -> People:
    """Somebody upright, 120 px tall, whose left side is 20 px right of the middle."""
    xy = np.zeros((17, 2), np.float32)
    for joint in range(17):
        row = (60, 55, 55, 58, 58, 85, 85, 110, 110, 130, 130, 130, 130, 155, 155, 175, 175)[joint]
        xy[joint] = center + (0 if joint == 0 else 20 if joint % 2 else -20), row
    scores = np.array([0.9], np.float32)
    return People(xy[None], np.full((1, 17), 0.9, np.float32), scores, np.array([number], np.int64))


def shot(index: int, center: float, *, source: str = "a.mp4", number: int = 7) -> Result:
    image = np.full((H, W, 3), 60, np.uint8)
    image[:, : W // 4] = (0, 0, 200)  # red on the left, so that a mirror shows
    return Result(Frame(image, index, index / 30, time.monotonic(), source), standing(center, number=number))


@contextmanager
def writing(give: Callable[[int], None], *, rate: float = 30.0) -> Iterator[None]:
    """Calls give(0), give(1) … in another thread, as the pipeline would."""
    done = threading.Event()

    def loop() -> None:
        index = 0
        while not done.wait(1 / rate):
            give(index)
            index += 1

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextmanager
def walking(**options) -> Iterator[WebSink]:
    """A page on which somebody walks from left to right, again and again."""
    with page(live=True, **options) as sink, writing(lambda i: write(sink, shot(i, 100 + 4 * i % 150))):
        yield sink


def until(tab, fact: str) -> None:
    """Wait for a JavaScript expression to be true. (`wait_for_function` needs eval, which the page forbids.)"""
    assert eventually(lambda: tab.evaluate(fact)), fact


def drawn(tab) -> np.ndarray:
    """The first tile's canvas once a frame is on it, which may come after LIVE: the server says that of the source."""
    tab.wait_for_selector(LIVE)
    until(tab, "Number(document.querySelector('figure').dataset.drawn) > 0")
    return pixels(tab)


def pixels(tab, number: int = 0) -> np.ndarray:
    """The tile's canvas, (h, w, 3) RGB."""
    url = tab.evaluate("(n) => document.querySelectorAll('canvas')[n].toDataURL()", number)
    image = cv2.imdecode(np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image[..., ::-1], np.uint8)


def count(image: np.ndarray, color: tuple[int, int, int], *, within: int = 24) -> int:
    return int((np.abs(image.astype(int) - color).max(axis=-1) <= within).sum())


def middle(image: np.ndarray, color: tuple[int, int, int]) -> float:
    """Where the colour is, from 0 (left) to 1 (right)."""
    columns = np.nonzero((np.abs(image.astype(int) - color).max(axis=-1) <= 24).any(axis=0))[0]
    return float(np.mean(columns) / image.shape[1])


def test_the_page_shows_people_who_move_and_what_it_costs(tab):
    with walking() as sink:
        tab.goto(sink.url)
        tab.wait_for_selector(LIVE)
        until(tab, "Number(document.querySelector('figure').dataset.drawn) > 20")
        places = set()
        for _ in range(8):
            image = pixels(tab)
            assert count(image, BLUE) > 50 and count(image, GREEN) > 20
            places.add(round(middle(image, BLUE), 2))
            time.sleep(0.07)
        assert len(places) > 2
        caption = tab.inner_text("figcaption")
        people, fps, latency = (tab.inner_text(f".{name}") for name in ("people", "fps", "latency"))
        assert "a.mp4" in caption and people == "1 person"
        assert 20 < float(fps.split()[0]) < 40
        assert 0 < float(latency.removesuffix(" ms")) < 1000
        assert tab.inner_text("#connection") == "Connected"


def test_switches_draw_and_leave_out_and_are_remembered(tab):
    with page() as sink:
        write(sink, shot(0, 200))
        tab.goto(sink.url)
        first = drawn(tab)
        assert count(first, BLUE) > 50

        tab.click("[data-switch=skeleton]")
        without = pixels(tab)
        assert count(without, BLUE) == 0
        tab.keyboard.press("b")
        boxes = pixels(tab)
        tab.keyboard.press("i")
        no_ids = pixels(tab)
        assert (boxes != without).any(axis=-1).sum() > 100 < (no_ids != boxes).any(axis=-1).sum()
        assert middle(no_ids, (200, 0, 0)) < 0.25
        tab.click("[data-switch=mirror]")
        assert middle(pixels(tab), (200, 0, 0)) > 0.75

        tab.reload()
        tab.wait_for_selector(LIVE)
        pressed = "[...document.querySelectorAll('[data-switch]')].map(b => b.getAttribute('aria-pressed'))"
        assert tab.evaluate(pressed) == ["false", "false", "true", "true"]
        assert eventually(lambda: middle(pixels(tab), (200, 0, 0)) > 0.75)


def test_full_screen_shows_the_picture_alone(tab):
    with page() as sink:
        write(sink, shot(0, 200))
        tab.goto(sink.url)
        tab.wait_for_selector(LIVE)
        tab.click("#fullscreen")
        until(tab, "document.fullscreenElement !== null")
        assert not tab.is_visible("header") and tab.is_visible("canvas")
        tab.keyboard.press("f")
        until(tab, "document.fullscreenElement === null")


def test_several_sources_stand_in_a_grid_and_one_can_fill_the_page(tab):
    names = ("street", "yard", "door")
    with page(names, side_by_side=True, live=True) as sink:
        for number, name in enumerate(names[:2]):
            write(sink, shot(0, 200, source=name, number=number + 1))
        sink.set_state("door", "reconnecting", "It did not answer within 10 s.")
        tab.goto(sink.url)
        until(tab, "document.querySelectorAll('figure[data-state=live]').length === 2")
        assert [tab.inner_text(f"figure >> nth={n} >> .name") for n in range(3)] == list(names)
        door = tab.locator("figure >> nth=2")
        assert door.get_attribute("data-state") == "reconnecting" and "did not answer" in door.inner_text()
        wide = tab.locator("figure >> nth=0").bounding_box()["width"]
        tab.click("figure >> nth=0 >> .picture")
        assert tab.locator("figure >> nth=0").bounding_box()["width"] > 1.8 * wide
        assert not tab.is_visible("figure >> nth=1")
        for index in range(1, 8):  # nobody sees it, so that little is sent
            write(sink, shot(index, 200, source="yard"))
            time.sleep(0.05)
        tab.keyboard.press("Escape")
        until(tab, "document.querySelectorAll('figure')[1].dataset.frame === '7'")


def test_two_tabs_look_at_the_same_and_one_that_is_reloaded_goes_on(context, tab):
    with walking() as sink:
        other = context.new_page()
        for one in (tab, other):
            one.goto(sink.url)
            one.wait_for_selector(LIVE)
        assert sink.viewers == 2
        tab.reload()
        other.close()
        tab.wait_for_selector(LIVE)
        until(tab, "Number(document.querySelector('figure').dataset.drawn) > 5")
        assert eventually(lambda: sink.viewers == 1)


def test_a_page_finds_its_program_again(tab):
    with page() as sink:
        write(sink, shot(0, 200))
        tab.goto(sink.url)
        tab.wait_for_selector(LIVE)
        sink.end_text = "street.mp4 has ended."
        address = sink._server.access.address
    tab.wait_for_selector("figure[data-state=ended]")
    assert "street.mp4 has ended." in tab.inner_text("figure")
    assert "street.mp4 has ended." in tab.inner_text("#connection")
    with page(address=address) as sink:
        write(sink, shot(0, 120))
        tab.wait_for_selector(LIVE)


def test_the_token_in_the_address_opens_the_socket_too(tab):
    from pipeline.sinks.web import Address

    with page(address=Address("0.0.0.0", 0)) as sink:
        write(sink, shot(0, 200))
        port = sink._server.access.address.port
        tab.goto(f"http://127.0.0.1:{port}/?token={sink._server.access.token}")
        tab.wait_for_selector(LIVE)


def test_names_are_text_and_never_markup(tab):
    name = "<img src=x onerror=document.title='markup'>.mp4"
    with page((f"clips/{name}",)) as sink:
        write(sink, shot(0, 200, source=f"clips/{name}"))
        tab.goto(sink.url)
        tab.wait_for_selector(LIVE)
        assert tab.inner_text(".name") == name and tab.title() == "HigherPose"
        assert tab.get_attribute(".name", "title") == f"clips/{name}"


# -- the visitor's camera


@contextmanager
def mirror_room(**options) -> Iterator[tuple[WebSink, BrowserSource]]:
    """The visitor's pictures come back with somebody in them."""
    source = BrowserSource()

    def loop() -> None:
        for frame in source:
            write(sink, Result(frame, standing(160)))

    with page(("browser",), live=True, camera=source, **options) as sink:
        thread = threading.Thread(target=loop)
        thread.start()
        try:
            yield sink, source
        finally:
            source.interrupt()
            thread.join()


def test_the_visitors_camera_goes_round(context, tab):
    with mirror_room() as (sink, _):
        context.grant_permissions(["camera"], origin=sink.url.rstrip("/"))
        tab.goto(sink.url)
        tab.wait_for_selector("figure[data-state=waiting]")
        tab.click("text=Use my camera")
        drawn(tab)
        places = set()
        for _ in range(6):
            image = pixels(tab)
            assert count(image, BLUE) > 50
            places.add(round(middle(image, (240, 240, 240)), 2))
            time.sleep(0.1)
        assert len(places) > 2  # the square of the camera's film moves
        assert 0 < float(tab.inner_text(".latency").removesuffix(" ms")) < 1000

        tab.reload()  # the camera is given anew
        tab.click("text=Use my camera")
        tab.wait_for_selector(LIVE)
        until(tab, "Number(document.querySelector('figure').dataset.drawn) > 5")

        other = context.new_page()
        other.goto(sink.url)
        other.wait_for_selector(LIVE)
        assert not other.is_visible("text=Use my camera")  # it is in use
        other.close()

        tab.click("text=Stop my camera")
        tab.wait_for_selector("figure[data-state=waiting]")
        assert tab.is_visible("text=Use my camera")


def test_by_tls_the_visitors_camera_goes_round(browser, certificate):
    """Any address but localhost needs TLS for the camera. The browser does not know who signed this certificate."""
    context = browser.new_context(ignore_https_errors=True)
    try:
        with mirror_room(tls=certificate) as (sink, _):
            assert sink.url.startswith("https://")
            context.grant_permissions(["camera"], origin=sink.url.rstrip("/"))
            tab = context.new_page()
            tab.goto(sink.url)
            assert tab.evaluate("isSecureContext && location.protocol") == "https:"
            tab.click("text=Use my camera")
            assert count(drawn(tab), BLUE) > 50
    finally:
        context.close()


def test_a_browser_that_denies_its_camera_is_shown_why_and_may_try_again(context, tab):
    with mirror_room() as (sink, _):
        tab.goto(sink.url)
        tab.click("text=Use my camera")
        tab.wait_for_selector("text=The camera was refused")
        assert "Allow the camera" in tab.inner_text(".why")
        time.sleep(0.8)  # what the server says of the source leaves it standing
        assert tab.inner_text(".what") == "The camera was refused"
        context.grant_permissions(["camera"], origin=sink.url.rstrip("/"))
        tab.click("button.camera")
        tab.wait_for_selector(LIVE)


def test_a_browser_that_gives_no_camera_here_is_told_what_to_do(tab):
    # as on plain http from another machine
    tab.add_init_script("Object.defineProperty(Navigator.prototype, 'mediaDevices', { get: () => undefined })")
    with mirror_room() as (sink, _):
        tab.goto(sink.url)
        tab.click("text=Use my camera")
        tab.wait_for_selector("text=The browser does not allow a camera on this page")
        assert "--tls" in tab.inner_text(".why") and "ssh -L" in tab.inner_text(".why")
