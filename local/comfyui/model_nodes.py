"""The nodes that load models and sample with them: nothing is loaded, but pictures come out."""

from PIL import Image

from local.comfyui.image_nodes import make_empty_image, scale_image
from local.comfyui.image_values import Batch
from local.comfyui.model_values import Ingredient, Latent, combine
from local.comfyui.node_run import NodeImplementation, NodeResult, NodeRun
from local.comfyui.sampled_pictures import sample_pictures

# A latent picture has one cell for so many pixels of a side.
_CELL = 8
_GREY = 0x7F7F7F


def load_checkpoint(_run: NodeRun, *, ckpt_name: str) -> NodeResult:
    """CheckpointLoaderSimple and ImageOnlyCheckpointLoader: three parts of one file."""
    return NodeResult(tuple(combine(ckpt_name, part) for part in ("model", "clip", "vae")))


def load_diffusion_model(_run: NodeRun, *, unet_name: str, weight_dtype: str) -> NodeResult:
    """UNETLoader: a diffusion model alone."""
    return NodeResult((combine(unet_name, weight_dtype),))


def load_clip(
    _run: NodeRun,
    *,
    clip_name: str,
    type: str,  # noqa: A002 (the name of the node's input)
    device: str = "default",
) -> NodeResult:
    """CLIPLoader: one text encoder."""
    del device
    return NodeResult((combine(clip_name, type),))


def load_two_clips(
    _run: NodeRun,
    *,
    clip_name1: str,
    clip_name2: str,
    type: str,  # noqa: A002 (the name of the node's input)
    device: str = "default",
) -> NodeResult:
    """DualCLIPLoader: two text encoders that are used together."""
    del device
    return NodeResult((combine(clip_name1, clip_name2, type),))


def load_vae(_run: NodeRun, *, vae_name: str) -> NodeResult:
    """VAELoader: what turns latent pictures into visible ones."""
    return NodeResult((combine(vae_name),))


def load_clip_vision(_run: NodeRun, *, clip_name: str) -> NodeResult:
    """CLIPVisionLoader: what makes conditions of pictures."""
    return NodeResult((combine(clip_name),))


def load_style_model(_run: NodeRun, *, style_model_name: str) -> NodeResult:
    """StyleModelLoader: what carries the style of one picture to another."""
    return NodeResult((combine(style_model_name),))


def load_lora(
    _run: NodeRun,
    *,
    model: Ingredient,
    clip: Ingredient,
    lora_name: str,
    strength_model: float,
    strength_clip: float,
) -> NodeResult:
    """LoraLoader: model and text encoder as a LoRA changes them."""
    return NodeResult(
        (combine(model, lora_name, strength_model), combine(clip, lora_name, strength_clip))
    )


def load_lora_for_model(
    _run: NodeRun, *, model: Ingredient, lora_name: str, strength_model: float
) -> NodeResult:
    """LoraLoaderModelOnly: the model as a LoRA changes it."""
    return NodeResult((combine(model, lora_name, strength_model),))


def shift_sampling(
    _run: NodeRun,
    *,
    model: Ingredient,
    max_shift: float,
    base_shift: float,
    width: int,
    height: int,
) -> NodeResult:
    """ModelSamplingFlux: the model with another course of noise."""
    return NodeResult((combine(model, max_shift, base_shift, width, height),))


def allow_soft_masks(_run: NodeRun, *, model: Ingredient, strength: float = 1.0) -> NodeResult:
    """DifferentialDiffusion: the model with masks that change a picture in part."""
    return NodeResult((combine(model, strength),))


def encode_text(_run: NodeRun, *, text: str, clip: Ingredient) -> NodeResult:
    """CLIPTextEncode: the text as a condition, which the picture will show."""
    return NodeResult((combine(clip, text, caption=text),))


def encode_seen_picture(
    _run: NodeRun, *, clip_vision: Ingredient, image: Batch, crop: str
) -> NodeResult:
    """CLIPVisionEncode: a picture as a condition."""
    colours = [picture.convert("RGB").resize((1, 1)).getpixel((0, 0)) for picture in image]
    return NodeResult((combine(clip_vision, colours, crop),))


def apply_style(
    _run: NodeRun,
    *,
    conditioning: Ingredient,
    style_model: Ingredient,
    clip_vision_output: Ingredient,
    strength: float,
    strength_type: str,
) -> NodeResult:
    """StyleModelApply: a condition with the style of a picture."""
    parts = (conditioning, style_model, clip_vision_output, strength, strength_type)
    return NodeResult((combine(*parts, caption=conditioning.caption),))


def set_guidance(_run: NodeRun, *, conditioning: Ingredient, guidance: float) -> NodeResult:
    """FluxGuidance: how closely the condition is followed."""
    return NodeResult((combine(conditioning, guidance, caption=conditioning.caption),))


def empty_conditioning(_run: NodeRun, *, conditioning: Ingredient) -> NodeResult:
    """ConditioningZeroOut: a condition that asks for nothing."""
    del conditioning
    return NodeResult((combine("nothing"),))


def condition_for_inpainting(
    _run: NodeRun,
    *,
    positive: Ingredient,
    negative: Ingredient,
    vae: Ingredient,
    pixels: Batch,
    mask: Batch,
    noise_mask: bool,
) -> NodeResult:
    """InpaintModelConditioning: both conditions, and a picture that changes where the mask is."""
    del vae
    return NodeResult((positive, negative, Latent(_cut(pixels), mask if noise_mask else None)))


def make_empty_latent(run: NodeRun, *, width: int, height: int, batch_size: int) -> NodeResult:
    """EmptyLatentImage and EmptySD3LatentImage: grey pictures to begin with."""
    (images,) = make_empty_image(
        run,
        width=width // _CELL * _CELL,
        height=height // _CELL * _CELL,
        batch_size=batch_size,
        color=_GREY,
    ).values
    return NodeResult((Latent(images),))


def decode_latent(_run: NodeRun, *, samples: Latent, vae: Ingredient) -> NodeResult:
    """VAEDecode: the pictures."""
    del vae
    return NodeResult((samples.images,))


def encode_pictures(_run: NodeRun, *, pixels: Batch, vae: Ingredient) -> NodeResult:
    """VAEEncode: pictures to begin with."""
    del vae
    return NodeResult((Latent(_cut(pixels)),))


def scale_latent(
    run: NodeRun, *, samples: Latent, upscale_method: str, width: int, height: int, crop: str
) -> NodeResult:
    """LatentUpscale: the pictures in another size."""
    # Pillow does not know bislerp, the way that is made for latent pictures.
    method = "bicubic" if upscale_method == "bislerp" else upscale_method
    (images,) = scale_image(
        run, image=samples.images, upscale_method=method, width=width, height=height, crop=crop
    ).values
    return NodeResult((Latent(images, samples.noise_mask),))


def mask_latent(_run: NodeRun, *, samples: Latent, mask: Batch) -> NodeResult:
    """SetLatentNoiseMask: only what is white will change."""
    return NodeResult((Latent(samples.images, mask),))


def sample(
    _run: NodeRun,
    *,
    model: Ingredient,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    positive: Ingredient,
    negative: Ingredient,
    latent_image: Latent,
    denoise: float,
) -> NodeResult:
    """KSampler: a picture of the seed and the positive text."""
    parts = (model, seed, steps, cfg, sampler_name, scheduler, positive, negative)
    caption = f"{_say_seed(seed)}\n{positive.caption}"
    made_with = combine(*parts, caption=caption, denoise=denoise)
    return NodeResult((sample_pictures(latent_image, made_with),))


def choose_sampler(_run: NodeRun, *, sampler_name: str) -> NodeResult:
    """KSamplerSelect: a way to sample."""
    return NodeResult((combine(sampler_name),))


def schedule_steps(
    _run: NodeRun, *, model: Ingredient, scheduler: str, steps: int, denoise: float
) -> NodeResult:
    """BasicScheduler: how much noise each step takes away."""
    return NodeResult((combine(model, scheduler, steps, denoise=denoise),))


def guide_model(_run: NodeRun, *, model: Ingredient, conditioning: Ingredient) -> NodeResult:
    """BasicGuider: a model and the one condition that it follows."""
    return NodeResult((combine(model, conditioning, caption=conditioning.caption),))


def make_noise(_run: NodeRun, *, noise_seed: int) -> NodeResult:
    """RandomNoise: noise that is the same for the same seed."""
    return NodeResult((combine(noise_seed, caption=_say_seed(noise_seed)),))


def sample_with_parts(
    _run: NodeRun,
    *,
    noise: Ingredient,
    guider: Ingredient,
    sampler: Ingredient,
    sigmas: Ingredient,
    latent_image: Latent,
) -> NodeResult:
    """SamplerCustomAdvanced: a picture of the noise's seed and the guider's text, given twice."""
    made_with = combine(
        noise,
        guider,
        sampler,
        sigmas,
        caption=f"{noise.caption}\n{guider.caption}",
        denoise=sigmas.denoise,
    )
    sampled = sample_pictures(latent_image, made_with)
    return NodeResult((sampled, sampled))


def _say_seed(seed: int) -> str:
    return f"seed {seed}"


def _cut(batch: Batch) -> Batch:
    """Return the middle of each picture, in whole cells and without transparency."""
    return tuple(_cut_picture(picture.convert("RGB")) for picture in batch)


def _cut_picture(picture: Image.Image) -> Image.Image:
    width, height = (max(_CELL, side // _CELL * _CELL) for side in picture.size)
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


IMPLEMENTATIONS: dict[str, NodeImplementation] = {
    "CheckpointLoaderSimple": load_checkpoint,
    "ImageOnlyCheckpointLoader": load_checkpoint,
    "UNETLoader": load_diffusion_model,
    "CLIPLoader": load_clip,
    "DualCLIPLoader": load_two_clips,
    "VAELoader": load_vae,
    "CLIPVisionLoader": load_clip_vision,
    "StyleModelLoader": load_style_model,
    "LoraLoader": load_lora,
    "LoraLoaderModelOnly": load_lora_for_model,
    "ModelSamplingFlux": shift_sampling,
    "DifferentialDiffusion": allow_soft_masks,
    "CLIPTextEncode": encode_text,
    "CLIPVisionEncode": encode_seen_picture,
    "StyleModelApply": apply_style,
    "FluxGuidance": set_guidance,
    "ConditioningZeroOut": empty_conditioning,
    "InpaintModelConditioning": condition_for_inpainting,
    "EmptyLatentImage": make_empty_latent,
    "EmptySD3LatentImage": make_empty_latent,
    "VAEDecode": decode_latent,
    "VAEEncode": encode_pictures,
    "LatentUpscale": scale_latent,
    "SetLatentNoiseMask": mask_latent,
    "KSampler": sample,
    "KSamplerSelect": choose_sampler,
    "BasicScheduler": schedule_steps,
    "BasicGuider": guide_model,
    "RandomNoise": make_noise,
    "SamplerCustomAdvanced": sample_with_parts,
}
