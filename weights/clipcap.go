package weights

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"

	"cyclecap/internal/atomicfile"
	"cyclecap/torch"
	"cyclecap/weights/internal/pickle"
)

// ClipCapFeatures is a file of features as ClipCap's parse_coco.py and
// parse_conceptual.py write it: Python's pickle of
//
//	{"clip_embedding": tensor [n, width], "captions": [{"image_id": …, "caption": …, "clip_embedding": row, …}]}
//
// The tensor is of CLIP's image features, in half precision where they were
// computed on a GPU. The file doesn't say which CLIP.
type ClipCapFeatures struct {
	Path     string
	Rows     int
	Width    int
	DType    torch.DType
	Captions []ClipCapCaption // in the file's order
	at       int64            // of the first row in the file
}

// ClipCapCaption is a caption with the row of its photo's features.
type ClipCapCaption struct {
	ImageID int64 // the file may have it as a string of digits
	// ID is the annotation's; its place in the list where the file has none.
	ID       int64
	Caption  string
	Row      int
	FileName string // parse_conceptual.py's; else empty
}

// ClipCap's files have some 20 steps a caption, and the captions of COCO, or of
// a part of Conceptual Captions.
const (
	clipCapSteps = 64 << 20
	clipCapBytes = 1 << 30
)

// rawBytes is a bytes object of a pickle, as part of its file.
type rawBytes struct {
	b  []byte
	at int
}

// OpenClipCapFeatures reads the captions of such a file, and where its features
// are. Nothing of the file is run: it may name only what a tensor takes.
func OpenClipCapFeatures(path string) (*ClipCapFeatures, error) {
	f := &ClipCapFeatures{Path: path}
	if err := mapped(path, f.parse); err != nil {
		return nil, &Error{path, atomicfile.Plain(err)}
	}
	return f, nil
}

func (f *ClipCapFeatures) parse(in []byte) error {
	if len(in) < 2 || in[0] != 0x80 || in[1] > 5 {
		what := looksLike(in)
		if bytes.HasPrefix(in, []byte("PK\x03\x04")) {
			what = "a zip file (of torch.save?)"
		}
		return fmt.Errorf("%s; a pickle of ClipCap's features is needed, as its parse_coco.py writes it", what)
	}
	u := &unpickler{storages: map[string]*storage{}}
	m := u.machine()
	m.MaxSteps, m.MaxBytes = clipCapSteps, clipCapBytes
	m.Bytes = func(b []byte, at int) (any, error) { return rawBytes{b, at}, nil }
	m.Persistent = func(any) (any, error) { return nil, fmt.Errorf("a persistent id, which plain pickles don't have") }
	m.Find = func(g pickle.Global) error {
		if g == (pickle.Global{Module: "torch.storage", Name: "_load_from_bytes"}) {
			return nil
		}
		return u.find(g)
	}
	m.Call = func(g pickle.Global, args pickle.Tuple) (any, error) {
		if g.Name != "_load_from_bytes" {
			return u.call(g, args)
		}
		// The bytes are a file of torch.save's older form, of one storage.
		var raw rawBytes
		if len(args) == 1 {
			raw, _ = args[0].(rawBytes)
		}
		if raw.b == nil {
			return nil, fmt.Errorf("%v without bytes", g)
		}
		object, err := legacyObject(raw.b)
		if err != nil {
			return nil, fmt.Errorf("the storage of a tensor: %w", err)
		}
		s, ok := object.(*storage)
		if !ok {
			return nil, fmt.Errorf("a %s instead of the storage of a tensor", typeName(object))
		}
		s.offset += int64(raw.at)
		return s, nil
	}
	value, _, err := m.Load(in)
	if err != nil {
		return err
	}
	root, ok := value.(*pickle.Dict)
	if !ok {
		return fmt.Errorf("it holds a %s, not a dict of ClipCap's features", typeName(value))
	}
	if err := f.features(root); err != nil {
		return err
	}
	return f.captions(root)
}

func (f *ClipCapFeatures) features(root *pickle.Dict) error {
	v, ok := root.Get("clip_embedding")
	if !ok {
		return fmt.Errorf(`it has no "clip_embedding": is it a file of ClipCap's features?`)
	}
	t, ok := v.(*tensor)
	switch {
	case !ok:
		return fmt.Errorf(`"clip_embedding" is a %s, not a tensor`, typeName(v))
	case len(t.shape) != 2 || t.shape[1] < 1 || t.shape[0] < 1:
		return fmt.Errorf(`"clip_embedding" has shape %v, not [n, width]`, t.shape)
	case !slices.Equal(t.strides, contiguous(t.shape)):
		return fmt.Errorf(`"clip_embedding" has shape %v and strides %v: its rows don't follow each other`, t.shape, t.strides)
	}
	switch t.dtype {
	case torch.Float32, torch.Float16, torch.BFloat16, torch.Float64:
	default:
		return fmt.Errorf(`"clip_embedding" is of %v, which features aren't`, t.dtype)
	}
	f.Rows, f.Width, f.DType = int(t.shape[0]), int(t.shape[1]), t.dtype
	f.at = t.storage.offset + t.offset*t.dtype.Size()
	return nil
}

func (f *ClipCapFeatures) captions(root *pickle.Dict) error {
	v, ok := root.Get("captions")
	list, isList := v.(*pickle.List)
	if !ok || !isList {
		return fmt.Errorf(`it has no list "captions": is it a file of ClipCap's features?`)
	}
	f.Captions = make([]ClipCapCaption, 0, len(list.Items))
	for i, item := range list.Items {
		d, ok := item.(*pickle.Dict)
		if !ok {
			return fmt.Errorf("captions[%d] is a %s, not a dict", i, typeName(item))
		}
		c := ClipCapCaption{ID: int64(i)}
		var err error
		if c.Caption, ok = value(d, "caption").(string); !ok {
			return fmt.Errorf(`captions[%d] has no text "caption"`, i)
		}
		row, ok := value(d, "clip_embedding").(int64)
		if !ok || row < 0 || row >= int64(f.Rows) {
			return fmt.Errorf(`captions[%d] is of row %s ("clip_embedding") of %d`, i, brief(value(d, "clip_embedding")), f.Rows)
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

func integer(v any) (int64, error) {
	switch v := v.(type) {
	case int64:
		return v, nil
	case string:
		if n, err := strconv.ParseInt(v, 10, 64); err == nil {
			return n, nil
		}
	}
	return 0, fmt.Errorf("is %.40q, not a number", brief(v))
}

// Read reads rows first, first+1, … into dst, [n, Width], as f32.
func (f *ClipCapFeatures) Read(first int, dst []float32) error {
	n := len(dst) / f.Width
	if first < 0 || first+n > f.Rows || n*f.Width != len(dst) {
		return fmt.Errorf("%s: rows %d to %d of %d", f.Path, first, first+n, f.Rows)
	}
	if n == 0 {
		return nil
	}
	h, err := os.Open(f.Path)
	if err != nil {
		return err
	}
	defer h.Close()
	return torch.Scope(func() error {
		size := int64(f.Width) * f.DType.Size()
		raw := torch.Empty([]int64{int64(n) * size}, torch.WithDType(torch.Uint8), torch.WithDevice(torch.CPU))
		if _, err := h.ReadAt(torch.Data[uint8](raw), f.at+int64(first)*size); err != nil {
			return &Error{f.Path, err}
		}
		copy(dst, torch.ToSlice[float32](raw.ViewDType(f.DType)))
		return nil
	})
}
