package main

import "fmt"

// The paper's Table 3: what is computed for it.
const (
	trainPhotos   = 82_783  // COCO train2014
	trainCaptions = 414_113 // their captions
	valPhotos     = 40_504  // COCO val2014, captioned
	epochs        = 20
	columns       = 2 // directly and through the CycleGAN
)

// tableRows computes the hours of the paper's Table 3 from the speeds of this run.
func tableRows(r *report) []row {
	rows := []row{}
	if r.Size == "small" {
		return []row{{Name: "hours for the paper's Table 3", Verdict: absent, Note: "this run's models are small"}}
	}
	find := func(key, dtype string, batch int) (row, bool) {
		for _, s := range r.Sections {
			for _, x := range s.Rows {
				if x.Key == key && (dtype == "" || x.DType == dtype) && (batch == 0 || x.Batch == batch) && x.Ours > 0 {
					return x, true
				}
			}
		}
		return row{}, false
	}
	photos, _ := find("photos", "", 0)
	for _, dtype := range dtypes {
		var total float64
		complete := true
		part := func(name, key, of string, batch int, seconds func(figure float64) float64, note string) {
			x, ok := find(key, of, batch)
			if !ok {
				of = "f32"
				x, ok = find(key, of, batch)
			}
			if !ok {
				complete = false
				rows = append(rows, row{Name: name, DType: dtype, Verdict: absent, Note: "its speed was not measured"})
				return
			}
			hours := seconds(x.Ours) / 3600
			total += hours
			if of != dtype {
				note += "; in " + of
			}
			rows = append(rows, row{Name: name, DType: dtype, Verdict: measured, Unit: "h", Ours: hours, Note: note})
		}
		gan := dtype
		if gan == "bf16" {
			gan = "tf32" // it trains in f32
		}
		part("image features", "image", dtype, 256, func(v float64) float64 {
			if photos.Ours > 0 {
				v = min(v, photos.Ours)
			}
			return (trainPhotos + valPhotos) / v
		}, fmt.Sprintf("%d photos of train2014 and %d of val2014; the slower of CLIP at batch 256 and the CPU's decoding (%.0f photos/s)", trainPhotos, valPhotos, photos.Ours))
		part("text features", "text", dtype, 256, func(v float64) float64 { return trainCaptions / v }, fmt.Sprintf("%d captions, batch 256", trainCaptions))
		part("training the decoder", "mapper", dtype, 64, func(ms float64) float64 { return epochs * trainCaptions / 64 * ms / 1000 },
			fmt.Sprintf("%d epochs of %d captions, batch 64, captions of 12 tokens", epochs, trainCaptions))
		part("training the CycleGAN", "cyclegan", gan, 64, func(ms float64) float64 { return epochs * trainCaptions / 64 * ms / 1000 },
			fmt.Sprintf("%d epochs of the larger set, %d features, batch 64", epochs, trainCaptions))
		part("captions", "beam", dtype, 64, func(v float64) float64 { return columns * valPhotos / v },
			fmt.Sprintf("%d photos of val2014 in %d columns, beam 5, batch 64, 20 tokens", valPhotos, columns))
		if complete {
			rows = append(rows, row{Name: "**all of it, on one GPU**", DType: dtype, Verdict: measured, Unit: "GPU-h", Ours: total,
				Note: "without reading COCO from a slow disk, and without the metrics, which take minutes on the CPU"})
		}
	}
	return rows
}
