"""Facts of a model card: from the run's records, from a file, and errors for missing ones."""

import json
import shutil

import pytest
import yaml
from publishable import FACTS, save_checkpoint
from safetensors.torch import load_file, save_file

from transformers_cbvila import CBViLAForPreTraining, CBViLAForVisualEntailment, bundled_checkpoint
from transformers_cbvila.hub.checking import find_checkpoint
from transformers_cbvila.hub.facts import collect_facts
from transformers_cbvila.weights_digest import weights_digest


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    heads = {"pretraining": CBViLAForPreTraining, "entailment": CBViLAForVisualEntailment}
    return {name: save_checkpoint(head, folder / name) for name, head in heads.items()}


def write(tmp_path, **facts):
    path = tmp_path / "facts.yaml"
    path.write_text(yaml.safe_dump(facts))
    return path


def test_collect_facts_names_everything_missing(saved):
    with pytest.raises(ValueError) as caught:
        collect_facts(find_checkpoint(saved["pretraining"]))
    said = str(caught.value)
    for name in ("license", "data", "recipe", "results", "codebook", "limits"):
        assert f"{name} (" in said
    assert "--facts FILE" in said and "--card FILE" in said and "\n" not in said


def test_collect_facts_names_the_data_of_the_run_at_once(saved, tmp_path):
    run = shutil.copytree(saved["entailment"], tmp_path / "run")
    (run / "finetuning.json").write_text(json.dumps({"job": {"train_data": ["birds", "bees"]}}))
    with pytest.raises(ValueError, match="data has to describe birds, bees, by these names"):
        collect_facts(find_checkpoint(run))


def test_collect_facts_needs_no_codebook_of_heads_without_one(saved, tmp_path):
    path = write(tmp_path, **{name: value for name, value in FACTS.items() if name != "codebook"})
    assert collect_facts(find_checkpoint(saved["entailment"]), path).codebook == ""
    with pytest.raises(ValueError, match=r"lacks codebook \(how its codebook fares"):
        collect_facts(find_checkpoint(saved["pretraining"]), path)


def test_collect_facts_accepts_no_results(saved, tmp_path):
    facts = collect_facts(find_checkpoint(saved["entailment"]), write(tmp_path, **{**FACTS, "results": []}))
    assert facts.results == []


def test_collect_facts_reads_a_pretraining_record(saved, tmp_path):
    run = shutil.copytree(saved["pretraining"], tmp_path / "run")
    record = {
        "job": {"train_data": ["birds", "birds"]},
        "steps": 1500,
        "batch_size": 64,
        "pairs": 17456,
        "learning_rate": 0.001,
        "seed": 0,
        "arguments": {"burn_in_steps": 0.25},
        "logs": [{"codebook_usage": 0.5, "codebook_perplexity": 3.0}, {"loss": 1.0}],
    }
    (run / "pretraining.json").write_text(json.dumps(record))
    (run / "inspection.json").write_text(json.dumps({"mim": 2.0, "ln_perplexity": 3.0}))
    said = {name: FACTS[name] for name in ("license", "limits")}
    data = [{"name": "birds", "what": "photographs", "license": "CC BY 4.0"}]
    facts = collect_facts(find_checkpoint(run), write(tmp_path, **said, data=data))
    assert facts.recipe == (
        "`cbvila pretrain`: 1,500 steps of 64 pairs, drawn from 17,456, "
        "learning rate 0.001, burn in steps 0.25, seed 0."
    )
    assert facts.codebook == "In the last training log: 50.0% of the codes in use, perplexity 3.0."
    assert [(result.metric, result.value) for result in facts.results] == [("mim", 2.0)]
    with pytest.raises(ValueError, match=r"on birds, and the facts do not say what that is: add \{name: birds,"):
        collect_facts(find_checkpoint(run), write(tmp_path, **said, data=FACTS["data"]))


def test_collect_facts_reads_a_finetuning_record(saved, tmp_path):
    run = shutil.copytree(saved["entailment"], tmp_path / "run")
    job = {"train_data": ["colours"], "model": "/somewhere/cbvila-tiny"}
    record = {"task": "entailment", "job": job, "steps": 8, "batch_size": 8, "learning_rate": 2e-05}
    (run / "finetuning.json").write_text(json.dumps(record))
    for name, protocol in (("evaluation.json", "own"), ("evaluation-dev.json", "snli_ve")):
        figures = {"data": "colours", "split": "dev", "protocol": protocol, "accuracy": 0.5, "rows": 8}
        figures["trained_on"] = protocol == "own"
        (run / name).write_text(json.dumps(figures))
    path = write(tmp_path, **{name: FACTS[name] for name in ("license", "limits", "data")})
    facts = collect_facts(find_checkpoint(run), path)
    assert (
        facts.recipe == "`cbvila finetune entailment`: 8 steps of 8 examples, from cbvila-tiny, learning rate 2e-05."
    )
    assert [(result.dataset, result.split, result.trained_on) for result in facts.results] == [
        ("colours, snli_ve", "dev", False),
        ("colours", "dev", True),
    ]


def test_collect_facts_prefers_given_facts_to_the_record(saved, tmp_path):
    run = shutil.copytree(saved["entailment"], tmp_path / "run")
    (run / "trainer_state.json").write_text(json.dumps({"global_step": 1200, "log_history": []}))
    path = write(tmp_path, **{name: value for name, value in FACTS.items() if name != "recipe"})
    assert collect_facts(find_checkpoint(run), path).recipe == "1,200 steps of transformers' Trainer."
    assert collect_facts(find_checkpoint(run), write(tmp_path, **FACTS)).recipe == "Random weights."


def test_collect_facts_leave_out_drops_results(saved, tmp_path):
    results = [{"dataset": name, "metric": "image_retrieval_r1", "value": 0.5} for name in ("a", "b")]
    path = write(tmp_path, **{**FACTS, "results": results, "leave_out": {"a": ["image_retrieval"]}})
    facts = collect_facts(find_checkpoint(saved["entailment"]), path)
    assert [result.dataset for result in facts.results] == ["b"]


@pytest.mark.parametrize(
    "facts, sentence",
    [
        ({"licence": "mit"}, "has the fact 'licence', which no card shows; there are license, "),
        ({"license": ""}, "license in .* is ''; expected a text"),
        ({"limits": ["a"]}, r"limits in .* is \['a'\]; expected a text"),
        ({"data": []}, r"data in .* has \[\]; expected a list of"),
        ({"data": [{"name": "a"}]}, r"data in .* has \{'name': 'a'\}; expected a list of"),
        ({"data": [{"name": "a", "what": "b", "license": None}]}, "is None; expected a text"),
        ({"results": None}, "results in .* is None; expected a list"),
        ({"results": [{"dataset": "a", "metric": "b"}]}, "expected dataset, metric and value"),
        ({"results": [{"dataset": "a", "metric": "b", "value": "?"}]}, "expected numbers"),
        ({"results": [{"dataset": "a", "metric": "b", "value": 1, "floors": 0}]}, "floors as {name: number}"),
        ({"leave_out": ["a"]}, "expected {data set:"),
    ],
)
def test_collect_facts_rejects_invalid_facts(facts, sentence, saved, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        collect_facts(find_checkpoint(saved["entailment"]), write(tmp_path, **{**FACTS, **facts}))


@pytest.mark.parametrize("text, sentence", [("{", "is no YAML"), ("- a", "has no 'name: value' lines")])
def test_collect_facts_rejects_unreadable_files(text, sentence, saved, tmp_path):
    (tmp_path / "facts.yaml").write_text(text)
    with pytest.raises(ValueError, match=sentence):
        collect_facts(find_checkpoint(saved["entailment"]), tmp_path / "facts.yaml")
    with pytest.raises(ValueError, match="nowhere.yaml: there is no such file"):
        collect_facts(find_checkpoint(saved["entailment"]), tmp_path / "nowhere.yaml")


def test_collect_facts_names_a_broken_record(saved, tmp_path):
    run = shutil.copytree(saved["entailment"], tmp_path / "run")
    (run / "pretraining.json").write_text("{")
    with pytest.raises(ValueError, match="pretraining.json is no JSON"):
        collect_facts(find_checkpoint(run), write(tmp_path, **FACTS))


@pytest.mark.parametrize("record", ["evaluation.json", "inspection.json"])
def test_collect_facts_refuses_figures_of_other_weights(record, saved, tmp_path):
    run, facts = shutil.copytree(saved["entailment"], tmp_path / "run"), write(tmp_path, **FACTS)
    figures = {"data": "birds", "accuracy": 0.25, "weights": weights_digest(run)}
    (run / record).write_text(json.dumps(figures))
    assert collect_facts(find_checkpoint(run), facts).results
    weights = load_file(run / "model.safetensors")
    save_file({name: value + 1 for name, value in weights.items()}, run / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=rf"{record} in .*run was measured on other weights.*measure again"):
        collect_facts(find_checkpoint(run), facts)
    (run / record).write_text(json.dumps({name: value for name, value in figures.items() if name != "weights"}))
    collect_facts(find_checkpoint(run), facts)  # of an earlier version, which did not say


@pytest.mark.parametrize("name", ["cbvila-tiny", "cbvila-tiny-easyvqa"])
def test_collect_facts_of_bundled_checkpoints_is_complete(name):
    checkpoint = find_checkpoint(bundled_checkpoint(name))
    facts = collect_facts(checkpoint, checkpoint.facts_file)
    assert facts.recipe and facts.results and facts.limits
    assert not [r for r in facts.results if r.dataset == "easy-vqa" and "retrieval" in r.metric]
