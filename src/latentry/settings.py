"""The sections of a recipe: every setting of a run, with its default, its limits and what it may not stand beside."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, field_validator, model_validator

Share = Annotated[float, Field(ge=0, lt=1)]
NonNegative = Annotated[float, Field(ge=0)]
ImageSize = Annotated[int, Field(ge=16, le=256)]
Count = Annotated[int, Field(le=1_000_000)]
Width = Annotated[int, Field(ge=1, le=4096)]
Standing = Literal["held-out", "all-train"]


class Section(BaseModel):
    """A part of a recipe: immutable, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def changed(self, settings: dict[str, Any]) -> Self:
        """A copy with other values of some keys, dotted as in "classify.max_epochs"; they are not checked again."""
        update: dict[str, Any] = {}
        for key, value in settings.items():
            name, _, rest = key.partition(".")
            update[name] = update.get(name, getattr(self, name)).changed({rest: value}) if rest else value
        return self.model_copy(update=update)


class Data(Section):
    """Which images, how many of each class, and how they are split."""

    source: str = "cifar10"
    """"cifar10", a folder of images with one folder a class, or a CSV file of paths and labels."""
    unlabelled: str = ""
    """A folder of images without labels, at any depth, that pretraining sees beside the others."""
    group_column: str = ""
    """Column of the CSV file; rows with the same entry (frames of one video) stay on one side of the split."""
    image_size: ImageSize = 32
    """Side in pixels that one's own images are scaled to, whatever their shape; CIFAR-10 is 32."""
    limit: dict[str, PositiveInt] = {}
    """Class name to the most training images that are taken of it, with those that are drawn to validate."""
    draw: Literal["first", "random"] = "first"
    """Which images a limit keeps: the first in file order, or a random draw by `split_seed`."""
    standing: Standing = "held-out"
    """"held-out" keeps a validation part back; "all-train" trains on everything for a fixed number of epochs."""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of the limited images that the held-out standing validates on, stratified by class; a folder or table with
    a part "val" has chosen already."""
    fold: Annotated[int, Field(ge=0, le=4)] = 0
    """Which of the five repeats of the stratified shuffle split, or of the parts of grouped images."""
    split_seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seed of the draw and of the split; kept apart from the run's seed so that seeds share a split."""
    labels: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Share of each class's training labels that stage 2 may use, drawn by the run's seed; pretraining sees every
    training image. An epoch keeps its length: the labelled images come round more often."""

    @model_validator(mode="after")
    def settings_suit_the_source(self) -> Self:
        """Refuses what only other sources have."""
        if self.source == "cifar10" and self.image_size != 32:
            raise ValueError(f"data.image_size = {self.image_size}, and CIFAR-10 has 32: leave it out")
        if self.source == "cifar10" and self.unlabelled:
            raise ValueError(
                f"data.unlabelled = {self.unlabelled} would bring images from outside into the reference problem: "
                "leave it out, or give your own images with --data"
            )
        if not self.source.lower().endswith(".csv") and self.group_column:
            raise ValueError(
                f"data.group_column = {self.group_column} names a column, and {self.source} is no CSV file: give one, "
                "or leave it out"
            )
        return self


class Augment(Section):
    """Random transforms of one stage's training batches; every default is off."""

    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Largest rotation, degrees (Keras' rotation_range)."""
    width_shift: Share = 0.0
    """Keras' width_shift_range, a share of the size; in Keras 3 it moves images up and down."""
    height_shift: Share = 0.0
    """Keras' height_shift_range, a share of the size; in Keras 3 it moves images left and right."""
    shear: Annotated[float, Field(ge=0, lt=90)] = 0.0
    """Largest shear angle, degrees (Keras' shear_range)."""
    zoom: Share = 0.0
    """Zoom factors for x and y are drawn apart from [1 - zoom, 1 + zoom] (Keras' zoom_range)."""
    flip: Literal["none", "random", "alternating"] = "none"
    """Left-right flip; "alternating" flips every image in every second epoch, and one that comes round more often
    than once an epoch in about half of its visits."""
    translate: Annotated[int, Field(ge=0, lt=16)] = 0
    """Largest translation in pixels, edges filled by reflection."""
    brightness: Share = 0.0
    """Largest change of an image's brightness, either way, in units of the pixel range."""
    contrast: Share = 0.0
    """Contrast factors, about an image's mean, are drawn from [1 - contrast, 1 + contrast]."""
    cutout: Annotated[int, Field(ge=0, le=256)] = 0
    """Side in pixels of the square that is blanked in the input (never in the reconstruction's target)."""
    balanced: bool = False
    """Oversample at random, once a run, until every class has as many images as the largest."""
    validation: bool = False
    """Balance and transform validation batches too, anew every epoch, as seed 1's author did."""


class Batches(Section):
    """How each stage sees its training images."""

    pretrain: Augment = Augment()
    """What the autoencoder sees."""
    classify: Augment = Augment()
    """What the classifier sees."""


class Model(Section):
    """The four nodes."""

    autoencoder: Literal["light", "patches", "record", "seed1", "seed2", "identity"] = "light"
    """Encoder and decoder: the light network, the principal components of small patches, those and two groups of the
    record network with a linear decoder, a seed's, or none ("identity": the latent is the image)."""
    patch_side: Annotated[int, Field(ge=1, le=8)] = 2
    """Of "patches" and "record": side in pixels."""
    patch_components: PositiveInt = 9
    """Of "patches" and "record": how many of the 3 side^2 components are kept."""
    record_widths: Annotated[tuple[Width, ...], Field(min_length=3, max_length=3)] = (64, 256, 256)
    """Channels of the record network's three groups."""
    classifier: Literal["light", "record", "record-top", "cnn", "dense", "seed2"] = "light"
    """Node 4: the light network's, the record network behind its first layer or behind its second group, seed 1's CNN
    or dense classifier, or seed 2's with its 16 outputs."""

    @model_validator(mode="after")
    def patches_have_their_components(self) -> Self:
        """Refuses more than a patch has values."""
        if self.patch_components > 3 * self.patch_side**2:
            raise ValueError(
                f"model.patch_components = {self.patch_components}, and patches of {self.patch_side} pixels have "
                f"{3 * self.patch_side**2}: lower it"
            )
        return self


class Stage(Section):
    """Optimisation settings that both stages share."""

    max_epochs: Annotated[Count, Field(ge=0)] = 1
    """Passes over the training images; early stopping may end sooner."""
    batch_size: Annotated[Count, Field(ge=1)] = 256
    """Images a step."""
    min_steps_per_epoch: Annotated[Count, Field(ge=0)] = 0
    """An epoch of few images goes round them as often as makes this many steps."""
    optimizer: Literal["sgd", "muon", "adam", "adamw", "rmsprop", "keras-adam", "keras-rmsprop"] = "adam"
    """The two of Keras 3 differ from torch's in where epsilon stands; they and "muon" know no weight decay. "rmsprop"
    has Keras' constants (0.9, 1e-7) and, as TensorFlow 2.4, epsilon outside the root. "muon" orthogonalises in bf16
    where the processor has it, whatever the run's precision."""
    learning_rate: PositiveFloat = 1e-3
    """The peak, where a schedule moves it."""
    rest_learning_rate: PositiveFloat = 1e-3
    """Of Muon: the peak of all that is no filter, which Adam moves."""
    momentum: Share = 0.9
    """SGD's and Muon's; the other optimizers take no notice."""
    nesterov: bool = True
    """Whether SGD's momentum is Nesterov's."""
    weight_decay: NonNegative = 0.0
    """Of convolution and linear weights alone, never of biases or norms."""
    schedule: Literal["constant", "one-cycle", "linear", "plateau"] = "constant"
    """"one-cycle" rises and falls linearly, "linear" falls from the peak; "plateau" cuts when validation stalls."""
    warmup: Share = 0.2
    """Share of the steps that one-cycle spends rising."""
    final_learning_rate_factor: Share = 0.05
    """Where one-cycle starts, and where it and linear end, as a share of the peak."""
    plateau_factor: Annotated[float, Field(gt=0, lt=1)] = 0.3
    """What plateau multiplies the learning rate by."""
    plateau_patience: PositiveInt = 10
    """Epochs without a better validation loss before it does."""
    plateau_cooldown: Annotated[int, Field(ge=0)] = 1
    """Epochs that it doesn't count, from the cut's own on; so 0 and 1 are alike, as in Keras."""
    minimum_learning_rate: NonNegative = 1e-4
    """Plateau never goes below it."""
    early_stopping_patience: Annotated[int, Field(ge=0)] = 0
    """Epochs without a better validation loss before the stage stops; 0 never stops."""

    @model_validator(mode="after")
    def optimizer_decays(self) -> Self:
        """Refuses weight decay to the optimizers that know none."""
        if self.optimizer.startswith(("keras-", "muon")) and self.weight_decay:
            stage = type(self).__name__.lower()
            raise ValueError(f"{stage}.optimizer = {self.optimizer} has no weight decay: set it to 0 or use adamw")
        return self


class Pretrain(Stage):
    """Stage 1: the autoencoder learns to reconstruct. `max_epochs = 0` leaves it out."""

    encoder_from: str = ""
    """A finished run of the same split whose pretrained encoder is copied; `max_epochs` is then 0."""
    encoder_until: str = ""
    """Name of the last layer that is copied from there; the layers after it stay at random. "" copies all."""
    noise: NonNegative = 0.0
    """Deviation of Gaussian noise on the input, in units of the pixel range [0, 1]."""
    mask: Share = 0.0
    """Share of the input's patches that are blanked."""
    mask_patch: Annotated[int, Field(ge=1, le=256)] = 4
    """Side of a masked patch in pixels."""
    target: Literal["transformed", "original"] = "transformed"
    """What the reconstruction is held against: the transformed image, or the one before the transforms."""


class Classify(Stage):
    """Stage 2: the classifier learns on the latent. `max_epochs = 0` leaves a run with its autoencoder alone."""

    freeze: str = ""
    """"" fine-tunes the whole encoder, "encoder" freezes it whole, a layer's name freezes up to that layer."""
    reconstruction_weight: NonNegative = 0.0
    """Above 0 trains jointly: cross-entropy plus this times the reconstruction's mean squared error."""
    label_smoothing: Share = 0.0
    """Share of each label that is spread over all classes."""
    class_weight: Literal["none", "balanced"] | dict[str, float] = "none"
    """Weight of each class in the loss: "balanced" makes all count alike (but for the share that label smoothing
    spreads, which is weighted by the class it falls to); or class name to weight, 1 where unnamed."""
    class_weight_after: Share = 0.0
    """Share of the steps that go by before the weights of classes count (deferred re-weighting: Cao et al. 2019)."""
    logit_adjustment: Annotated[float, Field(ge=0, le=4)] = 0.0
    """In training this times the log of a class's share of the images is added to its logit (Menon et al. 2021); 1 is
    the balanced softmax (Ren et al. 2020)."""

    @field_validator("class_weight", mode="before")
    @classmethod
    def weights_are_weights(cls, wanted: Any) -> Any:
        """Says in one line what a pair of types would say in two."""
        numbers = wanted.values() if isinstance(wanted, dict) else [1.0] if wanted in ("none", "balanced") else []
        if not numbers or not all(isinstance(weight, int | float) and 0 < weight < float("inf") for weight in numbers):
            raise ValueError(
                f"classify.class_weight = {wanted!r} is neither none nor balanced, nor class names with weights above 0"
            )
        return wanted

    @model_validator(mode="after")
    def late_weights_come_to_count(self) -> Self:
        """Refuses late weights where there are none, or where the stage may have ended by then."""
        if self.class_weight_after and self.class_weight == "none":
            raise ValueError("classify.class_weight_after delays weights, and classify.class_weight is none: set it")
        if self.class_weight_after and self.early_stopping_patience:
            raise ValueError(
                "classify.early_stopping_patience may stop before classify.class_weight_after lets weights count: set "
                "one of them to 0"
            )
        return self


class Evaluate(Section):
    """How a trained network is asked."""

    views: Literal[1, 2, 6] = 1
    """Views of each image whose logits are averaged: as it is; mirrored too; both shifted by a pixel either way too."""
    temperature_from: str = ""
    """A finished held-out run that lends its temperature, for the all-train standing."""
