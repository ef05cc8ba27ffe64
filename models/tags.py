"""Checkpoints by timm's tag, `NAME.TAG`: those that want their images as the registry says."""

import logging
from fnmatch import fnmatch

from evolq_jax.typing import Preprocessing

# Of all others the config.json beside the weights must say it, or the user.
USUAL = (
    "vit_*_patch16_224.augreg*",
    "vit_*_patch16_384.augreg*",
    "vit_*_patch32_224.augreg*",
    "vit_*_patch32_384.augreg*",
    "vit_base_patch8_224.augreg*",
    "vit_*_patch16_???.orig_in21k_ft_in1k",
    "vit_*_patch32_???.orig_in21k_ft_in1k",
    "vit_base_patch*_224.sam_in1k",
    "swin_*_patch4_window7_224.ms_*",
    "levit_*.fb_dist_in1k",
    "resnet??.tv_in1k",
    "resnet??.fb_s*sl_*_ft_in1k",
    "regnetx_032.pycls_in1k",
    "mobilenetv2_100.ra_in1k",
)

_log = logging.getLogger(__name__)


def warn_of_tag(name: str, where: object, preprocessing: Preprocessing) -> None:
    """Logs one line if nothing says how the checkpoint with this tag wants its images.

    Args:
        name: of the registry, with or without a tag.
        where: the weights, for the message.
        preprocessing: what is taken in its place.
    """
    base, _, tag = name.partition(".")
    if tag and not any(fnmatch(name, pattern) for pattern in USUAL):
        _log.warning(
            "%s: no config.json or preprocessor_config.json beside the weights says how '%s' prepares "
            "images. As usual for %s: %s. Put that file there, or set --preprocessing.mean, .std, .resize, "
            ".crop, .interpolation",
            where,
            name,
            base,
            preprocessing,
        )
