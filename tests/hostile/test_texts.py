"""Tables and recipes that are nearly right."""

import pytest

from latentry import recipe
from latentry.data import listing
from latentry.data.listing import listed_for_test, listed_for_training
from latentry.recipe import load_recipe

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

TABLE = b"""path,label,part,group
a.png,cat,train,1
b.png,cat,train,
c.png,dog,train,2
d.png,cat,test,3
e.png,dog,test,4
"""
RECIPES = (
    load_recipe("quick").to_toml().encode(),
    b"data = 3",
    b"[pretrain]\nmax_epochs = 0\n[classify]\nmax_epochs = 0",
    b"#" * (recipe.LARGEST_RECIPE_BYTES + 1),
    b"seed" + b".a" * 150 + b" = 1",
    b"a." * 250 + b"a = 1",
)


def test_a_table(fuzzed):
    readings = fuzzed(
        (TABLE,),
        lambda path: (listed_for_training(path, "group"), listed_for_test(path)),
        *(listing._rows, listing._of_table, listing._check_apart, listing._check_groups, listing._check_filled),
        file="table.csv",
    )
    assert readings.problems == []
    assert readings.said


def test_a_recipe(fuzzed):
    functions = recipe.read_toml, recipe.parse_recipe, recipe._keys_at, recipe._nearest
    readings = fuzzed(RECIPES, lambda path: load_recipe(str(path)), *functions, file="mine.toml")
    assert readings.problems == []
    assert readings.said
