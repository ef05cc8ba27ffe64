import jax
import pytest

from evolq_jax.devices.precision import matmul_precision
from evolq_jax.errors import UserError


@pytest.mark.parametrize(("backend", "precision"), [("cpu", "tf32"), ("cpu", "bfloat16"), ("tpu", "tf32")])
def test_what_the_hardware_lacks_is_refused(
    backend: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    with pytest.raises(UserError, match=f"precision {precision} is not one that {backend.upper()}s have"):
        matmul_precision(precision)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("backend", "precision", "lowered"),
    [
        ("cpu", "float32", "precision = [HIGHEST, HIGHEST]"),
        ("gpu", "float32", "precision = [HIGHEST, HIGHEST]"),
        ("gpu", "tf32", "precision = [HIGH, HIGH]"),
        ("gpu", "bfloat16", "lhs_precision_type = bf16"),
        ("tpu", "bfloat16", "precision = [DEFAULT, DEFAULT]"),
    ],
)
def test_products_are_asked_for_in_the_precision(
    backend: str, precision: str, lowered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the program as it is handed to the compiler; only a CPU is here to run one."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    platform = {"gpu": "cuda"}.get(backend, backend)
    with matmul_precision(precision):  # pyright: ignore[reportArgumentType]
        traced = jax.jit(lambda x: x @ x).trace(jax.ShapeDtypeStruct((8, 8), "float32"))
    assert lowered in traced.lower(lowering_platforms=(platform,)).as_text()
