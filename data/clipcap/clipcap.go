// Package clipcap reads the files of CLIP features and captions written by
// ClipCap's parse_coco.py and parse_conceptual.py.
package clipcap

import (
	"context"
	"fmt"
	"iter"
	"math"
	"os"
	"slices"
	"strconv"

	"cyclecap/data/coco"
	"cyclecap/internal/pickle"
	"cyclecap/torch"
	"cyclecap/weights"
)

// A File is one of these files. It is a Python pickle of
//
//	{"clip_embedding": tensor [n, width], "captions": [{"image_id": …, "caption": …, "clip_embedding": row, …}]}
//
// The tensor holds CLIP image features, in half precision if they were computed
// on a GPU. The file does not record which CLIP computed them. Features are read
// on demand; Close closes the file.
type File struct {
	Path     string
	Rows     int
	Width    int
	DType    torch.DType
	Captions []Caption // in file order
	file     *os.File
	at       int64 // offset of the first row
}

// A Caption is a caption and the row that holds the features of its photo.
type Caption struct {
	ImageID coco.ID // a string of digits in the file is an integer
	// ID is the id of the annotation, or its index in the list if it has none.
	ID       coco.ID
	Caption  string
	Row      int
	FileName string // only from parse_conceptual.py; otherwise empty
}

// perByte limits the memory for a file, in bytes per byte of pickle. The files of
// parse_coco.py take 15, and those with the shortest captions 28.
const perByte = 48

// maxRepeat is how many times as large as the file the features of all captions
// may be, in float32.
const maxRepeat = 64

// captionCost is what the budget is charged for a caption, besides its strings.
const captionCost = 256

// Open reads the captions of a file and locates its features. It never runs code
// from the pickle, which may refer only to the names that a tensor needs.
func Open(path string) (*File, error) {
	budget := pickle.NewBudget(perByte, math.MaxInt64)
	value, err := weights.ReadPickle(path, budget)
	if err != nil {
		return nil, err
	}
	f := &File{Path: path}
	root, ok := value.(*pickle.Dict)
	if !ok {
		return nil, fmt.Errorf("%s: want a dict of ClipCap features, got a %s", path, pickle.TypeName(value))
	}
	if err := f.features(root); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := f.captions(root, budget); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	// A file has a row for each caption, or for each photo and then five captions
	// for a row, but captions can name one wide row any number of times.
	if most := maxRepeat * info.Size(); int64(len(f.Captions)) > most/int64(4*f.Width) {
		return nil, fmt.Errorf("%s: the features of its %d captions, of width %d, take more than %d times the %d bytes of the file", path, len(f.Captions), f.Width, maxRepeat, info.Size())
	}
	f.file, err = os.Open(path)
	return f, err
}

// Close closes the file; afterwards rows can no longer be read.
func (f *File) Close() error { return f.file.Close() }

func (f *File) features(root *pickle.Dict) error {
	v, ok := root.Get("clip_embedding")
	if !ok {
		return fmt.Errorf(`no "clip_embedding": is this a file of ClipCap features?`)
	}
	t, ok := v.(weights.Entry)
	switch {
	case !ok:
		return fmt.Errorf(`"clip_embedding" is a %s, want a tensor`, pickle.TypeName(v))
	case len(t.Shape) != 2 || t.Shape[1] < 1 || t.Shape[0] < 1:
		return fmt.Errorf(`"clip_embedding" has shape %v, want [n, width]`, t.Shape)
	case !slices.Equal(t.Strides, []int64{t.Shape[1], 1}):
		return fmt.Errorf(`"clip_embedding" has shape %v and strides %v: want a contiguous tensor`, t.Shape, t.Strides)
	}
	switch t.DType {
	case torch.Float32, torch.Float16, torch.BFloat16, torch.Float64:
	default:
		return fmt.Errorf(`"clip_embedding" has dtype %v, want float32, float16, bfloat16 or float64`, t.DType)
	}
	f.Rows, f.Width, f.DType, f.at = int(t.Shape[0]), int(t.Shape[1]), t.DType, t.Offset
	return nil
}

func (f *File) captions(root *pickle.Dict, budget *pickle.Budget) error {
	v, ok := root.Get("captions")
	list, isList := v.(*pickle.List)
	if !ok || !isList {
		return fmt.Errorf(`no list "captions": is this a file of ClipCap features?`)
	}
	for i, item := range list.Items {
		d, ok := item.(*pickle.Dict)
		if !ok {
			return fmt.Errorf("captions[%d] is a %s, want a dict", i, pickle.TypeName(item))
		}
		c := Caption{ID: coco.Int(int64(i))}
		var err error
		if c.Caption, ok = value(d, "caption").(string); !ok {
			return fmt.Errorf(`captions[%d] has no string "caption"`, i)
		}
		row, ok := value(d, "clip_embedding").(int64)
		if !ok || row < 0 || row >= int64(f.Rows) {
			return fmt.Errorf(`captions[%d] refers to row %s ("clip_embedding"), but there are %d rows`, i, plain(value(d, "clip_embedding")), f.Rows)
		}
		c.Row = int(row)
		if c.ImageID, err = id(value(d, "image_id")); err != nil {
			return fmt.Errorf(`captions[%d]: "image_id" %w`, i, err)
		}
		if own := value(d, "id"); own != nil {
			if c.ID, err = id(own); err != nil {
				return fmt.Errorf(`captions[%d]: "id" %w`, i, err)
			}
		}
		c.FileName, _ = value(d, "filename").(string)
		// The same caption can be in the list any number of times.
		if err := budget.Spend(captionCost+len(c.Caption)+len(c.FileName), "captions"); err != nil {
			return err
		}
		f.Captions = append(f.Captions, c)
	}
	return nil
}

func value(d *pickle.Dict, key string) any {
	v, _ := d.Get(key)
	return v
}

// plain formats a plain value; for a nested value, which could be endless, it
// returns only the type.
func plain(v any) string {
	switch v := v.(type) {
	case string, bool, int64, float64:
		return fmt.Sprint(v)
	}
	return pickle.TypeName(v)
}

// id returns an id. The ids of COCO are strings of digits in ClipCap's files.
func id(v any) (id coco.ID, err error) {
	switch v := v.(type) {
	case int64:
		return coco.Int(v), nil
	case string:
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			return coco.Int(n), nil
		}
		return coco.Text(v), nil
	case float64:
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			return id, id.UnmarshalJSON(strconv.AppendFloat(nil, v, 'e', -1, 64))
		}
	}
	return id, fmt.Errorf("is %.40q, want a number or a string", plain(v))
}

// Read reads rows first, first+1, … into dst, [n, Width], as float32.
func (f *File) Read(first int, dst []float32) error {
	n := len(dst) / f.Width
	if first < 0 || first+n > f.Rows || n*f.Width != len(dst) {
		return fmt.Errorf("%s: rows [%d, %d) are out of range: there are %d", f.Path, first, first+n, f.Rows)
	}
	if n == 0 {
		return nil
	}
	return torch.Scope(func() error {
		size := int64(f.Width) * f.DType.Size()
		raw := torch.Empty([]int64{int64(n) * size}, torch.WithDType(torch.Uint8), torch.WithDevice(torch.CPU))
		var err error
		torch.Data(raw, func(data []uint8) { _, err = f.file.ReadAt(data, f.at+int64(first)*size) })
		if err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		copy(dst, torch.ToSlice[float32](raw.ViewDType(f.DType)))
		return nil
	})
}

// A Block is a run of the rows that Blocks was asked for.
type Block struct {
	First  int       // index of the first one in the list of rows
	Values []float32 // [n, Width]
}

// Blocks reads rows in the order of the list, starting at index first, a bounded
// number at a time. Rows that lie close together in the file are read in one go.
func (f *File) Blocks(ctx context.Context, rows []int, first int) iter.Seq2[Block, error] {
	const block = 1024
	return func(yield func(Block, error) bool) {
		buf := make([]float32, min(block, f.Rows)*f.Width)
		for at := first; at < len(rows); {
			if err := ctx.Err(); err != nil {
				yield(Block{}, err)
				return
			}
			// As many rows as fit within one block of the file.
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
