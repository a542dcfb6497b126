"""The one way from images to latent, reconstruction and probabilities."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from scipy.special import softmax
from torch import Tensor
from torch.nn import functional

from latentry.models.network import AutoencoderClassifier, Output
from latentry.progress import track
from latentry.runtime import Precision, autocast

BATCH_PIXELS = 500 * 32 * 32


def answers(
    network: AutoencoderClassifier,
    images: np.ndarray,
    *,
    views: int,
    device: torch.device,
    precision: Precision,
    decode: bool = True,
    description: str = "",
) -> Iterator[Output]:
    """Yields what the network says of uint8 images (N, C, H, W), in batches, as float32 on the processor.

    Logits are the mean over the views (see `views_of`); latent and reconstruction are of the image as it is, the
    reconstruction clipped to [0, 1], and of no image where `decode` is false. A progress bar is shown where it is given
    a `description`.
    """
    network.eval()
    size = max(1, BATCH_PIXELS // (images.shape[2] * images.shape[3]))
    starts = range(0, len(images), size)
    for start in track(starts, description) if description else starts:
        batch = torch.from_numpy(np.ascontiguousarray(images[start : start + size])).to(device).float().div_(255)
        batch = batch.contiguous(memory_format=torch.channels_last)
        seen, weights = views_of(batch, views)
        with torch.inference_mode(), autocast(device, precision):
            latents = [network.encode(view) for view in seen]
            reconstruction = network.decode(latents[0], batch.shape[-2:]) if decode else batch[:0]
            logits = sum(
                (weight * network.classifier(latent) for weight, latent in zip(weights, latents, strict=True)),
                start=torch.zeros((), device=device),
            )
        yield Output(latents[0].float().cpu(), reconstruction.clamp(0, 1).cpu(), logits.cpu())


def views_of(images: Tensor, views: int) -> tuple[list[Tensor], list[float]]:
    """The views of images (N, C, H, W) that are asked about, the image itself first, and the weight of each.

    1 is the image; 2 its mirror image too; 6 both shifted by a pixel down right and up left too, for half of the weight
    (Jordan 2024, arXiv 2404.00498, section 3.5).
    """
    if views == 1:
        return [images], [1.0]
    seen, weights = [images, images.flip(3)], [0.5, 0.5]
    if views == 6:
        height, width = images.shape[2:]
        padded = functional.pad(images, (1, 1, 1, 1), mode="reflect")
        shifted = [padded[:, :, start : start + height, start : start + width] for start in (0, 2)]
        seen += [view for moved in shifted for view in (moved, moved.flip(3))]
        weights = [0.25] * 2 + [0.125] * 4
    return seen, weights


def probabilities(logits: np.ndarray, temperature: float, log_ratio: np.ndarray | float = 0.0) -> np.ndarray:
    """Calibrated class probabilities of logits (N, K), moved by `log_ratio` (K,) to other shares of the classes."""
    moved: np.ndarray = softmax(logits.astype(np.float64) / temperature + log_ratio, axis=1)
    return moved


def log_ratio(wanted: Sequence[float] | np.ndarray, trained: Sequence[float]) -> np.ndarray:
    """How much likelier each class is where it is asked for than in training, float64 (K,), by its shares there.

    Source: Saerens, Latinne and Decaestecker 2002, equation 2.4.
    """
    if not len(trained):
        return np.zeros(len(wanted))
    with np.errstate(divide="ignore"):
        ratio: np.ndarray = np.log(np.asarray(wanted)) - np.log(np.asarray(trained))
    return ratio
