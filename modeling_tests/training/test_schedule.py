import pytest
from tiny import tiny_config

from transformers_cbvila.training.arguments import CBViLATrainingArguments
from transformers_cbvila.training.schedule import (
    as_steps,
    distillation_alpha,
    negative_hardness,
    objective_weights,
    phases,
    restart_steps,
)

PHASES = tiny_config(mim_cls_bag_weight=1.0).loss_phases()  # as the objectives have them
WEIGHTS = {"pixel": 10.0, "mim": 1.0, "mlm": 0.5, "itm": 1.0}


@pytest.mark.parametrize(
    "value, steps", [(0, 0), (0.25, 50), (0.999, 200), (0.001, 1), (1, 1), (1000, 1000), (12.0, 12)]
)
def test_as_steps_of_steps_and_shares(value, steps):
    assert as_steps(value, 200) == steps


@pytest.mark.parametrize("step, on", [(0, False), (9, False), (10, True), (500, True)])
def test_objective_weights_of_mim_and_mlm_wait_for_burn_in(step, on):
    weights = objective_weights(WEIGHTS, PHASES, step, burn_in_steps=10)
    assert weights == (WEIGHTS if on else WEIGHTS | {"mim": 0.0, "mlm": 0.0})
    assert WEIGHTS["mim"] == 1.0, "the configured weights stay as they are"


def test_objective_weights_mlm_from_start():
    assert objective_weights(WEIGHTS, PHASES, 0, 10, mlm_from_start=True) == WEIGHTS | {"mim": 0.0}
    assert objective_weights(WEIGHTS, PHASES, 10, 10, mlm_from_start=True) == WEIGHTS


def test_objective_weights_align_with_itc_alone():
    weights, alone = WEIGHTS | {"itc": 0.5}, dict.fromkeys(WEIGHTS, 0.0) | {"itc": 0.5}
    assert objective_weights(weights, PHASES, 4, 10, align_steps=5) == alone
    with_mlm = alone | {"mlm": WEIGHTS["mlm"]}
    assert objective_weights(weights, PHASES, 0, 10, align_steps=5, mlm_from_start=True) == with_mlm
    assert objective_weights(weights, PHASES, 5, 10, align_steps=5) == weights | {"mim": 0.0, "mlm": 0.0}
    assert objective_weights(weights, PHASES, 10, 10, align_steps=5) == weights


@pytest.mark.parametrize(
    "align, burn_in, ends", [(0, 0.25, (0, 50)), (0.5, 0.6, (100, 120)), (0.5, 0.25, (100, 100)), (30, 0, (30, 30))]
)
def test_phases_burn_in_ends_after_alignment(align, burn_in, ends):
    assert phases(align, burn_in, 200) == ends


@pytest.mark.parametrize(
    "align, burn_in, steps",
    [
        (0, 10, range(9)),
        (0, 4, range(4)),  # below 3.6, as ever
        (0, 0, range(0)),
        (885, 900, range(885, 899)),
        (100, 100, range(100, 100)),
    ],
)
def test_restart_steps_are_between_alignment_and_burn_in(align, burn_in, steps):
    assert restart_steps(align, burn_in) == steps


def test_objective_weights_of_mim_cls_bag_wait_for_burn_in():
    weights = WEIGHTS | {"mim_cls_bag": 1.0}
    assert objective_weights(weights, PHASES, 0, 10) == WEIGHTS | {"mim": 0.0, "mlm": 0.0, "mim_cls_bag": 0.0}


def test_objective_weights_without_burn_in():
    assert objective_weights(WEIGHTS, PHASES, 0, 0) == WEIGHTS


@pytest.mark.parametrize(
    "step, window, hardness",
    [
        (5, None, None),
        (0, (0.25, 0.75), 0.0),
        (50, (0.25, 0.75), 0.0),
        (100, (0.25, 0.75), 0.5),
        (150, (0.25, 0.75), 1.0),
        (200, (0.25, 0.75), 1.0),
        (100, (50, 150), 0.5),
        (100, (0, 1000), 0.1),
        (125, (0.25, 1.0), 0.5),
        (100, (0.0, 1.0), 0.5),
        (1, (0.001, 0.01), 0.0),
        (2, (0.001, 0.01), 1.0),
        (1, (0, 0.001), 1.0),
    ],
)
def test_negative_hardness_rises_linearly(step, window, hardness):
    assert negative_hardness(step, 200, window) == (hardness if hardness is None else pytest.approx(hardness))


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"burn_in_steps": -1}, "burn_in_steps=-1"),
        ({"align_steps": -1}, "align_steps=-1"),
        ({"align_steps": 1.5}, r"align_steps=1\.5: a number below 1 is a share of all steps.*such as 1\."),
        ({"burn_in_steps": 20.5}, r"burn_in_steps=20\.5.*a number of steps, which is whole.*such as 20\."),
        ({"momentum_distill_ramp_steps": 2.5}, r"momentum_distill_ramp_steps=2\.5"),
        ({"codebook_restart_threshold": 1.5}, r"codebook_restart_threshold=1\.5"),
        ({"alternate_updates": "1"}, "alternate_updates='1'.*'1,1'"),
        ({"alternate_updates": "1,0"}, "alternate_updates='1,0'.*above 0"),
        ({"alternate_updates": "a,b"}, "alternate_updates='a,b'"),
        ({"negative_hardening": "0.5"}, r"negative_hardening='0\.5'.*two numbers"),
        ({"negative_hardening": "a,b"}, "negative_hardening='a,b'.*two numbers"),
        ({"negative_hardening": "0.5,0.25"}, r"negative_hardening='0\.5,0\.25'"),
        ({"negative_hardening": "0.5,100"}, r"negative_hardening='0\.5,100'.*both"),
        ({"negative_hardening": "0,1.5"}, r"negative_hardening='0,1\.5'.*whole numbers like '500,2000'"),
        ({"negative_hardening": "2,3.5"}, r"negative_hardening='2,3\.5'.*whole"),
        ({"negative_hardening": "1,inf"}, "negative_hardening='1,inf'"),
    ],
)
def test_schedule_arguments_reject_bad_values(fields, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        CBViLATrainingArguments(output_dir=tmp_path, **fields)


def test_hardening_window_is_parsed(tmp_path):
    assert CBViLATrainingArguments(output_dir=tmp_path).hardening_window() is None
    assert CBViLATrainingArguments(output_dir=tmp_path, negative_hardening="0.25,0.5").hardening_window() == (
        0.25,
        0.5,
    )


def test_update_turns_are_parsed(tmp_path):
    assert CBViLATrainingArguments(output_dir=tmp_path).update_turns() is None
    assert CBViLATrainingArguments(output_dir=tmp_path, alternate_updates="1, 3").update_turns() == (1, 3)


def test_ddp_find_unused_parameters_is_on(tmp_path):
    for checkpointing in (False, True):
        arguments = CBViLATrainingArguments(output_dir=tmp_path, gradient_checkpointing=checkpointing)
        assert arguments.ddp_find_unused_parameters is True
    assert (
        CBViLATrainingArguments(output_dir=tmp_path, ddp_find_unused_parameters=False).ddp_find_unused_parameters
        is False
    )


@pytest.mark.parametrize(
    "step, ramp, alpha",
    [
        (0, 10, 0.0),
        (5, 10, 0.2),
        (10, 10, 0.4),
        (99, 10, 0.4),
        (0, 0, 0.4),
        (5, 0.1, 0.2),
        (10, 0.1, 0.4),
        (0, 0.001, 0.0),
        (1, 0.001, 0.4),
    ],
)
def test_distillation_alpha_rises_linearly(step, ramp, alpha):
    assert distillation_alpha(step, 100, 0.4, ramp) == pytest.approx(alpha)
