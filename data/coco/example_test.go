package coco_test

import (
	"fmt"
	"os"
	"path/filepath"

	"cyclecap/data/coco"
)

func ExampleWriteResults() {
	folder, err := os.MkdirTemp("", "coco")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "results.json")
	if err := coco.WriteResults(path, []coco.Result{{ImageID: coco.Int(60623), Caption: "A girl eats a dessert."}}); err != nil {
		fmt.Println(err)
		return
	}
	results, err := coco.ReadResults(path)
	fmt.Println(results, err)
	// Output:
	// [{60623 A girl eats a dessert.}] <nil>
}
