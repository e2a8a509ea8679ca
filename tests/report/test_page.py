"""What the page says: four answers first, who is where under which name, each run's own protection,
and nothing that a name can turn into.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from report.pages import Reader, edit, read, summary

from secure_fl.errors import SecureFLError

pytest.importorskip("matplotlib")
pytest.importorskip("jinja2")

HOSTILE = '<script>alert("x")</script><img src=https://example.org/x>'
NO_GLOBAL = "no run with one pool to compare with: one more run, with pools.count = 1, gives it"


def test_four_tiles_answer_first(runs: dict[str, Path], tmp_path: Path) -> None:
    page, reader = read([runs["pools"], runs["global"]], tmp_path / "page.html")
    good, private, who, cost = reader.tiles[:4]
    pools, base = summary(runs["pools"])["pools"], summary(runs["global"])["pools"]
    assert f"{pools['accuracy']:.3f}" in good
    assert (
        f"one global model (global): {base['accuracy']:.3f}, so "
        f"{pools['accuracy'] - base['accuracy']:+.3f}" in good
    )
    assert "no ε" in private
    assert "the server reads every client's update" in private
    for pool in set(pools["choices"].values()):
        members = [client for client, choice in pools["choices"].items() if choice == pool]
        assert f"pool {pool}: {len(members)} client" in who
        assert f"({', '.join(members)})" in who
    assert "to the server" in cost
    assert page.index('class="tiles"') < page.index("<table")


def test_a_run_without_a_global_model_says_what_to_add(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    assert NO_GLOBAL in read([runs["pools"]], tmp_path / "page.html")[1].tiles[0]
    assert "this is the global model" in read([runs["global"]], tmp_path / "page.html")[1].tiles[0]


def test_a_global_model_of_other_clients_is_not_compared_with(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    _, reader = read([runs["private"], runs["global"]], tmp_path / "page.html")
    assert "global has one pool, but other data, clients or seed" in reader.tiles[0]
    assert "so +" not in reader.tiles[0]


def test_balanced_accuracy_and_the_most_frequent_class_are_shown_where_they_are(
    copies: dict[str, Path], tmp_path: Path
) -> None:
    edit(
        copies["pools"] / "summary.json",
        lambda s: s["pools"].update(balanced_accuracy=0.4321, majority=0.1234),
    )
    good = read([copies["pools"]], tmp_path / "page.html")[1].tiles[0]
    assert "balanced accuracy: 0.432" in good
    assert "who always says the most frequent class: 0.123" in good


def test_each_run_stands_with_its_own_protection_and_claims(
    runs: dict[str, Path], tmp_path: Path
) -> None:
    page, reader = read([runs["pools"], runs["private"]], tmp_path / "page.html")
    compared = {row[0]: row for row in reader.rows if len(row) == 11}
    assert "plain: read by the server" in compared["pools"]
    assert "none" in compared["pools"]
    assert "masked" in compared["ward"]
    worst = max(claim["epsilon"] for claim in summary(runs["private"])["privacy"]["claims"])
    shown = float(re.search(r"ε ≤ ([\d.]+) for one example", " ".join(compared["ward"])).group(1))  # type: ignore[union-attr]
    assert worst <= shown < worst + 0.02, "never rounded down"
    sections = page.split('<details class="run"')[1:]
    assert len(sections) == 2
    for section, name in zip(sections, ("pools", "private"), strict=True):
        for warning in summary(runs[name])["unprotected"]:
            assert warning.replace("'", "&#39;") in section
    assert "no protection: the server reads" not in sections[1]
    for claim in summary(runs["private"])["privacy"]["claims"]:
        row = next(
            row
            for row in Reader(sections[1]).rows
            if row[0] == claim["adversary"] and len(row) == 5
        )
        assert f"{claim['delta']:g}" == row[2]
        assert claim["epsilon"] <= float(row[1]) < claim["epsilon"] + 0.02


def test_who_can_read_what_is_a_list_of_clauses(runs: dict[str, Path], tmp_path: Path) -> None:
    page, _ = read([runs["private"]], tmp_path / "page.html")
    for row in summary(runs["private"])["secrecy"]:
        assert f"<li>{row['reads'].split('; ')[0]}" in page.replace("&#39;", "'")


def test_clients_go_by_their_names(copies: dict[str, Path], tmp_path: Path) -> None:
    names = ["St. Mary's", HOSTILE, "$x^2$ _y", ""]

    def name(document: Any) -> None:
        document["class_names"] = ["normal", "$a_{", HOSTILE]
        for client, called in zip(document["clients"], names, strict=True):
            client["name"] = called

    edit(copies["pools"] / "partition.json", name)
    _, reader = read([copies["pools"]], tmp_path / "page.html")
    pools = summary(copies["pools"])["pools"]
    for client, called in ((0, "St. Mary's"), (2, "$x^2$ _y"), (3, "client 3")):
        assert called in reader.tiles[2]
        row = reader.row(called)
        assert row[1] == f"pool {pools['choices'][str(client)]}"
        assert row[2] == f"{pools['accuracies'][str(client)]:.3f}"
    assert any(
        ("class", "sortable") in attributes.items()
        for tag, attributes in reader.tags
        if tag == "table"
    )


def test_labels_go_by_their_names_in_plots(copies: dict[str, Path]) -> None:
    from secure_fl.report.plots import embedding_plot, partition_plot
    from secure_fl.report.runs import read_runs

    edit(
        copies["pools"] / "partition.json",
        lambda d: d.update(class_names=["normal", "$a_{", "<b>"]),
    )
    found = read_runs([copies["pools"]])[0]
    assert found.partition is not None
    drawn = partition_plot(found.partition).svg
    for name in (">normal<", ">$a_{<", ">&lt;b&gt;<"):
        assert name in drawn
    assert found.embedding is not None
    keys = embedding_plot(found.embedding, "label", found.partition.class_names).keys
    assert [key.label for key in keys] == ["normal", "$a_{", "<b>"]


def test_names_turn_into_nothing_and_nothing_is_asked_for(
    copies: dict[str, Path], tmp_path: Path
) -> None:
    folder = copies["pools"]
    edit(folder / "summary.json", lambda s: s.update(name=HOSTILE, unprotected=[HOSTILE]))

    def name(document: Any) -> None:
        document["class_names"] = [HOSTILE] * 3
        for client in document["clients"]:
            client |= {"name": HOSTILE, "note": HOSTILE}

    edit(folder / "partition.json", name)
    page, reader = read([folder, copies["global"]], tmp_path / "page.html")
    assert sum(tag == "script" for tag, _ in reader.tags) == 1, "the page's own"
    assert not any("src" in attributes for tag, attributes in reader.tags if tag == "script")
    for tag, attributes in reader.tags:
        for name_, value in attributes.items():
            if name_ in ("src", "srcset", "href"):
                assert value is not None
                assert value.startswith(("data:image/svg+xml;base64,", "#")), (tag, name_)
            assert not name_.startswith("on")
    policy = next(
        attributes["content"]
        for tag, attributes in reader.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe-inline" not in policy.split("script-src")[1]
    assert "url(" not in page.split("</style>")[0]


def test_the_policy_names_the_script_that_is_there(runs: dict[str, Path], tmp_path: Path) -> None:
    from base64 import b64encode
    from hashlib import sha256

    page, _ = read([runs["pools"]], tmp_path / "page.html")
    script = page.split("<script>")[1].split("</script>")[0]
    assert f"&#39;sha256-{b64encode(sha256(script.encode()).digest()).decode()}&#39;" in page


def test_runs_are_told_apart() -> None:
    from secure_fl.report.names import told_apart

    places = [Path("/a/x"), Path("/a/y"), Path("/b/x"), Path("/b/y")]
    assert told_apart([("secure-fl", places[0]), ("digits", places[1])]) == ["x", "digits"]
    assert told_apart([("digits", places[0]), ("digits", places[1])]) == [
        "digits (x)",
        "digits (y)",
    ]
    assert told_apart([("digits", places[0]), ("digits", places[2])]) == [
        "digits (a/x)",
        "digits (b/x)",
    ]
    assert told_apart([("secure-fl", places[0]), ("secure-fl", places[2])]) == ["a/x", "b/x"]
    assert (
        len(
            set(
                told_apart(
                    [
                        ("digits (x)", places[1]),
                        ("digits", places[0]),
                        ("digits", places[1]),
                        ("x", places[3]),
                    ]
                )
            )
        )
        == 4
    )


def test_a_folder_named_twice_is_one_run(runs: dict[str, Path], tmp_path: Path) -> None:
    assert (
        len(
            read([runs["pools"], runs["pools"]], tmp_path / "page.html")[0].split(
                '<details class="run"'
            )
        )
        == 2
    )


@pytest.mark.parametrize("name", ["a\u202eb\x00\n\ud800", "x" * 500, "\ufffe", "مستشفى"])
def test_names_are_printed_in_one_line(name: str) -> None:
    from secure_fl.report.names import brief, printable

    shown = printable(name)
    assert len(shown) <= 62
    assert not set(shown) & set("\u202e\x00\n\ud800\ufffe")
    assert shown.count("\u2068") == shown.count("\u2069") == brief(shown, 5).count("\u2069")
    shown.encode()


def with_course(folder: Path, counts: list[list[int]], alerts: dict[int, str]) -> None:
    """Rounds of clustering with these clients in the pools and these alerts."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    like = next(line for line in lines if line["phase"] == "cluster")
    course = []
    for number, members in enumerate(counts, 1):
        pools = like["metrics"]["pools"] | {"counts": members, "alert": alerts.get(number)}
        course.append(like | {"round": number, "metrics": like["metrics"] | {"pools": pools}})
    kept = [line for line in lines if line["phase"] not in ("cluster", "evaluate")]
    (folder / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in [*kept, *course])
    )


def test_closed_pools_and_the_minimum_are_told(copies: dict[str, Path], tmp_path: Path) -> None:
    with_course(copies["private"], [[4, 2], [4, 2], [3, 3], [5, 1], [6, 0]], {})
    page, reader = read([copies["private"]], tmp_path / "page.html")
    assert "Minimum pool size: 3 clients in a round" in page
    assert "pool 1 not opened in rounds 1–2, 4: too few clients" in reader.tiles[2]
    with_course(copies["pools"], [[3, 1]], {})
    assert "not opened in" not in read([copies["pools"]], tmp_path / "page.html")[1].tiles[2], (
        "in the open any pool learns"
    )


def test_alerts_come_with_their_rounds(copies: dict[str, Path], tmp_path: Path) -> None:
    with_course(
        copies["pools"],
        [[4, 0]] * 6,
        {1: "one pool", 3: "one pool", 4: "one pool", 5: "other", 6: "one pool"},
    )
    lines = [
        json.loads(line) for line in (copies["pools"] / "metrics.jsonl").read_text().splitlines()
    ]
    lines[0]["metrics"]["alerts"] = ["loss <is> not finite"]
    (copies["pools"] / "metrics.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines)
    )
    page, _ = read([copies["pools"]], tmp_path / "page.html")
    assert "<strong>clustering, rounds 1, 3–4, 6</strong>: one pool" in page
    assert "<strong>clustering, round 5</strong>: other" in page
    assert "<strong>pre-training, round 1</strong>: loss &lt;is&gt; not finite" in page


def test_an_epsilon_is_never_rounded_down() -> None:
    from secure_fl.report.tables import epsilon

    assert [epsilon(value) for value in (8.0, 7.9962, 1.001, 0.30000001, 0.04321, 1e-9, None)] == [
        "8.00", "8.00", "1.01", "0.30", "0.0433", "0.0001", "no bound",
    ]  # fmt: skip


def test_older_records_have_a_page(copies: dict[str, Path], tmp_path: Path) -> None:
    """Without the table of secrecy, and names of clients and labels."""
    edit(
        copies["pools"] / "summary.json",
        lambda s: [s.pop(name) for name in ("secrecy", "encoder_parameters")],
    )
    assert "client 0" in read([copies["pools"]], tmp_path / "page.html")[0]


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("summary.json", lambda s: s.pop("costs")),
        ("summary.json", lambda s: s.update(clients="many")),
        ("summary.json", lambda s: s.update(clients=0)),
        ("summary.json", lambda s: s["pools"].update(choices={"0": 7})),
        ("summary.json", lambda s: s["pools"].update(accuracies=[])),
        ("summary.json", lambda s: s["privacy"].update(claims=[{}])),
        ("summary.json", lambda s: s["privacy"].update(claims=[None])),
        ("summary.json", lambda s: s.update(secrecy=[{"adversary": 3}])),
        ("partition.json", lambda d: d.update(class_names=[1])),
        ("partition.json", lambda d: d["clients"][0].update(name=3)),
        ("embedding.json", lambda d: d.update(initial=[[1]])),
    ],
)
def test_damaged_records_are_typed_errors(
    file: str, change: Callable[[Any], object], copies: dict[str, Path], tmp_path: Path
) -> None:
    from secure_fl.report.page import write_report

    edit(copies["private"] / file, change)
    with pytest.raises(SecureFLError):
        write_report([copies["private"]], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_units_are_not_mixed(copies: dict[str, Path], tmp_path: Path) -> None:
    """Under client-level noise examples have an ε of their own, or none; the run's is that
    of clients.
    """

    def other(document: Any) -> None:
        claims = document["privacy"]["claims"]
        claims += [claim | {"unit": "client", "epsilon": None} for claim in claims]

    edit(copies["private"] / "summary.json", other)
    _, reader = read([copies["private"]], tmp_path / "page.html")
    assert "ε ≤ " in reader.tiles[1]
    assert "no bound for one client" in reader.tiles[1]


def test_declared_labels_make_no_other_data(copies: dict[str, Path], tmp_path: Path) -> None:
    """A private run declares what an open one reads off; where it tests on other examples, that
    is said.
    """
    config = copies["global"] / "config.toml"
    config.write_text(config.read_text().replace("[data]\n", "[data]\nclasses = 3\n"))
    good = read([copies["pools"], copies["global"]], tmp_path / "page.html")[1].tiles[0]
    assert "one global model (global)" in good
    assert "tested on other examples" not in good
    edit(copies["global"] / "partition.json", lambda d: d["clients"][0].update(test=1))
    assert (
        "tested on other examples"
        in read([copies["pools"], copies["global"]], tmp_path / "page.html")[1].tiles[0]
    )
