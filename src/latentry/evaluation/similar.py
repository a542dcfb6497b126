"""Which images show the same thing: candidates by a latent, then judged by their pixels."""

import dataclasses
import hashlib
import itertools

import numpy as np
import torch
from sklearn.decomposition import PCA
from torch import Tensor
from torch.nn import functional

NUM_COMPONENTS = 64
NUM_FITTED, FITTED_BYTES = 5_000, 1 << 29
CHUNK = 500
"""Images that are compared with all others at once, or pairs of images, at a time."""
SIDE = 32
"""Images are compared at this size, in pixels."""
SURROUNDINGS = 5
"""Side of the window whose mean is taken from each pixel before the comparison."""
LARGEST_SHIFT = 2
SMALLEST_DEVIATION = 1e-2


@dataclasses.dataclass(frozen=True)
class Projection:
    """From latents to their principal components, at most 64.

    Attributes:
        mean: float32 (D,), of the latents, flattened.
        components: float32 (C, D), in rows of length 1.
    """

    mean: np.ndarray
    components: np.ndarray

    @classmethod
    def fit(cls, latents: np.ndarray) -> "Projection":
        """Of latents (N, ...)."""
        rows = latents.reshape(len(latents), -1).astype(np.float32, copy=False)
        fitted = PCA(min(NUM_COMPONENTS, *rows.shape), random_state=0).fit(rows)
        return cls(fitted.mean_.astype(np.float32), fitted.components_.astype(np.float32))

    def __call__(self, latents: np.ndarray) -> np.ndarray:
        """Components, float32 (N, C), of latents (N, ...)."""
        projected: np.ndarray = (latents.reshape(len(latents), -1).astype(np.float32) - self.mean) @ self.components.T
        return projected


def num_fitted(latent_size: int) -> int:
    """From how many latents of so many numbers the components are found."""
    return min(NUM_FITTED, max(4 * NUM_COMPONENTS, FITTED_BYTES // (4 * latent_size)))


def nearest(latents: np.ndarray, count: int) -> np.ndarray:
    """Indices, (N, count), of the images whose latents (N, ...) are nearest to each one's, without itself.

    By Euclidean distance in their principal components.
    """
    fitted = np.random.default_rng(0).permutation(len(latents))[: num_fitted(latents[0].size)]
    projection = Projection.fit(latents[fitted])
    points = torch.from_numpy(np.concatenate([projection(part) for part in _chunks(latents)]))
    count = min(count, len(points) - 1)
    norms = points.square().sum(dim=1)
    found = []
    for start in range(0, len(points), CHUNK):
        part = points[start : start + CHUNK]
        distances = norms - 2 * part @ points.T
        own = torch.arange(len(part))
        distances[own, start + own] = torch.inf
        found.append(distances.topk(count, largest=False).indices)
    return torch.cat(found).numpy()


def similarity(images: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """How alike the pairs (P, 2) of uint8 images (N, C, S, S) are: -1 to 1, float32 of shape (P,).

    The correlation of what remains when each pixel's surroundings are taken from it, so that a common background or
    shape alone doesn't make two images alike; the greatest over shifts of up to two pixels.
    """
    if not len(pairs):
        return np.empty(0, dtype=np.float32)
    size = max(1, CHUNK * SIDE**2 // images.shape[-1] ** 2)
    return np.concatenate(
        [_similarity(*(_details(images[part[:, side]]) for side in (0, 1))) for part in _chunks(pairs, size)]
    )


def near_duplicates(
    images: np.ndarray, latents: np.ndarray, threshold: float, *, below: int = 0, count: int = 4
) -> list[tuple[int, int, float]]:
    """Pairs of images whose similarity is at least `threshold`, the most alike first, among each one's `count` nearest.

    Images of the same pixels are as alike as can be, each paired with the first of them. After these pairs come the
    `below` most alike of the others. `images` is uint8 (N, C, S, S), `latents` (N, ...).
    """
    neighbours = nearest(latents, count)
    pairs = np.stack([np.repeat(np.arange(len(neighbours)), neighbours.shape[1]), neighbours.ravel()], axis=1)
    first = _first_alike(images)
    copies = np.flatnonzero(first != np.arange(len(first)))
    pairs = np.concatenate([pairs, np.stack([first[copies], copies], axis=1)])
    pairs = np.unique(np.sort(pairs, axis=1), axis=0)
    alike = np.where(first[pairs[:, 0]] == first[pairs[:, 1]], np.float32(1), similarity(images, pairs))
    order = np.argsort(-alike, kind="stable")[: int((alike >= threshold).sum()) + below]
    return [(*pairs[place].tolist(), float(alike[place])) for place in order]


def _first_alike(images: np.ndarray) -> np.ndarray:
    """Of each image the place of the first that has the same pixels, int64 (N,)."""
    seen: dict[bytes, int] = {}
    digests = (hashlib.sha256(image.tobytes()).digest() for image in images)
    return np.array([seen.setdefault(digest, place) for place, digest in enumerate(digests)])


def _details(images: np.ndarray) -> Tensor:
    """Images as float (N, C, 32, 32) without each pixel's surroundings."""
    pixels = torch.from_numpy(np.ascontiguousarray(images)).float() / 255
    if pixels.shape[-1] != SIDE:
        pixels = functional.interpolate(pixels, (SIDE, SIDE), mode="bilinear", antialias=True)
    margin = SURROUNDINGS // 2
    padded = functional.pad(pixels, (margin,) * 4, mode="reflect")
    return pixels - functional.avg_pool2d(padded, SURROUNDINGS, stride=1)


def _similarity(first: Tensor, second: Tensor) -> np.ndarray:
    inner = slice(LARGEST_SHIFT, -LARGEST_SHIFT)
    side = SIDE - 2 * LARGEST_SHIFT
    fixed = _standardised(second[..., inner, inner])
    best = torch.full((len(first),), -1.0)
    for down, right in itertools.product(range(2 * LARGEST_SHIFT + 1), repeat=2):
        moved = _standardised(first[..., down : down + side, right : right + side])
        best = torch.maximum(best, (moved * fixed).mean(dim=1))
    return best.numpy()


def _standardised(details: Tensor) -> Tensor:
    """(N, C, h, w) as rows of mean 0 and deviation 1; of flat images smaller, so that nothing is like them."""
    rows = details.flatten(1)
    rows = rows - rows.mean(dim=1, keepdim=True)
    return rows / rows.std(dim=1, keepdim=True, correction=0).clamp_min(SMALLEST_DEVIATION)


def _chunks(array: np.ndarray, size: int = CHUNK) -> list[np.ndarray]:
    return np.array_split(array, -(-len(array) // size))
