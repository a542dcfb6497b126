"""What `results.json` holds."""

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Of the right types, without NaN; may hold more."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


class ClassScores(Part):
    """How well a run did on the images of one class."""

    name: str
    correct: int
    total: int
    precision: float
    recall: float
    f1: float


class Scores(Part):
    """How well a run did on its validation or test images; what it didn't train is None."""

    accuracy: float | None
    balanced_accuracy: float | None
    macro_f1: float | None
    log_loss: float | None
    ece: float | None
    per_class: list[ClassScores] | None
    confusion_matrix: list[list[int]] | None
    psnr: float | None
    ssim: float | None


class Flops(Part):
    """Operations: of each stage, and to answer for one image."""

    pretrain: int
    classify: int
    inference_per_image: int


class Parameters(Part):
    """How many each part of the network has."""

    encoder: int
    decoder: int
    classifier: int


class Network(Part):
    """Shapes (C, H, W) of an image and of its latent, and the size of the network."""

    image: list[int]
    latent: list[int]
    parameters: Parameters


class Results(Part):
    """All of it. Those with a default weren't always kept."""

    recipe: str
    standing: str
    seed: int
    train_images: dict[str, int]
    labelled_images: int | None = None
    unlabelled_images: int = 0
    dataset_sha256: str
    split_sha256: str
    test_sha256: str | None = None
    seconds: dict[str, float]
    flops: Flops
    network: Network
    pretrained_validation_psnr: float | None
    versions: dict[str, str]
    hardware: dict[str, str | int]
    trained_decoder: bool
    trained_classifier: bool
    temperature: float
    skipped: dict[str, int] = {}
    validation: Scores | None
    test: Scores | None
