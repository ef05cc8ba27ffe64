"""timm's names of checkpoints, `NAME.TAG`, and those of before its tags."""

import logging
from fnmatch import fnmatch

from evolq_jax.typing import Preprocessing

# Those that want their images as the registry says. Of all others a file beside the weights must say it.
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

# timm's names of before its tags, which older config.json files have
OLD_NAMES = {
    "gluon_resnet18_v1b": "resnet18",
    "gluon_resnet34_v1b": "resnet34",
    "gluon_resnet50_v1b": "resnet50",
    "ssl_resnet18": "resnet18",
    "ssl_resnet50": "resnet50",
    "swsl_resnet18": "resnet18",
    "swsl_resnet50": "resnet50",
    "tv_resnet34": "resnet34",
    "tv_resnet50": "resnet50",
}
# and what they had at the end in place of a tag
OLD_ENDS = ("_in21k", "_in22k", "_in21ft1k", "_in22ft1k", "_sam", "_dino")

_log = logging.getLogger(__name__)


def todays_name(name: str) -> str:
    """The name of a network, without timm's tag and without what older names had in its place."""
    base = name.split(".")[0]
    end = next((end for end in OLD_ENDS if base.endswith(end)), "")
    return OLD_NAMES.get(base, base.removesuffix(end))


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
