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

	"github.com/google/go-cmp/cmp"
)

type searchResult struct {
	Query   string `json:"query"`
	Results []struct {
		Row   int     `json:"row"`
		Name  string  `json:"name"`
		Score float64 `json:"score"`
	} `json:"results"`
}

func searchResults(t *testing.T, out string) (list []searchResult) {
	t.Helper()
	for line := range strings.Lines(out) {
		var r searchResult
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&r); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		list = append(list, r)
	}
	return list
}

// Every output of features can be searched, and a photo finds itself, with the cosines of the
// features that the packages compute.
func TestSearchOfPhotos(t *testing.T) {
	dir := t.TempDir()
	values := imageFeatures(t, photos)
	cosine := func(a, b []float32) float64 {
		var ab, aa, bb float64
		for i := range a {
			x, y := float64(a[i]), float64(b[i])
			ab, aa, bb = ab+x*y, aa+x*x, bb+y*y
		}
		return ab / math.Sqrt(aa*bb)
	}
	var want []int
	for i := range photos {
		want = append(want, i)
	}
	slices.SortFunc(want, func(a, b int) int {
		return map[bool]int{true: -1, false: 1}[cosine(values[1], values[a]) > cosine(values[1], values[b])]
	})
	packed := put(t, filepath.Join(dir, "x.tar"), tarOf(t, photos...))
	for out, tolerance := range map[string]float64{"x.safetensors": 1e-6, "x.npy": 1e-6, "folder/": 1e-3} {
		path := filepath.Join(dir, out)
		if strings.HasSuffix(out, "/") {
			path += "/"
		}
		ok(t, "features", "--clip", clipF, "--images", packed, "-o", path)
		got := searchResults(t, ok(t, "search", path, "--clip", clipF, "--top", "3", "--json", "--image", photos[1], photos[4]))
		if len(got) != 2 || got[1].Query != photos[4] || got[1].Results[0].Row != 4 {
			t.Fatalf("%s: %+v", out, got)
		}
		if len(got[0].Results) != 3 {
			t.Fatalf("%s: %d results", out, len(got[0].Results))
		}
		for i, h := range got[0].Results {
			if name := fmt.Sprintf("%s/%09d.jpg", packed, want[i]); h.Row != want[i] || h.Name != name || math.Abs(h.Score-cosine(values[1], values[want[i]])) > tolerance {
				t.Errorf("%s: result %d is %+v, want row %d, %s, %v", out, i, h, want[i], name, cosine(values[1], values[want[i]]))
			}
		}
	}
	text := ok(t, "search", filepath.Join(dir, "x.npy"), "--clip", clipF, "--top", "1", "--image", photos[0])
	if want := "1.0000         0  " + packed + "/000000000.jpg\n"; text != want {
		t.Errorf("prints %q, want %q", text, want)
	}
	if d := cmp.Diff([]string{"img_emb", "img_emb/img_emb_0.npy", "metadata", "metadata/metadata_0.parquet"}, listing(t, filepath.Join(dir, "folder"))); d != "" {
		t.Errorf("files of a folder (-want +got):\n%s", d)
	}
	// clip-retrieval's features have length 1.
	data := must[[]byte](t)(os.ReadFile(filepath.Join(dir, "folder/img_emb/img_emb_0.npy")))
	if len(data) != 128+5*64*2 || !strings.Contains(string(data[:128]), "'descr': '<f2'") {
		t.Errorf("%d bytes: %q", len(data), data[:128])
	}
}

func TestSearchOfTexts(t *testing.T) {
	file, dir := must[string](t)(textCLIP()), t.TempDir()
	captions := put(t, filepath.Join(dir, "x.jsonl"), []byte(`{"caption": "two buses", "id": "a"}`+"\n"+`{"caption": "a dog", "image_id": 7}`))
	out := filepath.Join(dir, "folder") + "/"
	ok(t, "features", "--clip", file, "--captions", captions, "-o", out)
	text := ok(t, "search", out, "--clip", file, "--top", "1", "--text", "a dog", "two buses")
	if want := "a dog:\n1.0000         1  a dog\ntwo buses:\n1.0000         0  two buses\n"; text != want {
		t.Errorf("prints %q, want %q", text, want)
	}
	run("", "features", "--clip", clipF, "--images", photos[0], "-o", out).fails(t, 1, out, "other features, such as text_emb/text_emb_0.npy")
}

func TestSearchErrors(t *testing.T) {
	dir := t.TempDir()
	file := must[string](t)(textCLIP())
	npy := filepath.Join(dir, "x.npy")
	ok(t, "features", "--clip", file, "--text", "a dog", "-o", npy)
	const header = "\x93NUMPY\x01\x00\x3a\x00{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2)}\n"
	narrow := put(t, filepath.Join(dir, "narrow.npy"), []byte(header+strings.Repeat("\x01", 8)))
	long := strings.Repeat("cat ", 40)
	for _, c := range []struct {
		code  int
		args  []string
		words []string
	}{
		{2, []string{npy}, []string{"--clip is required"}},
		{2, []string{"--clip", file, "--text", "a"}, []string{"one FEATURES, got 0"}},
		{2, []string{npy, "--clip", file}, []string{"exactly one of --text and --image"}},
		{2, []string{npy, "--clip", file, "--text", "a", "--image", "b.jpg"}, []string{"exactly one"}},
		{2, []string{npy, "--clip", file, "--top", "0", "--text", "a"}, []string{"--top 0"}},
		{1, []string{filepath.Join(dir, "none.npy"), "--clip", file, "--text", "a"}, []string{"none.npy", "no such file"}},
		{1, []string{narrow, "--clip", file, "--text", "a"}, []string{narrow, "width 2", file, "width 64", "another CLIP"}},
		{1, []string{npy, "--clip", file, "--text", long}, []string{"text 0 has 40 tokens", "at most 14"}},
		{1, []string{npy, "--clip", file, "--image", filepath.Join(dir, "none.jpg")}, []string{"none.jpg", "no such file"}},
	} {
		run("", append([]string{"search"}, c.args...)...).fails(t, c.code, c.words...)
	}
	for _, args := range [][]string{
		{"--clip", clipF, "--images", photos[0], "-o", filepath.Join(dir, "x.bin")},
		{"--clipcap", "../data/clipcap/testdata/clipcap.pkl", "-o", dir},
	} {
		run("", append([]string{"features"}, args...)...).fails(t, 2, "--output", ".safetensors or .npy")
	}
	// A failed computation leaves nothing.
	empty := t.TempDir()
	run("", "features", "--clip", clipF, "--images", filepath.Join(dir, "none.jpg"), "-o", filepath.Join(empty, "x.npy"))
	run("", "features", "--clip", clipF, "--images", filepath.Join(dir, "none.jpg"), "-o", filepath.Join(empty, "x")+"/")
	if d := cmp.Diff([]string{}, listing(t, empty)); d != "" {
		t.Errorf("something was written (-want +got):\n%s", d)
	}
}
