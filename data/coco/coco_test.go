package coco

import (
	"os"
	"path/filepath"
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
			&Dataset{[]Image{{0, "a.jpg"}, {5, ""}}, []Annotation{{9, 0, "A café."}, {0, 0, ""}}}, nil},
		{"byte order mark", "\uFEFF" + `{"images":[{"id":1}],"annotations":[]}`, &Dataset{[]Image{{1, ""}}, []Annotation{}}, nil},
		{"empty file", " \n", nil, []string{"is empty"}},
		{"broken", "{\"images\": [\n  {\"id\": 1},\n  {\"id\" 2}\n]}", nil, []string{":3:9:", "broken JSON"}},
		{"broken after a letter of two bytes", "{\"é\": x}", nil, []string{":1:8:"}},
		{"cut off", "{\"images\": [\n{\"id\": 1}", nil, []string{":2:10:", "broken JSON", "end"}},
		{"more after the end", "{}\n{}", nil, []string{":2:1:", "broken JSON"}},
		{"wrong type", "{\"images\": [{\"id\":\n\"one\"}]}", nil, []string{":2:", "string", "int64", "id"}},
		{"results file", `[{"image_id": 1, "caption": "x"}]`, nil, []string{":1:", "array"}},
		{"id with a fraction", `{"images": [{"id": 1.5}]}`, nil, []string{":1:", "1.5"}},
		{"no images", `{"annotations": []}`, nil, []string{`no "images"`}},
		{"no annotations", `{"images": [{"id": 1}]}`, nil, []string{`no "annotations"`}},
		{"images is empty", `{"images": [], "annotations": []}`, nil, []string{`"images" is empty`}},
		{"image without id", `{"images": [{"file_name": "a"}], "annotations": []}`, nil, []string{"images[0]", `"id"`}},
		{"image twice", `{"images": [{"id": 3}, {"id": 4}, {"id": 3}], "annotations": []}`, nil, []string{"images[0]", "images[2]", "3"}},
		{"annotation without id", `{"images": [{"id": 3}], "annotations": [{"image_id": 3, "caption": ""}]}`, nil, []string{"annotations[0]", `"id"`}},
		{"annotation without image", `{"images": [{"id": 3}], "annotations": [{"id": 8, "caption": ""}]}`, nil, []string{"annotations[0]", "id 8", `"image_id"`}},
		{"annotation without caption", `{"images": [{"id": 3}], "annotations": [{"id": 8, "image_id": 3}]}`, nil, []string{"id 8", `"caption"`}},
		{"annotation twice", `{"images": [{"id": 3}], "annotations": [{"id": 8, "image_id": 3, "caption": ""}, {"id": 8, "image_id": 3, "caption": ""}]}`, nil,
			[]string{"annotations[0]", "annotations[1]", "8"}},
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
			t.Errorf("image %d: file %q, captions %q", image.ID, image.FileName, captions[image.ID])
		}
	}
}

func TestReadResults(t *testing.T) {
	tests := []struct {
		name, text string
		want       []Result
		wantErr    []string
	}{
		{"results", `[{"image_id": 0, "caption": "a", "x": 1}, {"caption": "", "image_id": -2}]`, []Result{{0, "a"}, {-2, ""}}, nil},
		{"none", `[]`, []Result{}, nil},
		{"null", `null`, nil, []string{"null"}},
		{"empty file", ``, nil, []string{"is empty"}},
		{"captions file", `{"images": []}`, nil, []string{":1:1", "object"}},
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
		{"two", []Result{{60623, "A <dog> & a \"café\"\n😀."}, {0, ""}}, `[{"image_id":60623,"caption":"A <dog> & a \"café\"\n😀."},{"image_id":0,"caption":""}]` + "\n", nil},
		{"none", nil, "[]\n", nil},
		{"twice", []Result{{1, "a"}, {1, "b"}}, "before", []string{"results 0 and 1", "image 1"}},
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
