package photo

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The results of transformers' image processors and of open_clip, bit for bit.
func TestPreprocessConfigs(t *testing.T) {
	text, err := os.ReadFile("testdata/preprocess.json")
	if err != nil {
		t.Fatal(err)
	}
	var e struct {
		Cases []struct {
			Kind   string
			Config json.RawMessage
			Photos []struct{ File, Error, Pixels, F32 string }
		}
	}
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatal(err)
	}
	if len(e.Cases) < 17 {
		t.Fatalf("testdata/preprocess.json holds %d cases, want 17: run testdata/make_preprocess.py", len(e.Cases))
	}
	for i, c := range e.Cases {
		var pre Preprocess
		var err error
		if c.Kind == "open_clip" {
			if pre, err = ParseOpenCLIP(c.Config); pre.Size == 0 {
				pre.Size = 224
			}
		} else {
			pre, err = ParseTransformers(c.Config, "")
		}
		if err != nil {
			t.Errorf("case %d, %s: %v", i, c.Config, err)
			continue
		}
		for _, want := range c.Photos {
			t.Run(fmt.Sprintf("%s %d/%s", c.Kind, i, want.File), func(t *testing.T) {
				path := filepath.Join(photosDir, want.File)
				if _, err := os.Stat(path); err != nil {
					path = filepath.Join("testdata/images", want.File)
				}
				m, err := Decode(path)
				if err != nil {
					t.Fatal(err)
				}
				pixels, err := pre.PixelsRGB(m)
				if (err != nil) != (want.Error != "") {
					t.Fatalf("error %v, the reference's is %q (%s)", err, want.Error, c.Config)
				}
				if err != nil {
					return
				}
				if hash(pixels) != want.Pixels {
					t.Errorf("the pixels differ (%s)", c.Config)
				}
				f32, err := values(pre, m)
				if err != nil {
					t.Fatal(err)
				}
				if floatHash(f32) != want.F32 {
					t.Errorf("the input differs (%s)", c.Config)
				}
			})
		}
	}
}

func TestPreprocessConfigRefused(t *testing.T) {
	clip := `{"image_processor_type": "CLIPImageProcessor", `
	siglip := `{"image_processor_type": "SiglipImageProcessor", `
	for config, want := range map[string]string{
		`[]`: "not a JSON object",
		`{"image_processor_type": "Siglip2ImageProcessor"}`: `image_processor_type is "Siglip2ImageProcessor"`,
		clip + `"do_resize": false}`:                        "do_resize is false",
		clip + `"resample": 0}`:                             "resample is 0",
		clip + `"resample": 6}`:                             "resample is 6",
		clip + `"resample": "bicubic"}`:                     `resample is "bicubic"`,
		clip + `"size": {"longest_edge": 224}}`:             "size is",
		clip + `"size": {"height": 224, "width": 225}}`:     "size is",
		clip + `"size": 200}`:                               "crop_size 224 is larger than size 200",
		clip + `"size": -1}`:                                "size is -1 pixels",
		clip + `"crop_size": {"shortest_edge": 224}}`:       "crop_size is",
		clip + `"do_center_crop": false}`:                   "do_center_crop is false",
		clip + `"image_mean": [0.5, 0.5]}`:                  "image_mean has 2 numbers",
		clip + `"image_std": [0.5, 0, 0.5]}`:                "must not be zero",
		clip + `"image_mean": [1e39, 0, 0]}`:                "not a float32",
		clip + `"rescale_factor": 0}`:                       "rescale_factor is 0",
		clip + `"do_pad": true}`:                            "do_pad is true",
		clip + `"use_square_size": true}`:                   "use_square_size is true",
		siglip + `"size": 224}`:                             "shortest_edge",
		siglip + `"crop_pct": 0.9}`:                         "crop_pct is 0.9",
	} {
		if _, err := ParseTransformers([]byte(config), "CLIPImageProcessor"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", config, err, want)
		}
	}
	for config, want := range map[string]string{
		`{"preprocess_cfg": 5}`:                             "preprocess_cfg",
		`{"preprocess_cfg": {"mode": "L"}}`:                 `mode is "L"`,
		`{"preprocess_cfg": {"interpolation": "nearest"}}`:  `interpolation is "nearest"`,
		`{"preprocess_cfg": {"resize_mode": "crop"}}`:       `resize_mode is "crop"`,
		`{"preprocess_cfg": {"fill_color": 256}}`:           "fill_color is 256",
		`{"preprocess_cfg": {"size": [224, 256]}}`:          "size is [224, 256]",
		`{"preprocess_cfg": {"size": 99999}}`:               "size is 99999 pixels",
		`{"preprocess_cfg": {"mean": "imagenet"}}`:          "mean is",
		`{"preprocess_cfg": {"size": 224, "std": [1,0,1]}}`: "must not be zero",
	} {
		if _, err := ParseOpenCLIP([]byte(config)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want one with %q", config, err, want)
		}
	}
}

// transformers 5 stores the settings of the image processor in processor_config.json.
func TestPreprocessOfProcessor(t *testing.T) {
	got, err := ParseTransformers([]byte(`{"image_processor": {"image_processor_type": "SiglipImageProcessor", "size": {"height": 64, "width": 64}}, "processor_class": "SiglipProcessor"}`), "")
	if err != nil || got != SigLIP(64) {
		t.Errorf("got %+v and error %v, want %+v", got, err, SigLIP(64))
	}
}
