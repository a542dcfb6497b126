"""What is minimised, against its published formulas."""

import pytest
import torch
from torch import nn

from latentry.batches.loader import Batch
from latentry.models.network import build_network
from latentry.settings import Classify, Model
from latentry.training.classify import Classification
from latentry.training.flops import training_flops_per_image
from latentry.training.losses import classification_loss

LABELS = torch.tensor([0, 1, 2, 2, 1, 0])
COUNTS = [10.0, 40.0, 50.0]


def module(settings: Classify, classifier: str = "light", **rebalancing) -> Classification:
    torch.manual_seed(0)
    model = Model(autoencoder="seed2" if classifier == "seed2" else "light", classifier=classifier)
    network = build_network(model, 32, 3, torch.full((3,), 0.5), torch.full((3,), 0.5))
    return Classification(network, settings, seed=0, num_steps=10, **rebalancing)


def test_weights_may_leave_out_outputs_that_are_no_class():
    logits, weights = torch.randn(6, 5), torch.tensor([1.0, 2.0, 3.0])
    expected = nn.functional.cross_entropy(logits, LABELS, torch.tensor([1.0, 2.0, 3.0, 1.0, 1.0]))
    assert torch.equal(classification_loss(logits, LABELS, 0.0, weights), expected)
    assert training_flops_per_image(module(Classify(), "seed2", class_weights=weights), 32) > 0


def test_logits_adjusted_by_the_whole_share_are_the_balanced_softmax():
    images = torch.rand(6, 3, 32, 32)
    adjusted = module(Classify(logit_adjustment=1.0), class_shares=[count / 100 for count in COUNTS])
    plain = module(Classify())
    with torch.no_grad():
        weighed = torch.tensor(COUNTS) * plain.network(images).logits.double().exp()  # n_j exp(z_j), Ren et al. 2020
        expected = -(weighed[range(6), LABELS] / weighed.sum(dim=1)).log().mean()
        batch = Batch(images, images, LABELS)
        assert adjusted.losses(batch)["loss"].item() == pytest.approx(expected.item(), abs=1e-5)
        assert adjusted.eval().losses(batch)["loss"].item() == plain.eval().losses(batch)["loss"].item()


def test_weights_may_begin_to_count_late(monkeypatch):
    images = torch.rand(6, 3, 32, 32)
    weights = torch.tensor([5.0, 1.0, 0.2])
    late = module(Classify(class_weight="balanced", class_weight_after=0.8), class_weights=weights)
    losses = {}
    for step in (0, 7, 8, 9):
        monkeypatch.setattr(Classification, "global_step", step)
        losses[step] = late.losses(Batch(images, images, LABELS))["loss"].item()
        assert late.settled() == (step > 8)  # steps that were made
    assert losses[0] == losses[7] != losses[8] == losses[9]


@pytest.mark.parametrize(("after", "num_steps", "first"), [(0.84, 10, 9), (0.99, 10, 9), (0.85, 20, 17), (0.0, 5, 0)])
def test_an_epoch_can_be_the_best_from_the_first_step_that_is_weighted(monkeypatch, after, num_steps, first):
    weights = torch.tensor([5.0, 1.0, 0.2])
    stage = module(Classify(class_weight="balanced", class_weight_after=after), class_weights=weights)
    stage.num_steps = num_steps
    plain = module(Classify())
    batch = Batch(*[torch.rand(6, 3, 32, 32)] * 2, LABELS)
    for step in range(num_steps):
        monkeypatch.setattr(Classification, "global_step", step)
        assert (stage.losses(batch)["loss"] != plain.losses(batch)["loss"]) == (step >= first)
        assert stage.settled() == (step > first)
