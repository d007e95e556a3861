"""The codebook on two processes: equal on both, and equal to one process with the same global batch."""

import pytest
import torch
from equal_tensors import assert_equal_tensors
from tiny import CODES, pretraining_model
from tiny_trainer import pretrainer, step_logs
from transformers import TrainerCallback
from two_processes import run_in_two

OPTIONS = {
    "max_steps": 4,
    "learning_rate": 0.0,  # what the encoders learn on several processes is tested elsewhere
    "burn_in_steps": 4,
    "codebook_restart_threshold": 0.5,
    "codebook_restart_grace": 0,
    "stability_window": 2,
    "codebook_alarm_steps": 2,
    "codebook_alarm_top_share": 0.01,
}


class Track(TrainerCallback):
    """The codebook after every step, and whether codes restarted."""

    def __init__(self):
        self.states, self.restarts = [], []

    def on_step_end(self, args, state, control, model=None, **kwargs):
        table = model.cbvila.quantizer.table
        names = ("codes", "ema_counts", "ema_sums", "ages", "expected_count", "initialized")
        self.states.append({name: getattr(table, name).clone() for name in names})
        self.restarts.append(bool((table.ages == 0).any()))


def train(folder, rank, batch_size, **options):

    track = Track()
    trainer = pretrainer(
        folder,
        callbacks=[],
        model=pretraining_model(seed=rank),  # the encoders are brought together, the codes must be too
        per_device_train_batch_size=batch_size,
        **(OPTIONS | options),
    )
    trainer.model.cbvila.quantizer.table.codes += rank
    trainer.add_callback(track)
    trainer.train()
    logs = [{k: v for k, v in log.items() if k.startswith("codebook_")} for log in step_logs(trainer)]
    return track.states, track.restarts, logs, trainer.codebook_callback.monitor.alarmed


def train_half(rank, folder, options):
    return train(folder, rank, batch_size=2, **options)


@pytest.mark.parametrize("options", [{}, pytest.param({"gradient_accumulation_steps": 2}, marks=pytest.mark.slow)])
def test_two_processes_have_the_codebook_of_one_process(options, tmp_path):
    """Through k-means, moving averages, restarts and figures."""
    first, second = run_in_two(train_half, tmp_path, str(tmp_path), options, joined=False)
    for ours, theirs in zip(first[0], second[0], strict=True):
        assert_equal_tensors(ours, theirs)
    alone = train(tmp_path / "alone", 0, batch_size=4, **options)
    assert first[1] == alone[1] and any(alone[1]), "a restart is part of it"
    assert len(alone[0]) == 4
    for ours, theirs in zip(first[0], alone[0], strict=True):
        for name, value in ours.items():
            torch.testing.assert_close(value, theirs[name], atol=1e-5, rtol=1e-5, msg=name)
    assert first[3] and second[3] and alone[3]
    for ours, others, theirs in zip(first[2], second[2], alone[2], strict=True):
        assert ours == others and ours == pytest.approx(theirs, rel=1e-4)


def restart(rank):
    """Ranks hold 3 and 5 tokens: an uneven last batch."""
    from tiny import quantizer_of_config, tiny_config

    from transformers_cbvila.data.masking import generator_for

    quantizer = quantizer_of_config(tiny_config(codebook_norm="none", quantizer_gradient="gumbel")).train()
    table = quantizer.table
    table.set_codes(torch.randn(CODES, 8, generator=generator_for(1)))
    tokens = torch.randn(1, 8, 32, generator=generator_for(2))
    quantizer.table.in_proj.load_state_dict(
        {
            n: torch.full_like(p, 0.1) + torch.arange(p.numel()).view_as(p).sin()
            for n, p in quantizer.table.in_proj.state_dict().items()
        }
    )
    quantizer(tokens[:, :3] if rank == 0 else tokens[:, 3:])
    quantizer.after_step()
    table.ema_counts[:8] = torch.arange(8.0)
    moved = table.restart_unused(20.0, limit=4, generator=generator_for(3))
    state = {"codes": table.codes, "counts": table.ema_counts, "expected": table.expected_count, "moved": moved}
    return {**state, "scale": quantizer.gumbel.scale, "latents": quantizer.encode(tokens)[0].detach()}


@pytest.mark.slow
def test_restart_of_uneven_batches_is_the_same_on_two_processes(tmp_path):
    first, second = run_in_two(restart, tmp_path)
    assert_equal_tensors(first, second)
    assert first["expected"] == 8 / CODES and first["scale"] > 0
    distances = torch.cdist(first["codes"], first["latents"])
    rows = distances.argmin(-1)[distances.min(-1).values < 1e-5]
    assert first["moved"] == 4 and sorted(row // 2 for row in rows.tolist()) == [0, 1, 2, 3], "one of each stretch"
