"""The example of pretraining runs from both of its starts."""

import json
import re

import pytest
from extending import EXAMPLES, load_module


@pytest.mark.parametrize("start", [[], ["--from_scratch"]], ids=["checkpoint", "scratch"])
def test_pretrain_script_trains_and_measures(start, tmp_path, capsys):
    script = load_module(EXAMPLES / "pretrain.py")
    script.main([*start, "--max_steps", "5", "--eval_rows", "6", "--output_dir", str(tmp_path)])
    printed = capsys.readouterr().out
    assert re.findall(r"^step +(\d) +loss=[\d.]+ .*mim_advantage=", printed, flags=re.MULTILINE) == [
        "0",
        "2",
        "4",
        "5",
    ]
    assert re.search(r"in 16 visual words: \[\d+, ", printed.splitlines()[-1])
    record = json.loads((tmp_path / "pretraining.json").read_text())
    assert record["job"]["eval_data"] == ["scenes"] and record["figures"]["eval_text_retrieval_r5_reranked"] <= 1
