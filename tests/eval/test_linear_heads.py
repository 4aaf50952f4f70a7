"""Heads that are trained together become what each becomes alone with torch's own optimiser; the probe uses them."""

import pytest
import torch
import torch.nn.functional as F
from eval_making import clusters
from sklearn.linear_model import LogisticRegression

from dinov2.eval.linear_heads import LEARNING_RATES, LinearHeads, LinearSettings, LinearTraining, best_head
from dinov2.eval.linear_model import HeldOutScore
from dinov2.eval.linear_probe import cached_batches, fit_linear, stream_samples, train_heads

CPU = torch.device("cpu")
INPUTS = {"1_blocks_avgpool_False": slice(4, 8), "2_blocks_avgpool_False": slice(0, 8)}
SETTINGS = LinearSettings(learning_rates=(0.01, 0.1), batch_size=32, iterations=30)


def test_each_head_is_what_it_would_be_alone():
    train = clusters("train", 100)
    heads = train_heads(train, INPUTS, num_classes=3, device=CPU, settings=SETTINGS)
    start = LinearHeads(INPUTS, SETTINGS.scaled_rates, num_classes=3)
    for kind, columns in INPUTS.items():
        for name, rate in zip(heads.names[kind], SETTINGS.scaled_rates):
            weight, bias, _ = start.model(name)
            parameters = [weight.requires_grad_(), bias.requires_grad_()]
            optimizer = torch.optim.SGD(parameters, lr=rate, momentum=0.9)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30)
            for batch in cached_batches(train, SETTINGS, CPU, range(30)):
                optimizer.zero_grad()
                F.cross_entropy(F.linear(batch.values[:, columns], weight, bias), batch.labels).backward()
                optimizer.step()
                schedule.step()
            found = heads.model(name)
            torch.testing.assert_close(found.weight, weight.detach(), rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found.bias, bias.detach(), rtol=1e-4, atol=1e-5)


def test_names_are_dinov2s():
    rates = [rate * 1024 / 256 for rate in LEARNING_RATES]
    names = LinearHeads({"4_blocks_avgpool_True": slice(0, 2)}, rates, num_classes=2).named_weights()
    assert "classifiers_dict.classifier_4_blocks_avgpool_True_lr_0_00004.linear.weight" in names
    assert len(names) == 26
    # With a small batch five decimals name several rates alike.
    small = LinearHeads({"a": slice(0, 2)}, [rate / 16 for rate in LEARNING_RATES], num_classes=2)
    assert len(small.named_weights()) == 26


def test_state_goes_on_where_it_was():
    train = clusters("train", 100)
    expected = train_heads(train, INPUTS, num_classes=3, device=CPU, settings=SETTINGS)
    first, second = (
        LinearTraining(LinearHeads(INPUTS, SETTINGS.scaled_rates, num_classes=3, seed=seed), SETTINGS)
        for seed in (0, 9)
    )
    first.run(cached_batches(train, SETTINGS, CPU, range(13)))
    second.load_state_dict(first.state_dict())
    assert second.iteration == 13
    second.run(cached_batches(train, SETTINGS, CPU, range(13, 30)))
    for name, weight in expected.named_weights().items():
        assert torch.equal(second.heads.named_weights()[name], weight)


@pytest.mark.parametrize("changed", ["name", "shape"])
def test_heads_of_another_evaluation(changed):
    heads = LinearHeads(INPUTS, [0.1], num_classes=3)
    weights = heads.named_weights()
    name = next(iter(weights))
    if changed == "name":
        weights["other"] = weights.pop(name)
    else:
        weights[name] = weights[name][:2]
    with pytest.raises(ValueError, match=r"expected (4 arrays|shape \(3, 4\))"):
        heads.load_named_weights(weights)


def test_scores_and_the_best():
    heads = train_heads(clusters("train", 100), INPUTS, num_classes=3, device=CPU, settings=SETTINGS)
    test = clusters("test", 80)
    for name, score in heads.scores(test).items():
        probabilities = heads.model(name).scores(test.values)
        assert score.value == pytest.approx(float((probabilities.argmax(dim=1) == test.labels).double().mean()))
        assert score.log_likelihood == pytest.approx(
            float(probabilities[range(80), test.labels].log().mean()), rel=1e-5
        )
    rare = test.select(torch.tensor([*torch.where(test.labels > 0)[0], 0]))
    name = heads.names["2_blocks_avgpool_False"][1]
    predicted = heads.model(name).scores(rare.values).argmax(dim=1)
    recalls = [(predicted == rare.labels)[rare.labels == label].double().mean() for label in range(3)]
    assert heads.scores(rare, average="macro")[name].value == pytest.approx(float(sum(recalls) / 3))
    assert best_head({"a": HeldOutScore(0.7, -2.0), "b": HeldOutScore(0.7, -1.0), "c": HeldOutScore(0.5, 0)}) == "b"


def test_samples_come_once_an_epoch():
    stream = stream_samples(7, 0, 21, seed=1).reshape(3, 7)
    assert all(sorted(epoch) == list(range(7)) for epoch in stream.tolist())
    assert len({tuple(epoch) for epoch in stream.tolist()}) == 3
    assert stream_samples(7, 5, 9, seed=1).tolist() == stream.flatten().tolist()[5:14]
    assert stream_samples(7, 0, 7, seed=2).tolist() != stream[0].tolist()


@pytest.mark.parametrize("with_val", [True, False])
def test_within_half_a_point_of_scikit_learn(with_val):
    """Without validation samples some are held out, and the chosen head is trained on all in the end."""
    sizes = {"train": 2000, "val": 1000, "test": 4000}
    train, val, test = (clusters(name, size, classes=4, width=16, noise=1.5) for name, size in sizes.items())
    fit = fit_linear(
        train,
        inputs={"1_blocks_avgpool_False": slice(0, 16)},
        num_classes=4,
        device=CPU,
        settings=LinearSettings(learning_rates=LEARNING_RATES[6:], iterations=300),
        held_out=val if with_val else None,
    )
    theirs = LogisticRegression(max_iter=1000).fit(train.values, train.labels).score(test.values, test.labels)
    ours = float((fit.model.scores(test.values).argmax(dim=1) == test.labels).double().mean())
    assert ours == pytest.approx(theirs, abs=0.005)
    assert fit.scores[fit.head] == max(fit.scores.values())
    assert len(fit.scores) == len(LEARNING_RATES[6:])
