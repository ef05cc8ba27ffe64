"""Images from folders, arrays, prepared data sets and scikit-learn's digits, decoded once, kept as uint8."""

from evolq_jax.data.cache import default_cache_dir
from evolq_jax.data.draw import check_draw, draw_indices
from evolq_jax.data.fingerprint import fingerprint
from evolq_jax.data.load import load_images, open_source
from evolq_jax.data.pack import pack_folder

__all__ = [
    "check_draw",
    "default_cache_dir",
    "draw_indices",
    "fingerprint",
    "load_images",
    "open_source",
    "pack_folder",
]
