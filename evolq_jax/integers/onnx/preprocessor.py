"""`preprocessor_config.json`: how images become a file's input, in the words of Hugging Face's processors."""

from typing import Any

from evolq_jax.typing import Preprocessing

FILENAME = "preprocessor_config.json"
# Pillow's numbers
FILTERS = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3, "box": 4, "hamming": 5}


def preprocessor_config(preprocessing: Preprocessing) -> dict[str, Any]:
    """The keys of a processor that does the same.

    CLIP's cuts a square out of the image after its shorter side was resized, DeiT's after both sides were.
    """
    size, resize = preprocessing.size, preprocessing.resize
    squash = preprocessing.crop_mode == "squash"
    found: dict[str, Any] = {
        "image_processor_type": "DeiTImageProcessor" if squash else "CLIPImageProcessor",
        "do_resize": resize is not None,
        "do_center_crop": True,
        "crop_size": {"height": size, "width": size},
        "resample": FILTERS[preprocessing.interpolation],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [*preprocessing.mean],
        "image_std": [*preprocessing.std],
    }
    if resize is not None:
        found["size"] = {"height": resize, "width": resize} if squash else {"shortest_edge": resize}
    return found
