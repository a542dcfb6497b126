"""The network of a speed record, split at two places: behind its first layer, or behind its second group.

Source: Jordan 2024, arXiv 2404.00498, section 3, with the widths of his airbench94_muon.
"""

import itertools
from collections import OrderedDict

import torch
from torch import Tensor, nn

from latentry.models.blocks import LastLinear, convolution, initialise_dirac, record_norm
from latentry.models.patches import overlapped, patch_encoder

Widths = tuple[int, ...]
"""Channels of the three groups, each of which halves."""
STRIDE, REBUILT_SIDE = 4, 8
"""Pixels between two places of the latent behind the second group; side of what each of them rebuilds."""


class TwoSided(nn.Module):
    """Components and their negatives, each with a bias, through a GELU: (N, C, h, w) to (N, 2C, h, w)."""

    def __init__(self, components: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(2 * components))

    def forward(self, latent: Tensor) -> Tensor:
        return nn.functional.gelu(torch.cat([latent, -latent], dim=1) + self.bias.reshape(-1, 1, 1))


class RecordClassifier(nn.Module):
    """The `body`, the maximum over places, one linear layer: latents (N, C, h, w) to logits (N, K)."""

    def __init__(self, body: nn.Sequential, channels: int, num_classes: int) -> None:
        super().__init__()
        self.body = body
        self.linear = LastLinear(channels, num_classes, bias=False)
        with torch.no_grad():
            self.linear.weight.div_(self.linear.weight.std())

    def forward(self, latent: Tensor) -> Tensor:
        features = self.body(latent).amax(dim=(2, 3))
        logits: Tensor = self.linear(features) / features.shape[1]
        return logits


class RecordDecoder(nn.Module):
    """Each place of the latent gives the pixels around it, linearly; where these overlap the mean is taken.

    (N, `channels`, h, w) to (N, 3, 4h + 4, 4w + 4). As in the classifier, its weights are about 1 and their sum is
    scaled, so that one learning rate suits both.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, 3 * REBUILT_SIDE**2, bias=False)
        nn.init.normal_(self.linear.weight)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, latent: Tensor) -> Tensor:
        weight = self.linear.weight.T.reshape(-1, 3, REBUILT_SIDE, REBUILT_SIDE) / latent.shape[1] ** 0.5
        return overlapped(latent, weight, STRIDE) + self.bias[:, None, None]


def record_encoder(side: int, components: int, widths: Widths) -> nn.Sequential:
    """The first layer, solved in closed form, and two groups: (N, 3, H, W) to (N, C, about H/4 - 1, W/4 - 1)."""
    first, second = _groups(2 * components, *widths[:2])
    named = OrderedDict[str, nn.Module](signs=TwoSided(components), group1=first, group2=second)
    return nn.Sequential(OrderedDict([*patch_encoder(side, components).named_children(), *named.items()]))


def behind_patches(components: int, num_classes: int, widths: Widths) -> RecordClassifier:
    """All three groups, for latents of patches."""
    body = nn.Sequential(TwoSided(components), *_groups(2 * components, *widths))
    return RecordClassifier(body, widths[-1], num_classes)


def behind_two_groups(channels: int, num_classes: int, widths: Widths) -> RecordClassifier:
    """The third group, for latents of `record_encoder`."""
    return RecordClassifier(_groups(channels, widths[-1]), widths[-1], num_classes)


def _groups(*widths: int) -> nn.Sequential:
    groups = nn.Sequential(*(_group(*pair) for pair in itertools.pairwise(widths)))
    initialise_dirac(groups)
    return groups


def _group(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        convolution(in_channels, out_channels, bias=False),
        nn.MaxPool2d(2),
        record_norm(out_channels),
        nn.GELU(),
        convolution(out_channels, out_channels, bias=False),
        record_norm(out_channels),
        nn.GELU(),
    )
