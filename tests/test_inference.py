"""Asking a network: the views, and the precision of its answer."""

import numpy as np
import torch

from latentry.inference import answers
from latentry.models.network import build_network
from latentry.settings import Model


def test_the_last_layer_is_in_full_precision_and_logits_are_the_mean_over_views():
    torch.manual_seed(0)
    network = build_network(Model(), 32, 10, torch.full((3,), 0.5), torch.full((3,), 0.25))
    images = np.random.default_rng(0).integers(0, 256, (7, 3, 32, 32), dtype=np.uint8)

    def ask(pixels, views):
        (output,) = answers(network, pixels, views=views, device=torch.device("cpu"), precision="bf16")
        return output

    plain, mirrored, both = ask(images, 1), ask(images[..., ::-1], 1), ask(images, 2)
    assert torch.equal(plain.latent, plain.latent.bfloat16().float())
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(plain.logits, network.classifier(plain.latent.bfloat16()))
    assert not torch.equal(plain.logits, plain.logits.bfloat16().float())
    torch.testing.assert_close(both.logits, (plain.logits + mirrored.logits) / 2)
    assert not torch.allclose(plain.logits, mirrored.logits)
    six = ask(images, 6)
    padded = np.pad(images, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    shifted = [ask(padded[:, :, start : start + 32, start : start + 32], 2).logits for start in (0, 2)]
    torch.testing.assert_close(six.logits, both.logits / 2 + (shifted[0] + shifted[1]) / 4, rtol=1e-3, atol=1e-4)
