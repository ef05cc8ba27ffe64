"""All benchmarks in one report: speed, compilation and memory of ViT-Tiny.

    python benchmarks/run.py --quick
    python benchmarks/run.py --json results.json

On two CPU cores, `--quick` takes minutes, everything most of an hour. `benchmarks/kill.py` is not part of it.
"""

from benchmarks import calibration, depth, float_forward, landscape, memory, peak, search_throughput
from benchmarks.command import main

MEASURES = {
    "float32 matrix product": peak.measure,
    "float forward": float_forward.measure,
    "search: a pass of the paper's schedule": search_throughput.measure,
    "landscape: a plane": landscape.measure,
    **calibration.MEASURES,
    "compilations of a whole search": depth.measure,
    "memory of a search with 8 children": memory.measure,
}

if __name__ == "__main__":
    main(__doc__, MEASURES)
