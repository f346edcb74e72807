package cli_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// A file has the same bytes, however many processes compute it and whichever ends first.
func TestShardsOfAFile(t *testing.T) {
	dir := t.TempDir()
	for name, args := range setsOf(t, dir) {
		for _, ext := range []string{".npy", ".safetensors"} {
			args := slices.Clone(args[:len(args)-1])
			if ext == ".npy" {
				args = append(args, "--normalize")
			}
			whole := filepath.Join(dir, name+ext)
			ok(t, append(args, "-o", whole)...)
			if _, err := os.Stat(whole + ".parts"); err == nil {
				t.Errorf("%s.parts is left", whole)
			}
			for _, of := range []int{2, 7} {
				out := filepath.Join(dir, fmt.Sprintf("%s-%d%s", name, of, ext))
				merge := []string{"features", "--merge", "-o", out}
				run("", merge...).fails(t, 1, out+".parts", "--shard has written")
				for i := of; i >= 1; i-- {
					r := run("", append(slices.Clone(args), "-o", out, "--shard", fmt.Sprintf("%d/%d", i, of))...)
					if r.code != 0 {
						t.Fatal(r.err)
					}
					if i == 2 {
						run("", merge...).fails(t, 1, "missing, nothing was written: 0", "I = K mod N + 1")
					}
				}
				if r := run("", merge...); r.code != 0 {
					t.Fatal(r.err)
				}
				sameFiles(t, whole, out)
			}
		}
	}
}

// The features of an input in parts are those of a list of its photos, which is a single part.
func TestPartsAreInOrder(t *testing.T) {
	dir := t.TempDir()
	sets := setsOf(t, dir)
	for name, list := range map[string][]string{
		"tars":  slices.Concat(photos[:3], photos[1:2], photos[2:], photos, photos[:4]),
		"mixed": slices.Concat(photos[:2], photos[:3], photos[2:3], photos[1:2], photos[2:], photos[3:4]),
	} {
		parts, single := filepath.Join(dir, name+".safetensors"), filepath.Join(dir, name+"-single.safetensors")
		ok(t, append(sets[name], parts)...)
		ok(t, slices.Concat([]string{"features", "--clip", clipF, "--images"}, list, []string{"-o", single})...)
		got, want := readFeatures(t, parts), readFeatures(t, single)
		if !slices.Equal(got.ids, want.ids) {
			t.Errorf("%s: ids %v, want %v", name, got.ids, want.ids)
		}
		if diff := cmp.Diff(want.values, got.values, cmpopts.EquateApprox(0, 1e-5)); diff != "" { // batches differ
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// A run that was interrupted is continued by the same command, and not by one with other options.
func TestFeatureFileResumed(t *testing.T) {
	dir := t.TempDir()
	args := setsOf(t, dir)["tars"]
	args = args[:len(args)-1]
	for _, ext := range []string{".npy", ".safetensors"} {
		whole, out := filepath.Join(dir, "whole"+ext), filepath.Join(dir, "out"+ext)
		ok(t, append(slices.Clone(args), "-o", whole)...)
		for i := 1; i <= 2; i++ { // leaves what a process would that had computed these parts
			ok1(t, append(slices.Clone(args), "-o", out, "--shard", fmt.Sprintf("%d/3", i))...)
		}
		run("", append(slices.Clone(args), "-o", out, "--dtype", "bf16")...).fails(t, 1, out+".parts", "dtype", "use the same inputs and options, or remove")
		if r := run("", append(slices.Clone(args), "-o", out)...); r.code != 0 || !strings.Contains(r.err, "kept 4 parts that were computed before; 1 to do") {
			t.Fatalf("exit code %d\n%s", r.code, r.err)
		}
		sameFiles(t, whole, out)
		if _, err := os.Stat(out + ".parts"); err == nil {
			t.Errorf("%s.parts is left", out)
		}
	}

	// Nothing can be read, and nothing is left.
	bad := put(t, filepath.Join(dir, "bad.jpg"), []byte("no photo"))
	tar := put(t, filepath.Join(dir, "bad.tar"), tarOf(t, bad))
	out := filepath.Join(dir, "none.npy")
	run("", "features", "--clip", clipF, "--images", tar, bad, "-o", out).says(t, 3, "no photo could be read; nothing was written")
	if list, _ := filepath.Glob(out + "*"); len(list) > 0 {
		t.Errorf("%v left", list)
	}
}

// Parts may come from several folders, and a part that is there is not computed again.
func TestMergeFromFolders(t *testing.T) {
	dir := t.TempDir()
	args := setsOf(t, dir)["tars"]
	args = args[:len(args)-1]
	whole := filepath.Join(dir, "whole.safetensors")
	ok(t, append(args, "-o", whole)...)
	merge := []string{"features", "--merge", "-o", filepath.Join(dir, "out.safetensors")}
	for i := 1; i <= 2; i++ {
		machine := filepath.Join(dir, fmt.Sprint("machine-", i))
		if err := os.Mkdir(machine, 0o777); err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(machine, "out.safetensors")
		shard := append(slices.Clone(args), "-o", out, "--shard", fmt.Sprintf("%d/2", i))
		ok1(t, shard...)
		merge = append(merge, out+".parts")
		// What a process leaves that was killed while it wrote.
		part := filepath.Join(out+".parts", fmt.Sprintf("part-%d.safetensors", i+1))
		left := put(t, filepath.Join(out+".parts", fmt.Sprintf(".part-%d.safetensors.0123abcd.tmp", i+1)), []byte("half"))
		if err := os.Remove(part); err != nil {
			t.Fatal(err)
		}
		r := run("", shard...)
		if r.code != 0 || !strings.Contains(r.err, fmt.Sprintf("shard %d/2: kept", i)) || !strings.Contains(r.err, "; 1 to do") {
			t.Errorf("exit code %d\n%s", r.code, r.err)
		}
		if _, err := os.Stat(left); err == nil {
			t.Errorf("%s was left", left)
		}
	}
	ok1(t, merge...)
	sameFiles(t, whole, filepath.Join(dir, "out.safetensors"))
	// A single file is a part, too.
	run("", append(merge[:4:4], filepath.Join(dir, "machine-1", "out.safetensors.parts", "part-2.safetensors"))...).fails(t, 1, "4 of 5 parts are missing", ": 0, 1, 3, 4;")
}

// ok1 runs a command that must succeed with one message.
func ok1(t *testing.T, args ...string) {
	t.Helper()
	r := run("", args...)
	if r.code != 0 {
		t.Fatal(r.err)
	}
	r.says(t, 1)
}

// Photos that could not be read are counted as one process counts them, and the ids of the others too.
func TestMergeWithBadPhotos(t *testing.T) {
	dir := t.TempDir()
	bad := put(t, filepath.Join(dir, "bad.jpg"), []byte("no photo"))
	a := put(t, filepath.Join(dir, "a.tar"), tarOf(t, bad, photos[0]))
	b := put(t, filepath.Join(dir, "b.tar"), tarOf(t, bad, bad))
	whole, out := filepath.Join(dir, "whole.safetensors"), filepath.Join(dir, "out.safetensors")
	args := []string{"features", "--clip", clipF, "--images", a, b, photos[1], bad, photos[2], "-o"}
	run("", append(args, whole)...).says(t, 5, "4 of 7 photos could not be read")
	for i := 1; i <= 3; i++ {
		run("", append(slices.Clone(args), out, "--shard", fmt.Sprintf("%d/3", i))...)
	}
	r := run("", "features", "--merge", "-o", out)
	r.says(t, 2, "4 of 7 photos could not be read", "3 features of 3 parts")
	if r.code != 1 {
		t.Errorf("exit code %d", r.code)
	}
	sameFiles(t, whole, out)
	if f := readFeatures(t, out); !slices.Equal(f.ids, []int64{1, 4, 6}) {
		t.Errorf("ids %v", f.ids)
	}
}

func TestMergeErrors(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out.npy")
	args := []string{"features", "--clip", clipF, "--shard", "1/2", "-o", out, "--images", photos[0], photos[1]}
	ok1(t, args...)
	part := filepath.Join(out+".parts", "part-0.safetensors")
	run("", append(args, "--batch", "7")...).fails(t, 1, "batch 32 and 7", part, "remove "+out+".parts")
	run("", append(args, "--normalize")...).fails(t, 1, "normalize false and true")
	run("", "features", "--merge", "--normalize", "-o", out).fails(t, 2, "--normalize cannot be used with --merge")
	run("", "features", "--merge", "-o", dir+"/").fails(t, 2, "need no merging")
	run("", "features", "--merge").fails(t, 2, "--output is required")
	run("", "features", "--merge", "-o", out, clipF).fails(t, 1, clipF, "is no part of features")
	run("", "features", "--merge", "-o", out, dir).fails(t, 1, dir, "has no parts")
	data := must[[]byte](t)(os.ReadFile(part))
	put(t, part, data[:len(data)-4])
	run("", "features", "--merge", "-o", out).fails(t, 1, part)
	put(t, filepath.Join(out+".parts", "part-3.safetensors"), data)
	put(t, part, data)
	run("", "features", "--merge", "-o", out).fails(t, 1, "part-3.safetensors is part 0", "renamed")
	if _, err := os.Stat(out); err == nil {
		t.Error("something was written")
	}
}
