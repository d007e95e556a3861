"""The stability of codes in the records beside a model's weights."""

import json

from transformers_cbvila import bundled_checkpoint
from transformers_cbvila.inspection.recorded_stability import recorded_stability


def test_recorded_stability_is_the_last_one(tmp_path):
    assert recorded_stability(tmp_path) == recorded_stability("user/name") == {}
    logs = [{"codebook_stability": 0.5}, {"codebook_stability": 0.75}, {"train_runtime": 1.0}]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": logs}))
    assert recorded_stability(tmp_path) == {"codebook_stability": 0.75}
    (tmp_path / "pretraining.json").write_text(json.dumps({"logs": logs[:1]}))
    assert recorded_stability(tmp_path) == {"codebook_stability": 0.5}
    (tmp_path / "pretraining.json").write_text("{")
    assert recorded_stability(tmp_path) == {"codebook_stability": 0.75}


def test_recorded_stability_of_the_bundled_checkpoint():
    assert 0 <= recorded_stability(bundled_checkpoint("cbvila-tiny"))["codebook_stability"] <= 1
