"""Pairs are hashed, and their ids and numbers exchanged, once a step, with a momentum encoder or without."""

from unittest.mock import patch

import pytest
import torch.distributed as dist
from tiny_trainer import pretrainer
from two_processes import run_in_two

from transformers_cbvila.model import pair_ids_cbvila

MOMENTUM = {"momentum_distill": 0.4, "momentum_distill_ramp_steps": 0, "queue_size": 4}
IDS = ("image_ids", "text_ids", "known_text_ids")


def calls(folder, has_ids, **options):
    """Numbers of hashed tensors and of gathered ones in the losses of two steps."""
    trainer = pretrainer(folder, max_steps=2, codebook_init=False, **options)
    if not has_ids:
        collate = trainer.data_collator
        trainer.data_collator = lambda rows: {k: v for k, v in collate(rows).items() if k not in IDS}
    compute_loss, counts = trainer.compute_loss, []

    def counted(*args, **kwargs):
        with (
            patch.object(pair_ids_cbvila, "fingerprints", wraps=pair_ids_cbvila.fingerprints) as hashing,
            patch.object(dist, "all_gather", wraps=dist.all_gather) as gathering,
        ):
            loss = compute_loss(*args, **kwargs)
        counts.append((hashing.call_count, gathering.call_count))
        return loss

    trainer.compute_loss = counted
    trainer.train()
    assert len(counts) == 2
    return counts


def calls_on_two(rank, folder):
    return {
        (has_ids, with_momentum): calls(folder, has_ids, **(MOMENTUM if with_momentum else {}))
        for has_ids in (True, False)
        for with_momentum in (True, False)
    }


@pytest.mark.parametrize("options", [{}, MOMENTUM])
@pytest.mark.parametrize("has_ids, hashed", [(True, 0), (False, 2)])
def test_pair_ids_are_hashed_once_per_step(has_ids, hashed, options, tmp_path):
    assert calls(tmp_path, has_ids, **options) == [(hashed, 0)] * 2


def test_pair_ids_are_exchanged_once_per_step(tmp_path):
    """A momentum encoder adds a single collective: that of its embeddings."""
    first, second = run_in_two(calls_on_two, tmp_path, str(tmp_path), joined=False)
    assert first == second
    for has_ids, hashed in ((True, 0), (False, 2)):
        (_, plain), _ = first[has_ids, False]
        assert plain == 4, "sizes, ids, embeddings and drawn negatives"
        assert first[has_ids, False] == [(hashed, plain)] * 2
        assert first[has_ids, True] == [(hashed, plain + 1)] * 2
