"""Medians and lines as DINOv2 writes them."""

import json
import logging
import time
from types import SimpleNamespace

import pytest

from dinov2.logging import MetricLogger, SmoothedValue, helpers, setup_logging
from dinov2.logging.metrics_file import truncate_metrics


def test_median_is_the_lower_middle_of_the_window():
    value = SmoothedValue(window_size=4)
    for number in (9.0, 1.0, 2.0, 3.0, 4.0):
        value.update(number)
    assert (value.median, value.avg, value.global_avg) == (2.0, 2.5, 3.8)
    copy = SmoothedValue(window_size=4)
    copy.load_state_dict(value.state_dict())
    copy.update(0.0)
    assert (copy.median, copy.count) == (2.0, 6)


def test_lines_at_every_tenth_and_the_last_iteration(tmp_path):
    path = tmp_path / "training_metrics.json"
    reports = []
    metrics = MetricLogger(
        output_file=path, derive=lambda iter_time, data_time: {"speed": 7.0}, on_report=reports.append
    )
    for number in metrics.log_every(range(100), 10, "Training", 33, 5):
        metrics.update(lr=number, total_loss=2 * number)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [10, 20, 30, 32]
    assert list(lines[0]) == ["iteration", "iter_time", "data_time", "lr", "total_loss", "speed"]
    assert lines[0]["lr"] == 2.0  # items 0 .. 5
    assert reports == lines


def test_figures_that_are_shown_as_they_are_also_after_a_resume():
    metrics, resumed = MetricLogger(), MetricLogger()
    for number in (1.0, 2.0, 3.0):
        metrics.show(rank=number)
        metrics.update(loss=number)
    resumed.load_state_dict(metrics.state_dict())
    for logger in (metrics, resumed):
        logger.show(rank=5.0)
        logger.update(loss=9.0)
        line = logger.snapshot(3)
        assert (line["rank"], line["loss"]) == (5.0, 2.0)


def test_evaluations_do_not_count_as_training_time():
    metrics = MetricLogger()
    for _ in metrics.log_every(range(3), 10):
        with metrics.untimed():
            time.sleep(0.2)
    assert metrics.timers["iter_time"].avg < 0.1


@pytest.mark.parametrize(("stopped_at", "done"), [(5, 3), (None, 17)])
def test_a_run_that_is_stopped_says_how_many_iterations_it_made(stopped_at, done, caplog):
    metrics = MetricLogger()
    with caplog.at_level("INFO", "dinov2"):
        for number in metrics.log_every(range(100), 10, "Training", 20, 3):
            if number + 3 == stopped_at:
                metrics.stop()
    assert f"for {done} iterations" in caplog.text


def test_a_report_before_a_checkpoint_is_written_once_and_at_the_same_iterations(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(helpers, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    path = tmp_path / "training_metrics.json"
    metrics = MetricLogger(output_file=path)
    for number in metrics.log_every(range(100), 10, "Training", 23):
        metrics.update(loss=number)
        clock.now += 1.0
        with metrics.untimed():
            clock.now += 100.0
            metrics.report()
            assert len(path.read_text().splitlines()) == 1 + number // 10 + (number == 22)
            metrics.report()
            if number == 15:
                metrics.stop()
                metrics.report()
                break
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["iteration"], line["loss"]) for line in lines] == [(0, 0.0), (10, 5.0), (15, 7.0)]
    assert {line["iter_time"] for line in lines} == {1.0}


def test_truncation_drops_what_a_resumed_run_writes_again(tmp_path):
    path = tmp_path / "training_metrics.json"
    path.write_text("".join(json.dumps({"iteration": i}) + "\n" for i in (0, 10, 20)) + '{"iterat')
    truncate_metrics(path, 15)
    assert path.read_text() == '{"iteration": 0}\n{"iteration": 10}\n'
    path.write_text('{"iteration": 0}\n{"iteration": 10}')  # whole but for its end
    truncate_metrics(path, 15)
    assert path.read_text() == '{"iteration": 0}\n'
    truncate_metrics(tmp_path / "missing.json", 3)


def test_log_file_format(tmp_path, capsys):
    setup_logging(tmp_path)
    logging.getLogger("dinov2").info("hello")
    line = (tmp_path / "logs" / "log.txt").read_text().strip()
    assert line[0] == "I"
    assert line.endswith("] hello")
    assert "dinov2 test_helpers.py:" in line
    assert capsys.readouterr().out.strip() == line


def test_bytes_of_names_that_are_not_utf_8_are_shown(tmp_path, capsys):
    setup_logging(tmp_path)
    logging.getLogger("dinov2").info("M\udcfcller_1.png of Pr\u00e4parate")
    assert "M\\xfcller_1.png of Pr\u00e4parate" in (tmp_path / "logs" / "log.txt").read_text(encoding="utf-8")
    printed = capsys.readouterr()
    assert "M\\xfcller_1.png" in printed.out and not printed.err
