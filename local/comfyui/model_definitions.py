"""The stock nodes that load models and sample with them, with ComfyUI's names, types and ranges."""

from local.comfyui.define_nodes import (
    IMAGE,
    MAX_BATCH,
    choice,
    classic,
    decimal,
    integer,
    schema,
    seed,
    side,
    text,
)
from local.comfyui.node_types import Input, ModelKind, NodeDefinition, Output

_SAMPLERS = (
    "euler",
    "euler_cfg_pp",
    "euler_ancestral",
    "euler_ancestral_cfg_pp",
    "heun",
    "heunpp2",
    "exp_heun_2_x0",
    "exp_heun_2_x0_sde",
    "dpm_2",
    "dpm_2_ancestral",
    "lms",
    "dpm_fast",
    "dpm_adaptive",
    "dpmpp_2s_ancestral",
    "dpmpp_2s_ancestral_cfg_pp",
    "dpmpp_sde",
    "dpmpp_sde_gpu",
    "dpmpp_2m",
    "dpmpp_2m_cfg_pp",
    "dpmpp_2m_sde",
    "dpmpp_2m_sde_gpu",
    "dpmpp_2m_sde_heun",
    "dpmpp_2m_sde_heun_gpu",
    "dpmpp_3m_sde",
    "dpmpp_3m_sde_gpu",
    "ddpm",
    "lcm",
    "ipndm",
    "ipndm_v",
    "deis",
    "res_multistep",
    "res_multistep_cfg_pp",
    "res_multistep_ancestral",
    "res_multistep_ancestral_cfg_pp",
    "gradient_estimation",
    "gradient_estimation_cfg_pp",
    "er_sde",
    "seeds_2",
    "seeds_3",
    "sa_solver",
    "sa_solver_pece",
    "ddim",
    "uni_pc",
    "uni_pc_bh2",
)
_SCHEDULERS = (
    "simple",
    "sgm_uniform",
    "karras",
    "exponential",
    "ddim_uniform",
    "beta",
    "normal",
    "linear_quadratic",
    "kl_optimal",
)
_CLIP_TYPES = (
    "stable_diffusion",
    "stable_cascade",
    "sd3",
    "stable_audio",
    "mochi",
    "ltxv",
    "pixart",
    "cosmos",
    "lumina2",
    "wan",
    "hidream",
    "chroma",
    "ace",
    "omnigen2",
    "qwen_image",
    "hunyuan_image",
    "flux2",
    "ovis",
)
_DUAL_CLIP_TYPES = (
    "sdxl",
    "sd3",
    "flux",
    "hunyuan_video",
    "hidream",
    "hunyuan_image",
    "hunyuan_video_15",
    "kandinsky5",
    "kandinsky5_image",
    "ltxv",
    "newbie",
    "ace",
)

_MODEL = Output("MODEL", "MODEL")
_CLIP = Output("CLIP", "CLIP")
_VAE = Output("VAE", "VAE")
_LATENT = Output("LATENT", "LATENT")
_CONDITIONING = Output("CONDITIONING", "CONDITIONING")
_CLIP_VISION = Output("CLIP_VISION", "CLIP_VISION")

_CHECKPOINTS = ModelKind("checkpoints")
_TEXT_ENCODERS = ModelKind("text_encoders")
_LORAS = ModelKind("loras")


def _described(name: str, kind: str | ModelKind) -> Input:
    """Define an input of a classic node that has options, though none that matter here."""
    return Input(name, kind, {})


def _strength(name: str) -> Input:
    return decimal(name, default=1.0, min=-100.0, max=100.0, step=0.01)


def _device() -> Input:
    return Input("device", ("default", "cpu"), {"advanced": True}, required=False)


def _steps() -> Input:
    return integer("steps", default=20, min=1, max=10000)


def _denoise() -> Input:
    return decimal("denoise", default=1.0, min=0.0, max=1.0, step=0.01)


_LOADERS = (
    classic(
        "CheckpointLoaderSimple",
        "loaders",
        (_described("ckpt_name", _CHECKPOINTS),),
        (_MODEL, _CLIP, _VAE),
        display_name="Load Checkpoint",
    ),
    classic(
        "ImageOnlyCheckpointLoader",
        "loaders/video_models",
        (Input("ckpt_name", _CHECKPOINTS),),
        (_MODEL, _CLIP_VISION, _VAE),
        module="comfy_extras.nodes_video_model",
        display_name="Image Only Checkpoint Loader (img2vid model)",
    ),
    classic(
        "UNETLoader",
        "advanced/loaders",
        (
            Input("unet_name", ModelKind("diffusion_models")),
            choice("weight_dtype", "default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"),
        ),
        (_MODEL,),
        display_name="Load Diffusion Model",
    ),
    classic(
        "CLIPLoader",
        "advanced/loaders",
        (Input("clip_name", _TEXT_ENCODERS), choice("type", *_CLIP_TYPES), _device()),
        (_CLIP,),
        display_name="Load CLIP",
    ),
    classic(
        "DualCLIPLoader",
        "advanced/loaders",
        (
            Input("clip_name1", _TEXT_ENCODERS),
            Input("clip_name2", _TEXT_ENCODERS),
            choice("type", *_DUAL_CLIP_TYPES),
            _device(),
        ),
        (_CLIP,),
    ),
    classic(
        "VAELoader",
        "loaders",
        (Input("vae_name", ModelKind("vae", built_in=("pixel_space",))),),
        (_VAE,),
        display_name="Load VAE",
    ),
    classic(
        "LoraLoader",
        "loaders",
        (
            _described("model", "MODEL"),
            _described("clip", "CLIP"),
            _described("lora_name", _LORAS),
            _strength("strength_model"),
            _strength("strength_clip"),
        ),
        (_MODEL, _CLIP),
        display_name="Load LoRA (Model and CLIP)",
    ),
    classic(
        "LoraLoaderModelOnly",
        "loaders",
        (Input("model", "MODEL"), Input("lora_name", _LORAS), _strength("strength_model")),
        (_MODEL,),
        display_name="Load LoRA",
    ),
    classic(
        "CLIPVisionLoader",
        "loaders",
        (Input("clip_name", ModelKind("clip_vision")),),
        (_CLIP_VISION,),
        display_name="Load CLIP Vision",
    ),
    classic(
        "StyleModelLoader",
        "loaders",
        (Input("style_model_name", ModelKind("style_models")),),
        (Output("STYLE_MODEL", "STYLE_MODEL"),),
        display_name="Load Style Model",
    ),
    classic(
        "ModelSamplingFlux",
        "advanced/model",
        (
            Input("model", "MODEL"),
            decimal("max_shift", default=1.15, min=0.0, max=100.0, step=0.01),
            decimal("base_shift", default=0.5, min=0.0, max=100.0, step=0.01),
            side("width", 1024, 16, 8),
            side("height", 1024, 16, 8),
        ),
        (_MODEL,),
        module="comfy_extras.nodes_model_advanced",
    ),
    schema(
        "DifferentialDiffusion",
        "nodes_differential_diffusion",
        "_for_testing",
        (
            Input("model", "MODEL"),
            Input(
                "strength",
                "FLOAT",
                {"default": 1.0, "min": 0.0, "max": 1.0, "step": 0.01},
                required=False,
            ),
        ),
        (_MODEL,),
        display_name="Differential Diffusion",
        extra_fields={"experimental": True},
    ),
)

_CONDITIONINGS = (
    classic(
        "CLIPTextEncode",
        "conditioning",
        (text("text", multiline=True, dynamicPrompts=True), _described("clip", "CLIP")),
        (_CONDITIONING,),
        display_name="CLIP Text Encode (Prompt)",
    ),
    classic(
        "CLIPVisionEncode",
        "conditioning",
        (
            Input("clip_vision", "CLIP_VISION"),
            Input("image", "IMAGE"),
            choice("crop", "center", "none"),
        ),
        (Output("CLIP_VISION_OUTPUT", "CLIP_VISION_OUTPUT"),),
        display_name="CLIP Vision Encode",
    ),
    classic(
        "StyleModelApply",
        "conditioning/style_model",
        (
            Input("conditioning", "CONDITIONING"),
            Input("style_model", "STYLE_MODEL"),
            Input("clip_vision_output", "CLIP_VISION_OUTPUT"),
            decimal("strength", default=1.0, min=0.0, max=10.0, step=0.001),
            choice("strength_type", "multiply", "attn_bias"),
        ),
        (_CONDITIONING,),
        display_name="Apply Style Model",
    ),
    classic(
        "ConditioningZeroOut",
        "advanced/conditioning",
        (Input("conditioning", "CONDITIONING"),),
        (_CONDITIONING,),
    ),
    schema(
        "FluxGuidance",
        "nodes_flux",
        "advanced/conditioning/flux",
        (
            Input("conditioning", "CONDITIONING"),
            decimal("guidance", default=3.5, min=0.0, max=100.0, step=0.1),
        ),
        (_CONDITIONING,),
    ),
    classic(
        "InpaintModelConditioning",
        "conditioning/inpaint",
        (
            Input("positive", "CONDITIONING"),
            Input("negative", "CONDITIONING"),
            Input("vae", "VAE"),
            Input("pixels", "IMAGE"),
            Input("mask", "MASK"),
            Input("noise_mask", "BOOLEAN", {"default": True}),
        ),
        (
            Output("CONDITIONING", "positive"),
            Output("CONDITIONING", "negative"),
            Output("LATENT", "latent"),
        ),
    ),
)

_LATENTS = (
    classic(
        "EmptyLatentImage",
        "latent",
        (
            side("width", 512, 16, 8),
            side("height", 512, 16, 8),
            integer("batch_size", default=1, min=1, max=MAX_BATCH),
        ),
        (_LATENT,),
        display_name="Empty Latent Image",
    ),
    schema(
        "EmptySD3LatentImage",
        "nodes_sd3",
        "latent/sd3",
        (
            side("width", 1024, 16, 16),
            side("height", 1024, 16, 16),
            integer("batch_size", default=1, min=1, max=MAX_BATCH),
        ),
        (_LATENT,),
    ),
    classic(
        "VAEDecode",
        "latent",
        (_described("samples", "LATENT"), _described("vae", "VAE")),
        (IMAGE,),
        display_name="VAE Decode",
    ),
    classic(
        "VAEEncode",
        "latent",
        (Input("pixels", "IMAGE"), Input("vae", "VAE")),
        (_LATENT,),
        display_name="VAE Encode",
    ),
    classic(
        "LatentUpscale",
        "latent",
        (
            Input("samples", "LATENT"),
            choice("upscale_method", "nearest-exact", "bilinear", "area", "bicubic", "bislerp"),
            side("width", 512, 0, 8),
            side("height", 512, 0, 8),
            choice("crop", "disabled", "center"),
        ),
        (_LATENT,),
        display_name="Upscale Latent",
    ),
    classic(
        "SetLatentNoiseMask",
        "latent/inpaint",
        (Input("samples", "LATENT"), Input("mask", "MASK")),
        (_LATENT,),
        display_name="Set Latent Noise Mask",
    ),
)

_CUSTOM_SAMPLING = "sampling/custom_sampling"

_SAMPLING = (
    classic(
        "KSampler",
        "sampling",
        (
            _described("model", "MODEL"),
            seed(),
            _steps(),
            decimal("cfg", default=8.0, min=0.0, max=100.0, step=0.1, round=0.01),
            Input("sampler_name", _SAMPLERS, {}),
            Input("scheduler", _SCHEDULERS, {}),
            _described("positive", "CONDITIONING"),
            _described("negative", "CONDITIONING"),
            _described("latent_image", "LATENT"),
            _denoise(),
        ),
        (_LATENT,),
    ),
    schema(
        "KSamplerSelect",
        "nodes_custom_sampler",
        f"{_CUSTOM_SAMPLING}/samplers",
        (choice("sampler_name", *_SAMPLERS),),
        (Output("SAMPLER", "SAMPLER"),),
    ),
    schema(
        "BasicScheduler",
        "nodes_custom_sampler",
        f"{_CUSTOM_SAMPLING}/schedulers",
        (Input("model", "MODEL"), choice("scheduler", *_SCHEDULERS), _steps(), _denoise()),
        (Output("SIGMAS", "SIGMAS"),),
    ),
    schema(
        "BasicGuider",
        "nodes_custom_sampler",
        f"{_CUSTOM_SAMPLING}/guiders",
        (Input("model", "MODEL"), Input("conditioning", "CONDITIONING")),
        (Output("GUIDER", "GUIDER"),),
    ),
    schema(
        "RandomNoise",
        "nodes_custom_sampler",
        f"{_CUSTOM_SAMPLING}/noise",
        (seed("noise_seed"),),
        (Output("NOISE", "NOISE"),),
    ),
    schema(
        "SamplerCustomAdvanced",
        "nodes_custom_sampler",
        _CUSTOM_SAMPLING,
        (
            Input("noise", "NOISE"),
            Input("guider", "GUIDER"),
            Input("sampler", "SAMPLER"),
            Input("sigmas", "SIGMAS"),
            Input("latent_image", "LATENT"),
        ),
        (Output("LATENT", "output"), Output("LATENT", "denoised_output")),
    ),
)

MODEL_NODES: tuple[NodeDefinition, ...] = (*_LOADERS, *_CONDITIONINGS, *_LATENTS, *_SAMPLING)
