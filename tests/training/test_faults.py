"""What fails validation is described in plain words, never in pydantic's."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field, ValidationError, field_validator

from training.faults import first_fault
from training.records import Record


class _Group(Record):
    ratio: float = 0.5


class _Settings(Record):
    mode: Literal["off", "random", "static"] = "off"
    factor: Literal[2, 4] = 4
    above: Annotated[float, Field(gt=0)] = 1.0
    at_least: Annotated[int, Field(ge=2)] = 2
    below: Annotated[float, Field(lt=1)] = 0.5
    at_most: Annotated[int, Field(le=1_000_000)] = 1
    whole: int = 0
    number: float = 0.0
    flag: bool = False
    text: str = ""
    digits: Annotated[str, Field(pattern=r"^\d+$")] = "0"
    short: Annotated[str, Field(min_length=2, max_length=3)] = "ab"
    several: Annotated[tuple[str, ...], Field(min_length=1, max_length=2)] = ("a",)
    entries: dict[str, str] = Field(default_factory=dict)
    group: _Group = _Group()
    when: datetime | None = None
    colour: str = "white"

    @field_validator("colour")
    @classmethod
    def _is_white(cls, colour: str) -> str:
        if colour != "white":
            raise ValueError(f"{colour} is not white")
        return colour


class _Complete(BaseModel):
    name: str


def fault_of(model: type[BaseModel], values: Any, whole: str = "") -> str:
    with pytest.raises(ValidationError) as refused:
        model.model_validate(values)
    return first_fault(refused.value, whole)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("mode", "maybe", "mode 'maybe': must be 'off', 'random' or 'static'"),
        ("factor", 3, "factor 3: must be 2 or 4"),
        ("above", 0, "above 0: must be above 0"),
        ("at_least", 1, "at_least 1: must be 2 or more"),
        ("below", 1.0, "below 1.0: must be below 1"),
        ("at_most", 2_000_000, "at_most 2000000: must be 1000000 or less"),
        ("whole", "many", "whole 'many': must be a whole number"),
        ("whole", 0.5, "whole 0.5: must be a whole number"),
        ("whole", [], "whole: must be a whole number"),
        ("number", "many", "number 'many': must be a number"),
        ("number", float("nan"), "number nan: must be a finite number"),
        ("number", None, "number: must be a number"),
        ("flag", "perhaps", "flag 'perhaps': must be true or false"),
        ("text", 1, "text 1: must be text"),
        ("digits", "one", r"digits 'one': must match ^\d+$"),
        ("digits", "x" * 61, r"digits: must match ^\d+$"),  # too long to be repeated
        ("short", "a", "short 'a': must have 2 or more characters"),
        ("short", "abcd", "short 'abcd': may have at most 3 characters"),
        ("several", [], "several: must have 1 or more entries"),
        ("several", ["a", "b", "c"], "several: may have at most 2 entries"),
        ("several", 1, "several 1: must be a list"),
        ("entries", 1, "entries 1: must be an object"),
        ("group", 1, "group 1: must be an object"),
        ("group", {"ratio": "x"}, "group.ratio 'x': must be a number"),
        ("group", {"ration": 1}, "group.ration: is not a known field"),
        ("when", "yesterday", "when 'yesterday': must be a time such as 2026-11-24T12:00:00Z"),
        ("colour", "red", "colour: red is not white"),
    ],
)
def test_a_field_that_fails_validation(field: str, value: object, message: str) -> None:
    assert fault_of(_Settings, {field: value}) == message


def test_the_first_of_several_faults_is_described() -> None:
    assert fault_of(_Complete, {}) == "name: is missing"
    assert fault_of(_Settings, {"above": -1, "whole": "x"}).startswith("above -1: ")


def test_a_fault_of_no_single_field() -> None:
    with pytest.raises(ValidationError) as refused:
        _Complete.model_validate_json(b"{")
    assert first_fault(refused.value) == "is not valid JSON"
    assert first_fault(refused.value, "settings") == "settings: is not valid JSON"
    assert fault_of(_Complete, 5, "settings") == "settings 5: must be an object"


def test_a_kind_that_is_not_listed_is_described_without_the_librarys_words() -> None:
    class Rare(BaseModel):
        size: Annotated[int, Field(multiple_of=8)]

    assert fault_of(Rare, {"size": 7}) == "size 7: is not valid"


def test_a_missing_file_is_described_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        (tmp_path / "card.json").read_bytes()
    assert first_fault(missing.value) == f"No such file or directory: {tmp_path / 'card.json'}"


def test_other_errors_are_described_by_their_text() -> None:
    assert first_fault(OSError("the disk is full"), "settings") == "the disk is full"
