"""Which files are whose: folders, tables, and what is wrong with them."""

import os
from pathlib import Path

import numpy as np
import pytest

from latentry.data.listing import files_below, listed_for_test, listed_for_training
from latentry.errors import DataError
from latentry.pipeline import resolved
from latentry.recipe import load_recipe


def laid_out(folder: Path, *names: str) -> Path:
    """Empty files; none of them is opened here."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def table(folder: Path, *lines: str) -> Path:
    (folder / "table.csv").write_text("\n".join(lines) + "\n")
    return folder / "table.csv"


def test_a_folder_with_a_folder_a_class(tmp_path):
    laid_out(tmp_path, "cat/2.png", "cat/1.JPG", "ant/a.webp", "cat/notes.txt", "cat/._1.png", ".hidden/a.png")
    listing = listed_for_training(tmp_path)
    assert [file.name for file in listing.files] == ["a.webp", "1.JPG", "2.png"]
    assert listing.class_names == ("ant", "cat")
    assert listing.labels.tolist() == [0, 1, 1]
    assert not listing.held_out.any()
    with pytest.raises(DataError, match="has no test images: put them into"):
        listed_for_test(tmp_path)
    laid_out(tmp_path, "test/ant/t.png", "test/cat/t.png")
    assert listed_for_training(tmp_path).class_names == ("ant", "cat")
    assert listed_for_test(tmp_path).labels.tolist() == [0, 1]


def test_a_folder_with_parts(tmp_path):
    laid_out(tmp_path, "train/ant/1.png", "train/cat/1.png", "val/ant/2.png", "val/cat/2.png", "test/ant/3.png")
    listing = listed_for_training(tmp_path)
    assert listing.labels.tolist() == [0, 1, 0, 1]
    assert listing.held_out.tolist() == [False, False, True, True]
    with pytest.raises(DataError, match=r"the test part of .* has the classes ant, and training has ant, cat"):
        listed_for_test(tmp_path)
    laid_out(tmp_path, "val/dog/1.png")
    with pytest.raises(DataError, match="val has the classes ant, cat, dog, and training has ant, cat"):
        listed_for_training(tmp_path)


def test_a_table(tmp_path):
    source = table(
        tmp_path,
        "label,path,part,video",
        "cat,a/1.png,train,x",
        "ant,a/2.png,,y",
        ",a/3.png,,x",
        '"ant","a/4, too.png",val,z',
        "cat,/elsewhere/5.png,test,w",
        "ant,6.png,test,w",
    )
    listing = listed_for_training(source, "video")
    assert listing.class_names == ("ant", "cat")
    assert listing.files[0] == tmp_path / "a/1.png"
    assert listing.files[3].name == "4, too.png"
    assert listing.labels.tolist() == [1, 0, -1, 0]
    assert listing.held_out.tolist() == [False, False, False, True]
    assert listing.groups is not None
    assert listing.groups.tolist() == [0, 1, 0, 2]
    asked = listed_for_test(source)
    assert asked.files[0] == Path("/elsewhere/5.png")
    assert asked.labels.tolist() == [1, 0]


def test_unlabelled_images_come_last_from_any_depth(tmp_path):
    laid_out(tmp_path / "labelled", "ant/1.png", "cat/1.png")
    laid_out(tmp_path / "more", "b/c/2.png", "a.jpg", ".git/x.png", "read.me")
    listing = listed_for_training(tmp_path / "labelled", unlabelled=str(tmp_path / "more"))
    assert listing.labels.tolist() == [0, 1, -1, -1]
    assert [file.name for file in listing.files[2:]] == ["a.jpg", "2.png"]
    assert not listing.held_out.any()
    source = table(tmp_path, "path,label,shot", "1.png,ant,s", "2.png,cat,t")
    groups = listed_for_training(source, "shot", str(tmp_path / "more")).groups
    assert groups is not None
    assert len(np.unique(groups)) == 4
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"none has no images .*: leave --unlabelled out"):
        listed_for_training(source, unlabelled=str(tmp_path / "none"))
    with pytest.raises(DataError, match="no folder"):
        files_below(tmp_path / "missing")


def test_a_group_in_two_parts_is_refused(tmp_path):
    for part in ("val", "test"):
        source = table(tmp_path, "path,label,part,video", "1.png,ant,train,x", f"2.png,cat,{part},x", "3.png,cat,,y")
        with pytest.raises(
            DataError, match=rf"the group 'x' of .* has rows in the parts train and {part}: give it one"
        ):
            listed_for_training(source, "video")
        assert len(listed_for_training(source).files) == (3 if part == "val" else 2)


def test_a_part_val_may_lie_beside_the_classes(tmp_path):
    laid_out(tmp_path, "ant/1.png", "cat/1.png", "val/ant/2.png", "val/cat/2.png")
    listing = listed_for_training(tmp_path)
    assert listing.class_names == ("ant", "cat")
    assert listing.held_out.tolist() == [False, False, True, True]


def test_unlabelled_images_must_lie_apart(tmp_path):
    laid_out(tmp_path / "own", "train/ant/1.png", "train/cat/1.png", "test/ant/2.png", "test/cat/2.png", "more/3.png")
    assert len(listed_for_training(tmp_path / "own", unlabelled=str(tmp_path / "own" / "more")).files) == 3
    (tmp_path / "link").symlink_to(tmp_path / "own" / "test")
    for folder in (tmp_path / "own", tmp_path / "own" / "test", tmp_path / "own" / "train" / "ant", tmp_path / "link"):
        with pytest.raises(DataError, match="has too: give a folder that lies apart from its parts"):
            listed_for_training(tmp_path / "own", unlabelled=str(folder))
    source = table(tmp_path, "path,label,part", "own/train/ant/1.png,ant,", "a.png,cat,", "own/test/cat/2.png,cat,test")
    with pytest.raises(DataError, match=r"holds .*test/cat/2\.png, which"):
        listed_for_training(source, unlabelled=str(tmp_path / "own" / "test" / "cat"))


def test_a_name_that_no_file_can_hold_is_refused(tmp_path):
    (tmp_path / "ant").mkdir()
    laid_out(tmp_path, "cat/1.png")
    try:
        (tmp_path / "ant" / os.fsdecode(b"\xff.png")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    with pytest.raises(DataError, match="is not UTF-8: rename it"):
        listed_for_training(tmp_path)
    assert len(files_below(tmp_path)) == 2


def test_what_is_wrong_with_a_folder_is_named(tmp_path):
    with pytest.raises(DataError, match="no folder"):
        listed_for_training(tmp_path / "missing")
    laid_out(tmp_path, "one/1.png")
    with pytest.raises(DataError, match=r"has fewer than 2 classes \(one\)"):
        listed_for_training(tmp_path)
    laid_out(tmp_path, "two/read.me")
    with pytest.raises(DataError, match=r"class 'two' .* has no images"):
        listed_for_training(tmp_path)
    laid_out(tmp_path, "two/1.png", "val/one/1.png", "val/two/read.me")
    with pytest.raises(DataError, match=r"class 'two' of .*val has no images"):
        listed_for_training(tmp_path)


@pytest.mark.parametrize("names", [("train", "valid"), ("training", "val")])
def test_parts_by_other_names_are_named(tmp_path, names):
    laid_out(tmp_path, *(f"{name}/{label}/1.png" for name in names for label in ("ant", "cat")))
    wrong, right = ("valid", "val") if "valid" in names else ("training", "train")
    with pytest.raises(DataError, match=rf"{wrong} is none of the parts train, val, test: rename it to {right}"):
        listed_for_training(tmp_path)


def test_a_class_may_be_called_training(tmp_path):
    laid_out(tmp_path, "training/1.png", "resting/1.png")
    assert listed_for_training(tmp_path).class_names == ("resting", "training")


def test_a_class_called_train_is_taken_for_a_part_and_said_to_be(tmp_path):
    laid_out(tmp_path, "train/1.png", "bus/1.png")
    with pytest.raises(DataError, match=r"train has fewer than 2 classes \(none\)"):
        listed_for_training(tmp_path)


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["file,label", "1.png,ant"], "has no column 'path'; its columns are file, label"),
        (["path,label", "1.png"], "line 2: it has not as many fields"),
        (["path,label", "1.png,ant,x"], "line 2: it has not as many fields"),
        (["path,label,part", "1.png,ant,dev"], "part 'dev' is none of train, val, test"),
        (["path,label,part", "1.png,,val"], "an image of part val needs a label"),
        (["path,label", ",ant"], "it names no file"),
        (["path,label", '"1.png,ant'], "can't be read as a CSV table"),
        (["path,label", "1.png,ant"], r"fewer than 2 classes \(ant\)"),
        (["path,label,part", "1.png,ant,", "2.png,cat,", "./1.png,ant,test"], r"names ./1\.png twice"),
        ([""], "has no column 'path'; its columns are none"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(tmp_path, lines, reason):
    with pytest.raises(DataError, match=reason):
        listed_for_training(table(tmp_path, *lines))


def test_a_table_that_is_none(tmp_path):
    with pytest.raises(DataError, match="can't be read as a CSV table"):
        listed_for_training(tmp_path / "missing.csv")
    (tmp_path / "binary.csv").write_bytes(b"path,label\n\xff\xfe\x00,ant\n")
    with pytest.raises(DataError, match="can't be read as a CSV table"):
        listed_for_training(tmp_path / "binary.csv")
    source = table(tmp_path, "path,label,part", "1.png,ant,", "2.png,cat,", "3.png,dog,test")
    with pytest.raises(DataError, match="has the class 'dog' in its part test alone"):
        listed_for_test(source)
    with pytest.raises(DataError, match="has no column 'video'"):
        listed_for_training(source, "video")


def test_a_row_without_a_group_belongs_to_none(tmp_path):
    source = table(tmp_path, "path,label,part,video", "1.png,ant,,", "2.png,cat,,x", "3.png,cat,,", "4.png,ant,test,")
    listing = listed_for_training(source, "video")
    assert listing.groups is not None
    assert listing.groups.tolist() == [0, 1, 2]


def test_a_table_may_be_a_link(tmp_path):
    table(tmp_path, "path,label", "1.png,ant", "2.png,cat").rename(tmp_path / "content")
    (tmp_path / "table.csv").symlink_to("content")
    recipe = resolved(load_recipe("quick", {"data.source": str(tmp_path / "table.csv")}))
    assert listed_for_training(Path(recipe.data.source)).files[0] == tmp_path / "1.png"
