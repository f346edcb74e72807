package photo

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
)

// ParseTransformers reads the settings of transformers' CLIPImageProcessor or
// SiglipImageProcessor: a preprocessor_config.json, or the processor_config.json in which
// transformers 5 stores them. A file that does not name the processor's class is read as of
// class other, one of these two names. A setting that would change the numbers and is not
// supported is an error.
//
// The results equal those of the classes CLIPImageProcessorPil and SiglipImageProcessorPil,
// and of the only ones before version 4.46. The classes that transformers 5 prefers resize with
// torchvision instead of Pillow, which rounds otherwise.
func ParseTransformers(data []byte, other string) (Preprocess, error) {
	all, err := object(data)
	if err != nil {
		return Preprocess{}, err
	}
	if inner, ok := all["image_processor"]; ok {
		if all, err = object(inner); err != nil {
			return Preprocess{}, fmt.Errorf("image_processor: %w", err)
		}
	}
	c := config{all, map[string]bool{}}
	p, err := c.transformers(other)
	if err != nil {
		return Preprocess{}, err
	}
	for _, key := range slices.Sorted(maps.Keys(c.all)) {
		if c.seen[key] || ignored[key] {
			continue
		}
		if v := strings.TrimSpace(string(c.all[key])); v != "null" && v != "false" {
			return Preprocess{}, fmt.Errorf("%s is %.80s, and this setting is not supported", key, v)
		}
	}
	return p, nil
}

// ignored are the settings of an image processor that change no number here.
var ignored = map[string]bool{
	// A photo that is not RGB is an error in Python where this is false.
	"do_convert_rgb": true,
	// transformers' own class attribute of both processors is false, and no file changes it.
	"default_to_square": true,
	"processor_class":   true, "auto_map": true, "_valid_processor_keys": true, "transformers_version": true,
	"return_tensors": true, "data_format": true, "input_data_format": true, "device": true,
	"disable_grouping": true, "_commit_hash": true, "name_or_path": true, "_name_or_path": true,
	"image_seq_length": true, "backend": true,
}

// transformers reads the settings of an image processor.
func (c config) transformers(other string) (p Preprocess, err error) {
	class := other
	for _, key := range []string{"feature_extractor_type", "image_processor_type"} {
		if err := c.get(key, &class); err != nil {
			return p, err
		}
	}
	name := class
	for _, suffix := range []string{"Fast", "Pil"} {
		name = strings.TrimSuffix(name, suffix)
	}
	crop := false
	switch name {
	case "CLIPImageProcessor", "CLIPFeatureExtractor":
		p, crop = CLIP(224), true
	case "SiglipImageProcessor", "SiglipFeatureExtractor":
		p = SigLIP(224)
	default:
		return p, fmt.Errorf("image_processor_type is %q: only CLIPImageProcessor and SiglipImageProcessor are supported", class)
	}
	p.Factor, p.Transformers = 1./255, true

	resize, rescale, normalize := true, true, true
	resample := 3
	for _, v := range []struct {
		key string
		to  any
	}{
		{"do_resize", &resize}, {"do_center_crop", &crop}, {"do_rescale", &rescale}, {"do_normalize", &normalize},
		{"resample", &resample}, {"rescale_factor", &p.Factor},
	} {
		if err := c.get(v.key, v.to); err != nil {
			return p, err
		}
	}
	if !resize {
		return p, fmt.Errorf("do_resize is false: photos are always resized here")
	}
	if resample < 0 || resample >= len(pillowFilters) {
		return p, fmt.Errorf("resample is %d: must be between 0 and %d", resample, len(pillowFilters)-1)
	}
	p.Filter = pillowFilters[resample]
	if p.Filter == nearestFilter {
		return p, fmt.Errorf("resample is 0 (nearest), which is not supported")
	}
	if err := c.triple("image_mean", &p.Mean); err != nil {
		return p, err
	}
	if err := c.triple("image_std", &p.Std); err != nil {
		return p, err
	}
	if !rescale {
		p.Factor = 1
	}
	if p.Factor == 0 {
		return p, fmt.Errorf("rescale_factor is 0")
	}
	if !normalize {
		p.Mean, p.Std = [3]float32{}, [3]float32{1, 1, 1}
	}

	side, square, err := c.size("size", p.Size, p.Resize == Squash, false)
	if err != nil {
		return p, err
	}
	p.Resize = Shortest
	if square {
		p.Resize = Squash
	}
	cropped, _, err := c.size("crop_size", 224, true, true)
	if err != nil {
		return p, err
	}
	switch {
	case !crop && !square:
		return p, fmt.Errorf("size is the shortest_edge and do_center_crop is false: photos would not become squares")
	case !crop:
		p.Size = side
	case cropped > side:
		return p, fmt.Errorf("crop_size %d is larger than size %d, which is not supported", cropped, side)
	default:
		p.Size = cropped
		if side > cropped {
			p.Side = side
		}
	}
	return p, p.check()
}

// ParseOpenCLIP reads the preprocess_cfg of open_clip's open_clip_config.json. Size is 0 if
// the file does not say it: then it is that of the model.
func ParseOpenCLIP(data []byte) (p Preprocess, err error) {
	p = CLIP(0)
	all, err := object(data)
	if err != nil {
		return p, err
	}
	inner, ok := all["preprocess_cfg"]
	if !ok || string(inner) == "null" {
		return p, nil
	}
	if all, err = object(inner); err != nil {
		return p, fmt.Errorf("preprocess_cfg: %w", err)
	}
	c := config{all, map[string]bool{}}
	if err := c.openCLIP(&p); err != nil {
		return p, fmt.Errorf("preprocess_cfg: %w", err)
	}
	return p, nil
}

// openCLIP reads a preprocess_cfg. open_clip ignores the keys that it does not know.
func (c config) openCLIP(p *Preprocess) error {
	mode, filter, resize, fill := "RGB", "bicubic", "shortest", 0
	for _, v := range []struct {
		key string
		to  any
	}{{"mode", &mode}, {"interpolation", &filter}, {"resize_mode", &resize}, {"fill_color", &fill}} {
		if err := c.get(v.key, v.to); err != nil {
			return err
		}
	}
	if mode != "RGB" {
		return fmt.Errorf("mode is %q: only RGB is supported", mode)
	}
	switch filter {
	case "bicubic", "random": // random concerns training only
	case "bilinear":
		p.Filter = Bilinear
	default:
		return fmt.Errorf("interpolation is %q: must be bicubic, bilinear or random", filter)
	}
	switch resize {
	case "shortest":
	case "squash":
		p.Resize = Squash
	case "longest":
		p.Resize = Longest
	default:
		return fmt.Errorf("resize_mode is %q: must be shortest, squash or longest", resize)
	}
	if fill < 0 || fill > 255 {
		return fmt.Errorf("fill_color is %d: must be between 0 and 255", fill)
	}
	p.Fill = uint8(fill)
	if err := c.triple("mean", &p.Mean); err != nil {
		return err
	}
	if err := c.triple("std", &p.Std); err != nil {
		return err
	}
	size, _, err := c.size("size", 0, true, true)
	if err != nil {
		return err
	}
	if p.Size = size; size == 0 {
		size = 1
	}
	checked := *p
	checked.Size = size
	return checked.check()
}

// config is a JSON object whose keys are read one by one.
type config struct {
	all  map[string]json.RawMessage
	seen map[string]bool
}

func object(data []byte) (map[string]json.RawMessage, error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, fmt.Errorf("not a JSON object: %w", err)
	}
	return all, nil
}

// get reads a key into to, which keeps its value if the key is absent or null.
func (c config) get(key string, to any) error {
	c.seen[key] = true
	raw, ok := c.all[key]
	if !ok || string(raw) == "null" {
		return nil
	}
	if err := json.Unmarshal(raw, to); err != nil {
		return fmt.Errorf("%s is %.80s: %w", key, raw, err)
	}
	return nil
}

// triple reads one number per channel, or one for all.
func (c config) triple(key string, to *[3]float32) error {
	var list []float64
	if err := c.get(key, &list); err != nil {
		var one float64
		if c.get(key, &one) != nil {
			return fmt.Errorf("%s is %.80s: want three numbers", key, c.all[key])
		}
		list = []float64{one, one, one}
	}
	if list == nil {
		return nil
	}
	if len(list) != 3 {
		return fmt.Errorf("%s has %d numbers, want 3", key, len(list))
	}
	for i, v := range list {
		to[i] = float32(v)
		if math.IsInf(float64(to[i]), 0) {
			return fmt.Errorf("%s holds %v, which is not a float32", key, v)
		}
	}
	return nil
}

// size reads a side in pixels: a number, [height, width], {"height", "width"} or
// {"shortest_edge"}. square reports whether both sides are given. A single number means both
// if single is set, and otherwise the shorter side; an absent key gives side and square.
func (c config) size(key string, side int, square, single bool) (int, bool, error) {
	raw := c.all[key]
	c.seen[key] = true
	if raw == nil || string(raw) == "null" {
		return side, square, nil
	}
	wrong := fmt.Errorf(`%s is %.80s: want a number of pixels, {"shortest_edge": n} or {"height": n, "width": n} with equal sides`, key, raw)
	var one int
	var list []int
	var dict map[string]*int
	switch {
	case json.Unmarshal(raw, &one) == nil:
		square = single
	case json.Unmarshal(raw, &list) == nil && (len(list) == 2 && list[0] == list[1] || len(list) == 1 && single):
		one, square = list[0], true
	case json.Unmarshal(raw, &dict) == nil:
		for k, v := range dict {
			if v == nil {
				delete(dict, k)
			}
		}
		h, w, s := dict["height"], dict["width"], dict["shortest_edge"]
		switch {
		case len(dict) == 2 && h != nil && w != nil && *h == *w:
			one, square = *h, true
		case len(dict) == 1 && s != nil && !single:
			one, square = *s, false
		default:
			return 0, false, wrong
		}
	default:
		return 0, false, wrong
	}
	if one < 1 || one > maxSize {
		return 0, false, fmt.Errorf("%s is %d pixels: must be between 1 and %d", key, one, maxSize)
	}
	return one, square, nil
}
