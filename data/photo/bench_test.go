package photo

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// benchPhoto is a colour JPEG of 640 by 480 with 4:2:0 chroma.
const benchPhoto = "000000126107.jpg"

func benchData(b *testing.B) []byte {
	b.Helper()
	data, err := os.ReadFile(filepath.Join(photosDir, benchPhoto))
	if err != nil {
		b.Fatal(err)
	}
	return data
}

func BenchmarkDecodeJPEG(b *testing.B) {
	data := benchData(b)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decode(data, MaxPixels); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkResize measures the hot loop alone: bicubic to 224 and the centre crop.
func BenchmarkResize(b *testing.B) {
	m, err := decode(benchData(b), MaxPixels)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := CLIP(224).PixelsRGB(m); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkResizePlain measures the plain Go code against which the tests check the C code.
func BenchmarkResizePlain(b *testing.B) {
	m, err := decode(benchData(b), MaxPixels)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		across, down := newAxis(Bicubic, m.Width, 298, 37, 224), newAxis(Bicubic, m.Height, 224, 0, 224)
		plainColumns(plainRows(m, across), down)
	}
}

func BenchmarkApply(b *testing.B) {
	m, err := decode(benchData(b), MaxPixels)
	if err != nil {
		b.Fatal(err)
	}
	pre := CLIP(224)
	dst := make([]float32, pre.Len())
	b.ReportAllocs()
	for b.Loop() {
		if err := pre.Into(dst, m); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPhotoToInput measures one photo from file to network input, on one thread.
func BenchmarkPhotoToInput(b *testing.B) {
	path := filepath.Join(photosDir, benchPhoto)
	pre := CLIP(224)
	dst := make([]float32, pre.Len())
	b.ReportAllocs()
	for b.Loop() {
		m, err := Decode(path)
		if err != nil {
			b.Fatal(err)
		}
		if err := pre.Into(dst, m); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAllPhotos measures the mean over the 26 photos in testdata.
func BenchmarkAllPhotos(b *testing.B) {
	paths := photoPaths(b)
	pre := CLIP(224)
	dst := make([]float32, pre.Len())
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		m, err := Decode(paths[i%len(paths)])
		i++
		if err != nil {
			b.Fatal(err)
		}
		if err := pre.Into(dst, m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	paths := photoPaths(b)
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range Load(context.Background(), paths, CLIP(224), 2, 8) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.N*len(paths))/b.Elapsed().Seconds(), "photos/s")
}
