"""Every head against what it must learn, against the kept library, or against numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from probing.made_features import TOKENS, WIDTH, case, labelled
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from colipri.common.errors import ColipriError
from colipri.probing import pooling_probes
from colipri.probing.attentive import fit_attentive, known_cross_entropy
from colipri.probing.heads import (
    POOLINGS,
    AttentiveHead,
    NeighbourHead,
    PoolingHead,
    attend,
    build_head,
    pooled_vectors,
)
from colipri.probing.inputs import FreshInputs, batch_of
from colipri.probing.logistic import fit_logistic
from colipri.probing.neighbours import fit_neighbours
from colipri.probing.pooling_probes import LEARNING_RATES, MOMENTUM, fit_pooling_probes
from colipri.probing.selection import BY_AUPRC, BY_LOSS, Fitted, Labelled, validation_score

TRAIN, VAL, TEST = labelled(200, 0), labelled(80, 1), labelled(150, 2)


def areas(fitted: Fitted, test: Labelled = TEST) -> list[float]:
    logits = fitted.head.logits(test.inputs)
    assert logits.shape == test.labels.shape and np.isfinite(logits).all()
    return [roc_auc_score(y, x) for y, x in zip(test.labels.T, logits.T, strict=True)]


def test_logistic_is_scikit_learns() -> None:
    fitted = fit_logistic(TRAIN, VAL, vectors=("mean",), strengths=(0.1,))
    inputs, new = TRAIN.inputs.vectors("mean"), TEST.inputs.vectors("mean")
    centre, scale = inputs.mean(axis=0), inputs.std(axis=0)
    logits = fitted.head.logits(TEST.inputs)
    for index in range(3):
        reference = LogisticRegression(C=0.1, max_iter=300)
        reference.fit((inputs - centre) / scale, TRAIN.labels[:, index].astype(int))
        expected = reference.decision_function((new - centre) / scale)
        assert logits[:, index] == pytest.approx(expected, abs=1e-3)


def test_logistic_finds_what_is_in_the_mean_and_not_noise() -> None:
    fitted = fit_logistic(TRAIN, VAL)
    mean, single, noise = areas(fitted)
    assert mean > 0.95 and single > 0.8 and 0.35 < noise < 0.65
    assert fitted.choice["by"] == BY_AUPRC and fitted.choice["C"] in fitted.choice["among"]["C"]
    assert fitted.score == validation_score(fitted.head.logits(VAL.inputs), VAL.labels)


def test_unknown_labels_are_left_out() -> None:
    """As if the scans were not there, per finding."""
    train = labelled(200, 0, unknown=0.4)
    fitted = fit_logistic(train, VAL, vectors=("mean",), strengths=(1.0,))
    inputs = train.inputs.vectors("mean")
    standardized = (inputs - inputs.mean(axis=0)) / inputs.std(axis=0)
    known = np.isfinite(train.labels[:, 1])
    assert 80 < known.sum() < 160
    reference = LogisticRegression(max_iter=300)
    reference.fit(standardized[known], train.labels[known, 1].astype(int))
    found = fitted.head.linear.weight[1].detach().numpy()
    assert found == pytest.approx(reference.coef_[0], abs=1e-2)


def test_neighbours_by_hand() -> None:
    """Three training scans at cosines 1, 0 and -1; two vote: weights 1 and exp(-1 / 0.07)."""
    head = NeighbourHead("embedding", 2, 1, 3, 2)
    head.vectors = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    head.labels = torch.tensor([[1.0], [0.0], [0.0]])
    (logit,) = head(torch.tensor([[5.0, 0.0]]))[0].tolist()
    far = np.exp(-1 / 0.07)
    chance = (1 + 1 / 3) / (1 + far + 1)  # the votes, and one vote of the prior 1 / 3
    assert logit == pytest.approx(np.log(chance / (1 - chance)), abs=1e-5)
    head.labels = torch.tensor([[float("nan")], [1.0], [0.0]])
    chance = (far + 0.5) / (far + 1)  # the nearest scan does not know: it does not vote
    (logit,) = head(torch.tensor([[5.0, 0.0]]))[0].tolist()
    assert logit == pytest.approx(np.log(chance / (1 - chance)), abs=1e-4)


def test_neighbours_learn() -> None:
    fitted = fit_neighbours(TRAIN, VAL)
    assert areas(fitted)[0] > 0.85 and fitted.choice["neighbours"] in (5, 10, 20, 50, 100)
    few = fit_neighbours(labelled(3, 5), VAL)
    assert few.choice["among"]["neighbours"] == [3]


def test_attention_pooling_by_hand() -> None:
    """Two tokens, one query: softmax of q.t / sqrt(D); padding has no weight."""
    tokens = np.array([[2.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]], dtype=np.float32)
    rng = np.random.default_rng(0)
    padded = batch_of([case("a", tokens, rng), case("b", np.ones((3, 4), np.float32), rng)], 8)
    query = torch.tensor([[3.0, 1.0, 0.0, 0.0]])
    weight = np.exp(3.0) / (np.exp(3.0) + np.exp(1.0))
    pooled = attend(padded, query)
    assert pooled[0].tolist() == pytest.approx([2 * weight, 2 * (1 - weight), 0, 0], abs=1e-5)
    assert attend(padded, None)[0].tolist() == pytest.approx([1, 1, 0, 0], abs=1e-6)
    two = attend(padded, torch.cat([query, -query]))
    other = attend(padded, -query)
    assert torch.allclose(two, (pooled + other) / 2, atol=1e-6)


def test_probes_are_trained_as_torch_trains_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """All 20 side by side equal torch.optim.SGD with a cosine schedule on one of them."""
    steps, seed = 12, 3
    groups = {}
    best = pooling_probes._best

    def keep(found: list, *rest: object) -> Fitted:
        groups.update({group.pooling: group for group in found})
        return best(found, *rest)

    monkeypatch.setattr(pooling_probes, "_best", keep)
    start = {g.pooling: g for g in pooling_probes._groups(TRAIN, torch.device("cpu"), seed)}
    fit_pooling_probes(TRAIN, VAL, steps=steps, seed=seed)
    labels = torch.from_numpy(TRAIN.labels).float()
    for pooling, place in (("mean", 0), ("four learned queries", 1), ("mean query", 3)):
        head = PoolingHead(pooling, WIDTH, 3)
        state = {
            "queries": start[pooling].queries[place],
            "linear.weight": start[pooling].weight[place].T,
            "linear.bias": start[pooling].bias[place],
        }
        head.load_state_dict({name: tensor.detach().clone() for name, tensor in state.items()})
        optimizer = torch.optim.SGD(head.parameters(), LEARNING_RATES[place], momentum=MOMENTUM)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for rows in pooling_probes._batches(200, steps, seed):
            part = FreshInputs([TRAIN.inputs.features[row] for row in rows], 8)
            if POOLINGS[pooling]:
                pooled = attend(part.tokens(range(len(rows))), head.queries)
            else:
                pooled = pooled_vectors(pooling, part, head.queries)
            loss = known_cross_entropy(head.linear(pooled), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        assert torch.allclose(groups[pooling].weight[place].T, head.linear.weight, atol=1e-5)
        assert torch.allclose(groups[pooling].bias[place], head.linear.bias, atol=1e-5)
        if POOLINGS[pooling]:
            assert torch.allclose(groups[pooling].queries[place], head.queries, atol=1e-5)


def test_probes_choose_the_best_on_validation() -> None:
    fitted = fit_pooling_probes(TRAIN, VAL, steps=300)
    assert areas(fitted)[0] > 0.9 and len(fitted.choice["among"]) == 20
    assert fitted.score == max(score for score in fitted.choice["among"].values() if score)
    one, two = (fit_pooling_probes(TRAIN, VAL, steps=9).head.logits(TEST.inputs) for _ in range(2))
    assert np.array_equal(one, two)


def test_a_probe_that_diverges_does_not_spoil_the_others() -> None:
    huge = Labelled(FreshInputs(labelled(40, 0).inputs.features, 8), labelled(40, 0).labels)
    for one in huge.inputs.features:
        one.pooled["max"] = one.pooled["max"] * 1e30
    fitted = fit_pooling_probes(huge, VAL, steps=30)
    assert fitted.choice["pooling"] != "max" and np.isfinite(fitted.score)


def test_attentive_head_finds_a_single_token() -> None:
    fitted = fit_attentive(TRAIN, VAL, epochs=25)
    mean, single, noise = areas(fitted)
    assert mean > 0.9 and single > 0.9 and noise < 0.7
    assert 1 <= fitted.choice["epoch"] <= 25 and len(fitted.choice["among"]) == 25


def test_attentive_head_repeats() -> None:
    one, two = (fit_attentive(VAL, VAL, epochs=2).head.logits(TEST.inputs) for _ in range(2))
    assert np.array_equal(one, two)


def test_attentive_head_ignores_padding() -> None:
    rng = np.random.default_rng(0)
    short = case("a", rng.normal(size=(3, WIDTH)).astype(np.float32), rng)
    long = case("b", rng.normal(size=(TOKENS, WIDTH)).astype(np.float32), rng)
    torch.manual_seed(0)
    head = AttentiveHead(WIDTH, 2).eval()
    torch.nn.init.normal_(head.weight)
    alone = head.logits(FreshInputs([short], 8))
    together = head.logits(FreshInputs([short, long], 8))
    assert together[0] == pytest.approx(alone[0], rel=1e-4, abs=1e-4)  # float32 sums


def test_validation_with_one_class_chooses_by_loss() -> None:
    one_class = Labelled(VAL.inputs, np.ones_like(VAL.labels))
    fitted = fit_logistic(TRAIN, one_class, vectors=("mean",))
    assert fitted.choice["by"] == BY_LOSS and fitted.score < 0
    assert validation_score(np.full((2, 1), np.nan), np.array([[0.0], [1.0]])) == -np.inf


def test_numbers_of_another_head_are_refused() -> None:
    head = AttentiveHead(WIDTH, 2)
    rebuilt = build_head("attentive", head.settings(), head.state_dict())
    assert rebuilt.settings() == head.settings()
    with pytest.raises(ColipriError, match="do not fit"):
        build_head("attentive", {**head.settings(), "num_findings": 3}, head.state_dict())
    with pytest.raises(ColipriError, match="unknown"):
        build_head("oracle", {}, {})
