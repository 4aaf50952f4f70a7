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
