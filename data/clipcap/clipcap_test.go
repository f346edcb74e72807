package clipcap_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/data/clipcap"
	"cyclecap/data/coco"
	"cyclecap/torch"

	"github.com/google/go-cmp/cmp"
)

// TestOpen checks the reader against files written by Python.
func TestOpen(t *testing.T) {
	text, err := os.ReadFile("testdata/clipcap.json")
	if err != nil {
		t.Fatal(err)
	}
	var expected struct {
		Files map[string]struct {
			Rows     [][]float32
			Captions []struct {
				ID       *int64 `json:"id"`
				ImageID  any    `json:"image_id"`
				Caption  string `json:"caption"`
				Row      int    `json:"clip_embedding"`
				FileName string `json:"filename"`
			}
		}
	}
	if err := json.Unmarshal(text, &expected); err != nil {
		t.Fatal(err)
	}
	ids := map[string]int64{"318556": 318556, "116100": 116100}
	dtypes := map[string]torch.DType{"clipcap.pkl": torch.Float16, "clipcap-conceptual.pkl": torch.Float32}
	if len(expected.Files) != len(dtypes) {
		t.Fatalf("%d files are described", len(expected.Files))
	}
	for name, want := range expected.Files {
		t.Run(name, func(t *testing.T) {
			f, err := clipcap.Open(filepath.Join("testdata", name))
			if err != nil {
				t.Fatal(err)
			}
			if f.Rows != len(want.Rows) || f.Width != 6 || f.DType != dtypes[name] {
				t.Errorf("%d rows of %d %v", f.Rows, f.Width, f.DType)
			}
			var captions []clipcap.Caption
			for i, c := range want.Captions {
				w := clipcap.Caption{ID: coco.Int(int64(i)), Caption: c.Caption, Row: c.Row, FileName: c.FileName}
				if c.ID != nil {
					w.ID = coco.Int(*c.ID)
				}
				switch v := c.ImageID.(type) {
				case string:
					w.ImageID = coco.Int(ids[v])
				case float64:
					w.ImageID = coco.Int(int64(v))
				}
				captions = append(captions, w)
			}
			if diff := cmp.Diff(captions, f.Captions); diff != "" {
				t.Error(diff)
			}
			for first := range want.Rows {
				dst := make([]float32, 6*(len(want.Rows)-first))
				if err := f.Read(first, dst); err != nil {
					t.Fatal(err)
				}
				var rows []float32
				for _, r := range want.Rows[first:] {
					rows = append(rows, r...)
				}
				if diff := cmp.Diff(rows, dst); diff != "" {
					t.Error(diff)
				}
			}
			if err := f.Read(1, make([]float32, 6*len(want.Rows))); err == nil {
				t.Error("rows after the last can be read")
			}
		})
	}
}

func TestRefused(t *testing.T) {
	good, err := os.ReadFile("testdata/clipcap.pkl")
	if err != nil {
		t.Fatal(err)
	}
	change := func(from, to string) []byte {
		out := bytes.Replace(good, []byte(from), []byte(to), 1)
		if bytes.Equal(out, good) {
			t.Fatalf("no %q in the file", from)
		}
		return out
	}
	file := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"runs a command":          {file("clipcap-system.pkl"), "posix.system"},
		"runs one in its storage": {file("clipcap-nested.pkl"), "posix.system"},
		"a torch.save file":       {file("../../../weights/testdata/zip.pt"), "zip file"},
		"a legacy file":           {file("../../../weights/testdata/legacy.pt"), "want a dict of ClipCap features"},
		"text":                    {[]byte("hello"), "a text file"},
		"empty":                   {nil, "empty"},
		"cut":                     {good[:len(good)-20], "unexpected end of data"},
		"cut in the features":     {good[:300], "unexpected end of data"},
		"no captions":             {change("captions", "kaptions"), `no list "captions"`},
		"no features":             {change("clip_embedding", "klip_embedding"), `no "clip_embedding"`},
		"row behind the last":     {bytes.Replace(good, []byte("K\x02u"), []byte("K\x03u"), 1), "captions[2] refers to row 3"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.pkl")
			if err := os.WriteFile(path, test.data, 0o666); err != nil {
				t.Fatal(err)
			}
			_, err := clipcap.Open(path)
			if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("want %q: %v", test.want, err)
			}
		})
	}
	if _, err := os.Stat("/tmp/cyclecap-was-here"); err == nil {
		t.Error("a pickle was run")
	}
}

// shared makes a pickle in which captions, given as opcodes that follow the 1 MiB
// string in memo entry 0, refer to one row of features of a width.
func shared(width int, captions string) []byte {
	text := func(s string) string {
		return string(binary.LittleEndian.AppendUint32([]byte("X"), uint32(len(s)))) + s
	}
	num := func(n int) string { return string(binary.LittleEndian.AppendUint64([]byte("\x8a\x08"), uint64(n))) }
	storage := "\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}.\x80\x02(" + text("storage") + "ctorch\nFloatStorage\n" + text("0") + text("cpu") +
		num(width) + "NtQ.\x80\x02]" + text("0") + "a." + string(binary.LittleEndian.AppendUint64(nil, uint64(width))) + strings.Repeat("\x00", 4*width)
	return []byte("\x80\x02" + text(strings.Repeat("c", 1<<20)) + "q\x000" + text("image_id") + "q\x010" + text("caption") + "q\x020" + text("clip_embedding") + "q\x030" +
		"}(h\x03ctorch._utils\n_rebuild_tensor_v2\n(ctorch.storage\n_load_from_bytes\nB" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(storage)))) + storage +
		"\x85RK\x00(K\x01" + num(width) + "t(" + num(width) + "K\x01t\x89}tR" + text("captions") + captions + "u.")
}

// TestShared has files whose captions share what they refer to: their size says
// nothing of the memory that the captions and their features would take.
func TestShared(t *testing.T) {
	const caption = "}(h\x01K\x07h\x02U\x05shorth\x03K\x00u"
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"20,000 captions that are one string": {shared(4, "]("+strings.Repeat("}(h\x01K\x07h\x02h\x00h\x03K\x00u", 20000)+"e"), "its captions would take more than"},
		"3,000,000 times one caption":         {shared(4, "]"+caption+"q\x04a("+strings.Repeat("h\x04", 3000000)+"e"), "its captions would take more than"},
		"one row of a million, 20,000 times":  {shared(1000000, "]("+strings.Repeat(caption, 20000)+"e"), "take more than 64 times"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.pkl")
			if err := os.WriteFile(path, test.data, 0o666); err != nil {
				t.Fatal(err)
			}
			if _, err := clipcap.Open(path); err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("want %q: %v", test.want, err)
			}
		})
	}
	path := filepath.Join(t.TempDir(), "x.pkl")
	if err := os.WriteFile(path, shared(4, "]("+strings.Repeat(caption, 20000)+"e"), 0o666); err != nil {
		t.Fatal(err)
	}
	if f, err := clipcap.Open(path); err != nil || len(f.Captions) != 20000 {
		t.Errorf("20,000 short captions of one photo: %v", err)
	}
}

// Blocks returns any rows in any order, starting anywhere.
func TestBlocks(t *testing.T) {
	f, err := clipcap.Open("testdata/clipcap.pkl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	all := make([]float32, f.Rows*f.Width)
	if err := f.Read(0, all); err != nil {
		t.Fatal(err)
	}
	rows := []int{2, 0, 0, 1, 2}
	for first := range rows {
		var got, want []float32
		for b, err := range f.Blocks(context.Background(), rows, first) {
			if err != nil {
				t.Fatal(err)
			}
			if b.First != first+len(got)/f.Width {
				t.Errorf("a block begins at %d after %d rows", b.First, len(got)/f.Width)
			}
			got = append(got, b.Values...)
		}
		for _, r := range rows[first:] {
			want = append(want, all[r*f.Width:(r+1)*f.Width]...)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
	}
}
