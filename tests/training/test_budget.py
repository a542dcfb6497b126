"""Epochs that fit a number of minutes."""

import pytest

from latentry.errors import RecipeError
from latentry.recipe import Recipe
from latentry.settings import Classify, Pretrain
from latentry.training.budget import fit_epochs

RECIPE = Recipe(name="r", pretrain=Pretrain(max_epochs=2), classify=Classify(max_epochs=8))
COSTS = {"pretrain_seconds": 10.0, "classify_seconds": 12.0, "other_seconds": 20.0}


@pytest.mark.parametrize("minutes", [1, 2, 3.5, 10, 60])
def test_the_budget_is_kept_and_used(minutes):
    fitted = fit_epochs(RECIPE, minutes, **COSTS)
    pretrain, classify = fitted.pretrain.max_epochs, fitted.classify.max_epochs
    assert pretrain == max(1, round(classify / 4))
    spent = 10 * pretrain + 12 * classify + 20
    assert spent <= 60 * minutes < spent + 10 + 12
    assert fitted.model_copy(update={"pretrain": RECIPE.pretrain, "classify": RECIPE.classify}) == RECIPE


def test_a_recipe_without_pretraining_gets_none():
    recipe = Recipe(name="r", classify=Classify(max_epochs=8))
    recipe = recipe.model_copy(update={"pretrain": Pretrain(max_epochs=0)})
    fitted = fit_epochs(recipe, 2, **COSTS)
    assert (fitted.pretrain.max_epochs, fitted.classify.max_epochs) == (0, 8)


def test_too_little_time_says_how_much_would_do():
    with pytest.raises(RecipeError, match=r"--minutes 0.5 is too short: one epoch of each stage takes 0.7 minutes"):
        fit_epochs(RECIPE, 0.5, **COSTS)


def test_a_control_has_half_of_the_time():
    recipe = RECIPE.model_copy(update={"control": True})
    assert fit_epochs(recipe, 10, **COSTS).classify == fit_epochs(RECIPE, 5, **COSTS).classify
    with pytest.raises(RecipeError, match=r"--minutes 1 is too short: .* and of its control, takes 1.4 minutes"):
        fit_epochs(recipe, 1, **COSTS)
