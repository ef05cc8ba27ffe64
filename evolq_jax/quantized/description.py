"""Which network a file holds: its name, sizes, preprocessing and precision, as plain values and back."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from cattrs import BaseValidationError, transform_error
from cattrs.preconf.json import make_converter
from cattrs.v import format_exception

from evolq_jax.devices.precision import Precision
from evolq_jax.errors import UserError
from evolq_jax.models.registry import REGISTRY, get_entry
from evolq_jax.network.parts import ModelParts
from evolq_jax.typing import Preprocessing

FIELDS = ("name", "config", "preprocessing", "precision")

converter = make_converter(forbid_extra_keys=True)


class Described(Protocol):
    """What has these fields: a network, or what was made from one."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def config(self) -> Any: ...  # noqa: D102

    @property
    def preprocessing(self) -> Preprocessing: ...  # noqa: D102

    @property
    def precision(self) -> Precision: ...  # noqa: D102


class Identity(NamedTuple):
    """A described network, with its functions."""

    parts: ModelParts
    name: str
    config: Any
    preprocessing: Preprocessing
    precision: Precision


def describe_network(network: Described) -> dict[str, Any]:
    """Its fields as plain values."""
    return {
        "name": network.name,
        "config": None if network.config is None else dataclasses.asdict(network.config),
        "preprocessing": dataclasses.asdict(network.preprocessing),
        "precision": network.precision,
    }


def find_network(described: Mapping[str, Any], parts: ModelParts | None, where: Path) -> Identity:
    """The network that a file describes.

    Args:
      described: holds `FIELDS`.
      parts: the functions of a network of your own; None: those of the registry are found by name.
      where: the file, for messages.

    Raises:
      UserError: a field is damaged, or `parts` are needed and not given.
    """
    name, config = described["name"], None
    if parts is None:
        if str(name).split(".")[0] not in REGISTRY:
            raise UserError(
                f"'{where}' holds the network '{name}', which is not in the registry: give its functions, "
                "load(path, parts)"
            )
        entry = get_entry(name)
        config = structured(described["config"], type(entry.config), where)
        parts = entry.family.make(config)
    preprocessing = structured(described["preprocessing"], Preprocessing, where)
    return Identity(parts, name, config, preprocessing, described["precision"])


def structured(fields: Any, kind: type, where: Path) -> Any:
    """A dataclass from its plain values.

    Raises:
      UserError: they are not those of such a dataclass.
    """
    try:
        return converter.structure(fields, kind)
    except BaseValidationError as error:
        reasons = "; ".join(transform_error(error, format_exception=_reason))
        raise UserError(f"'{where}' is damaged ({reasons}): write it again") from error


def _reason(error: BaseException, kind: type | None) -> str:
    return str(error) if isinstance(error, UserError) else format_exception(error, kind)
