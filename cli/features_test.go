package cli_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cyclecap/data/clipcap"
	"cyclecap/data/tokenizer"
	"cyclecap/nets/clip"
	"cyclecap/torch"
	"cyclecap/weights"

	"github.com/google/go-cmp/cmp"
)

// featureFile is the contents of a file that features wrote.
type featureFile struct {
	values        [][]float32
	ids, imageIDs []int64
	meta          map[string]string
}

func readFeatures(t *testing.T, path string) featureFile {
	t.Helper()
	var out featureFile
	err := torch.Scope(func() error {
		f, err := weights.Open(path)
		if err != nil {
			return err
		}
		out.meta = f.Meta
		sd, err := f.Load()
		if err != nil {
			return err
		}
		defer sd.Close()
		for _, name := range sd.Names() {
			x, _ := sd.Get(name)
			switch {
			case name == "features" && x.DType() == torch.Float32 && x.Dim() == 2:
				for row := range slices.Chunk(torch.ToSlice[float32](x), int(x.Size(1))) {
					out.values = append(out.values, row)
				}
			case name == "ids" && x.DType() == torch.Int64 && x.Dim() == 1:
				out.ids = torch.ToSlice[int64](x)
			case name == "image_ids" && x.DType() == torch.Int64 && x.Dim() == 1:
				out.imageIDs = torch.ToSlice[int64](x)
			default:
				t.Errorf("a tensor %s, %v %v", name, x.DType(), x.Shape())
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out.values) != len(out.ids) {
		t.Errorf("%d features and %d ids", len(out.values), len(out.ids))
	}
	return out
}

// withCLIP runs f on the CLIP of a file, as the packages load it.
func withCLIP(t *testing.T, path string, f func(*clip.Model)) {
	t.Helper()
	err := torch.Scope(func() error {
		file, err := weights.Open(path)
		if err != nil {
			return err
		}
		sd, err := weights.LoadCLIP(file, nil)
		if err != nil {
			return err
		}
		sizes, err := clip.ConfigOf(sd, clip.Both)
		if err != nil {
			return err
		}
		m, err := clip.Load(sd, sizes, clip.Both)
		if err != nil {
			return err
		}
		torch.InferenceMode(func() { f(m) })
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func rows(x torch.Tensor) [][]float32 {
	var out [][]float32
	for row := range slices.Chunk(torch.ToSlice[float32](x), int(x.Size(1))) {
		out = append(out, row)
	}
	return out
}

func imageFeatures(t *testing.T, paths []string) (out [][]float32) {
	pixels := must[[]float32](t)(pixelsOf(paths))
	withCLIP(t, clipF, func(m *clip.Model) {
		out = rows(m.EncodeImage(torch.FromSlice(pixels, int64(len(paths)), 3, 32, 32)))
	})
	return out
}

func textFeatures(t *testing.T, path string, texts []string) (out [][]float32) {
	var flat []int64
	for _, s := range texts {
		for _, id := range must[[]int](t)(tokenizer.CLIP().Context(s, 16, false)) {
			flat = append(flat, int64(id))
		}
	}
	withCLIP(t, path, func(m *clip.Model) {
		out = rows(m.EncodeText(torch.FromSlice(flat, int64(len(texts)), 16)))
	})
	return out
}

func TestFeaturesOfPhotos(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "x.safetensors")
	ok(t, append(append([]string{"features", "--clip", clipF, "--images"}, photos...), "-o", out)...)
	got := readFeatures(t, out)
	if diff := cmp.Diff(imageFeatures(t, photos), got.values); diff != "" {
		t.Errorf("features differ from the packages' (-packages +command):\n%s", diff)
	}
	if diff := cmp.Diff([]int64{0, 1, 2, 3, 4}, got.ids); diff != "" {
		t.Errorf("ids:\n%s", diff)
	}
	var inputs []string
	if err := json.Unmarshal([]byte(got.meta["inputs"]), &inputs); err != nil {
		t.Errorf("inputs: %v", err)
	}
	if diff := cmp.Diff(photos, inputs); diff != "" {
		t.Errorf("inputs:\n%s", diff)
	}
	for k, want := range map[string]string{"kind": "image", "normalized": "false", "dtype": "float32"} {
		if got.meta[k] != want {
			t.Errorf("metadata %s = %q, want %q", k, got.meta[k], want)
		}
	}
	if diff := cmp.Diff([]string{"x.safetensors"}, listing(t, dir)); diff != "" {
		t.Errorf("files:\n%s", diff)
	}
}

// Arguments after --images are photos too, and so are the files in a folder, sorted
// by name. The batch size changes only low-order bits. --normalize scales to length 1.
func TestFeaturesOfAFolder(t *testing.T) {
	dir, out := t.TempDir(), filepath.Join(t.TempDir(), "x.safetensors")
	for i, p := range []string{photos[2], photos[0], photos[1]} {
		put(t, filepath.Join(dir, fmt.Sprintf("%c.JPG", 'a'+i)), must[[]byte](t)(os.ReadFile(p)))
	}
	put(t, filepath.Join(dir, "notes.txt"), []byte("no photo"))
	ok(t, "features", "--clip", clipF, "--normalize", "--images", dir, photos[3], "--batch", "3", "--output", out)
	got := readFeatures(t, out)
	want := imageFeatures(t, []string{photos[2], photos[0], photos[1], photos[3]})
	for i, row := range got.values {
		var length, scale float64
		for k := range row {
			length += float64(row[k]) * float64(row[k])
			scale += float64(want[i][k]) * float64(want[i][k])
		}
		if math.Abs(length-1) > 1e-6 {
			t.Errorf("feature %d has length %v", i, math.Sqrt(length))
		}
		for k := range row {
			if d := math.Abs(float64(row[k]) - float64(want[i][k])/math.Sqrt(scale)); d > 1e-6 {
				t.Fatalf("feature %d, number %d differs by %g", i, k, d)
			}
		}
	}
	if len(got.values) != 4 || got.meta["normalized"] != "true" {
		t.Errorf("%d features, normalized %q", len(got.values), got.meta["normalized"])
	}
}

func TestFeaturesOfTexts(t *testing.T) {
	file, out := must[string](t)(textCLIP()), filepath.Join(t.TempDir(), "x.safetensors")
	texts := []string{"a photo of a cat", "one, two, three", "-1 is a number", ""}
	ok(t, "features", "--clip", file, "-o", out, "--text="+texts[0], texts[1], "--text="+texts[2], "--text=")
	got := readFeatures(t, out)
	if diff := cmp.Diff(textFeatures(t, file, texts), got.values); diff != "" {
		t.Errorf("features differ from the packages' (-packages +command):\n%s", diff)
	}
	if diff := cmp.Diff([]int64{0, 1, 2, 3}, got.ids); diff != "" || got.meta["kind"] != "text" {
		t.Errorf("kind %q, ids:\n%s", got.meta["kind"], diff)
	}
}

func TestFeaturesOfCaptions(t *testing.T) {
	dir := t.TempDir()
	file, out := must[string](t)(textCLIP()), filepath.Join(dir, "x.safetensors")
	texts := []string{"A man riding a wave.", "A dog, and a cat.", "Two buses."}
	captions := put(t, filepath.Join(dir, "captions.json"), []byte(`{"info":{},"licenses":[],
		"images":[{"id":7,"file_name":"a.jpg"},{"id":3,"file_name":"b.jpg"}],
		"annotations":[{"id":900000000001,"image_id":7,"caption":"A man riding a wave."},
		{"id":5,"image_id":3,"caption":"A dog, and a cat."},{"id":6,"image_id":7,"caption":"Two buses."}]}`))
	ok(t, "features", "--clip", file, "--captions", captions, "-o", out)
	got := readFeatures(t, out)
	if diff := cmp.Diff(textFeatures(t, file, texts), got.values); diff != "" {
		t.Errorf("features differ from the packages' (-packages +command):\n%s", diff)
	}
	if diff := cmp.Diff([]int64{900000000001, 5, 6}, got.ids); diff != "" {
		t.Errorf("ids:\n%s", diff)
	}
	if diff := cmp.Diff([]int64{7, 3, 7}, got.imageIDs); diff != "" {
		t.Errorf("image_ids:\n%s", diff)
	}
}

func TestFeaturesOfLongText(t *testing.T) {
	file, dir := must[string](t)(textCLIP()), t.TempDir()
	long, out := strings.Repeat("cat ", 40), filepath.Join(dir, "x.safetensors")
	run("", "features", "--clip", file, "--text", "a dog", long, "-o", out).fails(t, 1, "input 1", "40 tokens", "14", "--truncate", "cat cat")
	empty(t, dir)
	ok(t, "features", "--clip", file, "--truncate", "--text", "a dog", long, "-o", out)
	got := readFeatures(t, out)
	want := textFeatures(t, file, []string{"a dog", strings.TrimSpace(strings.Repeat("cat ", 14))})
	if diff := cmp.Diff(want, got.values); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A CLIP with another vocabulary can't encode texts. This is reported before an
// operator of libtorch finds an id that is out of range.
func TestFeaturesOfTextForAnotherVocabulary(t *testing.T) {
	dir := t.TempDir()
	run("", "features", "--clip", clipF, "--text", "a", "-o", filepath.Join(dir, "x.safetensors")).fails(t, 1, clipF, "256", "vocabulary")
	empty(t, dir)
}

func TestFeaturesReplacesItsFile(t *testing.T) {
	dir := t.TempDir()
	out := put(t, filepath.Join(dir, "x.safetensors"), []byte("old"))
	run("", "features", "--clip", clipF, "--images", filepath.Join(dir, "none.jpg"), "-o", out)
	if text, _ := os.ReadFile(out); string(text) != "old" {
		t.Errorf("a failure changed the file that was there")
	}
	ok(t, "features", "--clip", clipF, "--images", photos[0], "-o", out)
	if n := len(readFeatures(t, out).values); n != 1 {
		t.Errorf("%d features", n)
	}
}

// The features of a ClipCap pickle are those of its fixture, one row per caption.
func TestFeaturesOfClipCap(t *testing.T) {
	const file = "../data/clipcap/testdata/clipcap.pkl"
	b, err := os.ReadFile("../data/clipcap/testdata/clipcap.json")
	if err != nil {
		t.Fatal(err)
	}
	var want struct {
		Files map[string]struct{ Rows [][]float32 }
	}
	if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	f, err := clipcap.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "out.safetensors")
	ok(t, "features", "--clipcap", file, "-o", out)
	got := readFeatures(t, out)
	rows := want.Files["clipcap.pkl"].Rows
	if len(rows) == 0 || len(got.values) != len(f.Captions) {
		t.Fatalf("%d rows for %d captions", len(got.values), len(f.Captions))
	}
	for i, c := range f.Captions {
		if !slices.Equal(rows[c.Row], got.values[i]) {
			t.Errorf("the feature of caption %d differs", i)
		}
	}
}

// A row that is no feature is refused where it is read, with its place.
func TestFeaturesNotFinite(t *testing.T) {
	const file = "../data/clipcap/testdata/clipcap-broken.pkl"
	out := filepath.Join(t.TempDir(), "out.safetensors")
	run("", "features", "--clipcap", file, "-o", out).fails(t, 1, file, "row 0, the feature of image id 318556: value 5 of 6 is NaN")
	run("", "features", "--clipcap", "../data/clipcap/testdata/clipcap-broken.pkl", "--normalize", "-o", out).fails(t, 1, "image id 318556")
	if _, err := os.Stat(out); err == nil {
		t.Error("a file was written")
	}
}

// The captions of every kind of file give the features of their texts; those that cannot be
// used are reported and skipped.
func TestFeaturesOfCaptionFiles(t *testing.T) {
	dir := t.TempDir()
	file, out := must[string](t)(textCLIP()), filepath.Join(dir, "x.safetensors")
	want := textFeatures(t, file, []string{"A dog.", "Two buses."})
	for name, c := range map[string]struct {
		text          string
		ids, imageIDs []int64
	}{
		"x.tsv":   {"A dog.\thttp://a\nTwo buses.\thttp://b\n", []int64{1, 2}, []int64{0, 1}},
		"x.csv":   {"id,caption\n7,A dog.\n9,Two buses.\n", []int64{7, 9}, nil},
		"x.jsonl": {`{"caption": "A dog.", "image_id": 3}` + "\n" + `{"caption": "Two buses.", "image_id": 4}`, []int64{1, 2}, []int64{3, 4}},
		"x.txt":   {"A dog.\nTwo buses.\n", []int64{1, 2}, nil},
	} {
		ok(t, "features", "--clip", file, "--captions", put(t, filepath.Join(dir, name), []byte(c.text)), "-o", out)
		got := readFeatures(t, out)
		if d := cmp.Diff(want, got.values); d != "" {
			t.Errorf("%s: features:\n%s", name, d)
		}
		if d := cmp.Diff([][]int64{c.ids, c.imageIDs}, [][]int64{got.ids, got.imageIDs}); d != "" {
			t.Errorf("%s: ids (-want +got):\n%s", name, d)
		}
	}
	bad := put(t, filepath.Join(dir, "bad.jsonl"), []byte(`{"caption": "A dog."}`+"\n"+`{"caption": ""}`))
	r := run("", "features", "--clip", file, "--captions", bad, "-o", out)
	if r.code != 1 || len(readFeatures(t, out).values) != 1 {
		t.Errorf("exit code %d", r.code)
	}
	r.says(t, 1, "skipped 1 of 2 captions: line 2 is empty")
	run("", "features", "--clip", file, "--captions", put(t, filepath.Join(dir, "y.csv"), []byte("a,b\n1,2\n")), "-o", out).fails(t, 1, "y.csv:1: no column")
	packed := put(t, filepath.Join(dir, "x.tar"), tarOf(t, photos[0], photos[1]))
	ok(t, "features", "--clip", file, "--captions", packed, "-o", out)
	got := readFeatures(t, out)
	if d := cmp.Diff([]string{"caption 0", "caption 1"}, inputsOf(t, got)); d != "" || got.meta["image_ids"] != `["000000000","000000001"]` {
		t.Errorf("image_ids %s, inputs:\n%s", got.meta["image_ids"], d)
	}
}
