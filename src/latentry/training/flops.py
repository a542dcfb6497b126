"""Floating-point operations of training and of inference: convolutions and matrix products, two a multiply-add."""

import copy

import torch
from torch.utils.flop_counter import FlopCounterMode

from latentry.batches.loader import Batch
from latentry.models.network import AutoencoderClassifier
from latentry.training.stage import StageModule

NUM_PROBE_IMAGES = 2


def training_flops_per_image(module: StageModule, image_size: int) -> int:
    """Operations of one training step (forward and backward, as frozen layers leave it), divided by its images.

    Counted on a copy; `module` is untouched.
    """
    probe = module.probe().cpu()
    images = torch.zeros(NUM_PROBE_IMAGES, 3, image_size, image_size).to(memory_format=torch.channels_last)
    batch = Batch(images, images, torch.zeros(NUM_PROBE_IMAGES, dtype=torch.int64))
    with torch.random.fork_rng(devices=[]), FlopCounterMode(display=False) as counter:
        probe.losses(batch)["loss"].backward()
    return int(counter.get_total_flops()) // NUM_PROBE_IMAGES


def inference_flops_per_image(network: AutoencoderClassifier, image_size: int, views: int) -> int:
    """Operations of classifying one image: encoder and classifier, `views` times."""
    copied = copy.deepcopy(network).cpu().eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        copied.classifier(copied.encode(torch.zeros(1, 3, image_size, image_size)))
    return int(counter.get_total_flops()) * views
