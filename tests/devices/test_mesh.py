import numpy as np
import pytest
from jax.sharding import AbstractMesh

from evolq_jax.config.experiment import Experiment
from evolq_jax.devices.mesh import AXES, make_mesh, mesh_sizes, parse_mesh
from evolq_jax.devices.placement import Placement, even_chunk
from evolq_jax.errors import UserError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("candidates=4", "names the unknown axis 'candidates'; did you mean 'candidate'"),
        ("4", "names the unknown axis '4'"),
        ("", "names the unknown axis ''"),
        ("data=2,data=4", "names the axis 'data' twice"),
        ("data=two", "the size of 'data' must be a positive number, not 'two'"),
        ("data", "the size of 'data' must be a positive number, not ''"),
        ("candidate=0,data=2", "the size of 'candidate' must be a positive number, not '0'"),
    ],
)
def test_a_mesh_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Experiment(mesh=text)


def test_sizes_fit_the_devices() -> None:
    assert parse_mesh(" candidate = 4 , data=2") == {"candidate": 4, "data": 2}
    assert mesh_sizes("candidate=4,data=2", 1, 8) == (4, 2)
    assert mesh_sizes("candidate=4", 1, 8) == (4, 2)
    assert mesh_sizes("data=3", 1, 6) == (2, 3)
    assert mesh_sizes("candidate=2,data=2", 1, 8) == (2, 2)  # the first four
    with pytest.raises(UserError, match="8 devices do not divide by 3; give data too"):
        mesh_sizes("candidate=3", 1, 8)
    for text in ("candidate=4,data=4", "candidate=16"):
        with pytest.raises(UserError, match="needs 16 devices, and there are 8"):
            mesh_sizes(text, 1, 8)


@pytest.mark.parametrize(
    ("population", "devices", "sizes"),
    [(1, 8, (1, 8)), (6, 8, (2, 4)), (16, 8, (8, 1)), (5, 4, (1, 4)), (12, 6, (6, 1)), (6, 1, (1, 1))],
)
def test_automatic_sizes_divide_the_population(population: int, devices: int, sizes: tuple[int, int]) -> None:
    assert mesh_sizes(None, population, devices) == sizes


def test_one_device_has_no_mesh() -> None:
    assert make_mesh("candidate=1,data=1") is None


def test_chunks_are_even() -> None:
    for count in range(1, 60):
        for at_most in range(1, 20):
            size = even_chunk(count, at_most)
            chunks = -(-count // size)
            assert size <= at_most
            assert chunks == -(-count // at_most)  # as few as can be
            assert chunks * size - count < chunks  # each is at most one short


@pytest.mark.parametrize(("counts", "chunk"), [((22, 8), 4), ((50, 50), 10), ((63, 0), 10), ((3, 1), 10)])
@pytest.mark.parametrize("devices", [1, 2, 8])
def test_every_device_holds_the_first_images_first(counts: tuple[int, int], chunk: int, devices: int) -> None:
    """A prefix of every device's share, dealt back, is a prefix of the part."""
    placement = Placement(AbstractMesh((1, devices), AXES), counts, chunk)  # pyright: ignore[reportArgumentType]
    assert all(share % placement.unit == 0 for share in placement.shares)
    assert placement.unit <= chunk
    rows = placement.rows().reshape(devices, -1)
    assert set(rows.ravel()) == set(range(sum(counts)))
    first = 0
    for part, count in enumerate(counts):
        own = rows[:, sum(placement.shares[:part]) :][:, : placement.shares[part]]
        for num_images in range(1, count + 1):
            share = placement.share(num_images)
            dealt_back = own[:, :share].T.ravel()[:num_images]
            np.testing.assert_array_equal(dealt_back, first + np.arange(num_images))
        first += count
