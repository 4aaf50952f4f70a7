"""Folds cover every sample once, never divide a slide, and keep the shares of the classes."""

import pytest
import torch
from eval_making import clusters

from dinov2.errors import UserError
from dinov2.eval.features import Features
from dinov2.eval.folds import check_folds, hold_out, make_folds


@pytest.mark.parametrize("groups", [0, 12])
@pytest.mark.parametrize("stratified", [True, False])
def test_every_sample_is_tested_once(groups, stratified):
    samples = clusters("folds", 120, groups=groups)
    folds = make_folds(samples, stratified=stratified, seed=3)
    assert torch.cat([fold.test for fold in folds]).sort().values.tolist() == list(range(120))
    for fold in folds:
        assert torch.cat(fold).sort().values.tolist() == list(range(120))
        if groups:
            assert not set(samples.groups[fold.train].tolist()) & set(samples.groups[fold.test].tolist())
        if stratified:
            assert samples.labels[fold.test].bincount().tolist() == pytest.approx([8, 8, 8], abs=4)
    again = make_folds(samples, stratified=stratified, seed=3)
    other = make_folds(samples, stratified=stratified, seed=4)
    assert all(torch.equal(a.test, b.test) for a, b in zip(folds, again))
    assert not all(torch.equal(a.test, b.test) for a, b in zip(folds, other))


@pytest.mark.parametrize(
    ("samples", "groups", "count", "message"),
    [
        (30, 0, 1, "1 folds of 30 samples"),
        (30, 3, 5, "5 folds of 3 groups"),
        (6, 0, 5, "none of which has more than 2 samples"),
    ],
)
def test_what_cannot_be_split(samples, groups, count, message):
    with pytest.raises(UserError, match=message):
        make_folds(clusters("folds", samples, groups=groups), count=count)


@pytest.mark.parametrize(("groups", "size"), [(0, 12), (20, 12), (4, 30)])
def test_held_out_samples_are_of_other_groups(groups, size):
    samples = clusters("folds", 120, groups=groups)
    split = hold_out(samples, share=0.1)
    assert len(split.test) == pytest.approx(size, abs=6)
    assert torch.cat(split).sort().values.tolist() == list(range(120))
    if groups:
        assert not set(samples.groups[split.train].tolist()) & set(samples.groups[split.test].tolist())


def test_a_single_group(caplog):
    assert len(hold_out(clusters("folds", 30, groups=1)).test) == 3
    assert "all samples are of one group" in caplog.text
    with pytest.raises(UserError, match="one sample of each class is too few"):
        hold_out(clusters("folds", 3))


def test_folds_that_leave_one_class_to_learn_from():
    """Three slides of class a; class b in one slide, or in two, of which one is set aside in some fold."""
    for b_slides, chooses, words in ((1, False, "to train on:"), (2, True, "to train on, once some are set aside")):
        labels = torch.tensor([0] * 30 + [1] * 10 * b_slides)
        samples = Features(torch.empty(len(labels), 0), labels, torch.arange(len(labels)) // 10)
        folds = make_folds(samples, count=2)
        with pytest.raises(UserError, match=f"fold . of 2 leaves only samples of the class 'a' {words}"):
            check_folds(samples, folds, classes=["a", "b"], chooses=chooses)
    check_folds(samples, folds, classes=["a", "b"])


def rare(slides: int, *, tiles: int = 4, grouped: bool = True) -> Features:
    """Two classes of six slides each, and a rare one of some slides."""
    labels = torch.tensor([0] * 24 + [1] * 24 + [2] * tiles * slides)
    return Features(torch.empty(len(labels), 0), labels, torch.arange(len(labels)) // 4 if grouped else None)


@pytest.mark.parametrize("samples", [rare(1), rare(1, tiles=1), rare(1, tiles=1, grouped=False)])
def test_a_class_that_a_fold_cannot_learn(samples, caplog):
    folds = make_folds(samples, count=3)
    with pytest.raises(UserError, match="'RARE' in fold [123]. .* --allow-missing-classes"):
        check_folds(samples, folds, classes=["A", "B", "RARE"])
    found = check_folds(samples, folds, classes=["A", "B", "RARE"], allow_missing_classes=True)
    assert len(found["classes_not_learnt_in_folds"]["RARE"]) == 1
    assert len(found["classes_not_tested_in_folds"]["RARE"]) == 2
    assert "'RARE'" in caplog.text and "count as wrong" in caplog.text


def test_a_class_of_fewer_slides_than_folds_is_named(caplog):
    samples = rare(2)
    found = check_folds(samples, make_folds(samples, count=3), classes=["A", "B", "RARE"])
    assert not found["classes_not_learnt_in_folds"]
    assert "has no tile of class 'RARE' to test" in caplog.text
    caplog.clear()
    samples = rare(3)
    assert not any(check_folds(samples, make_folds(samples, count=3), classes=["A", "B", "RARE"]).values())
    assert not caplog.text


def test_what_is_held_out_leaves_all_classes_to_learn_from():
    for seed in range(5):
        samples = rare(1)
        assert len(samples.labels[hold_out(samples, seed=seed).train].unique()) == 3
