"""KeyTable on layouts small enough to follow by hand."""

import pytest
import torch
from key_table import KeyTable, Row, Step

LAYOUT = {
    "same": Step(("same",)),
    "old": Step(("new",)),
    "three": Step(("a", "b", "c")),
    "table": Step(("table",), change=lambda value: value[:2]),
    "log": Step(("ln",), "a logarithm", change=torch.log),
    "queue": Step(note="for training only"),
}


def table_of(**tensors):
    return KeyTable(tensors, LAYOUT.get)


def test_key_table_has_a_fate_for_every_key():
    rows = torch.arange(6.0).view(6, 1)
    table = table_of(same=rows, old=rows, three=rows, table=rows, log=rows[1:2], queue=rows, odd=rows)
    fates = [(row.fate, row.source, row.target) for row in table.rows]
    assert fates == [
        ("taken", "same", "same"),
        ("renamed", "old", "new"),
        ("split", "three", "a"),
        ("split", "three", "b"),
        ("split", "three", "c"),
        ("resized", "table", "table"),
        ("renamed", "log", "ln"),
        ("dropped", "queue", ""),
        ("unknown", "odd", ""),
    ]
    assert [table.tensors[name].flatten().tolist() for name in "abc"] == [[0, 1], [2, 3], [4, 5]]
    assert table.tensors["table"].shape == (2, 1) and float(table.tensors["ln"]) == 0
    assert table.summary() == "1 taken, 2 renamed, 3 split, 1 resized, 1 dropped, 1 unknown"
    lines = str(table).splitlines()
    assert len(lines) == len(fates) + 1 and lines[7] == "dropped  queue  -  (for training only)"


def test_key_table_fit_marks_weights_fresh_or_missing():
    table = table_of(same=torch.ones(1))
    weights = dict.fromkeys(("same", "new", "head.weight", "twin"), torch.ones(1))
    table.fit(weights, lambda name: "no head there" if name.startswith("head") or name == "twin" else None)
    assert table.of("fresh") == [Row("fresh", "", name, "no head there") for name in ("head.weight", "twin")]
    assert [row.target for row in table.of("missing")] == ["new"]
    table.copied({"twin", "same"}, "from same")
    assert table.of("copied") == [Row("copied", "", "twin", "from same")]
    assert [row.target for row in table.of("taken")] == ["same"]


def test_key_table_check_names_unknown_and_missing_keys():
    table = table_of(odd=torch.ones(1), even=torch.ones(1))
    table.fit({"new": torch.ones(1)}, lambda name: None)
    with pytest.raises(ValueError, match=r"2 keys are unknown: odd, even; 1 key is missing: new\. --not_strict"):
        table.check()


@pytest.mark.parametrize(
    "weights, complaint",
    [
        ({"same": torch.ones(3)}, r"same gives same the shape \(1,\); the model needs \(3,\)"),
        ({"other": torch.ones(1)}, "same would be same, which this model does not have"),
    ],
)
def test_key_table_fit_rejects_wrong_shapes(weights, complaint):
    with pytest.raises(ValueError, match=complaint):
        table_of(same=torch.ones(1)).fit(weights, lambda name: None)


def test_key_table_rejects_rows_it_cannot_split():
    with pytest.raises(ValueError, match=r"three has shape \(4,\): its rows cannot be shared by 3"):
        table_of(three=torch.ones(4))


def test_key_table_rejects_two_keys_for_one_weight():
    with pytest.raises(ValueError, match="Two keys of the checkpoint go to new; the second is old"):
        KeyTable({"older": torch.ones(1), "old": torch.ones(1)}, lambda key: Step(("new",)))
