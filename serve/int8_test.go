package serve

import (
	"strings"
	"testing"
)

// A model of the configuration computes with int8 on the CPU only.
func TestConfigInt8(t *testing.T) {
	o, err := config(t, "[[model]]\nname = \"a\"\ndtype = \"int8\"")
	if err != nil || !o.Models[0].Compute.Int8 || !o.Models[0].Compute.Packed() {
		t.Errorf("%+v, %v", o.Models, err)
	}
	if _, err := config(t, "[[model]]\nname = \"a\"\ndtype = \"int8\"\ndevice = \"meta\""); err == nil || !strings.Contains(err.Error(), "int8 is for the CPU") {
		t.Errorf("on another device: %v", err)
	}
}
