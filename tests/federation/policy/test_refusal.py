"""A site's signed refusal, and the digest of the code that it runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from secure_fl.crypto.identities import Identity
from secure_fl.crypto.refusals import RefusedError
from secure_fl.crypto.strict_json import canonical
from secure_fl.errors import ConfigError
from secure_fl.federation.policy.installed import code_digest
from secure_fl.federation.policy.refusal import Refusal, open_refusal, refusal
from secure_fl.federation.policy.rules import RULES, Objection, ObjectionWord

PLAN = bytes(range(32))
SITE = Identity.generate("hospital-3")
OBJECTIONS = [
    Objection("privacy.epsilon", "9", "at most 8", ObjectionWord.TOO_LARGE),
    Objection("study.plans", "unknown", "ab", ObjectionWord.UNKNOWN),
]


def signed(document: object) -> bytes:
    signature = SITE.sign(b"refusal", canonical(document)).hex()
    return canonical({"refusal": document, "signature": signature})


def test_a_refusal_says_what_the_site_signed() -> None:
    data = refusal(SITE, PLAN, OBJECTIONS)
    assert open_refusal(data, SITE.member, PLAN) == Refusal("hospital-3", PLAN, tuple(OBJECTIONS))


def test_any_flipped_bit_is_found() -> None:
    data = refusal(SITE, PLAN, OBJECTIONS)
    for place in range(len(data)):
        for bit in (0x01, 0x20, 0x80):
            flipped = bytearray(data)
            flipped[place] ^= bit
            with pytest.raises(RefusedError):
                open_refusal(bytes(flipped), SITE.member, PLAN)


def test_a_refusal_is_one_sites_of_one_plan() -> None:
    data = refusal(SITE, PLAN, OBJECTIONS)
    with pytest.raises(RefusedError, match="wrong-parameters"):
        open_refusal(data, SITE.member, bytes(32))
    with pytest.raises(RefusedError, match="wrong-signature"):
        open_refusal(data, Identity.generate("hospital-3").member, PLAN)
    named = {"format": "secure-fl refusal 1", "name": "another", "plan": PLAN.hex()}
    with pytest.raises(RefusedError, match="unknown-client"):
        open_refusal(
            signed({**named, "objections": [dict.fromkeys(("field",))]}), SITE.member, PLAN
        )


def test_what_the_site_signed_is_read_strictly_all_the_same() -> None:
    objection = {"field": "a", "asked": "b", "allowed": "c", "reason": "too-large"}
    good = {
        "format": "secure-fl refusal 1",
        "name": SITE.name,
        "plan": PLAN.hex(),
        "objections": [objection],
    }
    assert open_refusal(signed(good), SITE.member, PLAN).objections[0].field == "a"
    for change in (
        {"format": "secure-fl refusal 2"},
        {"objections": []},
        {"objections": ["a"]},
        {"objections": [{**objection, "reason": "because"}]},
        {"objections": [{**objection, "more": "d"}]},
        {"plan": "AB" * 32},
        {"more": 1},
    ):
        with pytest.raises(RefusedError, match="malformed"):
            open_refusal(signed({**good, **change}), SITE.member, PLAN)
    with pytest.raises(RefusedError, match="wrong-length"):
        open_refusal(bytes(2**16 + 1), SITE.member, PLAN)


def test_nothing_is_refused_without_a_reason_or_a_plan() -> None:
    with pytest.raises(ConfigError, match="without a reason"):
        refusal(SITE, PLAN, [])
    with pytest.raises(ConfigError, match="32 bytes"):
        refusal(SITE, b"", OBJECTIONS)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    folder = tmp_path / "here" / "secure_fl"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "b.py").write_text("x = 1\n")
    (folder / "c.py").write_text("y = 2\n")
    return folder


def test_the_codes_digest_does_not_depend_on_where_it_lies_or_was_compiled(package: Path) -> None:
    before = code_digest({"secure_fl": package})
    moved = package.parent.parent / "elsewhere"
    shutil.copytree(package, moved)
    (moved / "__pycache__").mkdir()
    (moved / "__pycache__" / "c.cpython-311.pyc").write_bytes(b"compiled")
    (moved / ".DS_Store").write_bytes(b"of the desktop")
    (moved / "c.py").chmod(0o755)
    assert code_digest({"secure_fl": moved}) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / "c.py").write_text("y = 3\n"),
        lambda folder: (folder / "c.py").rename(folder / "d.py"),
        lambda folder: (folder / "c.py").rename(folder / "a" / "c.py"),
        lambda folder: (folder / "c.py").unlink(),
        lambda folder: (folder / "d.py").touch(),
        lambda folder: (folder / "a" / "b.py").write_text("x = 1\ny = 2\n"),
    ],
)
def test_any_change_of_the_code_is_another_digest(package: Path, change: object) -> None:
    before = code_digest({"secure_fl": package})
    change(package)  # type: ignore[operator]
    assert code_digest({"secure_fl": package}) != before


def test_the_installed_code_has_a_digest_over_both_packages() -> None:
    import secure_fl
    import secure_fl_kernels

    folders = {name: Path(module.__file__).parent for name, module in
               (("secure_fl", secure_fl), ("secure_fl_kernels", secure_fl_kernels))}  # fmt: skip
    assert code_digest() == code_digest(folders)
    assert code_digest() != code_digest({"secure_fl": folders["secure_fl"]})


def test_every_word_and_every_setting_is_explained() -> None:
    docs = Path(__file__).parents[3] / "docs"
    errors = (docs / "errors.md").read_text(encoding="utf-8")
    assert [word for word in ObjectionWord if f"`{word}`" not in errors] == []
    page = (docs / "secure-sum.md").read_text(encoding="utf-8").split("## What a site accepts")[1]
    table = [line for line in page.split("\n## ")[0].splitlines() if line.startswith("| `")]
    settings = {rule.field.partition(".")[2] for rule in RULES}
    named = {name.rpartition(".")[2] for line in table for name in line.split("|")[1].split("`")}
    assert settings - named == set()
