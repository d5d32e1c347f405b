"""The demo, end to end in a browser without a window."""

import shutil
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import sak

pytest.importorskip("gradio")
sync_api = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")]


@pytest.fixture(scope="module")
def url(trained):
    from sak.deploy.demo.page import MOST_BYTES, build

    page = build(sak.Predictor(trained, longest_edge=96), "demo")
    _, address, _ = page.launch(server_name="127.0.0.1", max_file_size=MOST_BYTES, prevent_thread_lock=True, quiet=True)
    yield address
    page.close()


@pytest.mark.parametrize("size", [(1280, 900), (390, 800)])
def test_upload_predict_and_knock_out(url, tmp_path, size):
    picture = np.random.default_rng(0).integers(0, 255, (80, 96, 3), dtype=np.uint8)
    Image.fromarray(picture).save(tmp_path / "a.png")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        page.goto(url)
        page.set_input_files("#picture input[type=file]", tmp_path / "a.png")
        page.wait_for_selector("#semseg img", timeout=60000)
        page.wait_for_function("document.querySelector('#said').innerText.includes('96 x 80 pixels')")
        before = page.get_attribute("#edge img", "src")
        page.uncheck("#sources input >> nth=1")
        page.wait_for_function(f"document.querySelector('#edge img').src != '{before}'", timeout=60000)
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        assert Image.open(tmp_path / "page.png").size[0] == size[0]
        page.uncheck("#sources input >> nth=0")
        page.wait_for_selector("text=one has to stay", timeout=60000)
        assert page.evaluate("document.body.scrollWidth <= window.innerWidth + 1")
        browser.close()


def test_no_file_of_the_machine_is_readable(url, trained):
    for path in ("/etc/passwd", str(trained / "config.yaml"), str(Path(__file__).resolve())):
        with pytest.raises(urllib.error.HTTPError, match=r"40[34]"):
            urllib.request.urlopen(f"{url}gradio_api/file={path}", timeout=10)
