package photo

import (
	"bytes"
	"compress/zlib"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// photosDir holds the real photos that the whole project tests with.
const photosDir = "../../testdata/photos"

func photoPaths(t testing.TB) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(photosDir, "*.jpg"))
	if err != nil {
		t.Fatal(err)
	}
	if len(paths) < 26 {
		t.Fatalf("%s holds %d photos, want 26", photosDir, len(paths))
	}
	return paths
}

// samples holds bytes written by testdata/make_fixtures.py: all of them, or their hash.
type samples string

// diff describes how got differs from s; it returns "" if it does not.
func (s samples) diff(t *testing.T, got []byte) string {
	t.Helper()
	if want, ok := strings.CutPrefix(string(s), "sha256:"); ok {
		return cmp.Diff(want, hash(got))
	}
	packed, err := base64.StdEncoding.DecodeString(string(s))
	if err != nil {
		t.Fatal(err)
	}
	z, err := zlib.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	want, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		return fmt.Sprintf("%d bytes, want %d", len(got), len(want))
	}
	differ, most, first := 0, 0, -1
	for i := range want {
		if d := max(int(got[i])-int(want[i]), int(want[i])-int(got[i])); d > 0 {
			if first < 0 {
				first = i
			}
			differ++
			most = max(most, d)
		}
	}
	if differ == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d samples differ, by at most %d; the first is sample %d: %d, want %d",
		differ, len(want), most, first, got[first], want[first])
}

type expectedImage struct {
	File, Error, Mode string
	Width, Height     int
	Pixels, RGB       samples
	Resized           []struct {
		Width, Height int
		Pixels        samples
	}
	Clip []struct {
		Size   int
		Pixels samples
		F32    string `json:"f32_sha256"`
	}
}

type expectations struct {
	Versions  map[string]string
	Normalize [3][256]string
	Images    []expectedImage
	Cuts      []struct {
		File, Error string
		Keep        int
		RGB         string `json:"rgb_sha256"`
	}
	Photos []struct {
		File, Mode    string
		Width, Height int
		RGB           string `json:"rgb_sha256"`
		Clip          []struct {
			Size   int
			Pixels string `json:"pixels_sha256"`
			F32    string `json:"f32_sha256"`
		}
	}
}

func expected(t *testing.T) expectations {
	t.Helper()
	text, err := os.ReadFile("testdata/expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var e expectations
	if err := json.Unmarshal(text, &e); err != nil {
		t.Fatal(err)
	}
	if len(e.Images) == 0 || len(e.Cuts) == 0 || len(e.Photos) == 0 {
		t.Fatal("testdata/expected.json is incomplete: run testdata/make_fixtures.py")
	}
	return e
}

func hash(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

func floatHash(v []float32) string {
	b := make([]byte, 0, 4*len(v))
	for _, f := range v {
		u := math.Float32bits(f)
		b = append(b, byte(u), byte(u>>8), byte(u>>16), byte(u>>24))
	}
	return hash(b)
}

// stored returns the samples of an image as Pillow's tobytes does: without the unused bytes.
func stored(m *Image) []byte {
	keep := map[Mode][]int{ModeLA: {0, 3}, ModeRGB: {0, 1, 2}}[m.Mode]
	if keep == nil {
		return m.Pix
	}
	var out []byte
	for i := 0; i < len(m.Pix); i += 4 {
		for _, c := range keep {
			out = append(out, m.Pix[i+c])
		}
	}
	return out
}

func TestImagesAreThoseOfPillow(t *testing.T) {
	for _, want := range expected(t).Images {
		t.Run(want.File, func(t *testing.T) {
			m, err := Decode(filepath.Join("testdata/images", want.File))
			if (err != nil) != (want.Error != "") {
				t.Fatalf("Decode gives error %v, Pillow's is %q", err, want.Error)
			}
			if err != nil {
				return
			}
			got := expectedImage{Mode: m.Mode.String(), Width: m.Width, Height: m.Height}
			if d := cmp.Diff(expectedImage{Mode: want.Mode, Width: want.Width, Height: want.Height}, got); d != "" {
				t.Fatal("header (-Pillow +got):\n", d)
			}
			if d := want.Pixels.diff(t, stored(m)); d != "" {
				t.Error("decoded:", d)
			}
			rgb, err := m.RGB()
			if err != nil {
				t.Fatal(err)
			}
			if d := want.RGB.diff(t, rgb); d != "" {
				t.Error("converted to RGB:", d)
			}
			for _, w := range want.Resized {
				z := m.resized(w.Width, w.Height)
				if d := w.Pixels.diff(t, stored(z)); d != "" {
					t.Errorf("resized to %dx%d: %s", w.Width, w.Height, d)
				}
			}
			for _, w := range want.Clip {
				pixels, err := CLIP(w.Size).PixelsRGB(m)
				if err != nil {
					t.Fatal(err)
				}
				if d := w.Pixels.diff(t, pixels); d != "" {
					t.Errorf("resized and cropped to %d: %s", w.Size, d)
				}
				f32, err := values(CLIP(w.Size), m)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(w.F32, floatHash(f32)); d != "" {
					t.Errorf("normalised at %d (-torchvision +got):\n%s", w.Size, d)
				}
			}
		})
	}
}

func TestEveryFixtureIsExpected(t *testing.T) {
	files, err := os.ReadDir("testdata/images")
	if err != nil {
		t.Fatal(err)
	}
	var have, want []string
	for _, f := range files {
		have = append(have, f.Name())
	}
	for _, e := range expected(t).Images {
		want = append(want, e.File)
	}
	if d := cmp.Diff(want, have); d != "" {
		t.Error("testdata/images (-expected.json +folder):\n", d)
	}
}

func TestPhotosAreThoseOfPillow(t *testing.T) {
	e := expected(t)
	if got, want := len(photoPaths(t)), len(e.Photos); got != want {
		t.Errorf("%d photos, expected.json has %d", got, want)
	}
	for _, want := range e.Photos {
		t.Run(want.File, func(t *testing.T) {
			m, err := Decode(filepath.Join(photosDir, want.File))
			if err != nil {
				t.Fatal(err)
			}
			got := want
			got.Mode, got.Width, got.Height = m.Mode.String(), m.Width, m.Height
			rgb, err := m.RGB()
			if err != nil {
				t.Fatal(err)
			}
			got.RGB = hash(rgb)
			got.Clip = nil
			for _, w := range want.Clip {
				pixels, err := CLIP(w.Size).PixelsRGB(m)
				if err != nil {
					t.Fatal(err)
				}
				f32, err := values(CLIP(w.Size), m)
				if err != nil {
					t.Fatal(err)
				}
				w.Pixels, w.F32 = hash(pixels), floatHash(f32)
				got.Clip = append(got.Clip, w)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Error("(-Pillow and torchvision +got):\n", d)
			}
		})
	}
}

// A truncated file is rejected exactly where Pillow rejects it.
func TestCutFiles(t *testing.T) {
	for _, want := range expected(t).Cuts {
		t.Run(fmt.Sprintf("%s/%d", want.File, want.Keep), func(t *testing.T) {
			data, err := os.ReadFile(filepath.Join("testdata/images", want.File))
			if err != nil {
				t.Fatal(err)
			}
			m, err := decode(data[:want.Keep], MaxPixels)
			if (err != nil) != (want.Error != "") {
				t.Fatalf("decode gives error %v, Pillow's is %q", err, want.Error)
			}
			if err != nil {
				return
			}
			rgb, err := m.RGB()
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(want.RGB, hash(rgb)); d != "" {
				t.Error("(-Pillow +got):\n", d)
			}
		})
	}
}

// Every possible result of ToTensor and Normalize, bit for bit.
func TestNormalizeTable(t *testing.T) {
	want := expected(t).Normalize
	var got [3][256]string
	for v := range 256 {
		m := newImage(ModeRGB, 1, 1)
		copy(m.Pix, []byte{byte(v), byte(v), byte(v)})
		f32, err := values(CLIP(1), m)
		if err != nil {
			t.Fatal(err)
		}
		for c, f := range f32 {
			got[c][v] = fmt.Sprintf("%08x", math.Float32bits(f))
		}
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error("f32 bits (-torchvision +got):\n", d)
	}
}

func TestSizes(t *testing.T) {
	for _, c := range []struct {
		size, long, short int
		want, crop        int
	}{
		{224, 640, 480, 298, 37},
		{224, 480, 480, 224, 0},
		{224, 640, 427, 335, 56}, // 111/2 = 55.5 rounds to even
		{224, 500, 333, 336, 56},
		{224, 641, 480, 299, 38}, // 37.5 rounds to even
		{224, 637, 480, 297, 36}, // 36.5 rounds to even
		{336, 640, 480, 448, 56},
		{224, 100000, 1, 22400000, 11199888},
	} {
		t.Run(strconv.Itoa(c.size)+"/"+strconv.Itoa(c.long)+"x"+strconv.Itoa(c.short), func(t *testing.T) {
			got := longSide(c.size, c.long, c.short)
			if got != c.want || middle(got, c.size) != c.crop {
				t.Errorf("long side %d, crop at %d, want %d and %d", got, middle(got, c.size), c.want, c.crop)
			}
		})
	}
}

func TestPreprocessRefuses(t *testing.T) {
	ok := newImage(ModeRGB, 4, 3)
	short := newImage(ModeRGB, 4, 3)
	short.Pix = short.Pix[:7]
	noPalette := newImage(ModeP, 2, 2)
	for name, c := range map[string]struct {
		pre  Preprocess
		m    *Image
		dst  int
		want string
	}{
		"size 0":            {CLIP(0), ok, 0, "size 0"},
		"size below 0":      {CLIP(-5), ok, 0, "size -5"},
		"size out of reach": {CLIP(1 << 40), ok, 0, "size 1099511627776"},
		"deviation 0":       {Preprocess{Size: 2}, ok, 12, "zero"},
		"no image":          {CLIP(2), nil, 12, "nil"},
		"empty image":       {CLIP(2), &Image{Mode: ModeRGB}, 12, "0x0"},
		"no mode":           {CLIP(2), &Image{Width: 1, Height: 1}, 12, "mode"},
		"too few samples":   {CLIP(2), short, 12, "48 bytes"},
		"no palette":        {CLIP(2), noPalette, 12, "palette"},
		"wrong destination": {CLIP(2), ok, 11, "12 values, but the destination has room for 11"},
	} {
		t.Run(name, func(t *testing.T) {
			err := c.pre.Into(make([]float32, c.dst), c.m)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func ExamplePreprocess() {
	m, err := Decode("testdata/images/jpeg_420.jpg")
	if err != nil {
		fmt.Println(err)
		return
	}
	f32, err := values(CLIP(224), m)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.Mode, m.Width, m.Height, len(f32) == 3*224*224)
	// Output: RGB 29 22 true
}

// values returns a photo as the network sees it.
func values(p Preprocess, m *Image) ([]float32, error) {
	if err := p.check(); err != nil {
		return nil, err
	}
	dst := make([]float32, p.Len())
	return dst, p.Into(dst, m)
}

// resized returns the whole image at another size.
func (m *Image) resized(width, height int) *Image {
	return m.resizeCrop(Bicubic, width, height, 0, 0, width, height)
}
