"""The names of a network's classes."""

from evolq_jax.data.class_index import read_class_index
from evolq_jax.errors import UserError
from evolq_jax.paths import user_path


def class_names(class_index: str | None, num_outputs: int) -> tuple[str, ...] | None:
    """The classes of a list, by index. None: there is no list. One output tells two classes apart.

    Raises:
      UserError: the list cannot be read, or has another number of classes.
    """
    if class_index is None:
        return None
    index = read_class_index(user_path(class_index, "data.class_index"))
    names, num_classes = tuple(index.titles), max(num_outputs, 2)
    if len(names) != num_classes:
        raise UserError(
            f"{class_index} names {len(names)} classes, but the network has {num_classes}: give its own list "
            "with --data.class-index, or --data.class-index none"
        )
    return names
