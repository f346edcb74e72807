package features

import (
	"context"
	"fmt"
	"os"

	"cyclecap/weights"
)

// ImportClipCap makes a store of the photos' features in a file of ClipCap's: a
// row for each photo, by its id, in the order of the captions. The file has a row
// for every caption, and those of one photo are the same features: the first is
// taken. model says what the file doesn't, the CLIP that made them, as Spec.Model
// does. It goes on where it was interrupted.
func ImportClipCap(ctx context.Context, dir string, f *weights.ClipCapFeatures, model string) error {
	var ids []int64
	var rows []int
	seen := map[int64]bool{}
	for _, c := range f.Captions {
		if !seen[c.ImageID] {
			seen[c.ImageID] = true
			ids, rows = append(ids, c.ImageID), append(rows, c.Row)
		}
	}
	info, err := os.Stat(f.Path)
	if err != nil {
		return err
	}
	w, err := Create(dir, Spec{Kind: "images", Model: model, Process: "ClipCap's features, " + f.DType.String(), Width: f.Width, Count: len(ids),
		Inputs: Hash(info.Name(), fmt.Sprint(info.Size()), fmt.Sprint(info.ModTime().UnixNano()))})
	if err != nil {
		return err
	}
	defer w.Keep()
	// Rows that follow each other are read at once.
	const block = 1024
	buf := make([]float32, block*f.Width)
	for at := w.Done(); at < len(rows); {
		if err := ctx.Err(); err != nil {
			return err
		}
		end := at + 1
		for end < len(rows) && end-at < block && rows[end]-rows[at] < block {
			end++
		}
		first, last := rows[at], rows[at]
		for _, r := range rows[at:end] {
			first, last = min(first, r), max(last, r)
		}
		if last-first >= block { // they go back
			end, first, last = at+1, rows[at], rows[at]
		}
		if err := f.Read(first, buf[:(last-first+1)*f.Width]); err != nil {
			return err
		}
		out := make([]float32, 0, (end-at)*f.Width)
		for _, r := range rows[at:end] {
			out = append(out, buf[(r-first)*f.Width:(r-first+1)*f.Width]...)
		}
		if err := w.Add(ctx, ids[at:end], out, nil); err != nil {
			return err
		}
		at = end
	}
	return w.Close(ctx)
}
