"""Schedules and what weight decay touches."""

import copy

import pytest
import torch
from torch import nn
from torch.optim._muon import _zeropower_via_newtonschulz

from latentry.settings import Stage
from latentry.training.optimizers import build_optimizer, build_plateau, learning_rate_factor


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [1, 0.775, 0.55, 0.325, 0.1]),
        ("one-cycle", [0.1, 0.55, 1, 0.55, 0.1]),
    ],
)
def test_learning_rate_by_schedule(schedule, expected):
    settings = Stage(schedule=schedule, warmup=0.5, final_learning_rate_factor=0.1)
    factors = [learning_rate_factor(settings, step, 8) for step in (0, 2, 4, 6, 8)]
    assert factors == pytest.approx(expected)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_only_weights_decay(name):
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    network[1].weight.requires_grad_(False)
    optimizer = build_optimizer(network.parameters(), Stage(optimizer=name, weight_decay=0.1))
    decayed, plain = optimizer.param_groups
    assert [parameter.shape for parameter in decayed["params"]] == [(2, 1, 3, 3)]
    assert [parameter.shape for parameter in plain["params"]] == [(2,), (2,)]  # two biases; the frozen weight is out
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)


COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def test_plateau_cuts_when_keras_would():
    # By hand after Keras' ReduceLROnPlateau(factor=0.3, patience=3, cooldown=1, min_delta=1e-4, min_lr=0.05): the best
    # is the first epoch, so the third epoch without a better one cuts, and so does every third after it, down to 0.05.
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    settings = Stage(plateau_factor=0.3, plateau_patience=3, plateau_cooldown=1, minimum_learning_rate=0.05)
    plateau = build_plateau(optimizer, settings)
    rates = []
    for _ in range(10):
        plateau.step(1.0)
        rates.append(round(optimizer.param_groups[0]["lr"], 6))
    assert rates == [1, 1, 1, 0.3, 0.3, 0.3, 0.09, 0.09, 0.09, 0.05]


def test_muon_turns_filters_and_moves_the_rest_as_adam_does():
    torch.manual_seed(0)
    filters, rest = nn.Parameter(torch.randn(8, 3, 3, 3)), nn.Parameter(torch.randn(5, 7))
    reference = nn.Parameter(rest.detach().clone())
    settings = Stage(optimizer="muon", learning_rate=0.1, rest_learning_rate=3e-2, momentum=0.6)
    muon, adam = build_optimizer([filters, rest], settings), torch.optim.Adam([reference], lr=3e-2)
    momentum = torch.zeros_like(filters)
    for _ in range(5):
        gradients = torch.randn_like(filters), torch.randn_like(rest)
        filters.grad, rest.grad = (gradient.clone() for gradient in gradients)
        reference.grad = gradients[1].clone()
        momentum = 0.6 * momentum + gradients[0]
        update = _zeropower_via_newtonschulz((gradients[0] + 0.6 * momentum).flatten(1), COEFFICIENTS, 3, 1e-7)
        expected = filters.detach() * 8**0.5 / filters.detach().norm() - 0.1 * update.view(8, 3, 3, 3).float()
        muon.step()
        adam.step()
        torch.testing.assert_close(filters.detach(), expected, rtol=1e-2, atol=1e-3)
        torch.testing.assert_close(rest, reference)


def test_muons_state_survives_a_checkpoint():
    weights = [nn.Parameter(torch.randn(4, 2, 3, 3)), nn.Parameter(torch.randn(4))]
    copies = [nn.Parameter(weight.detach().clone()) for weight in weights]
    settings = Stage(optimizer="muon")
    first = build_optimizer(weights, settings)
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    gradients = [weight.grad.clone() for weight in weights]
    first.step()
    second = build_optimizer(copies, settings)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for copied, weight, gradient in zip(copies, weights, gradients, strict=True):
        copied.data.copy_(weight)
        copied.grad, weight.grad = gradient.clone(), gradient.clone()
    first.step()
    second.step()
    assert all(torch.equal(*pair) for pair in zip(copies, weights, strict=True))
