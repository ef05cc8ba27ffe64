"""The page docs/browser classifies a dropped picture in headless Chromium, as onnxruntime does in Python."""

import functools
import json
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evolq_jax.data.load import load_images
from evolq_jax.integers.exported import open_exported

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "browser"
RUNTIME = ROOT / ".venv" / "browser" / "node_modules" / "onnxruntime-web" / "dist"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
    pytest.mark.skipif(not RUNTIME.is_dir(), reason="onnxruntime-web is not there: make browser"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The page, the digits and the runtime on a local server."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    (folder / "runtime").symlink_to(RUNTIME)
    handler = functools.partial(_Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/index.html?runtime=./runtime"
        server.shutdown()


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def page(site: str) -> Iterator[Any]:
    """The page, opened and ready."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*OPTIONS])
        opened, complaints = browser.new_page(), list[str]()
        opened.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.goto(site)
        opened.wait_for_selector("body[data-ready]", timeout=60_000)
        yield opened
        assert complaints == []
        browser.close()


def test_a_dropped_picture_is_classified_as_in_python(page: Any, tmp_path: Path) -> None:
    exported = open_exported(PAGE / "digits" / "quantized.onnx")
    pixels = load_images("digits:test", exported.preprocessing, num=3, cache_dir=None).pixels
    for number, image in enumerate(pixels):
        picture = tmp_path / f"{number}.png"
        Image.fromarray(image[..., 0]).save(picture)
        page.evaluate("document.getElementById('time').textContent = ''")
        if number:
            page.set_input_files("#file", picture)
        else:
            drop(page, picture)
        page.wait_for_function("document.getElementById('time').textContent.endsWith('ms')")
        logits = exported.run(image[None])[0].astype(np.float64)
        powers = np.exp(logits - logits.max())
        share = 100 * powers / powers.sum()
        best = int(share.argmax())
        first = page.locator("#classes li").first.inner_text()
        assert first.split("\n")[0].startswith(f"class {best}")
        assert float(page.locator("#classes li span").first.inner_text().split()[0]) == pytest.approx(
            share[best], abs=0.5
        )


def drop(page: Any, picture: Path) -> None:
    """Drops a picture on the page, as a mouse does."""
    content = json.dumps([*picture.read_bytes()])
    page.evaluate(
        f"""() => {{
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array({content})], "digit.png", {{ type: "image/png" }}));
          document.getElementById("drop").dispatchEvent(
            new DragEvent("drop", {{ dataTransfer: data, bubbles: true, cancelable: true }}));
        }}"""
    )


def test_the_page_fits_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 360, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
