"""The models that a server has: names only, by the folders that ComfyUI keeps them in."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from ml_service.domain.errors import MlServiceError

MODEL_FOLDERS = (
    "checkpoints",
    "configs",
    "loras",
    "vae",
    "text_encoders",
    "diffusion_models",
    "clip_vision",
    "style_models",
    "embeddings",
    "diffusers",
    "vae_approx",
    "controlnet",
    "gligen",
    "upscale_models",
    "latent_upscale_models",
    "custom_nodes",
    "hypernetworks",
    "photomaker",
    "classifiers",
    "model_patches",
    "audio_encoders",
)

Models = Mapping[str, tuple[str, ...]]

# Those that ComfyUI's own examples ask for.
USUAL_MODELS: Models = MappingProxyType(
    {
        "checkpoints": (
            "flux1-dev-fp8.safetensors",
            "flux1-schnell-fp8.safetensors",
            "sd_xl_base_1.0.safetensors",
            "svd_xt_1_1.safetensors",
            "v1-5-pruned-emaonly-fp16.safetensors",
            "v1-5-pruned-emaonly.safetensors",
        ),
        "clip_vision": ("clip_vision_g.safetensors", "sigclip_vision_patch14_384.safetensors"),
        "diffusion_models": ("flux1-dev.safetensors", "flux1-schnell.safetensors"),
        "loras": ("lcm-lora-sdv1-5.safetensors", "sd_xl_offset_example-lora_1.0.safetensors"),
        "style_models": ("flux1-redux-dev.safetensors",),
        "text_encoders": (
            "clip_g.safetensors",
            "clip_l.safetensors",
            "t5xxl_fp16.safetensors",
            "t5xxl_fp8_e4m3fn.safetensors",
        ),
        "vae": ("ae.safetensors", "vae-ft-mse-840000-ema-pruned.safetensors"),
    }
)


class ModelError(MlServiceError):
    """When a model is named in a way that has no meaning."""


def add_models(names: Iterable[str]) -> Models:
    """Return the usual models and further ones, each as `folder/file`; raises ModelError.

    The file may lie in a folder of its own, with a slash or a backslash as its server has it.
    """
    models = {folder: list(files) for folder, files in USUAL_MODELS.items()}
    for name in names:
        folder, _, file = name.partition("/")
        if folder not in MODEL_FOLDERS or not file:
            raise ModelError(
                f"{name} is not FOLDER/FILE, with a folder of {', '.join(MODEL_FOLDERS)}"
            )
        if file not in models.setdefault(folder, []):
            models[folder].append(file)
    return {folder: tuple(sorted(files)) for folder, files in models.items()}
