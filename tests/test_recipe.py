"""Recipes: round trip, overrides, and errors that help."""

import pytest

from latentry.errors import RecipeError
from latentry.recipe import Recipe, load_recipe, named_recipes, parse_recipe, parse_setting


@pytest.mark.parametrize("name", list(named_recipes()))
def test_named_recipes_are_valid_and_survive_a_round_trip(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.description
    file = tmp_path / "again.toml"
    file.write_text(recipe.to_toml())
    assert load_recipe(str(file)) == recipe
    assert recipe.data.limit == {"bird": 2500, "deer": 2500, "truck": 2500}


def test_overrides_reach_their_keys():
    recipe = load_recipe("quick", {"classify.max_epochs": 3, "data.limit.cat": 7, "seed": 5})
    assert recipe.classify.max_epochs == 3
    assert recipe.data.limit == {"bird": 2500, "deer": 2500, "truck": 2500, "cat": 7}
    assert recipe.seed == 5


def test_a_copy_has_other_values_and_the_recipe_its_own():
    recipe = load_recipe("quick")
    own = {"classify.max_epochs": 3, "classify.freeze": "all"}
    copy = recipe.changed({"seed": 4, "batches.pretrain.flip": "none"} | own)
    assert (copy.seed, copy.classify.max_epochs, copy.classify.freeze) == (4, 3, "all")
    assert (copy.batches.pretrain.flip, copy.batches.classify) == ("none", recipe.batches.classify)
    assert copy.classify.batch_size == recipe.classify.batch_size
    assert recipe == load_recipe("quick") != copy


def test_a_named_recipe_leaves_its_limits_behind_on_other_data(tmp_path):
    assert load_recipe("quick", {"data.source": "a folder"}).data.limit == {}
    assert load_recipe("quick", {"data.source": "a folder"}, {"a": 3}).data.limit == {"a": 3}
    assert load_recipe("quick", {"data.source": "a folder", "data.limit.b": 4}).data.limit == {"b": 4}
    own = tmp_path / "quick.toml"
    own.write_text("[data]\nlimit = { a = 3 }")
    assert load_recipe(str(own), {"data.source": "a folder"}).data.limit == {"a": 3}
    own.write_text(load_recipe("quick").to_toml())
    assert load_recipe(str(own), {"data.source": "a folder"}).data.limit == {}


def test_limits_join_the_recipe_and_names_may_hold_dots():
    recipe = load_recipe("quick", limit={"bird": 9, "st. bernard": 3})
    assert recipe.data.limit == {"bird": 9, "deer": 2500, "truck": 2500, "st. bernard": 3}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.b=3", ("a.b", 3)),
        ("a=0.5", ("a", 0.5)),
        ("a=true", ("a", True)),
        ("a=word", ("a", "word")),
        ('a="3"', ("a", "3")),
        ("a=", ("a", "")),
        ("a={x=1}", ("a", {"x": 1})),
        ("a=b=c", ("a", "b=c")),
    ],
)
def test_settings_are_read_as_toml_or_text(text, expected):
    assert parse_setting(text) == expected


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"classify.learning_rat": 1}, r"'classify.learning_rat' is unknown; did you mean 'learning_rate'\?"),
        ({"clasify.max_epochs": 1}, r"'clasify' is unknown; did you mean 'classify'\?"),
        ({"batches.classify.flipp": 1}, r"'batches.classify.flipp' is unknown; did you mean 'flip'\?"),
        ({"classify.max_epochs": "many"}, r"classify\.max_epochs = 'many': .*integer"),
        ({"classify.learning_rate": -1}, r"classify\.learning_rate = -1: .*greater than 0"),
        ({"classify.learning_rate": float("nan")}, r"classify\.learning_rate = nan: .*finite"),
        ({"data.standing": "most"}, r"data\.standing = 'most': .*'held-out' or 'all-train'"),
        ({"classify.max_epochs": 0, "pretrain.max_epochs": 0}, r"max_epochs and classify\.max_epochs are both 0: set"),
        ({"pretrain.encoder_from": "runs/a"}, r"pretrain\.max_epochs = 2 would pretrain another: set"),
        ({"pretrain.encoder_until": "stem"}, r"encoder_until says how much of pretrain\.encoder_from is copied: set"),
        ({"model.autoencoder": "identity"}, r"identity has nothing to pretrain: set"),
        (
            {"pretrain.max_epochs": 0, "classify.reconstruction_weight": 0, "control": True},
            r"control = true compares .*: set classify\.max_epochs, and pretrain",
        ),
        ({"classify.optimizer": "keras-adam"}, r"classify\.optimizer = keras-adam has no weight decay: set it to 0"),
        ({"classify.batch_size": 10**30}, r"classify\.batch_size = 1000.*less than or equal to 1000000"),
        ({"classify.min_steps_per_epoch": 10**30}, r"min_steps_per_epoch = 1000.*less than or equal to 1000000"),
        ({"pretrain.mask_patch": 257}, r"pretrain\.mask_patch = 257: .*less than or equal to 256"),
        ({"batches.classify.cutout": 257}, r"batches\.classify\.cutout = 257: .*less than or equal to 256"),
        ({"batches.classify.shear": 90}, r"batches\.classify\.shear = 90: .*less than 90"),
        ({"data.labels": 0}, r"data\.labels = 0: .*greater than 0"),
        ({"name": "../up"}, r"name = '\.\./up'"),
        ({"model.record_widths": [64, 256]}, r"model\.record_widths = \[64, 256\]: .*at least 3 items"),
        ({"data": 3}, r"recipe key data is a section, and 3 is a value"),
        ({"name.x": 1}, r"'name' is a value, not a section"),
        (
            {"data.standing": "all-train", "classify.schedule": "plateau"},
            r"all-train standing has none: set classify\.",
        ),
    ],
)
def test_mistakes_are_named_with_their_remedy(overrides, words):
    with pytest.raises(RecipeError, match=words):
        load_recipe("quick", overrides)


def test_unknown_recipes_and_unreadable_files(tmp_path):
    with pytest.raises(RecipeError, match=r"no recipe called 'quik'; did you mean 'quick'\?"):
        load_recipe("quik")
    with pytest.raises(RecipeError, match=r"no recipe file .*missing\.toml: give one, or a name"):
        load_recipe(str(tmp_path / "missing.toml"))
    file = tmp_path / "bad.toml"
    file.write_text("a = [")
    with pytest.raises(RecipeError, match="not valid TOML"):
        load_recipe(str(file))
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(RecipeError, match="can't be read"):
        load_recipe(str(file))
    with file.open("wb") as stream:
        stream.truncate(100_000_000)
    with pytest.raises(RecipeError, match="has 100000000 bytes, the limit is 262144: is it a recipe"):
        load_recipe(str(file))
    file.write_text(f"seed{'.a' * 1_000} = 1")
    with pytest.raises(RecipeError, match="more than 200 dots in a line"):
        load_recipe(str(file))


def test_deep_and_long_values_are_shown_in_a_line(tmp_path):
    file = tmp_path / "deep.toml"
    file.write_text("seed.a" + ".a" * 150 + " = 1")
    with pytest.raises(RecipeError, match=r"recipe key seed = \{'a': \{.*\.\.\..*: Input should be a valid integer"):
        load_recipe(str(file))
    file.write_text('[data.limit]\n"a\\nb" = 0')
    with pytest.raises(RecipeError, match="greater than 0") as raised:
        load_recipe(str(file))
    assert "\n" not in str(raised.value)
    with pytest.raises(RecipeError) as raised:
        load_recipe("quick", {"seed": "x" * 100_000})
    assert len(str(raised.value)) < 500
    file.write_text("seed = 0x" + "f" * 5_000)
    with pytest.raises(RecipeError, match="recipe key seed = a number of thousands of digits: Input should be"):
        load_recipe(str(file))
    file.write_text("seed = " + "9" * 5_000)
    with pytest.raises(RecipeError, match="is not valid TOML: Exceeds the limit"):
        load_recipe(str(file))
    assert parse_setting(f"seed={'9' * 5_000}") == ("seed", "9" * 5_000)


def test_recipes_are_frozen():
    recipe = parse_recipe({"name": "x"})
    assert recipe == Recipe(name="x")
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 3


@pytest.mark.parametrize("wanted", ["balancd", {"bird": 0}, {"bird": -1.0}, {"bird": "heavy"}, {}, 3])
def test_weights_of_classes_that_are_none_are_named_in_one_line(wanted):
    with pytest.raises(
        RecipeError, match=r"^classify\.class_weight = .* is neither none nor balanced, nor class names"
    ):
        load_recipe("quick", {"classify.class_weight": wanted})
    assert load_recipe("quick", {"classify.class_weight": {"bird": 2}}).classify.class_weight == {"bird": 2.0}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classify.class_weight_after": 0.5}, "delays weights, and classify.class_weight is none"),
        (
            {"classify.class_weight": "balanced", "classify.class_weight_after": 0.5}
            | {"classify.early_stopping_patience": 3},
            "may stop before classify.class_weight_after lets weights count",
        ),
        (
            {"classify.logit_adjustment": 1, "batches.classify.balanced": True},
            "makes them alike: leave one of them out",
        ),
        (
            {"classify.logit_adjustment": 0.5, "classify.class_weight": "balanced"},
            "logit_adjustment = 0.5 and classify.class_weight = balanced would both make up",
        ),
    ],
)
def test_rebalancing_that_does_nothing_or_too_much_is_refused(changes, words):
    with pytest.raises(RecipeError, match=words):
        load_recipe("quick", changes)
