package cli_test

import (
	"strings"
	"testing"

	"cyclecap/torch"
)

// int8 gives captions and features, with other numbers than f32.
func TestInt8(t *testing.T) {
	for _, l := range captionLines(t, ok(t, caption("--dtype", "int8", "--json", photos[0])...)) {
		if len(l.Tokens) == 0 || !(l.LogProb < 0) {
			t.Errorf("no caption: %+v", l)
		}
	}
	if !torch.HasInt8() {
		return // they are those of packed f32
	}
	dir := t.TempDir()
	ok(t, "features", "--clip", clipF, "--dtype", "int8", "--output", dir+"/a.safetensors", "--images", photos[0])
	if text := ok(t, "inspect", dir+"/a.safetensors"); !strings.Contains(text, "int8") {
		t.Errorf("the features do not say that they are of int8:\n%s", text)
	}
}

// The models in the program write captions with int8.
func TestInt8BuiltIn(t *testing.T) {
	dir := sampled(t, "4")
	same := 0
	want := captionLines(t, run("", "caption", "--json", dir).out)
	got := captionLines(t, run("", "caption", "--json", "--dtype", "int8", dir).out)
	if len(got) != len(want) {
		t.Fatalf("%d captions, want %d", len(got), len(want))
	}
	for i, l := range got {
		if l.Caption == "" {
			t.Errorf("no caption: %+v", l)
		}
		if l.Caption == want[i].Caption {
			same++
		}
	}
	if t.Logf("%d of %d captions are those of f32", same, len(want)); same < len(want)/2 {
		t.Errorf("only %d of %d captions are those of f32", same, len(want))
	}
	// Packed f32 weights change no caption here.
	if fast := captionLines(t, run("", "caption", "--json", "--fast", dir).out); len(fast) != len(want) || fast[0].Caption != want[0].Caption {
		t.Errorf("with --fast: %+v", fast)
	}
}

// Where int8 does not apply, it is an error that says so.
func TestInt8Usage(t *testing.T) {
	run("", caption("--dtype", "int8", "--device", "cuda:0", photos[0])...).fails(t, 2, "--dtype int8 is for the CPU", "cuda:0")
	run("", caption("--dtype", "i8", photos[0])...).fails(t, 2, "must be f32 or bf16, or int8 on the CPU")
}
