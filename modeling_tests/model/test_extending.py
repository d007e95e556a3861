"""A quantizer and an objective defined here train, save and load like the package's own."""

import pytest
import torch
import torch.nn.functional as F
from extending import registered_for_now
from tiny import CODES, PATCH, PATCHES, build, tiny_config, tiny_pairs, tiny_processor, tiny_rows
from torch import nn

from transformers_cbvila import (
    CBViLAConfig,
    CBViLADataCollatorForPreTraining,
    CBViLAForPreTraining,
    CBViLAObjective,
    CBViLAQuantizer,
    CBViLAQuantizerOptions,
    CBViLAQuantizerOutput,
    CBViLATrainer,
    CBViLATrainingArguments,
    ImageTextPairs,
    register_objective,
    register_quantizer,
)
from transformers_cbvila.model.code_gradients_cbvila import straight_through
from transformers_cbvila.model.nearest_codes_cbvila import count_codes
from transformers_cbvila.model.objective_cbvila import Scored
from transformers_cbvila.model.objectives_cbvila import OBJECTIVES
from transformers_cbvila.model.options_cbvila import options
from transformers_cbvila.model.quantizers_cbvila import QUANTIZERS


@options
class SignOptions(CBViLAQuantizerOptions):
    bits: int = 4


class SignQuantizer(CBViLAQuantizer):
    """A code is the signs of a few projections: nothing is looked up, and no table is learned."""

    options_class = SignOptions

    def __init__(self, options, width, gradients):
        super().__init__(options, width, gradients)
        self.in_proj, self.out_proj = nn.Linear(width, options.bits), nn.Linear(options.bits, width)

    @classmethod
    def sizes(cls, options):
        return (2**options.bits,)

    def encode(self, tokens, modules=None):
        return self.in_proj(tokens).tanh()

    def lookup(self, latents, hints=None):
        return ((latents > 0).long() * 2 ** torch.arange(self.options.bits, device=latents.device)).sum(-1)

    def signs(self, indices):
        bits = torch.arange(self.options.bits, device=indices.device)
        return (indices.unsqueeze(-1) >> bits & 1) * 2.0 - 1.0

    def indices_to_quantized(self, indices):
        return self.out_proj(self.signs(indices))

    def head_codes(self):
        return (self.signs(torch.arange(self.num_codes, device=self.out_proj.weight.device)),)

    def forward(self, tokens, remember=True, hints=None):
        self.check_hints(hints)
        latents = self.encode(tokens)
        indices = self.lookup(latents)
        codes = self.signs(indices)
        passed = straight_through(latents, codes) if self.training else codes
        return CBViLAQuantizerOutput(
            quantized=self.out_proj(passed),
            detached=self.out_proj(codes),
            indices=indices,
            counts=count_codes(indices, self.num_codes),
            codes=self.head_codes(),
            terms={"commitment": F.mse_loss(latents, codes)},
        )


class Variance(CBViLAObjective):
    """Keeps the embeddings of a batch apart (the variance term of VICReg), behind a layer of its own."""

    phase = "align"

    def __init__(self, options, config, quantizer=None):
        super().__init__(options, config, quantizer)
        self.expander = nn.Linear(config.projection_dim, 8)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, step, answers):
        assert answers == []  # it asks nothing
        spread = self.expander(step.image_embeds).var(0).add(1e-4).sqrt()
        return {self.name: Scored(F.relu(1 - spread).mean())}

    def after_step(self):
        self.steps += 1


@pytest.fixture(autouse=True)
def registries():
    with registered_for_now():
        register_quantizer("sign", SignQuantizer)
        register_objective("variance", Variance)
        yield


def extended_model():
    config = tiny_config()
    config.quantizer_config = {"type": "sign"}
    config.objectives = {"variance": {"weight": 0.5}}
    return build(CBViLAForPreTraining, config)


def test_extended_model_gets_gradients_everywhere():
    model = extended_model().train()
    output = model(**tiny_pairs())
    assert {"variance", "commitment", "mim", "pixel"} <= output.losses.keys()
    output.loss.backward()
    idle = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not idle


def test_extended_objective_weight_is_applied():
    model, batch = extended_model(), tiny_pairs()
    with torch.no_grad():
        whole = model(**batch)
        rest = model(**batch, loss_weights={"variance": 0.0})
    assert "variance" not in rest.losses
    assert torch.allclose(whole.loss - rest.loss, 0.5 * whole.losses["variance"], atol=1e-5)


def test_extended_model_trains_and_loads(tmp_path):
    model = extended_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = CBViLATrainer(
        model=model,
        args=CBViLATrainingArguments(
            output_dir=str(tmp_path),
            max_steps=4,
            burn_in_steps=2,
            per_device_train_batch_size=4,
            learning_rate=1e-3,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=ImageTextPairs(tiny_rows()),
        data_collator=CBViLADataCollatorForPreTraining(tiny_processor(), PATCH, max_length=16),
    )
    trainer.train()
    trainer.save_model()
    logs = [log for log in trainer.state.log_history if "loss" in log]
    assert all("loss_variance" in log for log in logs) and "codebook_perplexity" in logs[0]
    assert ["loss_mim" in log for log in logs] == [False, False, True, True]
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {"cbvila.quantizer.in_proj.weight", "cbvila.quantizer.out_proj.weight"} <= moved
    assert "objectives.variance.expander.weight" in moved and model.objectives["variance"].steps == 4
    loaded = CBViLAForPreTraining.from_pretrained(tmp_path)
    assert type(loaded.cbvila.quantizer) is SignQuantizer and loaded.config.objectives["variance"].weight == 0.5
    with torch.no_grad():
        first, second = model.eval()(**tiny_pairs()), loaded(**tiny_pairs())
    assert torch.equal(first.loss, second.loss) and torch.equal(first.codebook_indices, second.codebook_indices)
    assert second.codebook_indices.shape == (4, PATCHES) and second.mim_logits.shape[-1] == CODES


@pytest.mark.parametrize(
    "registry, name, message",
    [
        (QUANTIZERS, "sign", "quantizer_config: type='sign' is not one of .*'nearest'.* to be registered before"),
        (
            OBJECTIVES,
            "variance",
            "objectives: the name='variance' is not one of .*'itc'.* to be registered before",
        ),
    ],
)
def test_unregistered_types_of_a_checkpoint_are_named(registry, name, message, tmp_path):
    extended_model().save_pretrained(tmp_path)
    registry.pop(name)
    for load in (CBViLAConfig, CBViLAForPreTraining):
        with pytest.raises(ValueError, match=message):
            load.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "register, name, cls, message",
    [
        (register_quantizer, "mine", Variance, "must be a subclass of CBViLAQuantizer"),
        (register_objective, "mine", SignQuantizer, "must be a subclass of CBViLAObjective"),
        (register_quantizer, "nearest", SignQuantizer, "is already the name of CBViLANearestQuantizer"),
        (register_quantizer, "my quantizer", SignQuantizer, "is not a valid name to register SignQuantizer under"),
    ],
)
def test_register_rejects_invalid_names_and_classes(register, name, cls, message):
    with pytest.raises(ValueError, match=message):
        register(name, cls)


@pytest.mark.parametrize(
    ("taken", "added", "message"),
    [
        ("lookup", None, "Mine has no method 'lookup', which every CBViLAQuantizer needs."),
        ("lookup", "look_up", "no method 'lookup', which every CBViLAQuantizer needs; is 'look_up' meant to be it?"),
        ("sizes", None, "Mine has no method 'sizes'"),
        ("__init__", "__init__", r"Mine must take the arguments \(options, width, gradients\).*too many positional"),
    ],
)
def test_register_says_what_a_quantizer_lacks(taken, added, message):
    methods = {name: value for name, value in vars(SignQuantizer).items() if name not in (taken, "name")}
    if added is not None:
        methods[added] = lambda self, options, width: None
    with pytest.raises(ValueError, match=message):
        register_quantizer("mine", type("Mine", (CBViLAQuantizer,), methods))
    assert "mine" not in QUANTIZERS


def test_extended_options_are_checked():
    with pytest.raises(ValueError, match="quantizer_config has no option 'bit'; did you mean 'bits'"):
        CBViLAConfig(quantizer_config={"type": "sign", "bit": 3})
    with pytest.raises(ValueError, match="weight='much' is not of type"):
        CBViLAConfig(objectives={"variance": {"weight": "much"}})
