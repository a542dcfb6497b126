"""Random transforms of whole batches: draw parameters for every image, then sample once.

Images are float32 in [0, 1] (what changes the light may leave it), shape (N, C, H, W), on any device; parameters are
drawn on the processor, so that a seed means the same batch on every device.
"""

import dataclasses

import torch
from torch import Tensor
from torch.nn import functional

from latentry.settings import Augment


@dataclasses.dataclass(frozen=True)
class AffineParameters:
    """One affine transform an image, as Keras' `apply_affine_transform` names and means them; each of shape (N,).

    Attributes:
        theta: rotation, degrees.
        tx: shift along x, pixels.
        ty: shift along y, pixels.
        shear: angle, degrees.
        zx: zoom along x; above 1 shrinks the content.
        zy: zoom along y.
        flip: bool, whether the sampled image is mirrored left to right afterwards.
    """

    theta: Tensor
    tx: Tensor
    ty: Tensor
    shear: Tensor
    zx: Tensor
    zy: Tensor
    flip: Tensor


def draw_affine(augment: Augment, shape: torch.Size, flip: Tensor, generator: torch.Generator) -> AffineParameters:
    """Draws as Keras' `ImageDataGenerator.get_random_transform` does, for images of `shape` (N, C, H, W).

    Like Keras, the vertical range draws `tx` and the horizontal range `ty`.
    """
    count, _, height, width = shape

    def uniform(largest: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * largest

    return AffineParameters(
        theta=uniform(augment.rotation),
        tx=uniform(augment.height_shift * height),
        ty=uniform(augment.width_shift * width),
        shear=uniform(augment.shear),
        zx=1 + uniform(augment.zoom),
        zy=1 + uniform(augment.zoom),
        flip=flip,
    )


def affine(images: Tensor, parameters: AffineParameters) -> Tensor:
    """Transforms each image about its centre: bilinear sampling, outside filled with the nearest pixel.

    An output pixel at p (x, y from the centre) takes the input at R(theta) T(tx, ty) S(shear) Z(zx, zy) p.

    Source: Keras 3, keras/src/legacy/preprocessing/image.py (square images; for others Keras swaps the centre's axes,
    which is not copied).
    """
    height, width = images.shape[-2:]
    theta, sheared = torch.deg2rad(parameters.theta), torch.deg2rad(parameters.theta + parameters.shear)
    cos, sin = torch.cos(theta), torch.sin(theta)
    # R T S Z multiplied out; S is [[1, -sin, 0], [0, cos, 0], [0, 0, 1]].
    xx, xy = cos * parameters.zx, -torch.sin(sheared) * parameters.zy
    yx, yy = sin * parameters.zx, torch.cos(sheared) * parameters.zy
    x0 = cos * parameters.tx - sin * parameters.ty
    y0 = sin * parameters.tx + cos * parameters.ty
    half = torch.tensor([width - 1, height - 1]) / 2
    x = (torch.arange(width) - half[0]) * torch.where(parameters.flip, -1.0, 1.0)[:, None]  # (N, W)
    y = torch.arange(height) - half[1]  # (H,)
    # The grid is a sum of what a column and what a row give, in grid_sample's units: -1 to 1 between the centres of the
    # outermost pixels. Torch's affine_grid multiplies matrices instead, which takes as long as the sampling.
    of_columns = (torch.stack([xx, yx], dim=1) / half)[..., None] * x[:, None]  # (N, 2, W)
    of_rows = (torch.stack([xy, yy], dim=1) / half)[..., None] * y  # (N, 2, H)
    of_rows += (torch.stack([x0, y0], dim=1) / half)[..., None]
    grid = of_rows[..., None].to(images.device) + of_columns[:, :, None].to(images.device)  # (N, 2, H, W)
    return functional.grid_sample(
        images, grid.permute(0, 2, 3, 1), mode="bilinear", padding_mode="border", align_corners=True
    )


def translate(images: Tensor, offsets: Tensor, flip: Tensor, padding: int) -> Tensor:
    """Shifts each image by whole pixels, edges filled by reflection, then mirrors where `flip` says so.

    `offsets` is int64 of shape (N, 2), rows and columns, each in [0, 2 * padding]; `padding` itself moves nothing.
    Exact: pixels are moved, never mixed.
    """
    count, _, height, width = images.shape
    rows = _reflected(torch.arange(height)[None] + offsets[:, :1] - padding, height)
    columns = _reflected(torch.arange(width)[None] + offsets[:, 1:] - padding, width)
    columns = torch.where(flip[:, None], columns.flip(1), columns)
    index = torch.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]
    # Advanced indexing over the channels-last view moves whole pixels and gives channels-last back.
    moved = images.permute(0, 2, 3, 1)[tuple(part.to(images.device) for part in index)]
    return moved.permute(0, 3, 1, 2)


def cutout(images: Tensor, centres: Tensor, size: int) -> Tensor:
    """Blanks a square of side `size`, cut at the borders, with the image's mean colour.

    `centres` is int64 of shape (N, 2), rows and columns. Source: DeVries and Taylor 2017, arXiv 1708.04552.
    """
    height, width = images.shape[-2:]
    start = centres - size // 2
    rows, columns = torch.arange(height)[None], torch.arange(width)[None]
    in_rows = (rows >= start[:, :1]) & (rows < start[:, :1] + size)
    in_columns = (columns >= start[:, 1:]) & (columns < start[:, 1:] + size)
    square = (in_rows[:, None, :, None] & in_columns[:, None, None, :]).to(images.device)
    return torch.where(square, images.mean(dim=(2, 3), keepdim=True), images)


def relit(images: Tensor, brightness: Tensor, contrast: Tensor) -> Tensor:
    """Stretches each image's pixels about its mean by `contrast` (N,), then adds `brightness` (N,); not clipped."""
    added, factor = (drawn.reshape(-1, 1, 1, 1).to(images.device) for drawn in (brightness, contrast))
    mean = images.mean(dim=(1, 2, 3), keepdim=True)
    return (images - mean) * factor + mean + added


def flips(mode: str, places: Tensor, epoch: int, generator: torch.Generator) -> Tensor:
    """Bool of shape (N,): which images are mirrored this epoch.

    "alternating" gives each image, by a fixed random bit of its place and the parity of the epoch, one
    orientation and then the other. Source: Jordan 2024, arXiv 2404.00498, section 3.6.
    """
    if mode == "none":
        return torch.zeros(len(places), dtype=torch.bool)
    if mode == "random":
        return torch.rand(len(places), generator=generator) < 0.5
    assert mode == "alternating"
    return (_hash_bit(places) + epoch) % 2 == 1


def transform(
    images: Tensor, augment: Augment, places: Tensor, epoch: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draws and applies every transform of `augment`.

    `places` is int64 of shape (N,): the images' places in the epoch before it is shuffled. Returns the network's
    input and the same transformed images without cutout, what a reconstruction is held against.
    """
    count, _, height, width = images.shape
    flip = flips(augment.flip, places, epoch, generator)
    moving = augment.rotation or augment.width_shift or augment.height_shift or augment.shear or augment.zoom
    if moving:
        images = affine(images, draw_affine(augment, images.shape, flip, generator))
        flip = torch.zeros_like(flip)
    if augment.translate or bool(flip.any()):
        assert augment.translate < min(height, width)
        offsets = torch.randint(0, 2 * augment.translate + 1, (count, 2), generator=generator)
        images = translate(images, offsets, flip, augment.translate)
    if augment.brightness or augment.contrast:
        drawn = torch.rand(2, count, generator=generator) * 2 - 1
        images = relit(images, augment.brightness * drawn[0], 1 + augment.contrast * drawn[1])
    if not augment.cutout:
        return images, images
    centres = torch.stack([torch.randint(0, side, (count,), generator=generator) for side in (height, width)], dim=1)
    return cutout(images, centres, augment.cutout), images


def _reflected(positions: Tensor, size: int) -> Tensor:
    positions = positions.abs()
    return torch.where(positions >= size, 2 * (size - 1) - positions, positions)


def _hash_bit(places: Tensor) -> Tensor:
    """A fixed pseudo-random bit for each place, so that orientation is not tied to the order of the files."""
    mixed = (places * 2654435761) & 0xFFFFFFFF
    return (mixed >> 16 ^ mixed >> 7) & 1
