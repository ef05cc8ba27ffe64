from html.parser import HTMLParser

from evolq_jax.figures.page import Shown, Table, page

EVIL = "<script>a & \"b\" 'c'</script>"


class Reader(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.text = ""
        self.feed(content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        self.text += "".join(value or "" for name, value in attrs if name == "alt")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_shows_pictures_tables_and_files() -> None:
    shown = Shown("a bowl", {"png": "pictures/bowl.png", "svg": "pictures/bowl.svg"})
    table = Table("numbers", [("kl", "0.5")], ("loss", "value"))
    made = page("title", "about", pictures=[shown], tables=[table], files={"result.json": "all"})
    found = Reader(made)
    assert found.links == ["pictures/bowl.png", "pictures/bowl.png", "pictures/bowl.svg", "result.json"]
    for text in ("title", "about", "a bowl", "SVG", "numbers", "loss", "0.5", "all"):
        assert text in found.text


def test_text_is_escaped_everywhere() -> None:
    shown = Shown(EVIL, {"png": f"{EVIL}.png"})
    made = page(EVIL, EVIL, pictures=[shown], tables=[Table(EVIL, [(EVIL,)], (EVIL,))], files={EVIL: EVIL})
    found = Reader(made)
    assert "script" not in found.tags
    assert (
        found.text.count(EVIL) == 10
    )  # title and heading, about, alt and caption, table (3), link, its text
    assert not any(set("<>\"' ") & set(link) for link in found.links)
