"""Settings beside the defaults and beside those of other runs."""

from omegaconf import OmegaConf

from dinov2.configs import complete_config
from dinov2.visualize.report.run_folder import read_runs
from dinov2.visualize.report.settings_table import settings_tables


def test_what_differs_from_the_defaults(make_run):
    cfg = complete_config({"train": {"seed": 3, "output_dir": "there"}, "data": {"draw_weights": {"x": 2}}})
    (table,) = settings_tables(read_runs([make_run(config=OmegaConf.to_yaml(cfg))]))
    assert table.rows == [
        ("data.draw_weights", "(absent)", "equal"),
        ("data.draw_weights.x", "2", "(absent)"),
        ("train.seed", "3", "0"),
    ]
    assert not table.folded


def test_where_runs_differ(make_run):
    first = make_run("first", config="a: {b: 1, c: null, d: true}\ntrain: {output_dir: x}\n")
    second = make_run("second", config="a: {b: 1, c: 0, e: [1, 2]}\ntrain: {output_dir: y}\n")
    none = make_run("none", config="[")
    difference, *defaults = settings_tables(read_runs([first, second, none]))
    assert difference.header == ("setting", "first", "second")
    assert difference.rows == [
        ("a.c", "null", "0"),
        ("a.d", "true", "(absent)"),
        ("a.e", "(absent)", "[1, 2]"),
    ]
    assert [table.header[1] for table in defaults] == ["first", "second"]
    assert all(table.folded for table in defaults)
