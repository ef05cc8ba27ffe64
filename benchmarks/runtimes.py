"""Exported ONNX files in onnxruntime: their size, what is multiplied in integers, and milliseconds an image.

    python -m benchmarks.runtimes

One thread, one image at a time. The float network's file runs in the same process, in turn with the others.
Scales come from one pass over the calibration images: they say nothing about accuracy.
"""

import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.command import main, num_repeats
from benchmarks.subject import MODEL, Options, Subject
from benchmarks.timing import Task, interleave
from evolq_jax.integers.build import integer_model
from evolq_jax.integers.onnx.session import open_onnx
from evolq_jax.integers.onnx.write import write_float_onnx, write_onnx
from evolq_jax.network.network import Network
from evolq_jax.quant.scheme import QuantConfig
from evolq_jax.quantized.calibrate import calibrate

BITS = (4, 8)  # of the weights
INTEGERS = ("MatMulIntegerToFloat", "QLinearMatMul", "QLinearConv")
FLOATS = ("MatMul", "FusedMatMul", "MatMulNBits", "Gemm", "Conv", "FusedConv")
CALLS = 30  # in a round; the fastest counts, since others use the machine as well


def files(subject: Subject, folder: Path) -> dict[str, Path]:
    """The float network and its quantized forms, written."""
    network = Network(subject.parts, subject.params, subject.preprocessing, MODEL, subject.config)
    found = {"float": write_float_onnx(network, folder / "float.onnx")}
    for bits in BITS:
        quant = QuantConfig("deploy", weight_bits=bits)
        quantized = calibrate(network, subject.pixels, quant, chain=("ranges",))
        found[f"W{bits}A8"] = write_onnx(integer_model(quantized), folder / f"w{bits}.onnx")
    return found


def operators(path: Path) -> Counter[str]:
    """What onnxruntime makes of a file with the options that a session has by default."""
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    options.optimized_model_filepath = str(path.with_suffix(".optimized"))
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


def seconds_per_image(path: Path, image: np.ndarray) -> Task:
    """The fastest of some calls with one image [1, height, width, channels]."""
    run = open_onnx(path, threads=1)

    def call() -> float:
        began = time.perf_counter()
        run(image)
        return time.perf_counter() - began

    return lambda: min(call() for _ in range(CALLS))


def measure(subject: Subject, options: Options) -> list[dict[str, Any]]:
    """A row for each file."""
    with tempfile.TemporaryDirectory() as name:
        written = files(subject, Path(name))
        image = np.asarray(subject.pixels[:1])
        tasks = {kind: seconds_per_image(path, image) for kind, path in written.items()}
        found = {kind: min(seconds) for kind, seconds in interleave(tasks, num_repeats(options)).items()}
        rows: list[dict[str, Any]] = []
        for kind, path in written.items():
            ops = operators(path)
            rows.append({
                "file": kind,
                "MB": round(path.stat().st_size / 1e6, 3),
                "integer products": sum(ops[op] for op in INTEGERS),
                "float products": sum(ops[op] for op in FLOATS),
                "ms an image": round(1e3 * found[kind], 2),
                "× float": round(found["float"] / found[kind], 2),
            })  # fmt: skip
    return rows


if __name__ == "__main__":
    main(__doc__, {"onnxruntime, one thread": measure})
