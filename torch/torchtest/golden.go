package torchtest

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"cyclecap/torch"
	"cyclecap/torch/compare"
	"cyclecap/torch/nn"
	"cyclecap/weights"
)

// updating reports whether -update is given. Another package of the test may have
// defined the flag.
var updating = func() func() bool {
	if flag.Lookup("update") == nil {
		flag.Bool("update", false, "write the golden tensors instead of comparing with them")
	}
	value := flag.Lookup("update").Value
	return func() bool { return value.String() == "true" }
}()

// files is held while a golden file is read or written.
var files sync.Mutex

// Golden fails the test unless got has the same bits as the tensor of a name in a golden
// file, a safetensors file such as testdata/golden.safetensors. `go test -update` writes
// got into the file instead; tensors of other names stay in it.
//
// The file records the processor and the number of threads with which a tensor was
// computed. With others, a relative difference of 1e-5 is allowed.
func Golden(t testing.TB, file, name string, got torch.Tensor) {
	t.Helper()
	files.Lock()
	defer files.Unlock()
	processor, err := compare.Processor()
	if err != nil {
		t.Error(err)
		return
	}
	here := fmt.Sprintf("%s, %d threads", processor, torch.NumThreads())
	if updating() {
		if err := store(file, name, got, here); err != nil {
			t.Error(err)
		}
		return
	}
	command := fmt.Sprintf("`go test -run '^%s$' -update`", t.Name())
	meta, tensors, err := read(file)
	if errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s does not exist; %s writes it", file, command)
		return
	}
	if err != nil {
		t.Error(err)
		return
	}
	defer tensors.Close()
	want, ok := tensors.Get(name)
	if !ok {
		t.Errorf("%s has no tensor %q; %s writes it", file, name, command)
		return
	}
	tolerance, from := compare.Bits, meta[name]
	if from != here {
		tolerance = tolerance.OtherProcessor()
		tolerance.Why = fmt.Sprintf("computed on %s; this is %s", from, here)
	}
	if failure := explain(compare.Tensors(got, want), tolerance); failure != "" {
		t.Errorf("%s of %s: %s\nif the new values are right, %s writes them", name, file, failure, command)
	}
}

// read reads a golden file.
func read(file string) (map[string]string, *nn.StateDict, error) {
	f, err := weights.Open(file)
	if err != nil {
		return nil, nil, err
	}
	tensors, err := f.Load()
	return f.Meta, tensors, err
}

// store writes a tensor into a golden file.
func store(file, name string, got torch.Tensor, here string) error {
	if !got.Defined() {
		return fmt.Errorf("%s: %s is no tensor", file, name)
	}
	meta, tensors, err := read(file)
	if errors.Is(err, fs.ErrNotExist) {
		meta, tensors, err = nil, nn.NewStateDict(), os.MkdirAll(filepath.Dir(file), 0o777)
	}
	if err != nil {
		return err
	}
	defer tensors.Close()
	if meta == nil {
		meta = map[string]string{}
	}
	if old, ok := tensors.Get(name); ok {
		old.Close()
	}
	return torch.Scope(func() error {
		// An alias, which the caller does not lose with the others.
		tensors.Add(name, got.Detach().Keep())
		meta[name] = here
		return weights.SaveSafetensors(context.Background(), file, tensors, meta)
	})
}
