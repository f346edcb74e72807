package sets

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/data/clipcap"
	"cyclecap/data/coco"

	"github.com/google/go-cmp/cmp"
)

func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x.json")
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// checkError checks that err contains all of what, or is nil if what is nil.
func checkError(t *testing.T, err error, what []string) {
	t.Helper()
	if (err != nil) != (what != nil) {
		t.Fatalf("want %q, got %v", what, err)
	}
	for _, s := range what {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("the error does not say %q: %v", s, err)
		}
	}
}

func TestCOCO(t *testing.T) {
	const images = `"images": [{"id": 3, "file_name": "a.jpg", "height": 2}, {"file_name": "b.jpg", "id": 0}]`
	photos := []Photo{{coco.Int(3), "photos/a.jpg"}, {coco.Int(0), "photos/b.jpg"}}
	tests := []struct {
		name, text string
		max        float64
		want       *Set
		err        []string
	}{
		{"in order", `{"info": {"a": [1, {"b": 2}]}, ` + images + `, "annotations": [{"id": 8, "image_id": 3, "caption": "é"}, {"id": 9, "image_id": 0, "caption": "y"}]}`, 0,
			&Set{Photos: photos, Captions: []Caption{{coco.Int(8), coco.Int(3), "é"}, {coco.Int(9), coco.Int(0), "y"}}, Paired: true}, nil},
		{"annotations first", "\uFEFF" + `{"annotations": [{"id": 8, "image_id": 3, "caption": "x"}], ` + images + `}`, 0,
			&Set{Photos: photos, Captions: []Caption{{coco.Int(8), coco.Int(3), "x"}}, Paired: true}, nil},
		{"bad ones within the share", `{` + images + `, "annotations": [{"id": 1, "image_id": 3, "caption": "x"}, {"id": 2, "image_id": 44, "caption": "x"},
			{"id": 5, "image_id": 0, "caption": " \n"}, {"id": 4, "image_id": 0, "caption": "z"}]}`, 0.5,
			&Set{Photos: photos, Captions: []Caption{{coco.Int(1), coco.Int(3), "x"}, {coco.Int(4), coco.Int(0), "z"}}, Paired: true, Bad: Bad{Count: 2, First: []string{
				"annotations[1] (id 2) refers to image 44, which is not in the file", "annotations[2] (id 5) is empty"}}}, nil},
		{"too many", `{` + images + `, "annotations": [{"id": 1, "image_id": 3, "caption": "x"}, {"id": 2, "image_id": 44, "caption": "x"}]}`, 0.25, nil,
			[]string{"1 of 2 captions of", "25 %", "annotations[1] (id 2) refers to image 44"}},
		{"cut", "{" + images + ",\n \"annotations\": [\n{\"id\": 1, \"image_id\": 3,", 1, nil, []string{":3:25: broken JSON: unexpected end"}},
		{"cut between entries", "{" + images + ",\n \"annotations\": [\n{\"id\": 1, \"image_id\": 3, \"caption\": \"x\"},\n", 1, nil, []string{":4:1: broken JSON: unexpected end"}},
		{"broken", "{" + images + ",\n \"annotations\": [{\"id\": 1},\n {\"id\" 2}]}", 1, nil, []string{"annotations[0] (id 1)"}},
		{"broken images", "{\"images\": [{\"id\": 1, \"file_name\": \"a\"},\n {\"id\" 2}]}", 1, nil, []string{":2:8: broken JSON: invalid character '2'"}},
		{"wrong type", "{\"images\": [{\"id\": 1, \"file_name\": \"a\"},\n {\"id\": \"2\", \"file_name\": 7}]}", 1, nil, []string{":2:", "images[1]: file_name: got a number, want a string"}},
		{"a results file", `[{"image_id": 1}]`, 1, nil, []string{":1:1:", "object"}},
		{"no list", `{"images": {}}`, 1, nil, []string{`"images" is not a list`}},
		{"no annotations", `{` + images + `}`, 1, nil, []string{`no "annotations"`}},
		{"twice", `{` + images + `, ` + images + `}`, 1, nil, []string{`duplicate key "images"`}},
		{"more behind", `{` + images + `, "annotations": []}x`, 1, nil, []string{"broken JSON"}},
		{"empty file", ` `, 1, nil, []string{"is empty"}},
		{"same image id", `{"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}], "annotations": []}`, 1, nil, []string{"images[1]", "id 1"}},
		{"same annotation id", `{` + images + `, "annotations": [{"id": 1, "image_id": 3, "caption": "x"}, {"id": 1, "image_id": 3, "caption": "x"}]}`, 1,
			&Set{Photos: photos, Captions: []Caption{{coco.Int(1), coco.Int(3), "x"}, {coco.Int(1), coco.Int(3), "x"}}, Paired: true}, nil},
		{"ids that are strings, and none", `{"images": [{"id": "é.jpg", "file_name": "a.jpg"}], "annotations": [{"image_id": "é.jpg", "caption": "x"}, {"id": 1.0, "image_id": "b.jpg", "caption": "y"}]}`, 0.5,
			&Set{Photos: []Photo{{coco.Text("é.jpg"), "photos/a.jpg"}}, Captions: []Caption{{coco.Int(0), coco.Text("é.jpg"), "x"}}, Paired: true,
				Bad: Bad{Count: 1, First: []string{`annotations[1] (id 1) refers to image "b.jpg", which is not in the file`}}}, nil},
		{"an id that is a list", `{"images": [{"id": [], "file_name": "a.jpg"}], "annotations": []}`, 1, nil, []string{`images[0]: "id" is a list, want a number or a string`}},
		{"instances", `{` + images + `, "annotations": [{"id": 1, "image_id": 3, "bbox": []}]}`, 1, nil, []string{"captions file?"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := write(t, test.text)
			got, err := COCO(path, "photos", test.max)
			checkError(t, err, test.err)
			if err != nil {
				if !strings.Contains(err.Error(), path) {
					t.Errorf("the error does not name the file: %v", err)
				}
				return
			}
			test.want.Bad.Of, test.want.Bad.Max = "captions of "+path, test.max
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	_, err := COCO("nowhere.json", "", 0)
	checkError(t, err, []string{"nowhere.json", "no such file"})
}

func TestKarpathy(t *testing.T) {
	path := write(t, `{"images": [
		{"filepath": "train2014", "filename": "a.jpg", "imgid": 0, "split": "train", "cocoid": 57, "sentids": [1, 2],
		 "sentences": [{"tokens": ["a"], "raw": "A.", "imgid": 0, "sentid": 1}, {"raw": " ", "sentid": 2}]},
		{"filepath": "val2014", "filename": "b.jpg", "imgid": 1, "split": "restval", "cocoid": 58, "sentences": [{"raw": "B."}]},
		{"filename": "c.jpg", "imgid": 7, "split": "test", "sentences": []}], "dataset": "coco"}`)
	folder := func(p string) string { return filepath.Join("root", p) }
	got, err := Karpathy(path, folder, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	bad := func(split string) Bad {
		return Bad{Of: fmt.Sprintf("captions of the split %q of %s", split, path), Max: 0.5}
	}
	train := bad("train")
	train.Add("sentences[1] of image 57 is empty")
	want := map[string]*Set{
		"train":   {Photos: []Photo{{coco.Int(57), "root/train2014/a.jpg"}}, Captions: []Caption{{coco.Int(1), coco.Int(57), "A."}}, Paired: true, Bad: train},
		"restval": {Photos: []Photo{{coco.Int(58), "root/val2014/b.jpg"}}, Captions: []Caption{{coco.Int(2), coco.Int(58), "B."}}, Paired: true, Bad: bad("restval")},
		"test":    {Photos: []Photo{{coco.Int(7), "root/c.jpg"}}, Paired: true, Bad: bad("test")},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	_, err = Karpathy(path, folder, 0.4)
	checkError(t, err, []string{"1 of 2 captions of the split \"train\"", path, "sentences[1] of image 57"})
	for text, what := range map[string]string{
		`{"images": [{"filename": "a", "split": "train"}]}`:                                           `neither "cocoid" nor "imgid"`,
		`{"images": [{"filename": "a", "cocoid": 1}]}`:                                                `no "filename" or no "split"`,
		`{"images": [{"filename": "a", "cocoid": 1, "split": "test", "sentences": [{"sentid": 1}]}]}`: `sentences[0] has no "raw"`,
		`{"annotations": []}`:                   `no "images"`,
		"{\"images\": [{\"filename\": \"a\",\n": ":2:1: broken JSON",
		`{"images": [{"filename": "a", "cocoid": 1, "split": "x"}, {"filename": "a", "cocoid": 1, "split": "x"}]}`: "id 1",
	} {
		_, err := Karpathy(write(t, text), folder, 1)
		checkError(t, err, []string{what})
	}
}

func TestLines(t *testing.T) {
	path := write(t, "\uFEFFA dog.\r\n\n  a cat \nno\xffpe\nlast")
	got, err := Lines(path, 0.4)
	if err != nil {
		t.Fatal(err)
	}
	want := &Set{Captions: []Caption{{ID: coco.Int(1), Text: "A dog."}, {ID: coco.Int(3), Text: "a cat"}, {ID: coco.Int(5), Text: "last"}},
		Bad: Bad{Of: "lines of " + path, Max: 0.4, Count: 1, First: []string{"line 4 is not valid UTF-8"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	_, err = Lines(path, 0.2)
	var bad *BadError
	if checkError(t, err, []string{"1 of 4 lines of", "20 %", "line 4"}); !errors.As(err, &bad) || bad.Total != 4 {
		t.Errorf("%#v", err)
	}
	_, err = Lines(write(t, "ok\n"+strings.Repeat("x", maxLine+1)), 1)
	checkError(t, err, []string{":2:", "bytes"})
	_, err = Lines(write(t, "\n\n"), 1)
	checkError(t, err, []string{"no captions"})
}

func TestClipCap(t *testing.T) {
	f, err := clipcap.Open("../clipcap/testdata/clipcap-conceptual.pkl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, rows, err := ClipCap(f, 0.5)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int{1}, rows); diff != "" {
		t.Error(diff)
	}
	want := &Set{Photos: []Photo{{ID: coco.Int(7)}}, Captions: []Caption{{coco.Int(0), coco.Int(7), "a cat"}}, Paired: true,
		Bad: Bad{Of: "captions of " + f.Path, Max: 0.5, Count: 1, First: []string{"captions[1] (id 1) is empty"}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestBad(t *testing.T) {
	b := Bad{Of: "photos of x", Max: 0.01}
	for i := range 7 {
		b.Add(fmt.Sprint("p", i))
	}
	if err := b.Check(700); err != nil {
		t.Error(err)
	}
	checkError(t, b.Check(699), []string{"7 of 699 photos of x cannot be used, but at most 1 % may be bad: p0; p1; p2; p3; p4; and 2 more"})
}

// BenchmarkCOCO reads a file of the size of COCO's training captions.
func BenchmarkCOCO(b *testing.B) {
	var s strings.Builder
	s.WriteString(`{"info": {}, "images": [`)
	for i := range 82783 {
		if i > 0 {
			s.WriteString(", ")
		}
		fmt.Fprintf(&s, `{"license": 5, "file_name": "COCO_train2014_%012d.jpg", "coco_url": "http://mscoco.org/images/%d", "height": 480, "width": 640, "date_captured": "2013-11-14 16:28:13", "flickr_url": "http://farm4.staticflickr.com/3153/2970773875_164f0c0b83_z.jpg", "id": %d}`, i, i, i)
	}
	s.WriteString(`], "licenses": [], "annotations": [`)
	for i := range 414113 {
		if i > 0 {
			s.WriteString(", ")
		}
		fmt.Fprintf(&s, `{"image_id": %d, "id": %d, "caption": "A very clean and well decorated empty bathroom."}`, i/5%82783, i)
	}
	s.WriteString("]}")
	path := write(b, s.String())
	b.SetBytes(int64(s.Len()))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := COCO(path, "photos", 0); err != nil {
			b.Fatal(err)
		}
	}
}
