"""Text of strangers in Markdown."""

import html
import re

import pytest
from markdown_it import MarkdownIt

from models.markdown import plain_markdown

HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[click](javascript:alert(1))",
    "![x](https://evil.example/track.png)",
    "<javascript:alert(1)>",
    "[a]: javascript:alert(1)",
    "a | b |\n| c",
    "x\n\n# heading\n\n- item",
    "`code` **bold** _em_ ~~no~~",
    "&lt;b&gt; &#106;avascript:",
    "back\\slash \\<b> \\[a](javascript:b) \\| c",
    "\x1b[2J\u202e reversed",
    "CC0-1.0, by Büro & Söhne (日本)",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_a_cell_shows_the_text_and_nothing_else(text: str) -> None:
    table = f"| a | b |\n|---|---|\n| {plain_markdown(text)} | x |\n"
    rendered = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render(table)
    content, _ = re.findall("<td>(.*?)</td>", rendered)
    shown = " ".join("".join(one if one.isprintable() else " " for one in text).split())
    assert "<" not in content
    assert html.unescape(content) == shown


def test_usual_words_stay_readable() -> None:
    assert plain_markdown("CC0-1.0, from base:clothing on") == "CC0-1.0, from base:clothing on"
