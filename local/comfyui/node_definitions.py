"""The stock node classes that the simulator knows, with ComfyUI's names, types and ranges."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from local.comfyui.node_types import ANY_TYPE, Input, MediaKind, NodeDefinition, NodeForm, Output

MAX_SIZE = 16384
MAX_BATCH = 4096
MAX_COLOR = 0xFFFFFF
MAX_UNSIGNED = 0xFFFFFFFFFFFFFFFF
MAX_SIGNED = 0x7FFFFFFFFFFFFFFF

RESIZE_METHODS = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")
METADATA = ("prompt", "extra_pnginfo")

IMAGE = Output("IMAGE", "IMAGE")
MASK = Output("MASK", "MASK")
AUDIO = Output("AUDIO", "AUDIO")
VIDEO = Output("VIDEO", "VIDEO")
STRING = Output("STRING", "STRING")


def _classic(
    class_type: str,
    category: str,
    inputs: tuple[Input, ...],
    outputs: tuple[Output, ...] = (),
    *,
    module: str = "nodes",
    **more: Any,
) -> NodeDefinition:
    return NodeDefinition(
        class_type, NodeForm.CLASSIC, module, category, inputs=inputs, outputs=outputs, **more
    )


def _schema(
    class_type: str,
    module: str,
    category: str,
    inputs: tuple[Input, ...],
    outputs: tuple[Output, ...] = (),
    **more: Any,
) -> NodeDefinition:
    return NodeDefinition(
        class_type,
        NodeForm.SCHEMA,
        f"comfy_extras.{module}",
        category,
        inputs=inputs,
        outputs=outputs,
        **more,
    )


def _number(name: str, kind: str, **options: Any) -> Input:
    return Input(name, kind, options)


def _integer(name: str, **options: Any) -> Input:
    return _number(name, "INT", **options)


def _float(name: str, **options: Any) -> Input:
    return _number(name, "FLOAT", **options)


def _side(name: str, default: int = 512, lowest: int = 1) -> Input:
    """Return an input for a length in pixels."""
    return _integer(name, default=default, min=lowest, max=MAX_SIZE, step=1)


def _text(name: str, **options: Any) -> Input:
    return Input(name, "STRING", options)


def _file_prefix(default: str) -> Input:
    return _text("filename_prefix", default=default, multiline=False)


def _choice(name: str, *values: str, **options: Any) -> Input:
    return Input(name, values, options or None)


IMAGE_NODES = (
    _classic(
        "LoadImage",
        "image",
        (Input("image", MediaKind.IMAGE, {"image_upload": True}),),
        (IMAGE, MASK),
        display_name="Load Image",
    ),
    _classic(
        "ImageScale",
        "image/upscaling",
        (
            Input("image", "IMAGE"),
            _choice("upscale_method", *RESIZE_METHODS),
            _side("width", lowest=0),
            _side("height", lowest=0),
            _choice("crop", "disabled", "center"),
        ),
        (IMAGE,),
        display_name="Upscale Image",
    ),
    _classic(
        "ImageScaleBy",
        "image/upscaling",
        (
            Input("image", "IMAGE"),
            _choice("upscale_method", *RESIZE_METHODS),
            _float("scale_by", default=1.0, min=0.01, max=8.0, step=0.01),
        ),
        (IMAGE,),
        display_name="Upscale Image By",
    ),
    _classic(
        "ImageInvert", "image", (Input("image", "IMAGE"),), (IMAGE,), display_name="Invert Image"
    ),
    _classic(
        "ImageBatch",
        "image",
        (Input("image1", "IMAGE"), Input("image2", "IMAGE")),
        (IMAGE,),
        display_name="Batch Images",
        extra_fields={"deprecated": True},
    ),
    _classic(
        "EmptyImage",
        "image",
        (
            _side("width"),
            _side("height"),
            _integer("batch_size", default=1, min=1, max=MAX_BATCH),
            _integer("color", default=0, min=0, max=MAX_COLOR, step=1, display="color"),
        ),
        (IMAGE,),
    ),
    _classic(
        "SaveImage",
        "image",
        (Input("images", "IMAGE", {}), _text("filename_prefix", default="ComfyUI")),
        display_name="Save Image",
        is_output=True,
        hidden=METADATA,
    ),
    _classic(
        "PreviewImage",
        "image",
        (Input("images", "IMAGE"),),
        display_name="Preview Image",
        is_output=True,
        hidden=METADATA,
    ),
    _schema(
        "ImageBlend",
        "nodes_post_processing",
        "image/postprocessing",
        (
            Input("image1", "IMAGE"),
            Input("image2", "IMAGE"),
            _float("blend_factor", default=0.5, min=0.0, max=1.0, step=0.01),
            _choice(
                "blend_mode", "normal", "multiply", "screen", "overlay", "soft_light", "difference"
            ),
        ),
        (IMAGE,),
    ),
    _schema(
        "ImageBlur",
        "nodes_post_processing",
        "image/postprocessing",
        (
            Input("image", "IMAGE"),
            _integer("blur_radius", default=1, min=1, max=31, step=1),
            _float("sigma", default=1.0, min=0.1, max=10.0, step=0.1),
        ),
        (IMAGE,),
    ),
    _schema(
        "ImageCrop",
        "nodes_images",
        "image/transform",
        (
            Input("image", "IMAGE"),
            _side("width"),
            _side("height"),
            _side("x", 0, 0),
            _side("y", 0, 0),
        ),
        (IMAGE,),
        display_name="Image Crop",
    ),
    _schema(
        "ImageStitch",
        "nodes_images",
        "image/transform",
        (
            Input("image1", "IMAGE"),
            _choice("direction", "right", "down", "left", "up", default="right"),
            Input("match_image_size", "BOOLEAN", {"default": True}),
            _integer("spacing_width", default=0, min=0, max=1024, step=2),
            _choice("spacing_color", "white", "black", "red", "green", "blue", default="white"),
            Input("image2", "IMAGE", required=False),
        ),
        (IMAGE,),
        display_name="Image Stitch",
    ),
    _schema(
        "ImageFlip",
        "nodes_images",
        "image/transform",
        (
            Input("image", "IMAGE"),
            _choice("flip_method", "x-axis: vertically", "y-axis: horizontally"),
        ),
        (IMAGE,),
    ),
    _schema(
        "ImageRotate",
        "nodes_images",
        "image/transform",
        (
            Input("image", "IMAGE"),
            _choice("rotation", "none", "90 degrees", "180 degrees", "270 degrees"),
        ),
        (IMAGE,),
    ),
    _schema(
        "ResizeAndPadImage",
        "nodes_images",
        "image/transform",
        (
            Input("image", "IMAGE"),
            _side("target_width"),
            _side("target_height"),
            _choice("padding_color", "white", "black"),
            _choice("interpolation", "area", "bicubic", "nearest-exact", "bilinear", "lanczos"),
        ),
        (IMAGE,),
    ),
    _schema(
        "ImageCompositeMasked",
        "nodes_mask",
        "image",
        (
            Input("destination", "IMAGE"),
            Input("source", "IMAGE"),
            _side("x", 0, 0),
            _side("y", 0, 0),
            Input("resize_source", "BOOLEAN", {"default": False}),
            Input("mask", "MASK", required=False),
        ),
        (IMAGE,),
    ),
    _schema(
        "GetImageSize",
        "nodes_images",
        "image",
        (Input("image", "IMAGE"),),
        (Output("INT", "width"), Output("INT", "height"), Output("INT", "batch_size")),
        display_name="Get Image Size",
        hidden=("unique_id",),
    ),
    _schema(
        "RepeatImageBatch",
        "nodes_images",
        "image/batch",
        (Input("image", "IMAGE"), _integer("amount", default=1, min=1, max=MAX_BATCH)),
        (IMAGE,),
    ),
    _schema(
        "ImageFromBatch",
        "nodes_images",
        "image/batch",
        (
            Input("image", "IMAGE"),
            _integer("batch_index", default=0, min=0, max=MAX_BATCH - 1),
            _integer("length", default=1, min=1, max=MAX_BATCH),
        ),
        (IMAGE,),
    ),
    _schema(
        "SaveAnimatedWEBP",
        "nodes_images",
        "image/animation",
        (
            Input("images", "IMAGE"),
            _file_prefix("ComfyUI"),
            _float("fps", default=6.0, min=0.01, max=1000.0, step=0.01),
            Input("lossless", "BOOLEAN", {"default": True}),
            _integer("quality", default=80, min=0, max=100),
            _choice("method", "default", "fastest", "slowest"),
        ),
        is_output=True,
        hidden=METADATA,
    ),
    _schema(
        "JoinImageWithAlpha",
        "nodes_compositing",
        "mask/compositing",
        (Input("image", "IMAGE"), Input("alpha", "MASK")),
        (IMAGE,),
        display_name="Join Image with Alpha",
    ),
    _schema(
        "SplitImageWithAlpha",
        "nodes_compositing",
        "mask/compositing",
        (Input("image", "IMAGE"),),
        (IMAGE, MASK),
        display_name="Split Image with Alpha",
    ),
)

MASK_NODES = (
    _classic(
        "LoadImageMask",
        "mask",
        (
            Input("image", MediaKind.IMAGE, {"image_upload": True}),
            _choice("channel", "alpha", "red", "green", "blue"),
        ),
        (MASK,),
        display_name="Load Image (as Mask)",
    ),
    _schema(
        "SolidMask",
        "nodes_mask",
        "mask",
        (
            _float("value", default=1.0, min=0.0, max=1.0, step=0.01),
            _side("width"),
            _side("height"),
        ),
        (MASK,),
    ),
    _schema(
        "MaskToImage",
        "nodes_mask",
        "mask",
        (Input("mask", "MASK"),),
        (IMAGE,),
        display_name="Convert Mask to Image",
    ),
    _schema(
        "ImageToMask",
        "nodes_mask",
        "mask",
        (Input("image", "IMAGE"), _choice("channel", "red", "green", "blue", "alpha")),
        (MASK,),
        display_name="Convert Image to Mask",
    ),
    _schema("InvertMask", "nodes_mask", "mask", (Input("mask", "MASK"),), (MASK,)),
    _schema(
        "CropMask",
        "nodes_mask",
        "mask",
        (
            Input("mask", "MASK"),
            _side("x", 0, 0),
            _side("y", 0, 0),
            _side("width"),
            _side("height"),
        ),
        (MASK,),
    ),
    _schema(
        "ThresholdMask",
        "nodes_mask",
        "mask",
        (Input("mask", "MASK"), _float("value", default=0.5, min=0.0, max=1.0, step=0.01)),
        (MASK,),
    ),
    _schema(
        "ImageColorToMask",
        "nodes_mask",
        "mask",
        (
            Input("image", "IMAGE"),
            _integer("color", default=0, min=0, max=MAX_COLOR, step=1, display="number"),
        ),
        (MASK,),
    ),
)

AUDIO_NODES = (
    _schema(
        "LoadAudio",
        "nodes_audio",
        "audio",
        (Input("audio", MediaKind.AUDIO, {"audio_upload": True}),),
        (AUDIO,),
        display_name="Load Audio",
    ),
    _schema(
        "EmptyAudio",
        "nodes_audio",
        "audio",
        (
            _float("duration", default=60.0, min=0.0, max=MAX_UNSIGNED, step=0.01),
            _integer("sample_rate", default=44100, min=1, max=192000),
            _integer("channels", default=2, min=1, max=2),
        ),
        (AUDIO,),
        display_name="Empty Audio",
    ),
    _schema(
        "TrimAudioDuration",
        "nodes_audio",
        "audio",
        (
            Input("audio", "AUDIO"),
            _float("start_index", default=0.0, min=-MAX_UNSIGNED, max=MAX_UNSIGNED, step=0.01),
            _float("duration", default=60.0, min=0.0, step=0.01),
        ),
        (AUDIO,),
        display_name="Trim Audio Duration",
    ),
    _schema(
        "AudioConcat",
        "nodes_audio",
        "audio",
        (
            Input("audio1", "AUDIO"),
            Input("audio2", "AUDIO"),
            _choice("direction", "after", "before", default="after"),
        ),
        (AUDIO,),
        display_name="Audio Concat",
    ),
    _schema(
        "AudioMerge",
        "nodes_audio",
        "audio",
        (
            Input("audio1", "AUDIO"),
            Input("audio2", "AUDIO"),
            _choice("merge_method", "add", "mean", "subtract", "multiply"),
        ),
        (AUDIO,),
        display_name="Audio Merge",
    ),
    _schema(
        "AudioAdjustVolume",
        "nodes_audio",
        "audio",
        (Input("audio", "AUDIO"), _integer("volume", default=1, min=-100, max=100)),
        (AUDIO,),
        display_name="Audio Adjust Volume",
    ),
    _schema(
        "PreviewAudio",
        "nodes_audio",
        "audio",
        (Input("audio", "AUDIO"),),
        display_name="Preview Audio",
        is_output=True,
        hidden=METADATA,
    ),
    _schema(
        "SaveAudio",
        "nodes_audio",
        "audio",
        (Input("audio", "AUDIO"), _file_prefix("audio/ComfyUI")),
        display_name="Save Audio (FLAC)",
        is_output=True,
        hidden=METADATA,
    ),
    _schema(
        "SaveAudioMP3",
        "nodes_audio",
        "audio",
        (
            Input("audio", "AUDIO"),
            _file_prefix("audio/ComfyUI"),
            _choice("quality", "V0", "128k", "320k", default="V0"),
        ),
        display_name="Save Audio (MP3)",
        is_output=True,
        hidden=METADATA,
    ),
)

VIDEO_NODES = (
    _schema(
        "LoadVideo",
        "nodes_video",
        "image/video",
        (Input("file", MediaKind.VIDEO, {"video_upload": True}),),
        (VIDEO,),
        display_name="Load Video",
    ),
    _schema(
        "GetVideoComponents",
        "nodes_video",
        "image/video",
        (Input("video", "VIDEO"),),
        (Output("IMAGE", "images"), Output("AUDIO", "audio"), Output("FLOAT", "fps")),
        display_name="Get Video Components",
    ),
    _schema(
        "CreateVideo",
        "nodes_video",
        "image/video",
        (
            Input("images", "IMAGE"),
            _float("fps", default=30.0, min=1.0, max=120.0, step=1.0),
            Input("audio", "AUDIO", required=False),
        ),
        (VIDEO,),
        display_name="Create Video",
    ),
    _schema(
        "SaveVideo",
        "nodes_video",
        "image/video",
        (
            Input("video", "VIDEO"),
            _file_prefix("video/ComfyUI"),
            _choice("format", "auto", "mp4", default="auto"),
            _choice("codec", "auto", "h264", default="auto"),
        ),
        display_name="Save Video",
        is_output=True,
        hidden=METADATA,
    ),
)

_SIGNED_RANGE = {"min": -MAX_SIGNED, "max": MAX_SIGNED}

VALUE_NODES = (
    _schema(
        "PrimitiveString",
        "nodes_primitive",
        "utils/primitive",
        (_text("value", multiline=False),),
        (STRING,),
        display_name="String",
    ),
    _schema(
        "PrimitiveStringMultiline",
        "nodes_primitive",
        "utils/primitive",
        (_text("value", multiline=True),),
        (STRING,),
        display_name="String (Multiline)",
    ),
    _schema(
        "PrimitiveInt",
        "nodes_primitive",
        "utils/primitive",
        (_integer("value", **_SIGNED_RANGE, control_after_generate=True),),
        (Output("INT", "INT"),),
        display_name="Int",
    ),
    _schema(
        "PrimitiveFloat",
        "nodes_primitive",
        "utils/primitive",
        (_float("value", **_SIGNED_RANGE, step=0.1),),
        (Output("FLOAT", "FLOAT"),),
        display_name="Float",
    ),
    _schema(
        "PrimitiveBoolean",
        "nodes_primitive",
        "utils/primitive",
        (Input("value", "BOOLEAN"),),
        (Output("BOOLEAN", "BOOLEAN"),),
        display_name="Boolean",
    ),
    _schema(
        "StringConcatenate",
        "nodes_string",
        "utils/string",
        (
            _text("string_a", multiline=True),
            _text("string_b", multiline=True),
            _text("delimiter", default="", multiline=False),
        ),
        (STRING,),
        display_name="Concatenate",
    ),
    _schema(
        "StringReplace",
        "nodes_string",
        "utils/string",
        (
            _text("string", multiline=True),
            _text("find", multiline=True),
            _text("replace", multiline=True),
        ),
        (STRING,),
        display_name="Replace",
    ),
    _classic(
        "PreviewAny",
        "utils",
        (Input("source", ANY_TYPE, {}),),
        module="comfy_extras.nodes_preview_any",
        display_name="Preview as Text",
        is_output=True,
    ),
)

NODE_DEFINITIONS: Mapping[str, NodeDefinition] = MappingProxyType(
    {
        definition.class_type: definition
        for definition in (*IMAGE_NODES, *MASK_NODES, *AUDIO_NODES, *VIDEO_NODES, *VALUE_NODES)
    }
)
