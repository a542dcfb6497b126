"""Counted operations against arithmetic, and against a counter around a whole run."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from latentry.batches.loader import Loader
from latentry.models.autoencoder import light_encoder
from latentry.models.network import build_network
from latentry.settings import Augment, Classify, Model, Pretrain
from latentry.training.classify import Classification
from latentry.training.flops import inference_flops_per_image, training_flops_per_image
from latentry.training.pretrain import Pretraining


def build(autoencoder="light", classifier="light", size=16):
    model = Model(autoencoder=autoencoder, classifier=classifier)
    return build_network(model, size, 3, torch.zeros(3), torch.ones(3))


def by_hand(module: nn.Module, size: int) -> int:
    """Two operations a multiply-add of every convolution, by the sizes that flow through."""
    hooks = [
        layer.register_forward_hook(lambda layer, _, output: counts.append(layer.weight.numel() * output[0, 0].numel()))
        for layer in module.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    counts: list[int] = []
    with torch.no_grad():
        module(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return 2 * sum(counts)


def test_inference_is_encoder_and_classifier_for_every_view():
    network = build(size=32).eval()
    latent = 128 * 9 * 256 * 4 * 4 + 256 * 3  # the classifier's convolution and its linear layer
    one = by_hand(light_encoder().eval(), 32) + 2 * latent
    assert inference_flops_per_image(network, 32, views=1) == one
    assert inference_flops_per_image(network, 32, views=2) == 2 * one


@pytest.mark.parametrize(
    "stage",
    [
        lambda network: Pretraining(network, Pretrain(), seed=0, num_steps=1),
        lambda network: Classification(network, Classify(), seed=0, num_steps=1),
        lambda network: Classification(network, Classify(freeze="block2"), seed=0, num_steps=1),
        lambda network: Classification(network, Classify(freeze="encoder"), seed=0, num_steps=1),
        lambda network: Classification(network, Classify(reconstruction_weight=1), seed=0, num_steps=1),
    ],
)
def test_a_run_costs_what_its_images_cost(toy_images, stage):
    """Every step of an epoch under torch's counter, forward and backward, against images times the count of one."""
    module = stage(build(size=32))
    loader = Loader(
        toy_images, np.arange(90), 30, Augment(flip="random"), stage="x", seed=0, device=torch.device("cpu")
    )
    module.prepare()
    with FlopCounterMode(display=False) as counter:
        for batch in loader:
            module.losses(batch)["loss"].backward()
    assert training_flops_per_image(module, 32) * 90 == counter.get_total_flops()


def test_freezing_saves_operations_and_a_decoder_costs_some():
    def cost(**settings):
        return training_flops_per_image(Classification(build(), Classify(**settings), seed=0, num_steps=1), 16)

    assert cost(freeze="encoder") < cost(freeze="block2") < cost(freeze="block1") < cost()
    assert cost() < cost(reconstruction_weight=1)


def test_counting_leaves_the_network_as_it_was():
    network = build()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = torch.get_rng_state()
    training_flops_per_image(Pretraining(network, Pretrain(noise=0.1), seed=0, num_steps=1), 16)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
