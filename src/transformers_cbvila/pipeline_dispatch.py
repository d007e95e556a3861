"""Makes `pipeline("visual-question-answering")` and its alias `"vqa"` work for CB-ViLA models.

transformers 5 removed the task: its look-up raises a KeyError before the model is known, and some versions have a list
of removed tasks, for which registering a pipeline has no effect. Removing the name from that list and registering ours
would change the behaviour for other models, and conflict with pipelines that others register under it. Therefore the
look-up is wrapped, for these two names only, and transformers' dictionaries are left unchanged. The wrapper returns an
entry that decides once the model is known: a CB-ViLA model gets our pipeline; any other gets the result of the
original look-up, which is another pipeline or the error.

`pipeline(model=folder)` without a task asks the Hub for the task, which fails for folders; for ours it is known.
Published checkpoints include the pipeline, without explanations, as remote code. `pipeline()` would refuse to run it
without `trust_remote_code=True` before the look-up, so it is hidden from it and the pipeline of this package is used.
"""

import os
from collections.abc import Callable
from pkgutil import resolve_name
from typing import Any

from transformers import AutoModelForVisualQuestionAnswering, PreTrainedConfig, pipelines

from .late_classes import LateClass
from .model.configuration_cbvila import CBViLAConfig

TASK = "visual-question-answering"
NAMES = (TASK, "vqa")
_PIPELINE = LateClass("explaining.pipeline", "CBViLAVisualQuestionAnsweringPipeline")


def offer_pipeline() -> None:
    """Wraps transformers' look-up of pipelines and tasks. A second call has no effect."""
    # Up to transformers 5.19 there is no list of removed tasks.
    resolve = _unwrapped(getattr(pipelines, "_resolve_deprecated_task", lambda task: task))
    check = _unwrapped(pipelines.PIPELINE_REGISTRY.check_task)
    infer = _unwrapped(pipelines.get_task)

    def resolve_task(task: str) -> str:
        return task if task in NAMES else resolve(task)

    def check_task(task: str) -> tuple[str, dict, Any]:
        if task not in NAMES:
            return check(task)
        return TASK, _Entry(lambda: check(resolve(task))[1]), None

    def get_task(model: str, *args: Any, **kwargs: Any) -> str:
        return TASK if _is_our_folder(model) else infer(model, *args, **kwargs)

    pipelines.get_task = _wrapping(get_task, infer)
    if hasattr(pipelines, "_resolve_deprecated_task"):
        pipelines._resolve_deprecated_task = _wrapping(resolve_task, resolve)
    # On the instance, which `pipeline()` uses; the class and the registered pipelines are left unchanged.
    registry: Any = pipelines.PIPELINE_REGISTRY
    registry.check_task = _wrapping(check_task, check)
    config_class: Any = CBViLAConfig
    config_class.custom_pipelines = _HiddenPipelines()


class _HiddenPipelines:
    """The attribute `custom_pipelines` of a configuration: reads as empty, but is saved again."""

    def __set__(self, config: Any, value: Any) -> None:
        config.__dict__["custom_pipelines"] = value

    def __get__(self, config: Any, owner: type | None = None) -> dict:
        return {}


def _wrapping(wrapper: Any, original: Callable) -> Callable:
    """Marks a function as the wrapper of another one."""
    wrapper.without_cbvila = original
    return wrapper


def _unwrapped(function: Callable) -> Callable:
    return getattr(function, "without_cbvila", function)


class _Entry(dict):
    """What `pipeline()` reads about the task: the pipeline class `impl`, the model classes `pt` to try, and more.

    Args:
        look_up: Returns the entry of the original look-up or raises its error. Keys that this entry does not have,
            such as the `default` model, are read from there.
    """

    def __init__(self, look_up: Callable[[], dict]) -> None:
        dispatch = _Dispatch(look_up)
        others = _entry_or_none(look_up) or {}
        super().__init__(impl=dispatch, pt=(_loader(dispatch), *others.get("pt", ())))
        self.look_up = look_up

    def __missing__(self, key: str) -> Any:
        return self.look_up()[key]


class _Dispatch:
    """Stands in for a pipeline class until the model is known.

    `pipeline()` reads class attributes such as `_load_tokenizer` before it calls the class. They are those of our
    pipeline if the loader has loaded a CB-ViLA model. If the model was passed as an instance, it is not known yet, and
    they are those of the original look-up, if it has any.

    Args:
        look_up: The original look-up.
    """

    def __init__(self, look_up: Callable[[], dict]) -> None:
        self.look_up = look_up
        self.has_loaded_ours = False

    def __getattr__(self, name: str) -> Any:
        others = None if self.has_loaded_ours else _entry_or_none(self.look_up)
        return getattr(_PIPELINE.load() if others is None else _pipeline_class(others), name)

    def __call__(self, model: Any, **kwargs: Any) -> Any:
        is_ours = _is_ours(getattr(model, "config", None))
        pipeline_class = _PIPELINE.load() if is_ours else _pipeline_class(self.look_up())
        return pipeline_class(model=model, **kwargs)


def _entry_or_none(look_up: Callable[[], dict]) -> dict | None:
    try:
        return look_up()
    except KeyError:
        return None


def _pipeline_class(entry: dict) -> Any:
    """Returns the pipeline class; transformers from 5.20 on names its own classes by their dotted paths."""
    implementation = entry["impl"]
    return resolve_name(implementation) if isinstance(implementation, str) else implementation


def _loader(dispatch: _Dispatch) -> type:
    """Returns the model class that `pipeline()` tries first, which loads only CB-ViLA checkpoints."""

    class CBViLALoader(AutoModelForVisualQuestionAnswering):
        @classmethod
        def from_pretrained(cls, pretrained_model_name_or_path: Any, *args: Any, **kwargs: Any) -> Any:
            model = None
            if _may_be_ours(pretrained_model_name_or_path, kwargs):
                model = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
            if model is not None and _is_ours(model.config):
                dispatch.has_loaded_ours = True
                return model
            dispatch.look_up()
            # transformers tries the next class after a ValueError, but not after the KeyError of the look-up.
            raise ValueError(f"{pretrained_model_name_or_path} is no CB-ViLA checkpoint")

    return CBViLALoader


def _may_be_ours(name: Any, options: dict[str, Any]) -> bool:
    # A PEFT adapter may have no configuration (locally an empty one): it has to be loaded to know.
    try:
        config, _ = PreTrainedConfig.get_config_dict(name, **options)
    except OSError:
        return True
    return config.get("model_type", CBViLAConfig.model_type) == CBViLAConfig.model_type


def _is_our_folder(name: str) -> bool:
    if not os.path.isfile(os.path.join(name, "config.json")):
        return False
    config, _ = PreTrainedConfig.get_config_dict(name)
    is_answering = "CBViLAForQuestionAnswering" in (config.get("architectures") or ())
    return config.get("model_type") == CBViLAConfig.model_type and is_answering


def _is_ours(config: Any) -> bool:
    return getattr(config, "model_type", None) == CBViLAConfig.model_type
