"""`evolq info`."""

import argparse
from collections.abc import Iterator

from evolq_jax.cli.command import Call, Command
from evolq_jax.cli.tables import fact_table, row_table, score_rows
from evolq_jax.verbs.info import Info, SiteCodes, read_info


def run(call: Call) -> None:
    """Shows what the file says of itself."""
    info = read_info(call.options.file)
    call.console.print(fact_table(call.options.file, dict(_facts(info))))
    call.console.print(row_table("quantized sites", ("site", "kind", "bits", "codes"), map(_row, info.sites)))
    if info.about.metrics:
        title = f"scores on {info.about.num_images} images"
        metrics = info.about.metrics
        call.console.print(row_table(title, ("", *metrics), score_rows(metrics)))


def _facts(info: Info) -> Iterator[tuple[str, object]]:
    yield "model", info.model
    yield "format", info.format
    yield "size", f"{info.bytes / 1e6:.2f} MB, {info.ratio:.1f} times smaller than float32"
    for bits, (count, numbers) in info.weights.items():
        yield f"weights of {bits} bits", f"{count} with {numbers:,} parameters"
    yield (
        "stay float",
        f"{info.float_parameters:,} parameters; {', '.join(info.float_sites) or 'no activation'}",
    )
    if info.allowed_floats:
        yield "computed in float", ", ".join(info.allowed_floats)
    if info.about.class_names:
        yield "classes", f"{len(info.about.class_names):,} with names"
    for name, fingerprint in info.about.provenance.get("fingerprints", {}).items():
        yield f"fingerprint of {name}", fingerprint
    versions = info.about.provenance.get("versions", {})
    if versions:
        yield "made with", ", ".join(f"{name} {version}" for name, version in versions.items())


def _row(site: SiteCodes) -> list[str]:
    """A site's. Where its blocks have different bits, those of each."""
    bits = site.bits[:1] if len(set(site.bits)) == 1 else site.bits
    return [site.site, site.quantizer, " ".join(map(str, bits)), "signed" if site.signed else "unsigned"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """The file."""
    parser.add_argument("file", metavar="FILE", help="what `evolq export` wrote")


COMMAND = Command(
    does="show what an exported file holds: bits, sizes, scores, and what stays float",
    run=run,
    config=None,
    add_options=add_options,
)
