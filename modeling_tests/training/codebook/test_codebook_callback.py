"""The codebook callback: stability, MIM gate, EMA targets, alarm and restarts, and their state in checkpoints."""

import copy
import math

import pytest
import torch
from equal_tensors import assert_equal_weights
from interrupted_runs import RESTARTS, AtStep, train_until
from tiny import CODES, PATCHES, pretraining_model, tiny_config, tiny_rows
from tiny_trainer import ALL_TERMS, logged_terms, pretrainer, step_logs, training_arguments
from torch.utils.data import IterableDataset
from transformers import TrainerCallback

from transformers_cbvila.data.pairs import ImageTextPairs
from transformers_cbvila.model.codebook_statistics_cbvila import codebook_statistics
from transformers_cbvila.training.codebook.callback import CodebookCallback
from transformers_cbvila.training.codebook.ema_teacher import EMATeacher
from transformers_cbvila.training.codebook.stability import CodeStability
from transformers_cbvila.training.schedule import latest_mim_step, mim_gate_open
from transformers_cbvila.training.training_images import image_batches, image_latents


class AtEnd(TrainerCallback):
    """Calls a function of the global step at the end of every step."""

    def __init__(self, action):
        self.action = action

    def on_step_end(self, args, state, control, **kwargs):
        self.action(state.global_step)


# Images beside training


class Stream(IterableDataset):
    """Pairs without a length; notes how many rows were read from it."""

    def __init__(self, rows=8):
        self.pairs, self.read = ImageTextPairs(tiny_rows(rows)), 0

    def __iter__(self):
        for row in range(len(self.pairs)):
            self.read += 1
            yield self.pairs[row]


def test_image_batches_depend_on_the_seed(tmp_path):
    trainer = pretrainer(tmp_path)
    first, again, other = (
        torch.cat([batch.pixel_values for batch in image_batches(trainer.context, seed)]) for seed in (0, 0, 1)
    )
    assert first.shape == (8, 3, 32, 32) and torch.equal(first, again) and not torch.equal(first, other)
    # the same pictures in another order
    assert torch.equal(first.sum((1, 2, 3)).sort().values, other.sum((1, 2, 3)).sort().values)


def test_codebook_fit_and_probe_leave_a_stream_unread(tmp_path):
    trainer = pretrainer(tmp_path, max_steps=2)
    trainer.train_dataset = Stream()
    trainer.codebook_callback.fit(seed=0)
    trainer.codebook_callback.probe.measure(0)
    assert trainer.model.cbvila.quantizer.table.initialized and trainer.train_dataset.read == 0
    trainer.train()
    assert trainer.train_dataset.read > 0 and "codebook_stability" in step_logs(trainer)[-1]


def test_image_latents_are_those_of_evaluation(tmp_path):
    trainer = pretrainer(tmp_path)
    model = trainer.model.train()
    model.cbvila.vision_model.embeddings.eval()  # a part that someone froze
    modes = [part.training for part in model.modules()]
    images = next(image_batches(trainer.context, 0)).pixel_values
    latents = image_latents(trainer.context, images)
    assert [part.training for part in model.modules()] == modes
    model.eval()
    tokens = model.cbvila.vision_model(images).last_hidden_state[:, 1:]
    assert torch.equal(latents, model.cbvila.quantizer.encode(tokens))


# Stability


def test_code_stability_is_the_share_of_unchanged_indices(tmp_path):
    seen = {}

    def look(step):
        latents = image_latents(trainer.context, trainer.codebook_callback.probe.pixel_values)
        seen[step] = trainer.model.cbvila.quantizer.lookup(latents)

    options = {"max_steps": 9, "stability_window": 4, "stability_every": 2, "learning_rate": 1e-2}
    trainer = pretrainer(tmp_path, callbacks=[AtStep(0, lambda: look(0)), AtEnd(look)], **options)
    trainer.train()
    logged = [log.get("codebook_stability") for log in step_logs(trainer)]
    expected = {}
    for step in (2, 4, 6, 8):
        then = max(0, step - 4)
        expected[step] = sum(
            int(now == before) for now, before in zip(seen[step].flatten(), seen[then].flatten(), strict=True)
        ) / (8 * PATCHES)
    assert logged == [None] + [pytest.approx(expected[step // 2 * 2]) for step in range(2, 10)]
    assert len(set(expected.values())) > 1
    assert len(trainer.codebook_callback.probe.history) <= 4


def test_code_stability_looks_back_by_its_window(monkeypatch, tmp_path):
    trainer = pretrainer(tmp_path)
    probe = CodeStability(trainer.context, images=2, window=10)
    book = trainer.model.cbvila.quantizer
    indices = torch.zeros(2, PATCHES, dtype=torch.long)
    monkeypatch.setattr(book, "lookup", lambda latents, hints=None: indices.clone())
    settled = []
    for step in (0, 4, 8, 12, 16):
        indices.flatten()[:step] = step  # at each step some indices become new
        probe.measure(step)
        settled.append((probe.stability, probe.is_settled))
    total = 2 * PATCHES
    assert settled == [
        (None, False),
        ((total - 4) / total, False),
        ((total - 8) / total, False),
        ((total - 12) / total, True),  # since step 0
        ((total - 16) / total, True),  # since step 4, whose first 4 have changed too
    ]
    assert [step for step, _ in probe.history] == [4, 8, 12, 16]
    probe.forget()
    assert probe.stability is None and probe.pixel_values is not None


def test_codebook_probe_images_0_logs_no_stability(tmp_path):
    trainer = pretrainer(tmp_path, codebook_probe_images=0, max_steps=2)
    trainer.train()
    assert "codebook_stability" not in step_logs(trainer)[-1]


# The gate


@pytest.mark.parametrize(
    "step, threshold, stability, is_open",
    [
        (9, None, 1.0, False),
        (10, None, None, True),
        (9, 0.8, 1.0, False),
        (10, 0.8, None, False),
        (10, 0.8, 0.79, False),
        (10, 0.8, 0.8, True),
        (19, 0.8, 0.0, False),
        (20, 0.8, 0.0, True),
        (20, 0.8, None, True),
    ],
)
def test_mim_gate_open_when_stable_or_late(step, threshold, stability, is_open):
    assert mim_gate_open(step, 10, threshold, stability, latest=20) == is_open


@pytest.mark.parametrize(
    "align, burn_in, window, latest",
    [
        (0, 100, 50, 200),
        (0, 100, 150, 250),  # a window is the least that a measurement needs
        (800, 850, 20, 900),  # burn-in's own 50 steps once more, and not the 850 that alignment is part of
        (800, 850, 100, 925),  # half of what is left
        (0, 600, 100, 800),  # twice 600 would be after the end
        (0, 1000, 100, 1000),
        (0, 999, 100, 999),
    ],
)
def test_latest_mim_step_leaves_mim_half_of_the_run(align, burn_in, window, latest):
    assert latest_mim_step(align, burn_in, window, max_steps=1000) == latest


def test_mim_gate_opens_late_after_alignment(tmp_path):
    trainer = pretrainer(tmp_path, align_steps=3, mim_gate=1.0, max_steps=7, stability_window=2, learning_rate=5e-2)
    trainer.train()
    assert [step for step, log in enumerate(step_logs(trainer)) if "loss_mim" in log] == [5, 6]


@pytest.mark.parametrize(
    "stabilities, first",
    [([0.0] * 8, 4), ([0, 0, 0.9, 0, 0, 0, 0, 0], 3), ([0.9] * 8, 2), ([0.9, 0, 0, 0, 0, 0, 0, 0], 4)],
)
def test_mim_gate_stays_open(stabilities, first, monkeypatch, tmp_path):
    """Burn-in of 2 steps: MIM begins at step 2, 3 or at the latest 4; a later drop does not stop it."""

    def measure(probe, step):
        probe.history.append((step, torch.zeros(1)))
        if step > 0:
            probe.stability, probe.is_settled = stabilities[step - 1], True

    monkeypatch.setattr(CodeStability, "measure", measure)
    trainer = pretrainer(tmp_path, max_steps=7, burn_in_steps=2, mim_gate=0.8)
    trainer.train()
    assert [step for step, log in enumerate(step_logs(trainer)) if "loss_mim" in log] == list(range(first, 7))
    assert [step for step, log in enumerate(step_logs(trainer)) if "loss_mlm" in log] == list(range(2, 7))


def test_mim_gate_needs_a_full_stability_window(tmp_path):
    trainer = pretrainer(tmp_path, learning_rate=0.0, burn_in_steps=2, mim_gate=0.5, stability_window=3)
    trainer.train()
    logs = step_logs(trainer)
    assert logs[1]["codebook_stability"] > 0.5
    assert ["loss_mim" in log for log in logs] == [False] * 3 + [True] * 3


# Targets


def test_ema_teacher_averages_the_encoder(tmp_path):
    trainer = pretrainer(tmp_path)
    model = trainer.model.cbvila
    followed = {"vision_model": model.vision_model, "in_proj": model.quantizer.table.in_proj}
    teacher = EMATeacher(trainer.context, decay=0.75)
    expected = {f"{part}.{n}": w.clone() for part, module in followed.items() for n, w in module.state_dict().items()}
    assert len(expected) > 10
    for _ in range(3):
        with torch.no_grad():
            for weight in trainer.model.parameters():
                weight += torch.randn_like(weight)
        teacher.update()
        for part, module in followed.items():
            for name, weight in module.state_dict().items():
                expected[f"{part}.{name}"] = 0.75 * expected[f"{part}.{name}"] + 0.25 * weight
    for name, weight in teacher.state_dict().items():
        torch.testing.assert_close(weight, expected[name], msg=name)
    assert not any(weight.requires_grad for weight in teacher.parts.parameters())


def test_mim_targets_are_those_of_the_ema_teacher(tmp_path):
    given, expected, own = [], [], []

    def disturb():
        for weight in trainer.codebook_callback.teacher.parts.parameters():
            weight += torch.randn(weight.shape)

    trainer = pretrainer(
        tmp_path, [AtStep(4, disturb)], burn_in_steps=2, codebook_target_decay=0.99, learning_rate=5e-3
    )

    def look(module, inputs, named):
        if named["loss_weights"]["mim"] == 0:
            assert "mim_targets" not in named
            return
        given.append(named["mim_targets"])
        model, teacher = trainer.model.cbvila, trainer.codebook_callback.teacher
        slow = copy.deepcopy(model).eval()
        own.append(slow.quantizer.lookup(slow.quantizer.encode(slow.vision_model(named["pixel_values"])[0][:, 1:])))
        slow.vision_model.load_state_dict(teacher.parts["vision_model"].state_dict())
        slow.quantizer.table.in_proj.load_state_dict(teacher.parts["in_proj"].state_dict())
        expected.append(
            slow.quantizer.lookup(slow.quantizer.encode(slow.vision_model(named["pixel_values"])[0][:, 1:]))
        )

    trainer.model.register_forward_pre_hook(look, with_kwargs=True)
    trainer.train()
    assert len(given) == 4 and all(torch.equal(a, b) for a, b in zip(given, expected, strict=True))
    assert torch.equal(given[0], own[0]), "the average begins as the encoder is"
    assert not torch.equal(given[-1], own[-1])
    assert not any("targets" in name for name in trainer.model.state_dict())


def test_codebook_options_are_rejected_before_training(tmp_path, monkeypatch):
    """... and not when burn-in ends, or never."""
    with pytest.raises(ValueError, match="codebook_restart_threshold=0.3 is for codes that are moving averages"):
        pretrainer(tmp_path, model=pretraining_model(preset="paper"), codebook_restart_threshold=0.3)
    trainer = pretrainer(tmp_path, codebook_target_decay=0.9)
    monkeypatch.setattr(trainer, "is_fsdp_enabled", True)
    with pytest.raises(ValueError, match="codebook_target_decay needs a whole copy"):
        CodebookCallback(trainer.context)


@pytest.mark.parametrize("burn_in, heard", [(3, 0), (4, 1), (0.5, 0)])
def test_burn_in_steps_without_an_end_is_warned_of(burn_in, heard, tmp_path, logged):
    pretrainer(tmp_path, max_steps=4, burn_in_steps=burn_in).train()
    said = logged("codebook.option_warnings")
    assert len(said) == heard
    assert all(
        "burn_in_steps=4 (after align_steps=0.0) lasts for all of the 4 steps: MIM never begins" in text
        for text in said
    )


@pytest.mark.parametrize(
    "hardening, heard", [("1,3", 1), ("0,0.5", 1), ("2,4", 0), ("0.5,1", 0), ("3,6", 0), (None, 0)]
)
def test_negative_hardening_before_itm_is_warned_of(hardening, heard, tmp_path, logged):
    pretrainer(tmp_path, max_steps=6, align_steps=3, burn_in_steps=4, negative_hardening=hardening).train()
    said = logged("codebook.option_warnings")
    assert len(said) == heard
    assert all("ends at step 3, and ITM begins at step 3" in text for text in said)


# Codes that are fitted in mid-run


def test_codebook_fit_resets_optimizer_moments(tmp_path):
    """Adam counts the steps of the codes from the fit on, and those of everything else from the start."""
    ages = []
    model = pretraining_model(preset="paper", quantizer_config={"gradient": "straight_through"})
    codes = model.cbvila.quantizer.table.codes
    look = AtEnd(lambda step: ages.append(int(trainer.optimizer.state[codes]["step"])))
    trainer = pretrainer(tmp_path, [look], model, max_steps=5, burn_in_steps=3, codebook_refit=True)
    trainer.train()
    assert ages == [1, 2, 3, 1, 2]
    others = {int(state["step"]) for weight, state in trainer.optimizer.state.items() if weight is not codes}
    assert 5 in others and 1 not in others


def head_before_and_after(tmp_path, given, fields=None, **options):
    """Weights of the MIM head before and after the fit at step 2, at a learning rate of 0."""
    model = pretraining_model(**(fields or {}))
    if given:
        model.cbvila.quantizer.table.set_codes(torch.randn(CODES, 8))
    return trained_head(tmp_path, model, **options)


def trained_head(tmp_path, model, **options):
    seen = []
    look = AtEnd(lambda step: seen.append(copy.deepcopy(model.objectives["mim"].head.state_dict())))
    pretrainer(tmp_path, [look], model, max_steps=3, learning_rate=0.0, **options).train()
    return seen[0], seen[-1]


@pytest.mark.parametrize(
    "given, fields, options, begins",
    [
        (True, {}, {"align_steps": 2, "burn_in_steps": 9}, True),
        (True, {}, {"codebook_refit": True, "burn_in_steps": 2}, True),
        (False, {}, {"align_steps": 2, "burn_in_steps": 9}, False),
        (True, {}, {"align_steps": 2, "burn_in_steps": 9, "codebook_init": False}, False),
        (True, {"objectives": {"mim": {"head": "tied"}}}, {"align_steps": 2, "burn_in_steps": 9}, False),
    ],
)
def test_codebook_fit_reinitializes_the_linear_mim_head(given, fields, options, begins, tmp_path, logged):
    before, after = head_before_and_after(tmp_path, given, fields, **options)
    assert all(torch.equal(before[name], after[name]) for name in before) != begins
    said = [text for text in logged("codebook.callback") if "came with fitted codes" in text]
    assert len(said) == int(given and options.get("codebook_init", True))
    assert not begins or "mim.head scored them and was reset" in said[0]


@pytest.mark.parametrize(
    "options", [{"align_steps": 2, "burn_in_steps": 9}, {"codebook_refit": True, "burn_in_steps": 2}]
)
def test_codes_without_tables_are_not_fitted_and_their_head_is_kept(options, tmp_path, logged):
    config = tiny_config()
    config.quantizer_config = {"type": "fsq", "levels": [4, 4]}
    before, after = trained_head(tmp_path, pretraining_model(config), **options)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not [text for text in logged("codebook.callback") if "fitted" in text]


def test_mim_head_reinitialization_is_reproducible(tmp_path):
    options = {"align_steps": 2, "burn_in_steps": 9}
    first, second = (head_before_and_after(tmp_path, True, **options)[1] for _ in range(2))
    assert torch.equal(first["weight"], second["weight"]) and not first["bias"].any()
    assert float(first["weight"].std()) == pytest.approx(0.1, rel=0.2), "the initializer_range of these models"


def test_resume_remembers_given_codes(tmp_path):
    def model():
        made = pretraining_model(seed=3)
        made.cbvila.quantizer.table.set_codes(torch.ones(CODES, 8).cumsum(0))
        return made

    options = {"max_steps": 5, "align_steps": 3, "save_strategy": "steps", "save_steps": 2}
    whole = pretrainer(tmp_path / "whole", model=model(), **options)
    whole.train()
    train_until(2, pretrainer, tmp_path / "broken", model=model(), **options)
    resumed = pretrainer(tmp_path / "broken", model=model(), **options)
    resumed.train(resume_from_checkpoint=True)
    assert torch.equal(whole.model.objectives["mim"].head.weight, resumed.model.objectives["mim"].head.weight)


# Alarm and figures


def chosen(counts, argmin_share=None):
    statistics = {} if argmin_share is None else {"argmin_share": torch.tensor(argmin_share)}
    return {"codebook_counts": torch.tensor(counts), "codebook_statistics": statistics}


def test_codebook_alarm_warns_once_per_collapse(tmp_path, logged):
    trainer = pretrainer(tmp_path, codebook_alarm_usage=0.2, codebook_alarm_steps=7)
    monitor, alarms = trainer.codebook_callback.monitor, []
    healthy, one_code, few = [1] * CODES, [6] + [1] * (CODES - 12) + [0] * 11, [2, 2, 2] + [0] * (CODES - 3)
    for counts in (healthy, few, few, healthy, one_code, healthy):
        monitor.observe(chosen(counts))
        monitor.check()
        alarms.append(monitor.alarmed)
    assert alarms == [False, True, True, False, True, False]
    assert len(logged("codebook.monitor")) == 2
    assert (
        "over the last 7 steps 18.8% of its 16 codes" in logged("codebook.monitor")[0]
        and "below 20%" in logged("codebook.monitor")[0]
    )
    assert (
        "codebook_restart_threshold=0.3" in logged("codebook.monitor")[0]
        and "60.0% of the tokens (alarm above 50%)" in logged("codebook.monitor")[1]
    )


def test_codebook_alarm_counts_all_its_steps(tmp_path, logged):
    trainer = pretrainer(tmp_path)
    monitor = trainer.codebook_callback.monitor
    for code in range(CODES):  # one code per step, but all of them in the end
        monitor.observe(chosen([int(k == code) for k in range(CODES)]))
    monitor.check()
    assert not monitor.alarmed and not logged("codebook.monitor")


@pytest.mark.parametrize("share, heard", [(0.29, 1), (0.31, 0), (0.94, 0), (0.97, 1)])
def test_codebook_alarm_of_gumbel_argmin_share(share, heard, tmp_path, logged):
    monitor = pretrainer(tmp_path).codebook_callback.monitor
    for _ in range(2):
        monitor.observe(chosen([1] * CODES, share))
        monitor.observe(chosen([1] * CODES, share))
        monitor.check()
    assert len(logged("codebook.monitor")) == heard and all(
        f"{share:.0%}" in text for text in logged("codebook.monitor")
    )


def test_codebook_argmin_share_is_logged(tmp_path):
    trainer = pretrainer(tmp_path, model=pretraining_model(preset="paper"), max_steps=3)
    trainer.train()
    shares = [log["codebook_argmin_share"] for log in step_logs(trainer)]
    assert all(0 < share < 1 for share in shares)


def test_codebook_restarts_after_burn_in_need_an_alarm(tmp_path, logged):
    moved = {}
    for top_share in (0.0, 1.0):
        options = {
            "burn_in_steps": 1,
            "codebook_alarm_steps": 2,
            "codebook_alarm_top_share": top_share,
            "max_steps": 6,
        }
        trainer = pretrainer(
            tmp_path, codebook_restart_threshold=0.999, codebook_restart_grace=0, codebook_alarm_usage=0.0, **options
        )
        trainer.train()
        moved[top_share] = ["codebook_restarted" in log for log in step_logs(trainer)]
    assert moved == {0.0: [True, False, True, True, True, True], 1.0: [True] + [False] * 5}
    assert (
        len(logged("codebook.monitor")) == 1
        and "Unused codes restart until it recovers" in logged("codebook.monitor")[0]
    )


def test_codebook_restarts_wait_for_alignment(tmp_path, logged):
    """Neither the window nor an alarm restarts codes that k-means is about to replace."""
    options = {"align_steps": 3, "burn_in_steps": 5, "codebook_alarm_steps": 2, "codebook_alarm_usage": 0.0}
    always = {"codebook_restart_threshold": 0.999, "codebook_restart_grace": 0, "codebook_alarm_top_share": 0.0}
    trainer = pretrainer(tmp_path, max_steps=7, **options, **always)
    trainer.train()
    assert ["codebook_restarted" in log for log in step_logs(trainer)] == [False] * 3 + [True] * 4
    assert "Unused codes restart until it recovers, once align_steps are over" in logged("codebook.monitor")[0]


def test_codebook_fit_ends_the_alarm(tmp_path, logged):
    trainer = pretrainer(tmp_path, codebook_alarm_usage=0.2)
    callback = trainer.codebook_callback
    few = [2, 2, 2] + [0] * (CODES - 3)
    callback.monitor.observe(chosen(few))
    callback.monitor.check()
    callback.monitor.observe(chosen(few))
    assert callback.monitor.alarmed
    callback.fit(seed=0)
    assert not callback.monitor.alarmed
    callback.monitor.check()
    assert not callback.monitor.alarmed, "what was counted before the fit says nothing of the new codes"


@pytest.mark.parametrize(
    "options, heard",
    [
        ({"burn_in_steps": 4}, 0),
        ({"burn_in_steps": 0}, 1),
        ({"align_steps": 3, "burn_in_steps": 3}, 1),
        ({"align_steps": 2, "burn_in_steps": 4}, 0),
        ({"align_steps": 2, "burn_in_steps": 4, "codebook_restart_grace": 3}, 1),
        ({"align_steps": 2, "burn_in_steps": 4, "codebook_restart_grace": 3, "codebook_init": False}, 0),
        ({"burn_in_steps": 0, "codebook_restart_threshold": 0.0}, 0),
    ],
)
def test_codebook_restart_threshold_without_steps_is_warned_of(options, heard, tmp_path, logged):
    pretrainer(tmp_path, **({**RESTARTS, "max_steps": 6} | options)).train()
    said = logged("codebook.option_warnings")
    assert len(said) == heard
    assert all("codebook_restart_threshold=0.3" in text and "Only after an alarm" in text for text in said)


def test_codebook_dead_is_logged(tmp_path):
    for preset, fields in (("recommended", {}), ("paper", {})):
        seen = []
        trainer = pretrainer(tmp_path, model=pretraining_model(preset=preset, **fields), max_steps=3)
        book = trainer.model.cbvila.quantizer
        trainer.add_callback(AtEnd(lambda step, book=book, seen=seen: seen.append(copy.deepcopy(book))))
        counts = []
        trainer.model.register_forward_hook(lambda m, i, out, counts=counts: counts.append(out["codebook_counts"]))
        trainer.train()
        for log, book, chosen_now in zip(step_logs(trainer), seen, counts, strict=True):
            expected = 2 * PATCHES / CODES
            used = book.table.ema_counts if preset == "recommended" else chosen_now
            dead = sum(float(count) < 0.1 * expected for count in used) / CODES
            assert log["codebook_dead"] == pytest.approx(dead)
            statistics = codebook_statistics(chosen_now)
            assert log["codebook_usage"] == pytest.approx(float(statistics["usage"]))


def test_skipped_step_drops_codebook_tokens(tmp_path, monkeypatch):
    """An overflow of fp16 would otherwise stay in the moving averages for good."""
    trainer = pretrainer(tmp_path)
    quantizer = trainer.model.cbvila.quantizer.train()
    table = quantizer.table
    quantizer(torch.full((2, PATCHES, 32), float("inf")))
    assert not table.pending_sums.isfinite().all()
    monkeypatch.setattr(type(trainer.accelerator), "optimizer_step_was_skipped", True)
    before = table.codes.clone()
    trainer.codebook_callback.on_optimizer_step(trainer.args, trainer.state, trainer.control)
    assert torch.equal(table.codes, before) and table.ages.sum() == 0
    assert not table.pending_counts.any() and not table.pending_sums.any()


# Checkpoints

EVERYTHING = {
    "max_steps": 11,
    "burn_in_steps": 3,
    "codebook_refit": True,
    **RESTARTS,
    "codebook_restart_grace": 2,
    "codebook_restart_threshold": 0.9,
    "mim_gate": 0.5,
    "codebook_target_decay": 0.5,
    "stability_window": 2,
    "codebook_alarm_steps": 4,
    "codebook_alarm_top_share": 0.01,
    "learning_rate": 1e-2,
    "save_strategy": "steps",
}


@pytest.mark.parametrize(
    "save_steps, options",
    [
        (6, {}),
        pytest.param(2, {}, marks=pytest.mark.slow),
        pytest.param(7, {"gradient_accumulation_steps": 2, "stability_window": 3}, marks=pytest.mark.slow),
    ],
)
def test_resume_restores_the_codebook_callback(save_steps, options, tmp_path, logged):
    options = EVERYTHING | {"save_steps": save_steps} | options
    whole = pretrainer(tmp_path / "whole", **options)
    whole.train()
    heard = len(logged("codebook.monitor"))
    train_until(save_steps + 1, pretrainer, tmp_path / "broken", **options)
    resumed = pretrainer(tmp_path / "broken", model=pretraining_model(seed=7, dropout=0.1), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "broken" / f"checkpoint-{save_steps}"))
    assert heard == 1 and len(logged("codebook.monitor")) == 2, "one warning per run, not one more for the resumed one"
    for (name, value), other in zip(whole.model.cbvila.named_buffers(), resumed.model.cbvila.buffers(), strict=True):
        assert torch.equal(value, other), name
    ours, theirs = whole.codebook_callback, resumed.codebook_callback
    assert_equal_weights(theirs.teacher, ours.teacher)
    assert torch.equal(ours.probe.pixel_values, theirs.probe.pixel_values)
    logs = [
        [{name: log[name] for name in logged_terms(log)} for log in step_logs(trainer)] for trainer in (whole, resumed)
    ]
    assert logs[0] == logs[1]
    assert logged_terms(logs[0][-1]) >= ALL_TERMS and "codebook_restarted" in logs[0][-1]
    assert "loss_mim" not in logs[0][3], "the gate had to wait"


def test_resume_without_codebook_callback_state(tmp_path):
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "burn_in_steps": 1}
    pretrainer(tmp_path, **options).train()
    (tmp_path / "checkpoint-2" / "codebook_state.pt").unlink()
    trainer = pretrainer(tmp_path, codebook_target_decay=0.9, **options)
    trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert len(step_logs(trainer)) == 4 and "loss_mim" in step_logs(trainer)[-1]


def test_codebook_callback_second_run_starts_over(tmp_path):
    trainer = pretrainer(tmp_path, max_steps=4, burn_in_steps=2, codebook_target_decay=0.9)
    for _ in range(2):
        trainer.train()
        assert ["loss_mim" in log for log in step_logs(trainer)] == [False] * 2 + [True] * 2


# Arguments


@pytest.mark.parametrize(
    "options, message",
    [
        ({"burn_in_steps": -1}, "burn_in_steps=-1 is no number of steps"),
        ({"burn_in_steps": float("nan")}, "burn_in_steps=nan is no number of steps"),
        ({"codebook_refit": True}, "codebook_refit is for the end of burn-in"),
        ({"mim_gate": 0.8}, r"mim_gate is for the end of burn-in, and burn_in_steps=0.*align_steps above 0"),
        ({"codebook_restart_grace": -1}, "codebook_restart_grace=-1 is negative"),
        ({"mim_gate": 80, "burn_in_steps": 1}, "mim_gate=80 is a share"),
        (
            {"mim_gate": 0.8, "burn_in_steps": 1, "codebook_probe_images": 0},
            "mim_gate=0.8 needs codebook_probe_images",
        ),
        ({"codebook_target_decay": 1.0}, r"codebook_target_decay=1.0 must be in \[0, 1\)"),
        ({"stability_window": 0}, "stability_window=0 must be at least 1"),
        ({"stability_every": -1}, "stability_every=-1 must be at least 0"),
        ({"codebook_alarm_steps": 0}, "codebook_alarm_steps=0 must be at least 1"),
        ({"codebook_alarm_usage": 5}, "codebook_alarm_usage=5 is a share"),
        ({"codebook_alarm_top_share": 50}, "codebook_alarm_top_share=50 is a share"),
    ],
)
def test_codebook_arguments_reject_bad_values(options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        training_arguments(tmp_path, **options)


# Entropy and drift in the log


def test_codebook_entropy_is_logged(tmp_path):
    monitor = pretrainer(tmp_path).codebook_callback.monitor
    monitor.observe(chosen([3, 1, *[0] * (CODES - 2)]))
    quarter = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    assert monitor.logs()["entropy"] == pytest.approx(quarter, abs=1e-6)


def test_codebook_drift_is_of_used_codes_since_the_last_log(tmp_path):
    trainer = pretrainer(tmp_path)
    monitor, codes = trainer.codebook_callback.monitor, trainer.model.cbvila.quantizer.table.codes
    used = chosen([5, 0, 2, *[0] * (CODES - 3)])
    monitor.observe(used)
    assert "drift" not in monitor.logs()  # nothing to compare with
    first = codes[0].clone()
    codes[0] = torch.zeros_like(first)
    codes[0, 0], codes[0, 1] = -first[1], first[0]  # not of one direction any more, whatever first is
    expected = 1 - torch.nn.functional.cosine_similarity(first, codes[0], dim=0)
    codes[1] = -codes[1]  # not used: does not count
    monitor.observe(used)
    assert monitor.logs()["drift"] == pytest.approx(float(expected) / 2, abs=1e-6)  # and code 2 stayed
    monitor.observe(used)
    assert monitor.logs()["drift"] == pytest.approx(0, abs=1e-6)
    codes[0] = -codes[0]
    monitor.remember_codes()  # as after k-means: where they came from means nothing
    monitor.observe(used)
    assert monitor.logs()["drift"] == pytest.approx(0, abs=1e-6)


def test_codebook_entropy_and_drift_are_logged_from_the_first_step(tmp_path):
    trainer = pretrainer(tmp_path, max_steps=3, learning_rate=1e-2)
    trainer.train()
    for log in step_logs(trainer):
        assert log["codebook_entropy"] == pytest.approx(math.log(log["codebook_perplexity"]), abs=1e-5)
        assert 0 < log["codebook_drift"] < 1
