"""A page that shows the pictures of a directory: one HTML file that needs nothing from elsewhere."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import NamedTuple
from urllib.parse import quote

STYLE = (
    "body{font:15px/1.5 sans-serif;margin:2em auto;max-width:70em;padding:0 1em;color:#222;background:#fff}"
    "main{display:grid;grid-template-columns:repeat(auto-fill,minmax(20em,1fr));gap:1.5em}"
    "figure{margin:0}img{width:100%}figcaption{font-size:13px}table{border-collapse:collapse;font-size:13px}"
    "td,th{padding:.15em 1em .15em 0;text-align:left;vertical-align:top;overflow-wrap:anywhere}"
)


class Shown(NamedTuple):
    """A picture on the page."""

    caption: str
    files: Mapping[str, str]  # the path of each format, relative to the page, `png` among them


class Table(NamedTuple):
    """A table on the page. Without a head its first column says what the others are."""

    title: str
    rows: Sequence[Sequence[str]]
    head: Sequence[str] = ()


def page(
    title: str, about: str, *, pictures: Iterable[Shown], tables: Iterable[Table], files: Mapping[str, str]
) -> bytes:
    """The page, in UTF-8. All text is escaped.

    Args:
      title: of the page.
      about: a sentence under the title.
      pictures: shown in this order, each with links to its files.
      tables: below the pictures.
      files: other files, by their path relative to the page, and what they hold.
    """
    links = "".join(f"<li>{_link(path, path)}: {escape(what)}</li>" for path, what in files.items())
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>',
        f"<style>{STYLE}</style><h1>{escape(title)}</h1><p>{escape(about)}</p><main>",
        *map(_figure, pictures),
        "</main>",
        *map(_table, tables),
        f"<h2>Files</h2><ul>{links}</ul></html>",
    ]
    return "\n".join(parts).encode() + b"\n"


def _link(path: str, text: str) -> str:
    return f'<a href="{escape(quote(path))}">{escape(text)}</a>'


def _figure(shown: Shown) -> str:
    caption, source = escape(shown.caption), escape(quote(shown.files["png"]))
    links = " · ".join(_link(path, kind.upper()) for kind, path in shown.files.items())
    return (
        f'<figure><img src="{source}" alt="{caption}"><figcaption>{caption}<br>{links}</figcaption></figure>'
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
    rows = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows)
    return f"<h2>{escape(table.title)}</h2><table>{f'<tr>{head}</tr>' if head else ''}{rows}</table>"
