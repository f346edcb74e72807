"""Writes what transformers' image processors and open_clip make of photos to preprocess.json.

    python make_preprocess.py

It needs Pillow, numpy, torch, torchvision, transformers and open_clip; preprocess.json records
their versions. It reads images/ and the photos in ../../../testdata/photos.

For each case: "kind" (transformers or open_clip), the "config" as in its file, and for each
photo the hashes of the resized and cropped pixels and of the float32 input, or "error".
transformers' classes are those that use Pillow. It prints by how much the results of the
classes that use torchvision differ.
"""

import hashlib
import json
import pathlib
import warnings

import numpy as np
import open_clip
import PIL
import torch
import torchvision
import transformers
from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict
from PIL import Image
from torchvision import transforms
from transformers.models.clip.image_processing_clip import CLIPImageProcessor
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil
from transformers.models.siglip.image_processing_siglip import SiglipImageProcessor

warnings.simplefilter("ignore")
HERE = pathlib.Path(__file__).parent
PHOTOS = [HERE / "../../../testdata/photos" / n for n in ("000000084284.jpg", "000000255165.jpg", "000000557172.jpg")]
ODD = ["jpeg_420.jpg", "jpeg_grey.jpg", "jpeg_cmyk_adobe.jpg", "jpeg_size_17x1.jpg", "jpeg_size_33x7.jpg", "png_colour6_8bit.png",
       "png_colour4_8bit.png", "png_colour3_8bit.png", "png_colour0_1bit.png", "png_colour0_16bit.png", "png_faint_alpha.png", "webp_lossless_alpha.webp"]
IMAGES = [HERE / "images" / n for n in ODD]
OPENAI = {"image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711]}

# The first three are the files of openai/clip-vit-base-patch32, google/siglip-base-patch16-224 and
# google/siglip2-base-patch16-224, as published.
TRANSFORMERS = [
    {"crop_size": 224, "do_center_crop": True, "do_normalize": True, "do_resize": True, "feature_extractor_type": "CLIPFeatureExtractor", **OPENAI, "resample": 3, "size": 224},
    {"do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5, 0.5, 0.5], "image_processor_type": "SiglipImageProcessor", "image_std": [0.5, 0.5, 0.5], "processor_class": "SiglipProcessor", "resample": 3, "rescale_factor": 0.00392156862745098, "size": {"height": 224, "width": 224}},
    {"do_convert_rgb": None, "do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5, 0.5, 0.5], "image_processor_type": "SiglipImageProcessor", "image_std": [0.5, 0.5, 0.5], "processor_class": "SiglipProcessor", "resample": 2, "rescale_factor": 0.00392156862745098, "size": {"height": 224, "width": 224}},
    {"image_processor_type": "CLIPImageProcessor"},
    {"image_processor_type": "SiglipImageProcessorFast"},
    {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 40}, "crop_size": {"height": 25, "width": 25}, "resample": 2},
    {"image_processor_type": "CLIPImageProcessor", "size": {"height": 36, "width": 36}, "crop_size": 31, "resample": 1},
    {"image_processor_type": "CLIPImageProcessor", "size": 32, "do_center_crop": True, "crop_size": 32, "resample": 4, "do_normalize": False},
    {"image_processor_type": "SiglipImageProcessor", "size": {"height": 48, "width": 48}, "resample": 5, "rescale_factor": 0.00784313725490196, "image_mean": 0.4, "image_std": [1, 0.3, 0.7]},
    {"image_processor_type": "SiglipImageProcessor", "size": [32, 32], "do_rescale": False},
]
OPEN_CLIP = [
    {},
    {"size": 224, "mode": "RGB", "mean": [0.48145466, 0.4578275, 0.40821073], "std": [0.26862954, 0.26130258, 0.27577711], "interpolation": "bicubic", "resize_mode": "shortest", "fill_color": 0},
    {"size": [224, 224], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "squash"},
    {"size": 33, "interpolation": "bilinear", "resize_mode": "longest", "fill_color": 0},
    {"size": 32, "interpolation": "random", "resize_mode": "longest", "fill_color": 77},
    {"size": 31, "interpolation": "bilinear", "resize_mode": "squash"},
    {"size": 25, "interpolation": "bilinear", "mean": None},
]


def sha(a):
    return hashlib.sha256(a.tobytes()).hexdigest()


def transformers_case(config):
    kind = config.get("image_processor_type", "CLIP")
    classes = (CLIPImageProcessorPil, CLIPImageProcessor) if kind.startswith("CLIP") else (SiglipImageProcessorPil, SiglipImageProcessor)
    settings = {k: v for k, v in config.items() if k not in ("image_processor_type", "feature_extractor_type", "processor_class")}
    if settings.get("do_convert_rgb", 1) is None:
        del settings["do_convert_rgb"]  # null leaves the class's own setting, true
    pil, fast = (c(**settings) for c in classes)
    photos, most, differ, values = [], 0.0, 0, 0
    for path in PHOTOS + IMAGES:
        try:
            pixels = pil(Image.open(path), do_rescale=False, do_normalize=False)["pixel_values"][0]
            assert pixels.dtype == np.uint8
            got = pil(Image.open(path))["pixel_values"][0]
            assert got.dtype == np.float32
        except Exception as e:
            photos.append({"file": path.name, "error": type(e).__name__})
            continue
        photos.append({"file": path.name, "pixels": sha(np.ascontiguousarray(pixels.transpose(1, 2, 0))), "f32": sha(np.ascontiguousarray(got))})
        if path in PHOTOS and config.get("resample", 3) in (2, 3):  # torchvision has no other filters
            other = fast(Image.open(path), return_tensors="np")["pixel_values"][0]
            samples = fast(Image.open(path), do_rescale=False, do_normalize=False, return_tensors="np")["pixel_values"][0]
            most = max(most, float(np.abs(other - got).max()))
            differ += int((samples != pixels).sum())
            values += got.size
    if values:
        print(f"{config}\n  torchvision instead of Pillow: {differ} of {values} samples differ; the input differs by at most {most:.4g}")
    return {"kind": "transformers", "config": config, "photos": photos}


def open_clip_case(config):
    cfg = PreprocessCfg(**merge_preprocess_dict(PreprocessCfg(), config))
    whole = image_transform_v2(cfg, is_train=False)
    photos = []
    for path in PHOTOS + IMAGES:
        try:
            got = whole(Image.open(path)).numpy()
            pixels = transforms.Compose(whole.transforms[:-2])(Image.open(path))
        except Exception as e:
            photos.append({"file": path.name, "error": type(e).__name__})
            continue
        photos.append({"file": path.name, "pixels": sha(np.asarray(pixels)), "f32": sha(got)})
    return {"kind": "open_clip", "config": {"model_cfg": {}, "preprocess_cfg": config}, "photos": photos}


def main():
    versions = {"Pillow": PIL.__version__, "numpy": np.__version__, "torch": torch.__version__, "torchvision": torchvision.__version__,
                "transformers": transformers.__version__, "open_clip": open_clip.__version__}
    cases = [transformers_case(c) for c in TRANSFORMERS] + [open_clip_case(c) for c in OPEN_CLIP]
    lines = ",\n".join("    " + json.dumps(c) for c in cases)
    (HERE / "preprocess.json").write_text('{\n  "versions": ' + json.dumps(versions) + ',\n  "cases": [\n' + lines + "\n  ]\n}\n")


if __name__ == "__main__":
    main()
