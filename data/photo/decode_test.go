package photo

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// hugePNG returns the head of a PNG of the given size: all that a decompression bomb needs.
func hugePNG(width, height uint32) []byte {
	head := binary.BigEndian.AppendUint32([]byte("IHDR"), width)
	head = binary.BigEndian.AppendUint32(head, height)
	head = append(head, 8, 2, 0, 0, 0)
	out := append([]byte(pngSignature), 0, 0, 0, 13)
	out = append(out, head...)
	out = binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(head))
	return append(out, "\x00\x00\x00\x02IDAT\x78\x9c"...)
}

// patched returns a fixture with some bytes replaced, starting at at.
func patched(t *testing.T, name string, at int, with ...byte) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata/images", name))
	if err != nil {
		t.Fatal(err)
	}
	copy(data[at:], with)
	return data
}

// sofAt returns the offset of the height and width in a fixture JPEG.
func sofAt(t *testing.T, name string) int {
	t.Helper()
	data := string(patched(t, name, 0))
	at := max(strings.Index(data, "\xff\xc0"), strings.Index(data, "\xff\xc2"))
	if at < 0 {
		t.Fatalf("%s has no frame header", name)
	}
	return at + 5
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		data []byte
		want error
		text string
	}{
		"empty":                 {nil, ErrFormat, "empty (0 bytes)"},
		"text":                  {[]byte("a photo of a cat\n"), ErrFormat, `begins with the text "a photo of a cat"`},
		"text cut in a rune":    {[]byte("ein Käse und ein\u00e4"), ErrFormat, "begins with the text"},
		"web page":              {[]byte("<!DOCTYPE html><html>"), ErrFormat, "web page"},
		"TIFF":                  {[]byte("II*\x00\x08\x00\x00\x00"), ErrFormat, "TIFF"},
		"AVIF":                  {[]byte("\x00\x00\x00\x20ftypavif\x00\x00\x00\x00"), ErrFormat, "AVIF"},
		"bytes":                 {[]byte{0, 1, 2, 250}, ErrFormat, "00 01 02 fa"},
		"JPEG of 2 bytes":       {[]byte{0xff, 0xd8}, ErrFormat, "cut off"},
		"JPEG of 3 bytes":       {[]byte{0xff, 0xd8, 0xff}, ErrTruncated, "JPEG"},
		"JPEG of 12 bits":       {patched(t, "jpeg_12bit.jpg", 0), ErrBroken, "precision 12"},
		"JPEG of 2 components":  {patched(t, "jpeg_two_components.jpg", 0), ErrUnsupported, "2 components"},
		"JPEG, hierarchical":    {patched(t, "jpeg_hierarchical.jpg", 0), ErrBroken, "Unsupported JPEG process"},
		"JPEG of 65000x65000":   {patched(t, "jpeg_420.jpg", sofAt(t, "jpeg_420.jpg"), 0xfd, 0xe8, 0xfd, 0xe8), ErrTooLarge, "65000x65000"},
		"JPEG without height":   {patched(t, "jpeg_420.jpg", sofAt(t, "jpeg_420.jpg"), 0, 0), ErrBroken, "libjpeg"},
		"PNG, signature only":   {[]byte(pngSignature), ErrTruncated, "PNG"},
		"PNG of 30000x30000":    {hugePNG(30_000, 30_000), ErrTooLarge, "30000x30000 pixels; the limit is 178956970"},
		"PNG of 2^32-1 squared": {hugePNG(1<<32-1, 1<<32-1), ErrTooLarge, "4294967295x4294967295"},
		"PNG of width 0":        {hugePNG(0, 5), ErrBroken, "0x5"},
		"PNG without data":      {hugePNG(10, 10), ErrTruncated, "before its last row"},
		"WebP of 16384x16384":   {patched(t, "webp_animated_offset.webp", 24, 0xff, 0x3f, 0, 0xff, 0x3f, 0), ErrTooLarge, "16384x16384"},
		"WebP header only":      {patched(t, "webp_lossy.webp", 0)[:30], ErrTruncated, "WebP"},
		"GIF of 65535x65535":    {patched(t, "gif_plain.gif", 6, 0xff, 0xff, 0xff, 0xff), ErrTooLarge, "65535x65535"},
		"GIF without a frame":   {patched(t, "gif_no_frame.gif", 0), ErrBroken, "no frame"},
		"BMP of 65536x65536":    {patched(t, "bmp_24bit.bmp", 18, 0, 0, 1, 0, 0, 0, 1, 0), ErrTooLarge, "65536x65536"},
		"BMP, run lengths":      {patched(t, "bmp_palette.bmp", 30, 1), ErrUnsupported, "run-length"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := decode(c.data, MaxPixels)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("error %v, want one that is %v and says %q", err, c.want, c.text)
			}
			if m != nil {
				t.Errorf("got an image along with the error")
			}
		})
	}
}

func TestRefusedFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	film := write("film.jpg", []byte("a film, not a photo"))
	if err := os.Truncate(film, 1<<36); err != nil {
		t.Fatal(err)
	}
	big := write("big.jpg", []byte("\xff\xd8\xff\xe0"))
	if err := os.Truncate(big, 1<<36); err != nil {
		t.Fatal(err)
	}
	bomb := write("bomb.png", hugePNG(30_000, 30_000))
	if err := os.Truncate(bomb, 1<<30); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		path string
		want error
		text string
	}{
		"missing":        {filepath.Join(dir, "none.jpg"), fs.ErrNotExist, "none.jpg"},
		"folder":         {dir, nil, "is a folder"},
		"device":         {os.DevNull, nil, "not a regular file"},
		"empty":          {write("empty.jpg", nil), ErrFormat, "empty.jpg"},
		"64 GiB of else": {film, ErrFormat, "a film, not a ph"},
		"64 GiB of JPEG": {big, ErrTooLarge, "68719476736 bytes"},
		"bomb of 1 GiB":  {bomb, ErrTooLarge, "30000x30000"},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := Decode(c.path)
			runtime.ReadMemStats(&after)
			if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), c.path) {
				t.Errorf("error %v, want one that is %v, says %q and names the file", err, c.want, c.text)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
				t.Errorf("%d bytes were allocated on the way to the error, want next to none", n)
			}
		})
	}
}

// The contents of a file decide its format, not its name.
func TestContentsDecide(t *testing.T) {
	data, err := os.ReadFile("testdata/images/webp_lossy.webp")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "really.png")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := Decode(path)
	if err != nil || m.Mode != ModeRGB || m.Width != 27 || m.Height != 18 {
		t.Errorf("got %v, %v, want the WebP image", m, err)
	}
}

// Every prefix of a real photo is either rejected or decoded and never crashes; libjpeg's
// errors are returned as errors however often they occur.
func TestPhotoCutAnywhere(t *testing.T) {
	data, err := os.ReadFile(photoPaths(t)[0])
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(data)-2; n += 997 {
		if _, err := decode(data[:n:n], MaxPixels); err == nil {
			t.Errorf("%d of %d bytes were decoded without an error", n, len(data))
		}
	}
}

// Each scan walks over the whole image, but an empty scan takes only a dozen bytes of file.
func TestManyScansAreRefused(t *testing.T) {
	data := patched(t, "jpeg_progressive.jpg", 0)
	at := strings.Index(string(data), "\xff\xda")
	scan := "\xff\xda\x00\x08\x01\x01\x00\x00\x00\x01" // one component, its direct part, once more
	var bomb []byte
	bomb = append(bomb, data[:at]...)
	for range 2000 {
		bomb = append(bomb, scan...)
		bomb = append(bomb, 0, 0, 0, 0)
	}
	bomb = append(bomb, 0xff, 0xd9)
	_, err := decode(bomb, MaxPixels)
	if !errors.Is(err, ErrBroken) || !strings.Contains(err.Error(), "scans") {
		t.Errorf("error %v, want an error about the number of scans", err)
	}
}

func fuzz(f *testing.F, prefix string) {
	files, err := filepath.Glob("testdata/images/" + prefix + "*")
	if err != nil || len(files) == 0 {
		f.Fatalf("no images %s* to begin with: %v", prefix, err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		if len(data) < 4000 {
			f.Add(data)
		}
	}
	pre := CLIP(32)
	f.Fuzz(func(t *testing.T, data []byte) {
		// Small images only: a large one is slow, not wrong.
		m, err := decode(data, 1<<16)
		if err != nil {
			if m != nil {
				t.Fatal("an image came with the error", err)
			}
			for _, known := range []error{ErrFormat, ErrUnsupported, ErrTruncated, ErrBroken, ErrTooLarge} {
				if errors.Is(err, known) {
					return
				}
			}
			t.Fatalf("error %v is of no known kind", err)
		}
		if err := m.check(); err != nil {
			t.Fatal(err)
		}
		if _, err := values(pre, m); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzJPEG(f *testing.F) { fuzz(f, "jpeg") }
func FuzzPNG(f *testing.F)  { fuzz(f, "png") }
func FuzzWebP(f *testing.F) { fuzz(f, "webp") }
func FuzzGIF(f *testing.F)  { fuzz(f, "gif") }
func FuzzBMP(f *testing.F)  { fuzz(f, "bmp") }
