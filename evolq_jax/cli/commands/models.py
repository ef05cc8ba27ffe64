"""`evolq models`."""

from evolq_jax.cli.command import Call, Command
from evolq_jax.cli.tables import row_table
from evolq_jax.verbs.models import list_models

HEADINGS = ("name", "M params", "image", "patch", "width", "depth", "heads", "weights")
SIZES = ("image_size", "patch_size", "width", "depth", "num_heads")


def run(call: Call) -> None:
    """Lists."""
    rows = [
        (
            model.name,
            round(model.num_params / 1e6, 1),
            *(getattr(model, size) or "-" for size in SIZES),
            "included" if model.weights_included else "",
        )
        for model in list_models()
    ]
    call.console.print(row_table("models", HEADINGS, rows))


COMMAND = Command(does="list the models of the registry", run=run, config=None)
