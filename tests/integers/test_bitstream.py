import jax.numpy as jnp
import numpy as np
import pytest

from evolq_jax.integers.bitstream import num_bytes, pack, unpack, unpack_traced

WIDTHS = range(2, 9)


def codes_of(bits: int, count: int, *, signed: bool) -> np.ndarray:
    """Every code of so many bits is among them."""
    low = -(1 << bits - 1) if signed else 0
    return (np.arange(count) * 7 % (1 << bits) + low).astype(np.int8 if signed else np.uint8)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", WIDTHS)
def test_codes_come_back(bits: int, signed: bool) -> None:
    codes = codes_of(bits, 311, signed=signed).reshape(1, 311)
    stream = pack(codes, bits)
    assert stream.dtype == np.uint8
    assert stream.shape == (num_bytes(311, bits),)
    again = unpack(stream, bits, (1, 311), signed=signed)
    assert again.dtype == codes.dtype
    np.testing.assert_array_equal(again, codes)
    np.testing.assert_array_equal(unpack_traced(jnp.asarray(stream), bits, (1, 311), signed=signed), codes)


def test_the_first_code_has_the_lowest_bits() -> None:
    np.testing.assert_array_equal(pack(np.array([0x1, 0xF, 0x2]), 4), [0xF1, 0x02])
    # 0b001, 0b110, 0b111: from the lowest bit on 100 011 111, as bytes 11110001 and 1
    np.testing.assert_array_equal(pack(np.array([1, 6, 7]), 3), [0b11110001, 0b1])


def test_four_bits_lie_as_in_onnx() -> None:
    onnx = pytest.importorskip("onnx", reason="onnx is not installed: pip install 'evolq_jax[onnx]'")
    codes = codes_of(4, 33, signed=True)
    tensor = onnx.helper.make_tensor("codes", onnx.TensorProto.INT4, [33], codes)
    np.testing.assert_array_equal(
        np.frombuffer(tensor.raw_data or bytes(tensor.int32_data), np.uint8), pack(codes, 4)
    )
