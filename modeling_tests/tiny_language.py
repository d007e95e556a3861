"""A random language model of two layers with a tokenizer of words, and models that read images with it."""

import torch
from tiny import SIDE, VOCABULARY, build, tiny_images, tiny_processor
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from transformers_cbvila import (
    CBViLAConditionalGenerationConfig,
    CBViLAConditionalGenerationProcessor,
    CBViLAForConditionalGeneration,
    CBViLAImageProcessorPil,
    CBViLAModel,
)

PAD, BOS, EOS, UNK = range(4)
TOKENS = ["<pad>", "<bos>", "<eos>", "<unk>"]
WORDS = [
    "this",
    "is",
    "a",
    "dog",
    "cat",
    "red",
    "blue",
    "green",
    "grey",
    "left",
    "right",
    "top",
    "bottom",
    "half",
    "what",
    "it",
    "?",
    ".",
    "of",
    "and",
    "the",
]
IMAGE = VOCABULARY  # the first token outside the language model's vocabulary
PROMPT_IDS = torch.tensor([[IMAGE, IMAGE, 7, 8, IMAGE, IMAGE, 9], [PAD, PAD, PAD, IMAGE, IMAGE, 7, 8]])


def language_config(**fields):
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    special = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
    options = {"vocab_size": VOCABULARY, "num_key_value_heads": 2, "initializer_range": 0.3, **sizes, **special}
    return LlamaConfig(**(options | fields))


def language_model(seed=0, **fields):
    """In evaluation mode, with weights so large that what it writes depends on what it reads."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(language_config(**fields)).eval()


def language_tokenizer(**options):
    """A word, with the space before it, is a token; ids beyond the words are words without a name."""
    unnamed = [f"w{index}" for index in range(VOCABULARY - len(TOKENS) - len(WORDS))]
    vocabulary = {word: index for index, word in enumerate([*TOKENS, *WORDS, *unnamed])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex(r"\w+|[^\w\s]"), "removed", invert=True)
    special = {"pad_token": "<pad>", "eos_token": "<eos>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **(special | options))


def save_language_model(folder, **fields):
    """A folder with a language model and its tokenizer."""
    language_model(**fields).save_pretrained(folder)
    language_tokenizer().save_pretrained(folder)
    return str(folder)


def reading_processor(num_image_tokens=2, **options):
    image_processor = CBViLAImageProcessorPil(size={"height": SIDE, "width": SIDE})
    return CBViLAConditionalGenerationProcessor(image_processor, language_tokenizer(), num_image_tokens, **options)


def save_vision_model(folder):
    """A folder with a base model and its processor."""
    build(CBViLAModel).save_pretrained(folder)
    tiny_processor().save_pretrained(folder)
    return str(folder)


def reading_model(language=None, projector=None, seed=0, **fields):
    """A model in evaluation mode whose prefixes are as large as the language model's embeddings."""
    language = language_model() if language is None else language
    vision = build(CBViLAModel)
    config = CBViLAConditionalGenerationConfig(
        vision_config=vision.config.vision_config,
        text_config=language.config,
        projector_config=projector,
        **fields,
    )
    torch.manual_seed(seed)
    model = CBViLAForConditionalGeneration(config)
    model.model.vision_tower.load_state_dict(vision.vision_model.state_dict())
    with torch.no_grad():
        for parameter in model.model.multi_modal_projector.parameters():
            parameter.normal_(std=0.2)
    model.attach_language_model(language)
    return model.eval()


def prompts():
    """Two texts with two images and one, the second padded on the left."""
    return {
        "input_ids": PROMPT_IDS.clone(),
        "pixel_values": tiny_images(3),
        "attention_mask": (PROMPT_IDS != PAD).long(),
    }


def second_prompt():
    """The second of the prompts by itself."""
    return {"input_ids": PROMPT_IDS[1:, 3:].clone(), "pixel_values": tiny_images(3)[2:]}
