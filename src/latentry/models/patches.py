"""A linear autoencoder of small patches, solved in closed form: their principal components, whitened.

Source: Baldi and Hornik 1989, whose best linear autoencoder spans the principal components.
"""

from collections import OrderedDict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

WHITENING_EPSILON = 5e-4
"""Keeps components of little variation from being blown up; of standardised pixels."""
SMALLEST_SHARE = 1e-8
"""Of the first component's mean square: what varies less is rounding."""


def patch_encoder(side: int, components: int) -> nn.Sequential:
    """Every patch of (N, 3, H, W) to its leading components: (N, components, H - side + 1, W - side + 1).

    Its weights wait for `fit_patches`, and are never trained.
    """
    layer = nn.Conv2d(3, components, kernel_size=side, bias=False)
    layer.requires_grad_(False)
    return nn.Sequential(OrderedDict[str, nn.Module](patches=layer))


class PatchDecoder(nn.Module):
    """Rebuilds every patch from its components, and takes the mean where patches overlap."""

    weight: Tensor

    def __init__(self, side: int, components: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(components, 3, side, side))

    def forward(self, latent: Tensor) -> Tensor:
        return overlapped(latent, self.weight, stride=1)


def overlapped(latent: Tensor, weight: Tensor, stride: int) -> Tensor:
    """The mean of what every place of `latent` (N, K, h, w) gives the pixels around it, linearly.

    `weight` (K, 3, side, side) says what; the places are `stride` pixels apart.
    """
    summed = functional.conv_transpose2d(latent, weight, stride=stride)
    ones = latent.new_ones((1, 1, *latent.shape[2:]), dtype=torch.float32)
    side = weight.shape[-1]
    return summed / functional.conv_transpose2d(ones, ones.new_ones((1, 1, side, side)), stride=stride)


def patch_moments(batches: Iterable[Tensor], side: int) -> Tensor:
    """Mean product of every two pixels of a patch, double (3 side^2, 3 side^2), of standardised images (N, 3, H, W)."""
    total, count = torch.zeros(3 * side * side, 3 * side * side, dtype=torch.float64), 0
    for images in batches:
        patches = functional.unfold(images, side).transpose(1, 2).reshape(-1, len(total)).double()
        total += patches.T @ patches
        count += len(patches)
    return total / count


def fit_patches(encoder: nn.Sequential, decoder: nn.Module, moments: Tensor) -> None:
    """Solves the encoder's layer, and a `PatchDecoder`, in place, for images whose `patch_moments` are given.

    Components are whitened: of mean square 1 where they vary at all. Grey images vary in a third of them; the others
    would be rounding alone, which a norm behind them blows up, so they repeat the first ones, and rebuild nothing.
    """
    layer = encoder.get_submodule("patches")
    assert isinstance(layer, nn.Conv2d)
    components, _, side, _ = layer.weight.shape
    values, vectors = torch.linalg.eigh(moments)
    values, vectors = values.flip(0), vectors.flip(1)
    varying = max(1, int((values > SMALLEST_SHARE * values[0]).sum()))
    taken = torch.arange(components) % varying
    values, vectors = values[taken], vectors[:, taken]  # (K,), (3 side^2, K)
    scale = (values + WHITENING_EPSILON).sqrt()
    shape = (components, 3, side, side)
    with torch.no_grad():
        layer.weight.copy_((vectors / scale).T.reshape(shape))
        if isinstance(decoder, PatchDecoder):
            decoder.weight.copy_((vectors * scale).T.reshape(shape))
            decoder.weight[varying:] = 0
