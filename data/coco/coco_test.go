package coco

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "captions.json")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// checkError checks that err names the file and contains all of what, or is nil if what is nil.
func checkError(t *testing.T, err error, path string, what []string) {
	t.Helper()
	if (err != nil) != (what != nil) {
		t.Fatalf("error: want %q, got %v", what, err)
	}
	if err == nil {
		return
	}
	for _, s := range append(what, path) {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("error does not say %q: %v", s, err)
		}
	}
}

func TestRead(t *testing.T) {
	tests := []struct {
		name, text string
		want       *Dataset
		wantErr    []string
	}{
		{"extra keys, id 0, an image without captions",
			`{"info": {"year": 2014}, "licenses": [1], "type": "captions",
			  "images": [{"license": 3, "file_name": "a.jpg", "id": 0, "height": 4}, {"id": 5}],
			  "annotations": [{"image_id": 0, "id": 9, "caption": "A café.", "x": null}, {"id": 0, "image_id": 0, "caption": ""}]}`,
			&Dataset{[]Image{{Int(0), "a.jpg"}, {Int(5), ""}}, []Annotation{{Int(9), Int(0), "A café."}, {Int(0), Int(0), ""}}}, nil},
		{"byte order mark", "\uFEFF" + `{"images":[{"id":1}],"annotations":[]}`, &Dataset{[]Image{{Int(1), ""}}, []Annotation{}}, nil},
		{"empty file", " \n", nil, []string{"is empty"}},
		{"broken", "{\"images\": [\n  {\"id\": 1},\n  {\"id\" 2}\n]}", nil, []string{":3:9:", "broken JSON"}},
		{"broken after a letter of two bytes", "{\"é\": x}", nil, []string{":1:8:"}},
		{"cut off", "{\"images\": [\n{\"id\": 1}", nil, []string{":2:10:", "broken JSON", "end"}},
		{"more after the end", "{}\n{}", nil, []string{":2:1:", "broken JSON"}},
		{"wrong type", "{\"images\": [{\"id\": 1, \"file_name\":\n1}]}", nil, []string{":2:1:", "images.file_name: got a number, want a string"}},
		{"an id that is a list", `{"images": [{"id": 1}, {"id": [1]}], "annotations": []}`, nil, []string{`images[1]: "id" is a list, want a number or a string`}},
		{"an id out of range", `{"images": [{"id": 1e999}], "annotations": []}`, nil, []string{`images[0]: "id" is the number 1e999`}},
		{"strings, and numbers of one value", `{"images": [{"id": "1"}, {"id": 1.0}, {"id": "é <b>.jpg"}, {"id": 1.5}, {"id": 12345678901234567890}],
			"annotations": [{"id": "x", "image_id": "1", "caption": "a"}, {"image_id": 1, "caption": "b"}, {"id": 3, "image_id": 1.50, "caption": "c"}, {"id": 3, "image_id": 1e0, "caption": "d"}]}`,
			&Dataset{[]Image{{ID: Text("1")}, {ID: Int(1)}, {ID: Text("é <b>.jpg")}, {ID: ID{"1.5"}}, {ID: ID{"12345678901234567890"}}},
				[]Annotation{{Text("x"), Text("1"), "a"}, {ID{}, Int(1), "b"}, {Int(3), ID{"1.5"}, "c"}, {Int(3), Int(1), "d"}}}, nil},
		{"numbers of one value twice", `{"images": [{"id": 1}, {"id": 1.0}], "annotations": []}`, nil, []string{"images[0] and images[1] have the same id 1"}},
		{"LAVIS", `[{"image": "val2014/COCO_val2014_000000000012.jpg", "caption": ["a", "b"]}, {"image": "x/f1.jpg", "caption": "c"}, {"image_id": 3, "caption": ["d"]}]`,
			&Dataset{[]Image{{Int(12), "val2014/COCO_val2014_000000000012.jpg"}, {Text("f1"), "x/f1.jpg"}, {Int(3), ""}},
				[]Annotation{{Int(0), Int(12), "a"}, {Int(1), Int(12), "b"}, {Int(2), Text("f1"), "c"}, {Int(3), Int(3), "d"}}}, nil},
		{"a list of other things", `[{"x": 1}]`, nil, []string{"entry 0 has neither", `"images" and "annotations"`}},
		{"a list of numbers", `[1]`, nil, []string{"got a number, want an object"}},
		{"no images", `{"annotations": []}`, nil, []string{`no "images"`}},
		{"no annotations", `{"images": [{"id": 1}]}`, nil, []string{`no "annotations"`}},
		{"images is empty", `{"images": [], "annotations": []}`, nil, []string{`"images" is empty`}},
		{"image without id", `{"images": [{"file_name": "a"}], "annotations": []}`, nil, []string{"images[0]", `"id"`}},
		{"image twice", `{"images": [{"id": 3}, {"id": 4}, {"id": 3}], "annotations": []}`, nil, []string{"images[0]", "images[2]", "3"}},
		{"annotation without image", `{"images": [{"id": 3}], "annotations": [{"id": 8, "caption": ""}]}`, nil, []string{"annotations[0]", "id 8", `"image_id"`}},
		{"annotation without caption", `{"images": [{"id": 3}], "annotations": [{"id": 8, "image_id": 3}]}`, nil, []string{"id 8", `"caption"`}},
		{"unknown image", `{"images": [{"id": 3}], "annotations": [{"id": 8, "image_id": 44, "caption": ""}]}`, nil, []string{"annotations[0]", "id 8", "image 44"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := write(t, test.text)
			got, err := Read(path)
			checkError(t, err, path, test.wantErr)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	t.Run("no file", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "nowhere.json")
		_, err := Read(path)
		checkError(t, err, path, []string{"no such file"})
	})
}

// TestReadReal reads captions of real COCO photos.
func TestReadReal(t *testing.T) {
	d, err := Read("testdata/captions.json")
	if err != nil {
		t.Fatal(err)
	}
	captions := d.Captions()
	if len(d.Images) != 26 || len(d.Annotations) != 130 || len(captions) != 26 {
		t.Errorf("%d images, %d annotations, %d captioned; want 26, 130, 26", len(d.Images), len(d.Annotations), len(captions))
	}
	for _, image := range d.Images {
		if image.FileName == "" || len(captions[image.ID]) != 5 {
			t.Errorf("image %s: file %q, captions %q", image.ID, image.FileName, captions[image.ID])
		}
	}
}

func TestReadResults(t *testing.T) {
	tests := []struct {
		name, text string
		want       []Result
		wantErr    []string
	}{
		{"results", `[{"image_id": 0, "caption": "a", "x": 1}, {"caption": "", "image_id": -2}]`, []Result{{Int(0), "a"}, {Int(-2), ""}}, nil},
		{"none", `[]`, []Result{}, nil},
		{"null", `null`, nil, []string{`want a list of {"image_id"`}},
		{"strings and floats", `[{"image_id": "1.jpg", "caption": "a"}, {"image_id": 7.0, "caption": "b"}]`, []Result{{Text("1.jpg"), "a"}, {Int(7), "b"}}, nil},
		{"annotations", `{"info": {}, "annotations": [{"image_id": 1, "id": 5, "caption": "a"}]}`, []Result{{Int(1), "a"}}, nil},
		{"lines", "{\"image_id\": 1, \"caption\": \"a\"}\n\n{\"image_id\": \"x\", \"caption\": \"b\"}\n", []Result{{Int(1), "a"}, {Text("x"), "b"}}, nil},
		{"one line", `{"image_id": 1, "caption": "a"}`, []Result{{Int(1), "a"}}, nil},
		{"caption --json", `{"file": "p/COCO_val2014_000000000042.jpg", "pipeline": "direct", "caption": "a", "tokens": [1], "logprob": -1}` + "\n" +
			`{"file": "000000000043.jpg", "image_id": 44, "pipeline": "direct", "caption": "b"}`, []Result{{Int(42), "a"}, {Int(44), "b"}}, nil},
		{"two pipelines", `{"image_id": 1, "pipeline": "direct", "caption": "a"}` + "\n" + `{"image_id": 1, "pipeline": "textualised", "caption": "b"}`, nil,
			[]string{"two pipelines, direct and textualised", "select(.pipeline"}},
		{"another name", `{"file": "a.jpg", "caption": "a"}`, nil, []string{"result 0", "a.jpg does not have a name of COCO"}},
		{"an object", `{"b": 1, "a": []}`, nil, []string{`want a list of {"image_id": …`, `this is an object with "a", "b"`}},
		{"a broken line", "{\"image_id\": 1, \"caption\": \"a\"}\n{\"image_id\": 2, \"caption\": 5}", nil, []string{":2: caption: got a number, want a string"}},
		{"an id that is an object", `[{"image_id": {}, "caption": "a"}]`, nil, []string{`result 0: "image_id" is an object, want a number or a string`}},
		{"empty file", ``, nil, []string{"is empty"}},
		{"captions file", `{"images": []}`, nil, []string{"want a list", "object"}},
		{"broken", "[\n{]", nil, []string{":2:2:", "broken JSON"}},
		{"no image", `[{"caption": "a"}]`, nil, []string{"result 0", `"image_id"`}},
		{"no caption", `[{"image_id": 4}]`, nil, []string{"result 0", "image 4", `"caption"`}},
		{"twice", `[{"image_id": 4, "caption": "a"}, {"image_id": 4, "caption": "b"}]`, nil, []string{"results 0 and 1", "image 4"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := write(t, test.text)
			got, err := ReadResults(path)
			checkError(t, err, path, test.wantErr)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestWriteResults(t *testing.T) {
	tests := []struct {
		name    string
		results []Result
		want    string
		wantErr []string
	}{
		{"two", []Result{{Int(60623), "A <dog> & a \"café\"\n😀."}, {Int(0), ""}}, `[{"image_id":60623,"caption":"A <dog> & a \"café\"\n😀."},{"image_id":0,"caption":""}]` + "\n", nil},
		{"none", nil, "[]\n", nil},
		{"twice", []Result{{Int(1), "a"}, {Int(1), "b"}}, "before", []string{"results 0 and 1", "image 1"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path := write(t, "before")
			checkError(t, WriteResults(path, test.results), path, test.wantErr)
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(got)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			checkAlone(t, path)
			if test.wantErr != nil {
				return
			}
			back, err := ReadResults(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(append([]Result{}, test.results...), back); diff != "" {
				t.Errorf("read back (-want +got):\n%s", diff)
			}
		})
	}
	t.Run("no folder", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "nowhere", "results.json")
		checkError(t, WriteResults(path, nil), path, []string{"no such file"})
	})
	t.Run("a folder in its place", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "results.json")
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
		checkError(t, WriteResults(path, nil), path, []string{"cannot write"})
		checkAlone(t, path)
	})
}

// checkAlone checks that no temporary file is left next to path.
func checkAlone(t *testing.T, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Name() != filepath.Base(path) {
			t.Errorf("%s was left behind", e.Name())
		}
	}
}

func TestFileID(t *testing.T) {
	for name, want := range map[string]ID{
		"a/COCO_val2014_000000391895.jpg": Int(391895), "000000000009.png": Int(9), "COCO_test2015_000000000001.jpg": Int(1),
		"391895.jpg": {}, "COCO_val2014_391895.jpg": {}, "x000000391895.jpg": {}, "": {},
	} {
		if got, ok := FileID(name); got != want || ok != (want != ID{}) {
			t.Errorf("%q: %s, %v", name, got, ok)
		}
	}
}

// TestCompare checks the order of ids: numbers by value, then the others.
func TestCompare(t *testing.T) {
	ids := []ID{Text("b"), Int(10), Text("1"), Int(9), {"9.5"}, Int(-1)}
	slices.SortFunc(ids, ID.Compare)
	if want := []ID{Int(-1), Int(9), {"9.5"}, Int(10), Text("1"), Text("b")}; !slices.Equal(ids, want) {
		t.Errorf("%v", ids)
	}
}
