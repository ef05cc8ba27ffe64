"""`evolq models`."""

from evolq_jax.cli.command import Call, Command
from evolq_jax.cli.tables import row_table
from evolq_jax.verbs.models import list_models

HEADINGS = ("name", "params", "px", "patch", "width", "depth", "heads")
SIZES = ("image_size", "patch_size", "width", "depth", "num_heads")


def run(call: Call) -> None:
    """Lists."""
    rows = [
        (
            model.name + (" (weights shipped)" if model.weights_included else ""),
            f"{model.num_params / 1e6:.1f}M",
            *(getattr(model, size) or "-" for size in SIZES),
        )
        for model in list_models()
    ]
    call.console.print(row_table("models", HEADINGS, rows))


COMMAND = Command(does="list the models of the registry", run=run, config=None)
