"""Labels and attributes of rows, read as keywords."""

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from transformers_cbvila.data.column_names import LABEL_COLUMNS
from transformers_cbvila.data.sources import load_pairs
from transformers_cbvila.data.texts import attributes_in


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (
            [{"shape": "ring", "colour": "red", "box": [1, 2]}, {"shape": "ring", "colour": "blue"}],
            ["ring", "red", "blue"],
        ),
        ({"category": ["cat", "dog", "cat"], "area": [1, 2, 3]}, ["cat", "dog"]),
        ([], []),
        (None, []),
        ("cat", []),
        (["cat", "dog"], []),
        ([{"raw": "a caption"}], []),
        ([{"shape": " "}], []),
    ],
)
def test_attributes_in(value, texts):
    assert attributes_in(value) == texts


def test_scenes_have_attributes_of_objects_as_labels():
    row = load_pairs("scenes[rows=2]", "test", keyword_columns=LABEL_COLUMNS)[0]
    kinds = set(row["keywords"])
    assert kinds & {"big", "small"} and not kinds - set(" ".join(kinds).split()) and len(kinds) == len(row["keywords"])


def test_classes_have_their_names_as_labels(tmp_path):
    features = Features(
        {"image": Value("string"), "caption": Value("string"), "label": ClassLabel(names=["cat", "dog"])}
    )
    rows = {"image": ["a.png", "b.png"], "caption": ["one", "two"], "label": [1, 0]}
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    found = load_pairs(tmp_path / "train.parquet", keyword_columns=LABEL_COLUMNS)
    assert list(found["keywords"]) == [["dog"], ["cat"]]
