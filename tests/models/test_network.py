"""The four nodes: counts, shapes, sizes."""

import pytest
import torch

from latentry.errors import RecipeError
from latentry.models.autoencoder import seed1_decoder, seed1_encoder
from latentry.models.classifier import cnn_classifier, dense_classifier
from latentry.models.network import build_network, latent_shape
from latentry.settings import Model


def count(*modules: torch.nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def build(size: int = 32, **names: str):
    return build_network(Model(**names), size, 10, torch.full((3,), 0.5), torch.full((3,), 0.25))


def test_seed1_has_the_published_number_of_parameters():
    encoder, decoder = seed1_encoder(), seed1_decoder()
    statistics = sum(
        buffer.numel() for module in (encoder, decoder) for name, buffer in module.named_buffers() if "running" in name
    )
    assert count(encoder, decoder) == 4_065_411
    assert count(encoder, decoder) + statistics == 4_070_019
    assert len(encoder) == 18  # the published 19 layers count the input
    names = [name for name, _ in encoder.named_children()]
    assert names.index("norm4") == 9  # the 11th layer, input included
    assert names[10] == "pool2"
    assert latent_shape(encoder, 32) == (256, 8, 8)


def test_seed1_classifiers_layer_for_layer():
    # Weights and biases by hand: convolutions, norms (2 a channel), dense layers.
    cnn = (256 * 9 * 64 + 64) + 128 + (64 * 9 * 64 + 64) + 128
    dense = (512 * 64 + 64) + (64 * 10 + 10)
    assert count(cnn_classifier((256, 8, 8), 10)) == cnn + (64 * 2 * 2 * 512 + 512) + dense
    assert count(dense_classifier((256, 8, 8), 10)) == (256 * 8 * 8 * 512 + 512) + dense


@pytest.mark.parametrize("height_width", [(32, 32), (40, 40), (37, 51), (16, 16)])
def test_the_light_network_takes_any_size(height_width):
    network = build().eval()
    output = network(torch.rand(2, 3, *height_width))
    assert output.reconstruction.shape == (2, 3, *height_width)
    assert output.logits.shape == (2, 10)
    assert output.latent.shape == (2, 128, -(-height_width[0] // 8), -(-height_width[1] // 8))


def test_the_light_latent_is_smaller_than_the_image():
    channels, height, width = latent_shape(build().encoder, 32)
    assert channels * height * width == 2048 < 3 * 32 * 32


@pytest.mark.parametrize("classifier", ["light", "cnn", "dense"])
def test_every_classifier_reads_every_latent(classifier):
    for autoencoder in ("light", "seed1"):
        output = build(autoencoder=autoencoder, classifier=classifier)(torch.rand(2, 3, 32, 32))
        assert output.logits.shape == (2, 10)
        assert output.reconstruction.shape == (2, 3, 32, 32)


def test_seed1_rebuilds_pixels_from_black_to_white():
    network = build(autoencoder="seed1", classifier="dense")
    assert network.mean.tolist() == [[[0.0]]] * 3
    for bias, pixel in ((50.0, 1.0), (-50.0, 0.0)):
        torch.nn.init.constant_(network.decoder[-2].bias, bias)
        assert torch.allclose(network(torch.rand(1, 3, 32, 32)).reconstruction, torch.tensor(pixel), atol=1e-6)


def test_a_size_that_seed1_cannot_rebuild_is_refused():
    with pytest.raises(RecipeError, match=r"rebuilds images of 45 pixels with 44"):
        build(45, autoencoder="seed1", classifier="dense")


@pytest.mark.parametrize(("classifier", "size", "latent"), [("cnn", 16, 2), ("record", 32, 4)])
def test_a_latent_too_small_for_the_classifier_is_refused(classifier, size, latent):
    with pytest.raises(RecipeError, match=rf"{classifier} halves the latent .* and this is {latent}x{latent}"):
        build(size, classifier=classifier)


def test_reconstruction_is_in_the_units_of_the_images():
    network = build()
    torch.nn.init.zeros_(network.decoder.image.weight)
    torch.nn.init.zeros_(network.decoder.image.bias)
    assert torch.allclose(network(torch.rand(1, 3, 32, 32)).reconstruction, torch.tensor(0.5))
