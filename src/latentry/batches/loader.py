"""Batches of a stage: uint8 images on the device in, channels-last float batches out, no per-image Python."""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from latentry.batches.augment import transform
from latentry.batches.sampling import oversampled, shuffled
from latentry.data.imageset import ImageSet
from latentry.runtime import derive_seed
from latentry.settings import Augment


class Batch(NamedTuple):
    """Float32 images in [0, 1], which changes of light may leave, (N, C, H, W), channels-last; labels int64, (N,).

    Attributes:
        images: the network's input.
        target: what its reconstruction is held against.
        labels: indices of the classes.
    """

    images: Tensor
    target: Tensor
    labels: Tensor


class Loader:
    """One stage's batches of the images at `indices`, the same for the same (seed, stage, epoch, number).

    Training batches are shuffled and all of one size: what is left over when an epoch doesn't divide is dropped (unless
    the images are fewer than one batch). An epoch that would have fewer than `min_steps` goes round the images as often
    as it takes. With several processes each takes its share of every batch. Fixed batches (`training=False`) come in
    order, and whole; where they are transformed, anew each epoch.
    """

    def __init__(
        self,
        images: ImageSet,
        indices: np.ndarray,
        batch_size: int,
        augment: Augment,
        *,
        stage: str,
        seed: int,
        device: torch.device,
        training: bool = True,
        original_target: bool = False,
        min_steps: int = 0,
        rank: int = 0,
        num_processes: int = 1,
    ) -> None:
        self.source = images.images
        self.labels = torch.from_numpy(images.labels[indices])
        self.indices = torch.from_numpy(indices)
        largest = len(indices) // num_processes * num_processes
        self.batch_size = min(batch_size, largest) if training else batch_size
        self.augment = augment
        self.stage = stage
        self.seed = seed
        self.device = device
        self.training = training
        self.original_target = original_target
        self.min_steps = min_steps
        self.rank = rank
        self.num_processes = num_processes
        self.epoch = 0
        self.given = self.left_out = 0

    @functools.cached_property
    def images(self) -> Tensor | np.ndarray:
        """A GPU gets its images once, for the first batch; the processor reads them where they are, be it a file."""
        if self.device.type == "cpu":
            return self.source
        return torch.from_numpy(self.source[self.indices.numpy()]).to(self.device)

    def release(self) -> None:
        """Frees the GPU's images until the next batch."""
        self.__dict__.pop("images", None)

    batch_sampler = None

    @property
    def sampler(self) -> "Loader":
        """Itself: before each epoch the Trainer calls `set_epoch` of a loader's sampler."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch, counted from 0, whose draws the next pass makes."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, int]:
        """How many batches of the epoch were given so far, for the Trainer's checkpoints."""
        return {"given": self.given}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Leaves out of the next pass what was given before."""
        self.left_out = state_dict["given"]

    def __len__(self) -> int:
        count = self._images_a_round()
        return self._num_rounds() * count // self.batch_size if self.training else -(-count // self.batch_size)

    def _images_a_round(self) -> int:
        if not self.augment.balanced:
            return len(self.labels)
        counts = torch.bincount(self.labels)
        return int(counts.max()) * int((counts > 0).sum())

    def _num_rounds(self) -> int:
        return max(1, -(-self.min_steps * self.batch_size // self._images_a_round()))

    def __iter__(self) -> Iterator[Batch]:
        # What is left out is of this pass, even if nobody asks for its first batch; the epoch is set until then.
        first, self.left_out = self.left_out, 0
        return self._pass(first)

    def _pass(self, first: int) -> Iterator[Batch]:
        epoch = self.epoch
        visited = torch.arange(len(self.labels))
        if self.augment.balanced:
            visited = oversampled(self.labels, self._generator("oversampling"))
        places = torch.arange(len(visited))
        if self.training:
            order, turns = self._generator(epoch), range(self._num_rounds())
            places = torch.cat([turn * len(visited) + shuffled(places, order) for turn in turns])
        parts = places.split(self.batch_size)[: len(self)]
        # Every process draws for the whole batch, so that their number doesn't change what an image becomes.
        mine = slice(None) if self.num_processes == 1 else slice(self.rank, None, self.num_processes)
        for number in range(first, len(parts)):
            self.given = number + 1
            positions = visited[parts[number] % len(visited)]
            yield self._batch(positions, parts[number], epoch, self._generator(epoch, number), mine)

    def _generator(self, *names: str | int) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(self.seed, self.stage, self.training, *names))

    def _batch(self, positions: Tensor, places: Tensor, epoch: int, generator: torch.Generator, mine: slice) -> Batch:
        if isinstance(self.images, Tensor):
            pixels = self.images[positions.to(self.device)].float().div_(255)
        else:
            pixels = torch.from_numpy(self.images[self.indices[positions].numpy()]).float().div_(255)
        images, target = transform(pixels, self.augment, places, epoch, generator)
        if self.original_target:
            target = pixels
        given = images[mine].contiguous(memory_format=torch.channels_last)
        held_against = given if target is images else target[mine].contiguous(memory_format=torch.channels_last)
        return Batch(given, held_against, self.labels[positions][mine].to(self.device))
