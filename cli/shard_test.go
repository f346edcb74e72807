package cli_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// contentsOf returns the files of a folder, with hidden ones.
func contentsOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, name := range listing(t, dir) {
		if data, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
			files[name] = string(data)
		}
	}
	return files
}

// same checks that two folders have the same files.
func same(t *testing.T, what string, want, got map[string]string) {
	t.Helper()
	for name, data := range want {
		if got[name] != data {
			t.Errorf("%s: %s has %d bytes that differ from %d", what, name, len(got[name]), len(data))
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: there is also %s", what, name)
		}
	}
}

// setsOf returns inputs that have several parts, and the options for them. The parts of texts and
// photos are smaller than usual because of the batch: 4096/4000*4000.
func setsOf(t *testing.T, dir string) map[string][]string {
	t.Helper()
	var lines bytes.Buffer
	for i := range 8123 {
		fmt.Fprintf(&lines, "caption %d\n", i)
	}
	captions := put(t, filepath.Join(dir, "captions.txt"), lines.Bytes())
	var tars []string
	for i, files := range [][]string{photos[:3], photos[1:2], photos[2:], photos, photos[:4]} {
		tars = append(tars, put(t, filepath.Join(dir, fmt.Sprintf("%d.tar", i)), tarOf(t, files...)))
	}
	return map[string][]string{
		"captions": {"features", "--clip", must[string](t)(textCLIP()), "--batch", "4000", "--captions", captions, "-o"},
		"tars":     append(append([]string{"features", "--clip", clipF, "--batch", "2", "--images"}, tars...), "-o"),
		"mixed":    append([]string{"features", "--clip", clipF, "--images", photos[0], photos[1], tars[0], photos[2], tars[1], tars[2], photos[3]}, "-o"),
	}
}

// A folder has the same files, however many processes compute it and whichever ends first.
func TestShardsOfAFolder(t *testing.T) {
	dir := t.TempDir()
	for name, args := range setsOf(t, dir) {
		whole := filepath.Join(dir, name) + "/"
		ok(t, append(args, whole)...)
		want := contentsOf(t, whole)
		n := len(want) / 2
		if n < 3 {
			t.Fatalf("%s: %d files", name, len(want))
		}
		for _, of := range []int{1, 2, n + 1} {
			out := filepath.Join(dir, fmt.Sprintf("%s-%d", name, of)) + "/"
			for i := of; i >= 1; i-- {
				before := map[string]string{}
				if i < min(of, n) {
					before = contentsOf(t, out)
				}
				r := run("", append(slices.Clone(args), out, "--shard", fmt.Sprintf("%d/%d", i, of))...)
				if r.code != 0 {
					t.Fatal(r.err)
				}
				says := fmt.Sprintf("shard %d/%d is done", i, of)
				if i > n {
					says = fmt.Sprintf("nothing to do for shard %d/%d: the input has only %d parts", i, of, n)
				}
				r.says(t, 1, says)
				if i == 1 {
					r.says(t, 1, fmt.Sprintf("has %d of %d parts", n, n))
				}
				if i > n {
					continue
				}
				after := contentsOf(t, out)
				for name := range before {
					delete(after, name)
				}
				for name := range after {
					var k int
					fmt.Sscanf(name[strings.LastIndex(name, "_")+1:], "%d", &k)
					if k%of != i-1 {
						t.Errorf("shard %d/%d wrote %s", i, of, name)
					}
				}
			}
			same(t, fmt.Sprintf("%s, %d shards", name, of), want, contentsOf(t, out))
		}
	}
}

// A run that finds complete parts keeps them, and computes the others.
func TestFeaturesResumed(t *testing.T) {
	dir := t.TempDir()
	args := setsOf(t, dir)["tars"]
	out := filepath.Join(dir, "out") + "/"
	ok(t, append(args, out)...)
	want := contentsOf(t, out)
	for _, gone := range [][]string{
		{"img_emb/img_emb_1.npy"},
		{"img_emb/img_emb_1.npy", "metadata/metadata_1.parquet", "img_emb/img_emb_4.npy"},
		{},
	} {
		for _, name := range gone {
			if err := os.Remove(filepath.Join(out, name)); err != nil {
				t.Fatal(err)
			}
			// What a process leaves that was killed while it wrote.
			put(t, filepath.Join(out, filepath.Dir(name), "."+filepath.Base(name)+".0123abcd.tmp"), []byte("half"))
		}
		// A complete part is not computed again: its file stays.
		put(t, filepath.Join(out, "img_emb/img_emb_0.npy"), []byte("complete"))
		r := run("", append(args, out)...)
		if r.code != 0 {
			t.Fatal(r.err)
		}
		left := (len(gone) + 1) / 2
		r.says(t, 1, fmt.Sprintf("kept %d parts that were computed before; %d to do", 5-left, left))
		put(t, filepath.Join(out, "img_emb/img_emb_0.npy"), []byte(want["img_emb/img_emb_0.npy"]))
		same(t, fmt.Sprint(gone), want, contentsOf(t, out))
	}
}

// Photos that could not be read are reported by every run, and a part without any is tried again.
func TestFeaturesResumedWithBadPhotos(t *testing.T) {
	dir := t.TempDir()
	bad := put(t, filepath.Join(dir, "bad.jpg"), []byte("no photo"))
	a := put(t, filepath.Join(dir, "a.tar"), tarOf(t, photos[0], bad))
	b := filepath.Join(dir, "b.tar")
	out := filepath.Join(dir, "out") + "/"
	args := []string{"features", "--clip", clipF, "--images", a, b, "-o", out}
	r := run("", args...)
	r.says(t, 3, "not a JPEG", b, "1 of 2 photos could not be read, and 1 file was not read to the end")
	put(t, b, tarOf(t, photos[1]))
	for _, lines := range []int{2, 2} {
		r = run("", args...)
		if r.code != 1 {
			t.Errorf("exit code %d", r.code)
		}
		r.says(t, lines, "1 of 3 photos could not be read")
		if strings.Contains(r.err, "file was") {
			t.Error(r.err)
		}
	}
	if d := cmp.Diff(6, len(listing(t, out))); d != "" {
		t.Errorf("files:\n%s", d)
	}
}

// Features of another origin are not mixed with those in a folder.
func TestFeaturesOfAnotherOrigin(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out") + "/"
	args := func(more ...string) []string {
		return append([]string{"features", "--clip", clipF, "-o", out, "--images", photos[0], photos[1]}, more...)
	}
	ok(t, args()...)
	want := contentsOf(t, out)
	other := must[string](t)(textCLIP())
	for _, c := range []struct{ args, words []string }{
		{args("--batch", "7"), []string{"batch 32 and 7"}},
		{args("--dtype", "bf16"), []string{"dtype float32 and bfloat16", "fast false and true"}},
		{args(photos[2]), []string{"hash of the inputs' names"}},
		{args("--clip", other), []string{"weights", "model"}},
	} {
		run("", c.args...).fails(t, 1, append(c.words, out, "metadata_0.parquet", "another folder")...)
	}
	same(t, "refused", want, contentsOf(t, out))
	// Those of clip-retrieval itself do not say their origin.
	foreign := filepath.Join(dir, "foreign")
	if err := os.CopyFS(foreign, os.DirFS("../data/embeddings/testdata/clip-retrieval")); err != nil {
		t.Fatal(err)
	}
	run("", "features", "--clip", clipF, "-o", foreign, "--images", photos[0]).fails(t, 1, foreign, "of unknown origin", "another folder")
}

func TestShardErrors(t *testing.T) {
	dir := t.TempDir()
	for _, text := range []string{"", "1", "0/4", "5/4", "-1/4", "1/0", "a/b", "1/4/", "+1/4", "1/99999999999", "1 /4"} {
		run("", "features", "--clip", clipF, "--shard="+text, "-o", filepath.Join(dir, "x")+"/", "--images", photos[0]).fails(t, 2, "--shard "+text+":", "I/N")
	}
	run("", "features", "--clipcap", "x.pkl", "--shard", "1/2", "-o", filepath.Join(dir, "x.npy")).fails(t, 2, "--shard", "--clipcap")
	empty(t, dir)
}
