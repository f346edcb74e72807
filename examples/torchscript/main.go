// Torchscript runs a module of torch.jit.save on an input in a file of numpy.savez, x, and
// compares the result with y in the same file.
//
//	go run ./examples/torchscript torch/testdata/traced.pt torch/testdata/traced.npz
package main

import (
	"fmt"
	"log"
	"os"

	"cyclecap/torch"
	"cyclecap/torch/npy"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: torchscript MODULE.pt ARRAYS.npz")
	}
	// The file's code runs: load only files that you trust.
	m, err := torch.LoadScript(os.Args[1], torch.CPU)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	err = torch.Scope(func() error {
		arrays, err := npy.LoadZ(os.Args[2])
		if err != nil {
			return err
		}
		torch.InferenceMode(func() {
			y := m.Forward(arrays["x"]).(torch.Tensor)
			fmt.Println(y)
			fmt.Printf("largest difference from Python: %.1g\n", y.Sub(arrays["y"]).Abs().Max().Item())
		})
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
}
