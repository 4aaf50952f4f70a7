"""The page as a whole, and its pictures."""

import json
import re
from collections import Counter
from html import unescape
from html.parser import HTMLParser

import pytest
from PIL import Image

from dinov2.errors import UserError
from dinov2.visualize.report import pictures, write_report
from dinov2.visualize.report.drawing import draw
from dinov2.visualize.report.figures import make_plots
from dinov2.visualize.report.run_folder import read_runs

EVIL = '<script>alert("x")</script>'
VOID = {"meta", "br", "link", "img", "input", "hr"}


class Outline(HTMLParser):
    """What is in a page; fails where tags are not closed in their order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.ids, self.links, self.text = [], Counter(), Counter(), set(), []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags[tag] += 1
        self.ids.update([attributes["id"]] if "id" in attributes else [])
        self.links.update(value for name, value in attrs if name in ("href", "xlink:href", "aria-describedby", "src"))
        assert not [name for name in attributes if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def hostile(make_run, name):
    """A run whose names and values want to be more than text."""
    names = {EVIL: 1.0, "$\\frac{$": 2.0, "_x": 3.0, "y\0\ud800": 4.0, "&amp;": 5.0}
    scores = [{"iteration": i, f"{EVIL}.teacher.bacc_20": 0.5} for i in (0, 10)]
    folder = make_run(
        name,
        metrics=[{"iteration": i, "total_loss": 1.0, **names} for i in (0, 10)],
        scores=scores,
        config=f"train: {{dataset_path: '</pre>{EVIL}'}}\n",
    )
    bad = {"tile": 1, "archive": EVIL, "member": "&<b>\ud800", "reason": "'\"><b>", "replaced_by": 2}
    (folder / "results" / "bad_tiles.jsonl").write_text(json.dumps(bad) + "\n")
    (folder / "results" / "nonfinite_0000001.json").write_text(json.dumps({"means": {EVIL: "nan"}}))
    return folder


@pytest.mark.filterwarnings("error:.*[Gg]lyph:UserWarning", "error:.*[Ll]egend:UserWarning")
def test_whatever_comes_from_a_run_stays_text(make_run, tmp_path):
    folders = [hostile(make_run, name) for name in ("<img src=x onerror=alert(1)>", "_$x$", "n" * 200)]
    write_report(folders, tmp_path / "report.html", png_dir=tmp_path / "png")
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    page = Outline(text)
    assert not {"script", "img"} & set(page.tags)
    assert page.tags["b"] == page.tags["figure"]  # "Figure 1." and so on, nothing else
    shown = "".join(page.text)
    assert shown.count(EVIL) > 10
    assert f"</pre>{EVIL}" in shown
    assert "<img src=x onerror=alert(1)>" in shown
    assert "$\\frac{$" in shown


def test_the_page_needs_nothing_else_and_its_parts_find_each_other(make_run, tmp_path):
    write_report([make_run("a"), make_run("b")], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    page = Outline(text)
    assert [name for name, count in page.ids.items() if count > 1] == []
    named = {link.removeprefix("#") for link in page.links}
    assert named <= set(page.ids)
    assert all(link.startswith(("#", "words-")) for link in page.links)
    assert set(re.findall(r"https?://[^\"' <]+", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert page.tags["svg"] == page.tags["figure"] == text.count('role="img"') == text.count("aria-describedby")
    assert set(re.findall(r"#[0-9a-f]{6}\b", text.split("</style>", 1)[1])) == set()  # colours are the page's own


def test_on_a_narrow_screen_cells_say_whose_they_are_and_figures_scroll(make_run, tmp_path):
    names = ["a-run-with-a-long-name", 'one with "quotes"']
    write_report([make_run(name) for name in names], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    facts = text.split("<tbody>")[1].split("</tbody>")[0]
    labels = re.findall(r'<td data-label="([^"]*)">', facts)
    assert [unescape(label) for label in labels] == names * (len(labels) // 2)
    assert facts.count("<td") == len(labels) > 10
    assert text.count('<div class="drawing" tabindex="0"><svg') == text.count("<svg")


def test_names_of_runs_that_are_wider_than_a_panel_stand_below_each_other(make_run):
    places = {}
    for length in (5, 30):
        runs = read_runs([make_run(f"{letter * length}") for letter in "ab"])
        (legend,) = draw(next(iter(make_plots(runs)))).legends
        places[length] = legend._ncols > 1
    assert places == {5: True, 30: False}


def test_a_page_without_figures(make_run, tmp_path):
    write_report([make_run(metrics=[])], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "No figures yet" in text
    assert "0 of 100 (0%)" in text


def test_pictures(make_run, tmp_path):
    written = write_report([make_run()], tmp_path / "report.html", png_dir=tmp_path / "new" / "png")
    names = [path.name for path in written]
    assert names == [
        "report.html",
        *(f"{name}.png" for name in ("losses", "collapse", "gradients", "schedules", "throughput")),
    ]
    with Image.open(written[1]) as picture:
        assert picture.size == (1360, 500)


def test_the_same_run_gives_the_same_figures(make_run, tmp_path):
    folder = make_run()
    texts = []
    for name in ("a", "b"):
        write_report([folder], tmp_path / name)
        texts.append(re.findall(r"<svg.*?</svg>", (tmp_path / name).read_text(), flags=re.DOTALL))
    assert texts[0] == texts[1]
    assert len(texts[0]) == 5


def test_a_long_run_gives_a_small_page(make_run, tmp_path):
    names = [f"figure_{number}" for number in range(6)]
    rows = [{"iteration": 10 * i, **{name: float(hash((name, i)) % 97) for name in names}} for i in range(3000)]
    write_report([make_run(metrics=rows)], tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 300_000


def test_what_cannot_be_done_is_said(make_run, tmp_path, monkeypatch):
    folder = make_run()
    with pytest.raises(UserError, match="7 runs are too many"):
        write_report([folder] * 7, tmp_path / "report.html")
    with pytest.raises(UserError, match="cannot write .*a folder is where a file"):
        write_report([folder], folder)
    monkeypatch.setattr(pictures, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs matplotlib, which the extra .viz. installs: pip install"):
        write_report([folder], tmp_path / "report.html")
