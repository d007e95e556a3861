"""Losses and gradients of two processes with half a batch each equal those of one with the whole batch."""

import pytest
import torch
import torch.distributed as dist
from tiny import build, pretraining_model, tiny_pairs
from two_processes import run_in_two

from transformers_cbvila.model.distributed_cbvila import Processes
from transformers_cbvila.model.modeling_cbvila_image_text_retrieval import CBViLAForImageTextRetrieval

SEED = 7
# Uneven parts of six pairs, also where nobody has more than its own texts or masks.
CUTS = {"even": 3, "uneven": 4, "one": 5, "one first": 1}


def pairs():
    """Six pairs, of which the last two are short in text and rich in masked tokens and patches."""
    batch = tiny_pairs(6, padding=(0, 2, 1, 3, 4, 3))
    batch["mlm_labels"][5, 1:3] = batch["input_ids"][5, 1:3]
    batch["bool_masked_pos"][4] = True
    batch["image_ids"] = torch.tensor([1, 2, 3, 4, 5, 1])
    batch["text_ids"] = torch.arange(11, 17)
    batch["known_text_ids"] = torch.tensor(
        [[11, 13, 16], [12, -1, -1], [13, -1, -1], [14, 12, -1], [15, -1, -1], [16, -1, -1]]
    )
    return batch


def anonymous():
    return {name: value for name, value in pairs().items() if not name.endswith("_ids") or "input" in name}


def copies():
    """One image six times: no negative anywhere."""
    return pairs() | {"image_ids": torch.ones(6, dtype=torch.long)}


def unpadded():
    """Texts of one length, and no mask that says so."""
    return {name: value for name, value in tiny_pairs(6, padding=(0,)).items() if name != "attention_mask"}


def as_collated():
    """As the collator hides patches: as many in each image, which `pixel_on="both"` needs to be exact."""
    return pairs() | {"bool_masked_pos": tiny_pairs(6)["bool_masked_pos"]}


def retrieval_batch():
    names = ("pixel_values", "input_ids", "attention_mask", "image_ids", "text_ids", "known_text_ids")
    return {name: value for name, value in pairs().items() if name in names} | {"return_loss": True}


def straight_through(**fields):
    return pretraining_model(preset="paper", quantizer_gradient="straight_through", **fields)


def ranking_model():
    """Four negatives of each, which not all of the six pairs have."""
    return pretraining_model(objectives={"itm": {"num_negatives": 4, "ranking_weight": 0.5}})


def ranking_retrieval_model():
    return retrieval_model(objectives={"itm": {"num_negatives": 4, "ranking_weight": 0.5}})


def soft_model(**options):
    return pretraining_model(objectives={"itc": {"targets": "soft", **options}})


def blog_model():
    return soft_model(compat="blog")


def retrieval_model(**fields):
    return build(CBViLAForImageTextRetrieval, **fields)


CASES = {
    "recommended": (pretraining_model, pairs, {}),
    "uniform": (pretraining_model, pairs, {"negative_hardness": 0.0}),
    "anonymous": (pretraining_model, anonymous, {}),
    "no negatives": (pretraining_model, copies, {}),
    "no mask": (pretraining_model, unpadded, {}),
    "burn-in": (pretraining_model, pairs, {"loss_weights": {"mim": 0.0, "mlm": 0.0}}),
    "only mlm": (pretraining_model, pairs, {"loss_weights": {"itm": 0.0}}),
    "paper": (straight_through, as_collated, {}),
    "several negatives": (ranking_model, pairs, {}),
    "soft targets": (soft_model, pairs, {}),
    "soft targets of the blog": (blog_model, pairs, {}),
    "retrieval": (retrieval_model, retrieval_batch, {}),
    "retrieval with several negatives": (ranking_retrieval_model, retrieval_batch, {}),
}


def part_of(batch, rows):
    """Some rows of a batch, without what is padding in all of them."""
    part = {name: value[rows] if torch.is_tensor(value) else value for name, value in batch.items()}
    if "attention_mask" in part:
        longest = int(part["attention_mask"].sum(1).max())
        for name in ("input_ids", "attention_mask", "input_ids_masked", "mlm_labels"):
            if name in part:
                part[name] = part[name][:, :longest]
    if "known_text_ids" in part:
        part["known_text_ids"] = part["known_text_ids"][:, : int((part["known_text_ids"] >= 0).sum(1).max())]
    return part


def terms(output):
    losses = output.losses if "losses" in output else {"itc": output.itc_loss, "itm": output.itm_loss}
    return {name: value.detach() for name, value in {"total": output.loss, **losses}.items()}


def step(case, rows, cast=torch.float64):
    """Terms and gradients of one step on some rows, in fp64: differences are errors, not rounding."""
    make_model, make_batch, options = CASES[case]
    model = make_model().to(cast).train()
    batch = part_of(make_batch(), rows)
    batch["pixel_values"] = batch["pixel_values"].to(cast)
    output = model(**batch, **options, negative_seed=SEED)
    output.loss.backward()
    return terms(output), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def mean_over_processes(tensors):
    for tensor in tensors.values():
        dist.all_reduce(tensor)
        tensor /= dist.get_world_size()
    return tensors


def all_steps(rank):
    results = {}
    for case in CASES:
        for cut in CUTS if case == "recommended" else ["uneven"]:
            rows = slice(CUTS[cut]) if rank == 0 else slice(CUTS[cut], 6)
            results[case, cut] = [mean_over_processes(part) for part in step(case, rows)]
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return run_in_two(all_steps, tmp_path_factory.mktemp("processes"))


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one_with_the_whole_batch(case, results):
    expected_terms, expected_gradients = step(case, slice(6))
    found = {cut: both for (name, cut), both in results[0].items() if name == case}
    for cut, (losses, gradients) in found.items():
        assert losses.keys() == expected_terms.keys() and gradients.keys() == expected_gradients.keys()
        for name in losses:
            torch.testing.assert_close(losses[name], expected_terms[name], rtol=1e-6, atol=1e-7, msg=f"{name} {cut}")
        for name in gradients:
            torch.testing.assert_close(gradients[name], expected_gradients[name], rtol=1e-5, atol=1e-7)


def test_gather_sizes_of_one_process_is_none():
    assert Processes.gather_sizes(True, torch.zeros(2, 3)) is None
