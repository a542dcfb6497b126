"""The closed-form autoencoder is principal component analysis, patch by patch."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import TruncatedSVD
from torch.nn import functional

from latentry.errors import RecipeError
from latentry.models.network import build_network
from latentry.models.patches import PatchDecoder, fit_patches, patch_encoder, patch_moments
from latentry.models.record import RecordDecoder
from latentry.recipe import load_recipe
from latentry.settings import Model


def smooth_images(count: int, size: int = 12) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(count, 3, size // 2, size // 2, generator=generator)
    return functional.interpolate(coarse, (size, size), mode="bilinear") + 0.1 * torch.randn(
        count, 3, size, size, generator=generator
    )


@pytest.mark.parametrize(("side", "components"), [(2, 1), (2, 7), (3, 10), (2, 12)])
def test_it_rebuilds_patches_exactly_as_well_as_pca(side, components):
    images = smooth_images(50)
    encoder, decoder = patch_encoder(side, components), PatchDecoder(side, components)
    fit_patches(encoder, decoder, patch_moments(images.split(17), side))
    latent = encoder(images)
    patches = functional.unfold(images, side).transpose(1, 2).reshape(-1, 3 * side * side).numpy()
    codes = latent.permute(0, 2, 3, 1).reshape(-1, components).numpy()
    ours = codes @ decoder.weight.reshape(components, -1).numpy()
    if components < 3 * side * side:
        pca = TruncatedSVD(components, algorithm="arpack", random_state=0).fit(patches)
        theirs = pca.inverse_transform(pca.transform(patches))
    else:
        theirs = patches
    assert np.square(ours - patches).mean() == pytest.approx(np.square(theirs - patches).mean(), rel=1e-4, abs=1e-9)
    assert ours == pytest.approx(theirs, abs=1e-3)
    # Where patches overlap the mean of them is nearer to each pixel than they are themselves, on average.
    whole = decoder(latent)
    errors = torch.from_numpy(np.square(ours - patches)).reshape(50, -1, 3 * side * side).transpose(1, 2)
    summed, covered = (functional.fold(values, (12, 12), side) for values in (errors, torch.ones_like(errors)))
    assert ((whole - images).square() <= summed / covered + 1e-5).all()


def test_components_are_whitened_and_their_order_is_by_variance():
    images = smooth_images(50)
    encoder, decoder = patch_encoder(2, 12), PatchDecoder(2, 12)
    fit_patches(encoder, decoder, patch_moments([images], 2))
    codes = encoder(images).permute(0, 2, 3, 1).reshape(-1, 12)
    assert (codes.T @ codes / len(codes)).diagonal().sub(1).abs().max() < 0.05
    lengths = decoder.weight.flatten(1).norm(dim=1)
    assert (lengths.diff() < 0).all()
    assert not any(weight.requires_grad for weight in [*encoder.parameters(), *decoder.parameters()])


def test_grey_images_repeat_the_components_that_they_have():
    """Their others, rounding alone, would fill a quarter of the record network's first layer with noise."""
    images = smooth_images(200)[:, :1].expand(-1, 3, -1, -1)
    encoder, decoder = patch_encoder(2, 12), PatchDecoder(2, 12)
    fit_patches(encoder, decoder, patch_moments([images], 2))
    latent = encoder(images)
    assert torch.equal(latent[:, 4:8], latent[:, :4])
    assert latent.std(dim=(0, 2, 3)).min() > 0.5
    assert decoder(latent).numpy() == pytest.approx(images.numpy(), abs=0.01)


def test_more_components_than_a_patch_has_are_refused():
    with pytest.raises(RecipeError, match="patch_components = 13, and patches of 2 pixels have 12: lower it"):
        load_recipe("quick-unpretrained", {"model.autoencoder": "patches", "model.patch_components": 13})


@pytest.mark.parametrize("size", [32, 17])
def test_the_record_network_reads_patches_of_any_size(size):
    model = Model(autoencoder="patches", classifier="record", patch_components=9)
    network = build_network(model, size, 4, torch.zeros(3), torch.ones(3))
    output = network(torch.rand(2, 3, size, size))
    assert output.latent.shape == (2, 9, size - 1, size - 1)
    assert output.reconstruction.shape == (2, 3, size, size)
    assert output.logits.shape == (2, 4)
    convolutions = [layer for layer in network.classifier.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [64, 64, 256, 256, 256, 256]
    assert network.classifier.body[0].bias.ndim == 1  # which no weight decay moves
    assert network.classifier.linear.weight.detach().std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("size", "places", "widths"), [(32, 7, (64, 256, 256)), (17, 4, (64, 256, 256)), (16, 3, (32, 40, 24))]
)
def test_the_record_autoencoder_is_the_same_network_with_a_decoder_behind_its_second_group(size, places, widths):
    models = [
        Model(autoencoder=node2, classifier=node4, patch_components=12, record_widths=widths)
        for node2, node4 in (("record", "record-top"), ("patches", "record"))
    ]
    split, whole = (build_network(model, size, 4, torch.zeros(3), torch.ones(3)).eval() for model in models)
    body = [*split.encoder[1:], *split.classifier.body]
    for ours, theirs in zip(body, whole.classifier.body, strict=True):
        theirs.load_state_dict(ours.state_dict())
    whole.encoder.load_state_dict(split.encoder[:1].state_dict())
    whole.classifier.linear.load_state_dict(split.classifier.linear.state_dict())
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        output = split(images)
        assert whole(images).logits.numpy() == pytest.approx(output.logits.numpy(), abs=1e-5)
    assert output.latent.shape == (2, widths[1], places, places)
    assert output.reconstruction.shape == images.shape


def test_the_record_network_computes_what_its_source_does():
    model = Model(autoencoder="record", classifier="record-top", patch_components=12)
    network = build_network(model, 32, 10, torch.full((3,), 0.5), torch.full((3,), 0.25)).eval()
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    torch.nn.init.normal_(network.encoder.patches.weight)
    weights = network.state_dict()
    images = torch.rand(2, 3, 32, 32)
    components = functional.conv2d((images - 0.5) / 0.25, weights["encoder.patches.weight"])
    expected = torch.cat([components, -components], dim=1) + weights["encoder.signs.bias"].reshape(-1, 1, 1)
    expected = functional.gelu(expected)
    for group in ("encoder.group1", "encoder.group2", "classifier.body.0"):
        for convolution, norm in ((0, 2), (4, 5)):
            weight = weights[f"{group}.{convolution}.weight"]
            copied = torch.eye(weight.shape[1])[..., None, None] * functional.pad(torch.ones(1, 1), (1, 1, 1, 1))
            assert torch.equal(weight[: weight.shape[1]], copied)
            expected = functional.conv2d(expected, weight, padding=1)
            if convolution == 0:
                expected = functional.max_pool2d(expected, 2)
            statistics = (weights[f"{group}.{norm}.running_{kind}"] for kind in ("mean", "var"))
            expected = functional.batch_norm(expected, *statistics, bias=weights[f"{group}.{norm}.bias"], eps=1e-12)
            expected = functional.gelu(expected)
    logits = functional.max_pool2d(expected, 3).flatten(1) @ weights["classifier.linear.weight"].T / 256
    with torch.no_grad():
        assert network(images).logits.numpy() == pytest.approx(logits.numpy(), abs=1e-4)


def test_every_place_of_the_record_latent_gives_the_eight_pixels_around_it():
    decoder = RecordDecoder(256)
    latent = torch.zeros(1, 256, 3, 3)
    latent[0, 7, 1, 1] = 1
    with torch.no_grad():
        given = decoder(latent)[0]
    assert given.shape == (3, 16, 16)
    rows, columns = given.abs().sum(dim=0).nonzero().T
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 11, 4, 11)
    alone = decoder.linear.weight[:, 7].reshape(3, 8, 8) / 16 / 4  # four places reach each of these pixels
    assert given[:, 4:12, 4:12].numpy() == pytest.approx(alone.detach().numpy(), abs=1e-6)
