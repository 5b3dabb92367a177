"""Downloads against a local server that behaves and misbehaves; named models."""

from __future__ import annotations

import hashlib
import http.server
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest

from core.errors import DownloadError
from export import zoo

CONTENT = bytes(range(256)) * 4000  # 1 MB
DIGEST = hashlib.sha256(CONTENT).hexdigest()[:8]


@dataclass
class Behaviour:
    """How the server answers. cuts: bytes sent by the first answers before the connection is dropped."""

    content: bytes = CONTENT
    status: int = 200
    cuts: list[int] = field(default_factory=list)
    resumes: bool = True
    dies: bool = False  # with its first cut
    requests: list[str | None] = field(default_factory=list)  # the Range header of each


@contextmanager
def server(behaviour: Behaviour):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked = self.headers.get("Range")
            behaviour.requests.append(asked)
            if behaviour.status != 200:
                self.send_error(behaviour.status)
                return
            start = int(asked[len("bytes=") : -1]) if asked and behaviour.resumes else 0
            body = behaviour.content[start:]
            if start >= len(behaviour.content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(behaviour.content)}")
                self.end_headers()
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: behaviour.cuts.pop(0)] if behaviour.cuts else body)
            if behaviour.dies:
                threading.Thread(target=die).start()

        def log_message(self, *args):
            pass

    def die():
        httpd.shutdown()
        httpd.server_close()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{httpd.server_port}/weights.pth"
        finally:
            httpd.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


def model(url: str, sha256: str = DIGEST) -> zoo.ZooModel:
    return replace(zoo.MODELS["w32-512"], url=url, file="weights.pth", sha256=sha256)


def fetch(url, folder, **options):
    return zoo.fetch(model(url), folder, pause_s=0.01, **options)


def test_a_whole_file_arrives_once_and_is_kept(tmp_path):
    seen = []
    behaviour = Behaviour()
    with server(behaviour) as url:
        path = fetch(url, tmp_path, progress=lambda what, share: seen.append((what, share)))
        assert fetch(url, tmp_path) == path
    assert path.read_bytes() == CONTENT
    assert seen[-1] == ("downloading w32-512", 1.0)
    assert behaviour.requests == [None]
    assert not list(tmp_path.glob("*.part"))


@pytest.mark.parametrize("resumes", [True, False])
def test_a_cut_download_goes_on(tmp_path, resumes):
    behaviour = Behaviour(cuts=[400_000, 300_000], resumes=resumes)
    with server(behaviour) as url:
        assert fetch(url, tmp_path).read_bytes() == CONTENT
    assert behaviour.requests == [None, "bytes=400000-", "bytes=700000-" if resumes else "bytes=300000-"]


def test_a_download_is_resumed_by_the_next_process(tmp_path):
    (tmp_path / "weights.pth.part").write_bytes(CONTENT[:123_456])
    behaviour = Behaviour()
    with server(behaviour) as url:
        assert fetch(url, tmp_path).read_bytes() == CONTENT
    assert behaviour.requests == ["bytes=123456-"]


def test_a_part_that_is_whole_needs_no_byte_more(tmp_path):
    (tmp_path / "weights.pth.part").write_bytes(CONTENT)
    with server(Behaviour()) as url:
        assert fetch(url, tmp_path).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_begun_anew(tmp_path):
    (tmp_path / "weights.pth.part").write_bytes(CONTENT + b"more")
    with server(Behaviour()) as url:
        assert fetch(url, tmp_path).read_bytes() == CONTENT


def test_wrong_bytes_are_refused_and_not_kept(tmp_path):
    with server(Behaviour(content=CONTENT[:-1] + b"!")) as url, pytest.raises(DownloadError) as caught:
        fetch(url, tmp_path)
    told = one_line(caught)
    assert f"expected {DIGEST}" in told
    assert url in told
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth.part.lock"]


def test_a_file_put_by_hand_is_verified(tmp_path):
    (tmp_path / "weights.pth").write_bytes(b"something else")
    with pytest.raises(DownloadError, match="delete it"):
        fetch("http://127.0.0.1:1/none", tmp_path)


def test_what_the_server_does_not_have_is_asked_for_once(tmp_path):
    behaviour = Behaviour(status=404)
    with server(behaviour) as url, pytest.raises(DownloadError) as caught:
        fetch(url, tmp_path)
    told = one_line(caught)
    assert "404" in told
    assert url in told
    assert str(tmp_path / "weights.pth") in told
    assert len(behaviour.requests) == 1


def test_a_busy_server_is_asked_again(tmp_path):
    behaviour = Behaviour(status=503)
    with server(behaviour) as url, pytest.raises(DownloadError, match="503"):
        fetch(url, tmp_path, tries=3)
    assert len(behaviour.requests) == 3


def test_a_server_gone_half_way_leaves_what_it_sent(tmp_path):
    with server(Behaviour(cuts=[500_000], dies=True)) as url, pytest.raises(DownloadError) as caught:
        fetch(url, tmp_path)
    assert url in one_line(caught)
    assert (tmp_path / "weights.pth.part").read_bytes() == CONTENT[:500_000]


def test_a_server_that_always_cuts_at_the_same_place_is_given_up(tmp_path):
    behaviour = Behaviour(cuts=[1000] * 50, resumes=False)
    with server(behaviour) as url, pytest.raises(DownloadError, match="cut after 1000 bytes"):
        fetch(url, tmp_path, tries=3)
    assert len(behaviour.requests) == 3


def test_two_processes_fetch_it_once(tmp_path):
    behaviour = Behaviour()
    with server(behaviour) as url:
        threads = [threading.Thread(target=fetch, args=(url, tmp_path)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert (tmp_path / "weights.pth").read_bytes() == CONTENT
    assert behaviour.requests == [None]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DownloadError, match="cannot be written") as caught:
        fetch("http://127.0.0.1:1/none", tmp_path / "file" / "cache")
    assert "XDG_CACHE_HOME" in one_line(caught)


def test_the_cache_follows_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with server(Behaviour()) as url:
        monkeypatch.setitem(zoo.MODELS, "w32-512", model(url))
        assert zoo.locate("w32-512") == tmp_path / "higherpose" / "weights" / "weights.pth"


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match=r"w33.*tiny, small, w32-512"):
        zoo.locate("w33")


def test_hashes_are_those_in_mmposes_file_names():
    for entry in zoo.MODELS.values():
        if entry.url is not None:
            assert re.fullmatch(r"[0-9a-f]{8}", entry.sha256)
            assert f"-{entry.sha256}_" in entry.url


def test_the_zoo_needs_no_torch():
    code = "import sys, export.zoo; sys.exit('torch' in sys.modules or 'onnx' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def one_line(caught) -> str:
    text = str(caught.value)
    assert "\n" not in text
    return text
