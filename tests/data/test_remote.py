"""Shards behind an address: a server of this machine that takes ranges, one that does not, one that breaks off."""

import http.server
import io
import re
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sak import Student, config
from sak.data import loading
from sak.data.images import Images, find_images
from sak.data.shards import remote
from sak.errors import UserError
from sak.training.train import train

pytest.importorskip("aiohttp")


class Handler(http.server.SimpleHTTPRequestHandler):
    ranges, refuse, asked = True, 0, []

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", "")) if self.ranges else None
        type(self).asked.append(self.headers.get("Range"))
        if type(self).refuse:
            type(self).refuse -= 1
            self.send_error(503)
        elif not path.is_file() or not found:
            super().do_GET()
        else:
            start, end = int(found[1]), int(found[2]) + 1
            data = path.read_bytes()[start:end]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{start + len(data) - 1}/{path.stat().st_size}")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    def end_headers(self):
        if self.ranges:
            self.send_header("Accept-Ranges", "bytes")
            path = Path(self.translate_path(self.path))
            self.send_header("ETag", f'"{path.stat().st_mtime_ns if path.is_file() else 0}"')
        super().end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """Two shards of four and two pictures, whose colours tell them apart; no list of an earlier test is seen."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "PAUSE", 0.01)
    folder = tmp_path / "shards"
    folder.mkdir()
    for shard, pictures in enumerate(([10, 20, 30, 40], [50, 60])):
        with tarfile.open(folder / f"a-{shard}.tar", "w") as tar:
            for number, level in enumerate(pictures):
                buffer = io.BytesIO()
                Image.fromarray(np.full((20, 30, 3), level, np.uint8)).save(buffer, "png")
                member = tarfile.TarInfo(f"{shard}{number}.png")
                member.size = buffer.tell()
                tar.addfile(member, io.BytesIO(buffer.getvalue()))
    return folder


@pytest.fixture
def serve(shards):
    """Starts a server of the shards' folder; gives its handler's class and its address."""
    servers = []

    def start(**settings):
        kind = type("Own", (Handler,), {"asked": [], **settings})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: kind(*args, directory=str(shards)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return kind, f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_shards_of_a_server_are_those_of_a_folder(shards, serve):
    _, address = serve()
    here, there = find_images(shards), find_images(address + "/a-{0..1}.tar")
    assert [member.name for member in there] == [member.name for member in here]
    assert [member.read_bytes() for member in there] == [member.read_bytes() for member in here]
    assert str(there[5]) == f"{address}/a-1.tar, member 11.png,"
    ours, theirs = (Images(files, (16, 16), seed=3) for files in (there, here))
    for index in range(6):
        assert (ours[index]["image"] == theirs[index]["image"]).all()


def test_they_are_listed_once_and_an_image_is_one_range(serve):
    kind, address = serve()
    find_images(f"{address}/a-0.tar")
    kind.asked.clear()
    found = find_images(f"{address}/a-0.tar")
    assert [asked for asked in kind.asked if asked and asked != "bytes=0-0"] == []
    kind.asked.clear()
    found[2].read_bytes()
    assert kind.asked == [f"bytes={found[2].offset}-{found[2].offset + found[2].size - 1}"]


def test_workers_have_connections_of_their_own(serve):
    _, address = serve()
    images = Images(find_images(address + "/a-{0..1}.tar"), (16, 16))
    images[0]  # a connection of the main process, which must not go over to the workers
    batches = list(loading.load(images, [[0, 1], [2, 3], [4, 5]], workers=2))
    levels = [round(float(pixels.float().mean())) for batch in batches for pixels in batch["pixels"]]
    assert levels == [10, 20, 30, 40, 50, 60]


def test_a_broken_connection_is_tried_again(serve):
    kind, address = serve()
    found = find_images(f"{address}/a-0.tar")
    kind.refuse = remote.TRIES - 1
    assert found[1].read_bytes()[1:4] == b"PNG"
    kind.refuse = remote.TRIES
    with pytest.raises(OSError, match="503") as refused:
        found[1].read_bytes()
    assert refused.value.filename == f"{address}/a-0.tar"
    kind.refuse = remote.TRIES
    with pytest.raises(UserError, match=rf"{address}/a-0\.tar, member 01\.png, cannot be read \(503"):
        Images(found, (16, 16))[1]


def test_a_server_without_ranges_is_named(serve):
    _, address = serve()
    found = find_images(f"{address}/a-0.tar")
    _, address = serve(ranges=False)
    with pytest.raises(OSError, match="it must take ranges"):
        remote.read(f"{address}/a-0.tar", found[1].offset, found[1].size)


def test_missing_shards_are_counted(serve):
    _, address = serve()
    with pytest.raises(UserError, match=rf"2 of 4 archives are missing, the first is {address}/a-2\.tar"):
        find_images(address + "/a-{0..3}.tar")


def test_another_content_under_the_name_is_listed_anew(shards, serve):
    _, address = serve()
    assert len(find_images(f"{address}/a-0.tar")) == 4
    (shards / "a-0.tar").write_bytes((shards / "a-1.tar").read_bytes())
    assert len(find_images(f"{address}/a-0.tar")) == 2


def test_a_protocol_whose_library_is_missing_is_named(monkeypatch):
    def lacking(*_, **__):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(remote.fsspec.core, "url_to_fs", lacking)
    with pytest.raises(UserError, match=r"s3://bucket/a\.tar cannot be read here \(Install s3fs to access S3\)"):
        find_images("s3://bucket/a.tar")


def test_a_server_that_is_gone_is_one_line(call_tool, tiny, serve):
    kind, address = serve()
    kind.refuse = 10**6
    code, _, errors = call_tool("train", tiny, f"stages.distill.images={address}/a-0.tar")
    assert (code, len(errors)) == (2, 1)
    assert f"{address}/a-0.tar cannot be used (503" in errors[0]


def test_a_stage_trains_on_them_as_on_files(tiny, shards, serve):
    _, address = serve()
    only = ["stages.multitask.steps=0", "stages.distill.steps=2"]
    found = {}
    for name, place in (("here", str(shards)), ("there", address + "/a-{0..1}.tar")):
        run = train(config.load(tiny, [*only, f"name={name}", f"stages.distill.images={place}"]))
        found[name] = Student.from_pretrained(run.student).state_dict()
    assert all(torch.equal(value, found["there"][key]) for key, value in found["here"].items())
