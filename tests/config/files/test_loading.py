"""Strict YAML and JSON: what is read, and each refusal word by word."""

from __future__ import annotations

import errno
import math
from pathlib import Path

import pytest

from pe_sim.config.files.loading import load_mapping, parse_json, parse_yaml, read_text
from pe_sim.config.files.strict_yaml import parse_yaml_value
from pe_sim.errors import InputError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16", 16),
        ("-3", -3),
        ("0", 0),
        ("0x10", 16),
        ("134_217_728", 134217728),
        ("1.5", 1.5),
        ("1.0e+9", 1e9),
        ("true", True),
        ("False", False),
        ("null", None),
        ("", None),
        ("[1, a]", [1, "a"]),
        # Text, where YAML 1.1 would see something else:
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("Off", "Off"),
        ("016", "016"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        # Text, as in YAML 1.1:
        ("1e9", "1e9"),
        ("1.0e9", "1.0e9"),
        ('"16"', "16"),
    ],
)
def test_yaml_scalars(text: str, value: object) -> None:
    parsed = parse_yaml_value(text, "here")
    assert parsed == value
    assert type(parsed) is type(value)


def test_yaml_special_floats_stay_floats_for_the_schema_to_refuse() -> None:
    assert parse_yaml_value("-.inf", "here") == -math.inf
    assert math.isnan(parse_yaml_value(".nan", "here"))


def test_yaml_keys_that_look_like_booleans_are_text() -> None:
    assert parse_yaml("on: 1\nno: 2\n", "here") == {"on": 1, "no": 2}


def test_yaml_merge_key_is_no_duplicate() -> None:
    assert parse_yaml("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n", "here")["b"] == {"x": 3, "y": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a: 1\nb: 2\na: 3\n",
            "f.yaml: malformed YAML at line 3, column 1: duplicate key 'a', first at line 1\n"
            "  hint:     keep one of the two",
        ),
        (
            "a: {b: 1,\n  b: 1}\n",
            "f.yaml: malformed YAML at line 2, column 3: duplicate key 'b', first at line 1\n"
            "  hint:     keep one of the two",
        ),
        ("a: b: c\n", "f.yaml: malformed YAML at line 1, column 5: mapping values are not allowed in this context"),
        (
            "16: 1\n",
            'f.yaml: malformed YAML at line 1, column 1: the key 16 is not text\n  hint:     put it in quotes: "16"',
        ),
        ("? [1]\n: 1\n", "f.yaml: malformed YAML at line 1, column 3: the key [...] is not text"),
        ("a: &a {b: *a}\n", "f.yaml: malformed YAML at line 1, column 4: found unconstructable recursive node"),
        (
            "",
            "f.yaml: the file is empty\n  expected: a mapping of names to values at the top level",
        ),
        (
            "- 1\n",
            "f.yaml: the top level is not a mapping\n  given:    [1]\n"
            "  expected: a mapping of names to values at the top level",
        ),
    ],
)
def test_yaml_refusals(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_yaml(text, "f.yaml")
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text",
    [
        "a: [1",
        "a: 1\n---\na: 2\n",
        "\ta: 1",
        "a: !!python/object:os.system x",
        "a: \x00",
        "a: !!bool 3",
        "a: " + "9" * 5000,
        "[" * 100_000,
        "a: " + "[" * 200 + "]" * 200,
        "a: !!timestamp x",
        "a: *missing",
        "%YAML 9\n---\na",
        "a: 'x",
    ],
)
def test_yaml_never_raises_anything_but_an_input_error(text: str) -> None:
    with pytest.raises(InputError, match=r"^f\.yaml: malformed YAML"):
        parse_yaml(text, "f.yaml")


def test_yaml_reads_what_is_nested_reasonably() -> None:
    value = parse_yaml_value("[" * 50 + "7" + "]" * 50, "here")
    for _ in range(50):
        (value,) = value
    assert value == 7


def test_json_reads_a_mapping() -> None:
    assert parse_json('{"a": [1, 2.5, true, null]}', "f.json") == {"a": [1, 2.5, True, None]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"a": 1,\n "a": 2}', "f.json: malformed JSON: duplicate key 'a'"),
        ('{"a": 1,\n "b" 2}', "f.json: malformed JSON at line 2, column 6: Expecting ':' delimiter"),
        (
            "3",
            "f.json: the top level is not a mapping\n  given:    3\n"
            "  expected: a mapping of names to values at the top level",
        ),
        ("[" * 200_000, "f.json: malformed JSON: nested too deeply"),
    ],
)
def test_json_refusals(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_json(text, "f.json")
    assert str(caught.value) == message


def test_ending_chooses_the_language(tmp_path: Path) -> None:
    as_json, as_yaml = tmp_path / "a.JSON", tmp_path / "a.yaml"
    for path in (as_json, as_yaml):
        path.write_text("a: 1")
    assert load_mapping(as_yaml) == {"a": 1}
    with pytest.raises(InputError, match="malformed JSON at line 1, column 1"):
        load_mapping(as_json)


def test_read_text_drops_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "bom.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_text(path) == "a: 1"


def test_read_text_refusals(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"name: \xe9t\xe9")
    with pytest.raises(InputError) as caught:
        read_text(latin)
    assert str(caught.value) == f"{latin}: not UTF-8 text: byte 0xe9 at offset 6\n  expected: a text file in UTF-8"
    with pytest.raises(InputError, match="this is a folder"):
        read_text(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_text(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="the file cannot be read"):
        read_text(Path("nul\0.yaml"))
    with pytest.raises(InputError, match="the file cannot be read: File name too long"):
        read_text(tmp_path / ("x" * 1000))


def test_read_text_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, mode: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)  # not chmod: root reads every file
    with pytest.raises(InputError) as caught:
        read_text(tmp_path / "secret.yaml")
    assert str(caught.value) == f"{tmp_path / 'secret.yaml'}: the file cannot be read: Permission denied"


def test_aliases_are_refused_before_they_multiply():
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 9))
    with pytest.raises(InputError, match="aliases"):
        parse_yaml("l0: &l0 [1]\n" + levels, "bomb.yaml")
    assert parse_yaml("note: 5 * 3  # no *alias\n", "plain.yaml") == {"note": "5 * 3"}
