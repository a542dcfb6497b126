"""A recipe: its sections together. TOML in, resolved TOML out."""

import difflib
import importlib.resources
import reprlib
import tomllib
import typing
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import tomli_w
from pydantic import BaseModel, Field, ValidationError, model_validator

from latentry.errors import RecipeError
from latentry.settings import Batches, Classify, Data, Evaluate, Model, Pretrain, Section

LARGEST_RECIPE_BYTES, MOST_DOTS = 1 << 18, 200
"""Of a file, and of a line: a key of very many parts would take the reader far more memory than the file has."""
SHORT = reprlib.Repr()
"""Shows what a recipe holds, be it ever so large or deep."""
SHORT.maxstring = SHORT.maxother = 200


class Recipe(Section):
    """All settings of one run."""

    name: Annotated[str, Field(pattern=r"^[^/\\.][^/\\]*$")]
    """Names the run's folder: neither slashes nor a leading dot."""
    description: str = ""
    """One line, for the list of recipes."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Decides weights, order, transforms, noise and dropout; `data.split_seed` decides the split."""
    device: str = "auto"
    """"auto" takes a CUDA GPU where there is one; or "cpu" or "cuda"."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """"auto" takes bf16 where the processor has it."""
    control: bool = False
    """Also train the same network without its autoencoder, at equal cost, into `control/` of the run's folder."""
    data: Data = Data()
    batches: Batches = Batches()
    model: Model = Model()
    pretrain: Pretrain = Pretrain()
    classify: Classify = Classify()
    evaluate: Evaluate = Evaluate()

    @model_validator(mode="after")
    def settings_go_together(self) -> Self:
        """Refuses what no run can do, such as watching the validation images of a run that has none."""
        for name, stage in (("pretrain", self.pretrain), ("classify", self.classify)):
            if self.data.standing == "all-train" and (stage.schedule == "plateau" or stage.early_stopping_patience):
                raise ValueError(
                    f"{name} watches validation (schedule={stage.schedule}, early_stopping_patience="
                    f"{stage.early_stopping_patience}), and the all-train standing has none: set {name}.schedule to "
                    f"constant, linear or one-cycle, {name}.early_stopping_patience to 0 and fix {name}.max_epochs"
                )
        if not (self.classify.max_epochs or self.pretrain.max_epochs):
            raise ValueError("pretrain.max_epochs and classify.max_epochs are both 0: set one of them to 1 or more")
        if self.classify.logit_adjustment and self.batches.classify.balanced:
            raise ValueError(
                "classify.logit_adjustment is for classes of which some are rarer, and batches.classify.balanced makes "
                "them alike: leave one of them out"
            )
        if self.classify.logit_adjustment and self.classify.class_weight == "balanced":
            raise ValueError(
                f"classify.logit_adjustment = {self.classify.logit_adjustment:g} and classify.class_weight = balanced "
                "would both make up for how rare a class is: set one of them to 0 or none"
            )
        if self.control and not self.has_control:
            raise ValueError(
                "control = true compares with the same network without its autoencoder, and here is none or no "
                "classifier: set classify.max_epochs, and pretrain.max_epochs, pretrain.encoder_from or "
                "classify.reconstruction_weight, or leave control out"
            )
        if self.pretrain.encoder_from and self.pretrain.max_epochs:
            raise ValueError(
                "pretrain.encoder_from brings a pretrained encoder, and pretrain.max_epochs = "
                f"{self.pretrain.max_epochs} would pretrain another: set max_epochs to 0 or leave encoder_from out"
            )
        if self.pretrain.encoder_until and not self.pretrain.encoder_from:
            raise ValueError("pretrain.encoder_until says how much of pretrain.encoder_from is copied: set that too")
        if self.model.autoencoder in ("identity", "patches") and (
            self.pretrain.max_epochs or self.pretrain.encoder_from or self.classify.reconstruction_weight
        ):
            raise ValueError(
                f"model.autoencoder = {self.model.autoencoder} has nothing to pretrain: set pretrain.max_epochs and "
                "classify.reconstruction_weight to 0 and leave pretrain.encoder_from out"
            )
        if self.data.standing == "held-out" and self.evaluate.temperature_from:
            raise ValueError("evaluate.temperature_from is for the all-train standing: a held-out run fits its own")
        return self

    @property
    def rebalances(self) -> bool:
        """Whether classes count otherwise in training than by how many images they have."""
        weighted = self.classify.class_weight != "none" or self.classify.logit_adjustment > 0
        return weighted or self.batches.classify.balanced

    @property
    def has_control(self) -> bool:
        """Whether a classifier learns on an autoencoder, pretrained or beside it, and so might have learned without."""
        pretrained = self.pretrain.max_epochs or self.pretrain.encoder_from
        return bool(self.classify.max_epochs and (pretrained or self.classify.reconstruction_weight))

    @property
    def trains_decoder(self) -> bool:
        """Whether the finished network's decoder has learned anything."""
        solved = self.model.autoencoder == "patches"
        return solved or self.pretrain.max_epochs > 0 or self.classify.reconstruction_weight > 0

    def to_toml(self) -> str:
        """The whole recipe, defaults included, as TOML."""
        return tomli_w.dumps(self.model_dump())


def named_recipes() -> dict[str, str]:
    """Names of the recipes that come with latentry, and their TOML text."""
    folder = importlib.resources.files("latentry") / "recipes"
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".toml")), key=lambda file: file.name)
    return {file.name.removesuffix(".toml"): file.read_text(encoding="utf-8") for file in files}


def load_recipe(name: str, overrides: dict[str, Any] | None = None, limit: dict[str, int] | None = None) -> Recipe:
    """Returns the recipe called `name`, or in the TOML file `name`, with dotted `overrides` applied.

    `limit` (class name to number of images) is added to the recipe's own; class names may hold dots there.

    Raises:
        RecipeError: no such recipe, not TOML, or a key or value that isn't allowed.
    """
    named = named_recipes()
    is_named = name in named
    if is_named:
        content = {"name": name} | tomllib.loads(named[name])
    elif name.endswith(".toml"):
        content = {"name": Path(name).stem} | read_toml(Path(name))
    else:
        raise RecipeError(f"no recipe called {name!r}{_nearest(name, named)}: `latentry recipes` lists them")
    overrides = overrides or {}
    written, moved = content.get("data"), overrides.get("data.source", "cifar10") != "cifar10"
    if moved and isinstance(written, dict) and (is_named or written.get("source") == "cifar10"):
        written.pop("limit", None)  # which names CIFAR-10's classes
    for key, value in overrides.items():
        _set(content, key, value)
    recipe = parse_recipe(content)
    if limit:
        content.setdefault("data", {})["limit"] = recipe.data.limit | limit
    return parse_recipe(content)


def parse_recipe(content: dict[str, Any]) -> Recipe:
    """Returns the recipe that `content`, as read from TOML, describes.

    Raises:
        RecipeError: names the first key or value that isn't allowed, and what is.
    """
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        parts = [str(part) for part in first["loc"]]
        key, value = _short(".".join(parts))[1:-1], _short(first["input"])
        if first["type"] == "extra_forbidden":
            raise RecipeError(f"recipe key '{key}' is unknown{_nearest(parts[-1], _keys_at(parts[:-1]))}") from None
        if first["type"] == "model_type":
            raise RecipeError(f"recipe key {key} is a section, and {value} is a value") from None
        if first["type"] == "value_error":
            raise RecipeError(str(first["ctx"]["error"])) from None
        raise RecipeError(f"recipe key {key} = {value}: {first['msg']}") from None


def read_toml(path: Path) -> dict[str, Any]:
    """What a TOML file holds.

    Raises:
        RecipeError: it can't be read, is no TOML, or far larger than a recipe is.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST_RECIPE_BYTES:
            raise RecipeError(f"recipe {path} has {size} bytes, the limit is {LARGEST_RECIPE_BYTES}: is it a recipe?")
        text = path.read_text(encoding="utf-8")
        if any(line.count(".") > MOST_DOTS for line in text.splitlines()):
            raise RecipeError(f"recipe {path} has more than {MOST_DOTS} dots in a line, the limit: is it a recipe?")
        return tomllib.loads(text)
    except FileNotFoundError:
        raise RecipeError(f"no recipe file {path}: give one, or a name that `latentry recipes` lists") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} can't be read: {error}") from None
    except (ValueError, RecursionError) as error:  # more digits than Python reads are no TOMLDecodeError
        raise RecipeError(f"recipe {path} is not valid TOML: {error}") from None


def parse_setting(setting: str) -> tuple[str, Any]:
    """Splits "section.key=value" into the dotted key and the value, read as TOML, or as plain text where it is not.

    Raises:
        RecipeError: there is no "=".
    """
    key, equals, text = setting.partition("=")
    if not equals or not key.strip():
        raise RecipeError(f"--set {setting!r} is not of the form section.key=value")
    try:
        return key.strip(), tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return key.strip(), text


def _short(value: Any) -> str:
    try:
        return SHORT.repr(value)
    except ValueError:  # more digits than Python writes
        return "a number of thousands of digits"


def _set(content: dict[str, Any], key: str, value: Any) -> None:
    *sections, last = key.split(".")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise RecipeError(f"recipe key {key!r}: {section!r} is a value, not a section")
    content[last] = value


def _keys_at(path: list[str]) -> list[str]:
    section: type[BaseModel] = Recipe
    for part in path:
        annotation = section.model_fields[part].annotation
        assert isinstance(annotation, type)
        section = annotation
    return list(section.model_fields)


def _nearest(word: str, known: typing.Iterable[str]) -> str:
    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"; did you mean {matches[0]!r}?" if matches else f"; known are {', '.join(known)}"
