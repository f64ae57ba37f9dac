"""What the docs say of settings is what the settings' model says."""

import re
from pathlib import Path

import pytest

from service.settings import Settings, load_settings

from .settings_reference import FILE, reference

DOCS = [page for page in sorted(FILE.parent.glob("*.md")) if page != FILE]
README = FILE.parents[1] / "README.md"
FIELDS = Settings.model_fields
NUMBER = r"[0-9][0-9 ,_.]*"


def test_the_page_is_as_the_model_is() -> None:
    wanted = reference()
    assert FILE.read_text() == wanted, (
        "docs/settings.md differs from service/settings.py: run "
        f"`python -m tests.service.settings_reference`, which writes\n\n{wanted}"
    )


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_each_setting_is_described(name: str) -> None:
    description = FIELDS[name].description
    assert description, f"{name} needs a description in service/settings.py"
    assert "|" not in description


@pytest.mark.usefixtures("bento_home")
def test_defaults_can_be_set_as_the_page_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", FILE.read_text(), re.MULTILINE)
    assert len(rows) > 20
    before = load_settings()
    monkeypatch.delenv("CATALOGAN_MARKS")
    for name, written in rows:
        monkeypatch.setenv(f"CATALOGAN_{name.upper()}", written)
    after = load_settings()
    for name, _ in rows:
        assert getattr(after, name) == FIELDS[name].get_default()
    assert before.workers == after.workers


@pytest.mark.parametrize("page", [*DOCS, README], ids=lambda page: page.name)
def test_no_other_page_says_another_default(page: Path) -> None:
    """Neither in a table beside the name, nor in brackets behind it."""
    text = page.read_text()
    said = re.findall(rf"`(?:CATALOGAN_)?(\w+)` \| ({NUMBER}) \| \S", text)  # one more cell behind
    said += re.findall(rf"`(?:CATALOGAN_)?(\w+)` \(({NUMBER})\)", text)
    for name, number in said:
        field = FIELDS.get(name.lower())
        if field is not None and field.default is not None:
            written = float(re.sub(r"[ ,_]", "", number))
            assert written == field.default, f"{page.name}: {name} is {field.default}"


def test_every_setting_that_the_docs_name_exists() -> None:
    for page in (*DOCS, README):
        for name in re.findall(r"`CATALOGAN_([A-Z_0-9]+)", page.read_text()):
            known = name.lower() in FIELDS or name in ("BASE_URL", "TEST_PHOTOS")
            assert known, f"{page.name} names CATALOGAN_{name}"
