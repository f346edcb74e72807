package table_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/data/table"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"
)

func write[T any](t *testing.T, rows []T, options ...parquet.WriterOption) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "photos.parquet")
	if err := parquet.WriteFile(path, rows, options...); err != nil {
		t.Fatal(err)
	}
	return path
}

// read returns the rows of a table as "key data path", with paths below the table's folder.
func read(t *testing.T, path string) (rows []string, err error) {
	t.Helper()
	for p, e := range table.Photos(path) {
		if e != nil {
			return rows, e
		}
		rows = append(rows, fmt.Sprintf("%s|%s|%s", p.Key, p.Data, strings.TrimPrefix(p.Path, filepath.Dir(path)+"/")))
	}
	return rows, nil
}

// The image column of Hugging Face's data sets.
type image struct {
	Bytes []byte  `parquet:"bytes,optional"`
	Path  *string `parquet:"path,optional"`
}

func TestPhotos(t *testing.T) {
	a, b := "a.jpg", "sub/b.jpg"
	type hf struct {
		Image   image  `parquet:"image"`
		Caption string `parquet:"caption"`
	}
	type img2dataset struct {
		Key string `parquet:"key"`
		Jpg []byte `parquet:"jpg,optional"`
		URL string `parquet:"url"`
	}
	type paths struct {
		Path string `parquet:"image_path"`
		ID   int64  `parquet:"id"`
	}
	for name, c := range map[string]struct {
		path string
		want []string
	}{
		"Hugging Face": {write(t, []hf{{image{[]byte("AA"), &a}, "x"}, {image{nil, &b}, "y"}, {image{}, "z"}}), []string{"0|AA|", "1||sub/b.jpg", "2||"}},
		"img2dataset":  {write(t, []img2dataset{{"k1", []byte("B"), "u"}, {"k2", nil, "v"}}), []string{"k1|B|", "k2||"}},
		"paths":        {write(t, []paths{{"a.jpg", 7}, {"/tmp/b.jpg", 9}}), []string{"7||a.jpg", "9||/tmp/b.jpg"}},
		"no rows":      {write(t, []paths{}), nil},
	} {
		got, err := read(t, c.path)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// Rows keep their order over pages and groups of rows, and the columns stay beside each other.
func TestManyPages(t *testing.T) {
	type row struct {
		Key string `parquet:"key"`
		Jpg []byte `parquet:"jpg,optional"`
	}
	var rows []row
	var want []string
	for i := range 5000 {
		r := row{Key: fmt.Sprint("k", i), Jpg: bytes.Repeat([]byte{'a' + byte(i%26)}, i%97)}
		if len(r.Jpg) == 0 {
			r.Jpg = nil
		}
		rows, want = append(rows, r), append(want, fmt.Sprintf("%s|%s|", r.Key, r.Jpg))
	}
	got, err := read(t, write(t, rows, parquet.MaxRowsPerRowGroup(700), parquet.PageBufferSize(1000), parquet.Compression(&parquet.Snappy)))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for range table.Photos(write(t, rows)) {
		break // leaving early ends the stream
	}
}

func TestErrors(t *testing.T) {
	type captions struct {
		Caption string `parquet:"caption"`
	}
	type lists struct {
		Key string   `parquet:"key"`
		Jpg [][]byte `parquet:"jpg"`
	}
	good := write(t, []struct {
		Jpg []byte `parquet:"jpg"`
	}{{[]byte(strings.Repeat("photo", 100))}})
	data, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	cut := filepath.Join(t.TempDir(), "cut.parquet")
	if err := os.WriteFile(cut, data[:len(data)/2], 0o666); err != nil {
		t.Fatal(err)
	}
	for path, word := range map[string]string{
		write(t, []captions{{"x"}}):              `it has ["caption"]`,
		write(t, []lists{{"k", nil}}):            "no column of this table has photos",
		cut:                                      "not a Parquet table",
		filepath.Join(t.TempDir(), "no.parquet"): "no such file",
	} {
		_, err := read(t, path)
		if err == nil || !strings.Contains(err.Error(), word) || !strings.HasPrefix(err.Error(), path+": ") {
			t.Errorf("got %v, want %q", err, word)
		}
	}
	// Any damaged byte is an error or is not noticed, but never ends the program.
	for i := range data {
		damaged := bytes.Clone(data)
		damaged[i] ^= 0x55
		if err := os.WriteFile(cut, damaged, 0o666); err != nil {
			t.Fatal(err)
		}
		read(t, cut)
	}
}
