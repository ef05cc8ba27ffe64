"""The quantizers once more, one number at a time: what the library is checked against."""

import math

import numpy as np

Row = np.ndarray


def int_range(bits: int, signed: bool) -> tuple[int, int]:
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def quantize(x: float, scale: float, zero_point: float, bits: int, signed: bool) -> float:
    """float32 arithmetic, as ties are decided by its last bit; Python rounds them to even."""
    low, high = int_range(bits, signed)
    steps = np.float32(x) / np.float32(scale) + np.float32(zero_point)
    return float(min(max(round(float(steps)), low), high))


def fake_quant(x: np.ndarray, scale: np.ndarray, zero: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    out = np.empty_like(x)
    scale, zero = np.broadcast_to(scale, x.shape), np.broadcast_to(zero, x.shape)
    for index in np.ndindex(*x.shape):
        q = quantize(float(x[index]), float(scale[index]), float(zero[index]), bits, signed)
        out[index] = np.float32(q - zero[index]) * scale[index]
    return out


def log2_fake_quant(x: float, bits: int) -> float:
    if x <= 0:
        return 0.0
    exponent = max(round(-math.log2(x)), 0)
    return 2.0**-exponent if exponent < 2**bits else 0.0


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float) -> np.ndarray:
    x = x.astype(np.float64)
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps) * weight + bias


def integer_layer_norm(x: Row, weight: Row, bias: Row, scale_in: Row, scale_out: float) -> Row:
    """One token [D]; FQ-ViT's formulas in double precision."""
    smallest = scale_in.min()
    x_q = [round(v / s) * round(s / smallest) for v, s in zip(x, scale_in, strict=True)]
    width = len(x_q)
    mean = sum(x_q) / width * smallest
    std = smallest / width * math.sqrt(width * sum(q * q for q in x_q) - sum(x_q) ** 2)
    out = np.empty(width)
    for i, q in enumerate(x_q):
        gain = smallest / std * weight[i] / scale_out
        shift = min(max(7 - math.floor(math.log2(abs(gain))), 0), 31) if gain else 31
        multiplier = min(math.floor(abs(gain) * 2**shift), 255)
        offset = round((bias[i] - mean / std * weight[i]) / scale_out * 2**shift)
        out[i] = round((math.copysign(multiplier, gain) * q + offset) / 2**shift) * scale_out
    return out


def integer_softmax(x: Row, scale: float, bits: int) -> Row:
    """One row of logits; I-BERT's exponential and FQ-ViT's rounding of the quotient, in double precision."""
    b, c = 0.96963238 / 0.35815147, 1 / 0.35815147
    ln2 = math.floor(-0.6931 / scale)
    q = x.astype(np.float64) / scale
    exps: list[float] = []
    for v in q - q.max():
        v = max(v, 30 * ln2)
        shift = math.floor(v / ln2)
        rest = v - ln2 * shift
        poly = rest * (rest + math.floor(b / scale)) + math.floor(c / scale**2)
        exps.append(max(math.floor(poly * 2.0 ** (30 - shift)), 0))
    out = np.zeros(len(exps))
    for i, exp in enumerate(exps):
        quotient = round(sum(exps) / exp)
        exponent = math.floor(math.log2(quotient))
        exponent += quotient - 2**exponent >= 2 ** (exponent - 1)
        out[i] = 2.0**-exponent if exponent < 2**bits else 0.0
    return out


def softmax(x: np.ndarray) -> np.ndarray:
    exp = np.exp(x.astype(np.float64) - x.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def attention_like(rng: np.random.Generator, rows: int, columns: int) -> np.ndarray:
    return softmax(3 * rng.standard_normal((rows, columns))).astype(np.float32)


def twin_fake_quant(x: float, fine: float, octaves: int, bits: int, signed: bool) -> float:
    """PTQ4ViT's two ranges; steps in float32, as ties are decided by its last bit."""
    half, coarse = 2 ** (bits - 1), float(np.float32(fine)) * 2**octaves
    in_fine, in_coarse = (float(np.float32(x) / np.float32(step)) for step in (fine, coarse))
    if x < 0:
        return max(round(in_fine), -half) * fine
    if not signed and round(in_fine) <= half - 1:
        return round(in_fine) * fine
    return min(round(in_coarse), half - 1) * coarse


def shifted_log_fake_quant(x: float, top: float, codes: int, bits: int) -> float:
    q = min(max(round(-codes * math.log2(max(x + 0.17, 1e-6) / top)), 0), 2**bits - 1)
    return top * 2.0 ** (-q / codes) - 0.17


def gelu(x: np.ndarray) -> np.ndarray:
    erf = np.vectorize(math.erf)
    return (x * 0.5 * (1 + erf(x / math.sqrt(2)))).astype(np.float32)
