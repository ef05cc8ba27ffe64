"""The layers that networks share, as pure functions of explicit parameters."""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from evolq_jax.models.batch_norm import batch_norm, qv_bias
from evolq_jax.typing import Array, Params, Site


@dataclass(frozen=True)
class Within:
    """A site that puts a module's path before the names. Use it for modules inside a block, or outside."""

    site: Site
    path: str

    def __call__(self, name: str, x: Array) -> Array:
        """The site `path/name`."""
        return self.site(f"{self.path}/{name}", x)

    def layer_norm(self, name: str, source: str, x: Array, norm: Params, *, eps: float) -> Array:
        """LayerNorm with the site `path/name`."""
        return self.site.layer_norm(f"{self.path}/{name}", f"{self.path}/{source}", x, norm, eps=eps)

    def softmax(self, name: str, source: str, logits: Array) -> Array:
        """Softmax with the site `path/name`."""
        return self.site.softmax(f"{self.path}/{name}", f"{self.path}/{source}", logits)


def linear(params: Params, x: Array) -> Array:
    """`x @ weight + bias` for `x` [..., in], `weight` [in, out], `bias` [out].

    A layer that has not been folded (`batch_norm.fold`) has its BatchNorms, gain and parts of its bias apart.
    """
    if "bn_before" in params:
        x = batch_norm(params["bn_before"], x)
    x = x @ params["weight"]
    if "bias" in params:
        x = x + params["bias"]
    if "q_bias" in params:
        x = x + qv_bias(params)
    if "bn" in params:
        x = batch_norm(params["bn"], x)
    return x * params["layer_scale"] if "layer_scale" in params else x


def conv(params: Params, x: Array, stride: int = 1) -> Array:
    """Convolution [B, height, width, in] -> [B, height / stride, width / stride, out].

    `weight` is HWIO [k, k, in / groups, out] with odd k. The image is padded with (k - 1) / 2 zeros on every
    side, as in PyTorch's networks. The number of groups follows from the shapes.
    """
    weight = params["weight"]
    x = jax.lax.conv_general_dilated(
        x,
        weight,
        window_strides=(stride, stride),
        padding=[(size // 2, size // 2) for size in weight.shape[:2]],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1] // weight.shape[2],
    )
    return batch_norm(params["bn"], x) if "bn" in params else x + params["bias"]


def patch_embed(params: Params, x: Array) -> Array:
    """Turns non-overlapping patches into tokens: [B, height, width, channels] -> [B, N, D].

    `weight` is HWIO [p, p, channels, D]. A p x p convolution with stride p is one matrix product over
    flattened patches. This form is also the faster one on CPU. Pixels beside whole patches are not seen.
    """
    weight = params["weight"]
    p, _, channels, width = weight.shape
    b, h, w = x.shape[0], x.shape[1] // p, x.shape[2] // p
    patches = x[:, : h * p, : w * p].reshape(b, h, p, w, p, channels).transpose(0, 1, 3, 2, 4, 5)
    patches = patches.reshape(b, h * w, p * p * channels)
    tokens = patches @ weight.reshape(p * p * channels, width)
    return tokens + params["bias"] if "bias" in params else tokens


def relu6(x: Array) -> Array:
    """ReLU clipped at 6."""
    return jnp.clip(x, 0.0, 6.0)


@partial(jax.jit, static_argnames="form")  # so that traces have it by its name
def gelu(x: Array, form: str) -> Array:
    """GELU in the form with which the checkpoint was trained: `'erf'` (exact), `'tanh'` or `'quick'`.

    The quick one is `x * sigmoid(1.702 x)` (1606.08415), with which CLIP was trained.
    """
    return x * jax.nn.sigmoid(1.702 * x) if form == "quick" else jax.nn.gelu(x, approximate=form == "tanh")


def mlp(params: Params, site: Site, x: Array, gelu_form: str) -> Array:
    """Two-layer perceptron with GELU: [..., D] -> [..., D]."""
    hidden = gelu(site("mlp/fc1", linear(params["fc1"], x)), gelu_form)
    return site("mlp/fc2", linear(params["fc2"], site("mlp/gelu", hidden)))


def split_heads(x: Array, num_heads: int) -> Array:
    """[B, N, H * d] -> [B, H, N, d]."""
    b, n, width = x.shape
    return x.reshape(b, n, num_heads, width // num_heads).transpose(0, 2, 1, 3)


def merge_heads(x: Array) -> Array:
    """[B, H, N, d] -> [B, N, H * d]."""
    b, h, n, d = x.shape
    return x.transpose(0, 2, 1, 3).reshape(b, n, h * d)


def relative_position_index(window: int) -> np.ndarray:
    """The row of a table of biases for every (query, key) of a square of tokens: [N, N]."""
    at = np.stack(np.meshgrid(np.arange(window), np.arange(window), indexing="ij")).reshape(2, -1)
    offset = at[:, :, None] - at[:, None] + window - 1
    return offset[0] * (2 * window - 1) + offset[1]


def max_pool(x: Array, size: int, stride: int) -> Array:
    """Largest of `size` x `size` neighbours (odd): [B, height, width, K] -> [B, height / stride, ..., K]."""
    pad = (size // 2, size // 2)
    window, strides = (1, size, size, 1), (1, stride, stride, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, ((0, 0), pad, pad, (0, 0)))


def mean_pool(x: Array, size: int) -> Array:
    """Mean of `size` x `size` pixels, at the edges of those that are there.

    [B, height, width, K] -> [B, height / size, width / size, K], rounded up.
    """
    window = (1, size, size, 1)

    def sums(x: Array) -> Array:
        pad = [(0, -side % size) for side in x.shape[1:3]]
        return jax.lax.reduce_window(x, 0.0, jax.lax.add, window, window, ((0, 0), *pad, (0, 0)))

    return sums(x) / sums(jnp.ones_like(x[:1, ..., :1]))  # one channel: XLA counts when it compiles, slowly
