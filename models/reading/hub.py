"""Checkpoints from the Hugging Face hub. Only this file needs the package `huggingface_hub`."""

from pathlib import Path

from evolq_jax.errors import UserError

PREFIXES = ("hf-hub:", "hf_hub:")
PATTERNS = [
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
    "config.json",
    "preprocessor_config.json",
]


def is_hub_path(path: str) -> bool:
    """Whether `path` names a hub repository: `hf-hub:owner/name`, optionally with `@revision`."""
    return path.startswith(PREFIXES)


def download(path: str) -> Path:
    """The local folder with the weights and settings of `hf-hub:owner/name[@revision]`.

    Files that are already in the hub's cache are not fetched again.

    Raises:
        UserError: the package is missing, the hub cannot be reached, or it does not have the repository.
    """
    repo, _, revision = path.split(":", 1)[1].partition("@")
    advice = "or download its model.safetensors and config.json and give the path of their folder"
    try:
        from huggingface_hub import snapshot_download  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise UserError(
            f"{path}: the hub needs the package huggingface_hub: `pip install 'evolq_jax[hub]'`, {advice}"
        ) from None
    try:
        return Path(snapshot_download(repo, revision=revision or None, allow_patterns=PATTERNS))
    except Exception as error:  # the package's errors have no common base, and come from its HTTP client too
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{path}: download failed ({reason}): check the name and the network, {advice}"
        ) from None
