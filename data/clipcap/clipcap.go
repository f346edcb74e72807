// Package clipcap reads the files of features and captions that ClipCap's
// parse_coco.py and parse_conceptual.py write.
package clipcap

import (
	"context"
	"fmt"
	"iter"
	"os"
	"slices"
	"strconv"

	"cyclecap/internal/pickle"
	"cyclecap/torch"
	"cyclecap/weights"
)

// A File is such a file: Python's pickle of
//
//	{"clip_embedding": tensor [n, width], "captions": [{"image_id": …, "caption": …, "clip_embedding": row, …}]}
//
// The tensor is of CLIP's image features, in half precision where they were
// computed on a GPU. The file doesn't say which CLIP. Features are read when they
// are asked for; Close closes the file.
type File struct {
	Path     string
	Rows     int
	Width    int
	DType    torch.DType
	Captions []Caption // in the file's order
	file     *os.File
	at       int64 // of the first row in the file
}

// Caption is a caption with the row of its photo's features.
type Caption struct {
	ImageID int64 // the file may have it as a string of digits
	// ID is the annotation's; its place in the list where the file has none.
	ID       int64
	Caption  string
	Row      int
	FileName string // parse_conceptual.py's; else empty
}

// ClipCap's files have some 20 steps a caption, and the captions of COCO, or of
// a part of Conceptual Captions.
var limits = weights.PickleLimits{Steps: 64 << 20, Bytes: 1 << 30}

// Open reads the captions of a file, and where its features are. Nothing of the
// file is run: it may name only what a tensor needs.
func Open(path string) (*File, error) {
	value, err := weights.ReadPickle(path, limits)
	if err != nil {
		return nil, err
	}
	f := &File{Path: path}
	root, ok := value.(*pickle.Dict)
	if !ok {
		return nil, fmt.Errorf("%s: it holds a %s, not a dict of ClipCap's features", path, pickle.TypeName(value))
	}
	if err := f.features(root); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := f.captions(root); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f.file, err = os.Open(path)
	return f, err
}

// Close closes the file; rows can't be read any more.
func (f *File) Close() error { return f.file.Close() }

func (f *File) features(root *pickle.Dict) error {
	v, ok := root.Get("clip_embedding")
	if !ok {
		return fmt.Errorf(`it has no "clip_embedding": is it a file of ClipCap's features?`)
	}
	t, ok := v.(weights.Entry)
	switch {
	case !ok:
		return fmt.Errorf(`"clip_embedding" is a %s, not a tensor`, pickle.TypeName(v))
	case len(t.Shape) != 2 || t.Shape[1] < 1 || t.Shape[0] < 1:
		return fmt.Errorf(`"clip_embedding" has shape %v, not [n, width]`, t.Shape)
	case !slices.Equal(t.Strides, []int64{t.Shape[1], 1}):
		return fmt.Errorf(`"clip_embedding" has shape %v and strides %v: its rows don't follow each other`, t.Shape, t.Strides)
	}
	switch t.DType {
	case torch.Float32, torch.Float16, torch.BFloat16, torch.Float64:
	default:
		return fmt.Errorf(`"clip_embedding" is of %v, which features aren't`, t.DType)
	}
	f.Rows, f.Width, f.DType, f.at = int(t.Shape[0]), int(t.Shape[1]), t.DType, t.Offset
	return nil
}

func (f *File) captions(root *pickle.Dict) error {
	v, ok := root.Get("captions")
	list, isList := v.(*pickle.List)
	if !ok || !isList {
		return fmt.Errorf(`it has no list "captions": is it a file of ClipCap's features?`)
	}
	f.Captions = make([]Caption, 0, len(list.Items))
	for i, item := range list.Items {
		d, ok := item.(*pickle.Dict)
		if !ok {
			return fmt.Errorf("captions[%d] is a %s, not a dict", i, pickle.TypeName(item))
		}
		c := Caption{ID: int64(i)}
		var err error
		if c.Caption, ok = value(d, "caption").(string); !ok {
			return fmt.Errorf(`captions[%d] has no text "caption"`, i)
		}
		row, ok := value(d, "clip_embedding").(int64)
		if !ok || row < 0 || row >= int64(f.Rows) {
			return fmt.Errorf(`captions[%d] is of row %s ("clip_embedding") of %d`, i, plain(value(d, "clip_embedding")), f.Rows)
		}
		c.Row = int(row)
		if c.ImageID, err = integer(value(d, "image_id")); err != nil {
			return fmt.Errorf(`captions[%d]: "image_id" %w`, i, err)
		}
		if id := value(d, "id"); id != nil {
			if c.ID, err = integer(id); err != nil {
				return fmt.Errorf(`captions[%d]: "id" %w`, i, err)
			}
		}
		c.FileName, _ = value(d, "filename").(string)
		f.Captions = append(f.Captions, c)
	}
	return nil
}

func value(d *pickle.Dict, key string) any {
	v, _ := d.Get(key)
	return v
}

// plain prints a plain value; a nested one, which could be without end, only as
// its type.
func plain(v any) string {
	switch v := v.(type) {
	case string, bool, int64, float64:
		return fmt.Sprint(v)
	}
	return pickle.TypeName(v)
}

func integer(v any) (int64, error) {
	switch v := v.(type) {
	case int64:
		return v, nil
	case string:
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("is %.40q, not a number", plain(v))
}

// Read reads rows first, first+1, … into dst, [n, Width], as f32.
func (f *File) Read(first int, dst []float32) error {
	n := len(dst) / f.Width
	if first < 0 || first+n > f.Rows || n*f.Width != len(dst) {
		return fmt.Errorf("%s: rows %d to %d of %d", f.Path, first, first+n, f.Rows)
	}
	if n == 0 {
		return nil
	}
	return torch.Scope(func() error {
		size := int64(f.Width) * f.DType.Size()
		raw := torch.Empty([]int64{int64(n) * size}, torch.WithDType(torch.Uint8), torch.WithDevice(torch.CPU))
		if _, err := f.file.ReadAt(torch.Data[uint8](raw), f.at+int64(first)*size); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		copy(dst, torch.ToSlice[float32](raw.ViewDType(f.DType)))
		return nil
	})
}

// Block is some of the rows that Blocks was asked for.
type Block struct {
	First  int       // place of the first in the list of rows
	Values []float32 // [n, Width]
}

// Blocks reads rows in the order of the list, from the one at place first on, a
// bounded number at a time; those that stand close together in the file are read
// at once.
func (f *File) Blocks(ctx context.Context, rows []int, first int) iter.Seq2[Block, error] {
	const block = 1024
	return func(yield func(Block, error) bool) {
		buf := make([]float32, block*f.Width)
		for at := first; at < len(rows); {
			if err := ctx.Err(); err != nil {
				yield(Block{}, err)
				return
			}
			// As many as lie within a block of the file.
			end, low, high := at, rows[at], rows[at]
			for end < len(rows) && end-at < block {
				l, h := min(low, rows[end]), max(high, rows[end])
				if h-l >= block {
					break
				}
				low, high = l, h
				end++
			}
			if err := f.Read(low, buf[:(high-low+1)*f.Width]); err != nil {
				yield(Block{}, err)
				return
			}
			b := Block{First: at, Values: make([]float32, 0, (end-at)*f.Width)}
			for _, r := range rows[at:end] {
				b.Values = append(b.Values, buf[(r-low)*f.Width:(r-low+1)*f.Width]...)
			}
			if !yield(b, nil) {
				return
			}
			at = end
		}
	}
}
