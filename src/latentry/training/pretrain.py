"""Stage 1: encoder and decoder learn to reconstruct."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from latentry.batches.loader import Batch
from latentry.settings import Pretrain
from latentry.training.losses import psnr, reconstruction_loss
from latentry.training.stage import StageModule


class Pretraining(StageModule):
    """Mean squared error between the reconstruction and its target; noise and masks touch the input alone."""

    name = "pretrain"

    settings: Pretrain

    def trained(self) -> list[nn.Module]:
        return [self.network.encoder, self.network.decoder]

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        images = corrupted(batch.images, self.settings) if self.training else batch.images
        reconstruction = self.network.decode(self.network.encode(images), images.shape[-2:])
        return {
            "loss": reconstruction_loss(reconstruction, batch.target),
            "psnr": psnr(reconstruction, batch.target).mean(),
        }


def corrupted(images: Tensor, settings: Pretrain) -> Tensor:
    """Adds noise and blanks patches as `settings` says, with draws from torch's global generator.

    A blanked patch takes its image's mean colour. Images are float (N, C, H, W) in [0, 1]; the result may leave that
    range. Sources: Vincent et al. 2010 (noise); Pathak et al. 2016, arXiv 1604.07379 (masks).
    """
    if settings.noise:
        images = images + settings.noise * torch.randn_like(images)
    if settings.mask:
        count, _, height, width = images.shape
        patch = settings.mask_patch
        grid = torch.rand(count, 1, -(-height // patch), -(-width // patch), device=images.device) < settings.mask
        mask = functional.interpolate(grid.float(), scale_factor=patch, mode="nearest")[..., :height, :width] > 0
        images = torch.where(mask, images.mean(dim=(2, 3), keepdim=True), images)
    return images
