package weights_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/nn"
	"cyclecap/weights"

	"github.com/google/go-cmp/cmp"
)

// layout describes the tensors of a file: their shapes, strides and types, and how
// the memory of each lies relative to the tensors before it that share its storage.
func layout(t *testing.T, path string) map[string]string {
	t.Helper()
	f, err := weights.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for i, e := range f.Entries {
		text := fmt.Sprint(e.DType, e.Shape, e.Strides)
		for _, o := range f.Entries[:i] {
			if e.Storage == o.Storage && e.Numel() > 0 && o.Numel() > 0 {
				text += fmt.Sprintf(" %s%+d", o.Name, e.Offset-o.Offset)
			}
		}
		out[e.Name] = text
	}
	return out
}

// TestSharing: tensors that share memory share a storage in a PyTorch file, and
// the storage is written once.
func TestSharing(t *testing.T) {
	dir := t.TempDir()
	one, two, cast := filepath.Join(dir, "one.pt"), filepath.Join(dir, "two.pt"), filepath.Join(dir, "cast.pt")
	err := torch.Scope(func() error {
		a := torch.FromSlice([]float32{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}, 3, 4)
		big := torch.Zeros([]int64{1000, 1000})
		sd := nn.NewStateDict()
		sd.Add("a", a)
		sd.Add("row", a.Select(0, 1))
		sd.Add("other", torch.Ones([]int64{2}))
		sd.Add("tied", a.Detach())
		sd.Add("transposed", a.T())
		sd.Add("column", a.Select(1, 2))
		sd.Add("expanded", torch.Ones([]int64{1}).Expand([]int64{1 << 36}))
		sd.Add("big.column", big.Select(1, 0))
		sd.Add("empty", torch.Zeros([]int64{0, 3}))
		sd.Add("ints", torch.FromSlice([]int64{1, 2}))
		return weights.Save(context.Background(), one, sd, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"a":          "float32 [3 4] [4 1]",
		"row":        "float32 [4] [1] a+16",
		"other":      "float32 [2] [1]",
		"tied":       "float32 [3 4] [4 1] a+0 row-16",
		"transposed": "float32 [4 3] [1 4] a+0 row-16 tied+0",
		"column":     "float32 [3] [4] a+8 row-8 tied+8 transposed+8",
		"expanded":   "float32 [68719476736] [0]",
		"big.column": "float32 [1000] [1]",
		"empty":      "float32 [0 3] [3 1]",
		"ints":       "int64 [2] [1]",
	}
	if diff := cmp.Diff(want, layout(t, one)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if info, err := os.Stat(one); err != nil || info.Size() > 16<<10 {
		t.Errorf("the file has %d bytes (%v)", info.Size(), err)
	}
	err = torch.Scope(func() error {
		sd := load(t, one)
		defer sd.Close()
		if err := weights.Save(context.Background(), two, sd, nil); err != nil {
			return err
		}
		path := filepath.Join(dir, "x.safetensors")
		if err := weights.Save(context.Background(), path, sd, nil); err == nil || !strings.Contains(err.Error(), `"expanded"`) || !strings.Contains(err.Error(), "no sharing") {
			t.Errorf("safetensors: %v", err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("a safetensors file is left")
		}
		before := torch.Alive()
		if err := weights.Cast(context.Background(), sd, torch.BFloat16); err != nil {
			return err
		}
		if after := torch.Alive(); after != before {
			t.Errorf("Cast left %d tensors", after-before)
		}
		return weights.Save(context.Background(), cast, sd, nil)
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, layout(t, two)); diff != "" {
		t.Errorf("written again (-want +got):\n%s", diff)
	}
	half := strings.NewReplacer("float32", "bfloat16", "16", "8", "+8", "+4", "-8", "-4")
	for name, w := range want {
		if got := layout(t, cast)[name]; got != half.Replace(w) {
			t.Errorf("%s in bfloat16: %s, was %s in float32", name, got, w)
		}
	}
}

// TestSharingOfPython: what Python wrote keeps its sharing when it is written again.
// TestSaveSparse: a sparse tensor is refused by name, and the file before stays.
func TestSaveSparse(t *testing.T) {
	for _, name := range []string{"x.pt", "x.safetensors"} {
		path := filepath.Join(t.TempDir(), name)
		err := torch.Scope(func() error {
			sd := nn.NewStateDict()
			sd.Add("adjacency", torch.Eye(3).ToSparseCsr())
			return weights.Save(context.Background(), path, sd, nil)
		})
		if err == nil || !strings.Contains(err.Error(), `tensor "adjacency" has layout sparse_csr, which cannot be saved; call ToDense`) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s was written", name)
		}
	}
}

func TestSharingOfPython(t *testing.T) {
	for _, from := range []string{"zip.pt", "legacy.pt", "protocol4.pt"} {
		to := filepath.Join(t.TempDir(), from)
		sd := load(t, filepath.Join("testdata", from))
		err := weights.Save(context.Background(), to, sd, nil)
		sd.Close()
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(layout(t, filepath.Join("testdata", from)), layout(t, to)); diff != "" {
			t.Errorf("%s (-read +written):\n%s", from, diff)
		}
	}
}
