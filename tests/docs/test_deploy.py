"""The commands and the Python of docs/deploy.md and docs/file-formats.md run, in the order of the pages."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from evolq_jax.data.load import load_images
from evolq_jax.pipeline.load import load_network

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SERVER = "python -m http.server"  # tests/docs/test_browser.py has a server of its own

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'evolq_jax[onnx]'")


def run(command: list[str], folder: Path) -> str:
    """What a command prints."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_every_command_runs(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    pixels = load_images(
        "digits:test", load_network("vit_digits").preprocessing, num=1, cache_dir=None
    ).pixels
    Image.fromarray(pixels[0, ..., 0]).save(tmp_path / "digit.png")
    printed: dict[str, str] = {}
    for kind, block in BLOCK.findall((ROOT / "docs" / "deploy.md").read_text("utf-8")):
        if kind == "python":
            printed[block] = run([sys.executable, "-c", block], tmp_path)
            continue
        for line in block.strip().splitlines():
            if not line.startswith(SERVER):
                program, *arguments = line.split()
                assert program == "evolq"
                printed[line] = run([sys.executable, "-m", "evolq_jax", *arguments], tmp_path)
    verified = next(text for line, text in printed.items() if " verify " in line)
    assert verified.count("passed") == 4
    classified = next(text for line, text in printed.items() if " classify " in line)
    by_hand = next(text for block, text in printed.items() if "import onnxruntime" in block)
    assert f"digit.png {by_hand.split()[1]} " in re.sub(r" +", " ", classified)

    formats = BLOCK.findall((ROOT / "docs" / "file-formats.md").read_text("utf-8"))
    compared = """
import evolq_jax
weight = evolq_jax.load("quantized.safetensors").weights["head/weight"]
wanted = (weight.codes.astype("float32") - weight.zero_point.astype("float32")) * weight.scale
assert (values == wanted).all()
"""
    run([sys.executable, "-c", formats[0][1] + compared], tmp_path / "runs" / "digits" / "exported")
