package photo

import (
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// plainRows and plainColumns implement the two passes over 8-bit samples in the plainest Go,
// as a reference for the C code.
func plainRows(m *Image, a *axis) *Image {
	pixel := m.Mode.BytesPerPixel()
	out := newImage(m.Mode, a.count, m.Height)
	for y := range m.Height {
		from, to := m.row(y), out.row(y)
		for x := range a.count {
			first, n := int(a.span[2*x]), int(a.span[2*x+1])
			weights := a.fixed[x*a.width:][:n]
			for c := range pixel {
				sum := int32(1) << (precision - 1)
				for i, w := range weights {
					sum += int32(from[(first+i)*pixel+c]) * w
				}
				to[x*pixel+c] = byte(min(max(sum>>precision, 0), 255))
			}
		}
	}
	return out
}

func plainColumns(m *Image, a *axis) *Image {
	pixel := m.Mode.BytesPerPixel()
	out := newImage(m.Mode, m.Width, a.count)
	for y := range a.count {
		first, n := int(a.span[2*y]), int(a.span[2*y+1])
		weights := a.fixed[y*a.width:][:n]
		to := out.row(y)
		for x := range m.Width * pixel {
			sum := int32(1) << (precision - 1)
			for i, w := range weights {
				sum += int32(m.row(first + i)[x]) * w
			}
			to[x] = byte(min(max(sum>>precision, 0), 255))
		}
	}
	return out
}

func randomImage(t *rapid.T, mode Mode, most int) *Image {
	m := newImage(mode, rapid.IntRange(1, most).Draw(t, "width"), rapid.IntRange(1, most).Draw(t, "height"))
	// Extremes reveal overflow and clipping; generating single bytes would be slow.
	state := rapid.Uint64().Draw(t, "seed")
	extreme := rapid.Bool().Draw(t, "extreme")
	for i := range m.Pix {
		state = state*6364136223846793005 + 1442695040888963407
		v := byte(state >> 56)
		if extreme {
			v = byte(int8(v) >> 7)
		}
		m.Pix[i] = v
	}
	return m
}

// The C code, with and without AVX2, equals the plain Go code for any sizes and crops.
func TestResampleIsThePlainRule(t *testing.T) {
	defer func() { plainC = false }()
	rapid.Check(t, func(t *rapid.T) {
		mode := rapid.SampledFrom([]Mode{ModeL, ModeRGB, ModeCMYK}).Draw(t, "mode")
		m := randomImage(t, mode, 90)
		width, height := rapid.IntRange(1, 120).Draw(t, "to width"), rapid.IntRange(1, 120).Draw(t, "to height")
		x0, y0 := rapid.IntRange(0, width-1).Draw(t, "x"), rapid.IntRange(0, height-1).Draw(t, "y")
		cw, ch := rapid.IntRange(1, width-x0).Draw(t, "cw"), rapid.IntRange(1, height-y0).Draw(t, "ch")

		across, down := newAxis(Bicubic, m.Width, width, 0, width), newAxis(Bicubic, m.Height, height, 0, height)
		var whole *Image
		if height < m.Height && 2*(m.Width-width) < m.Height-height {
			whole = plainRows(plainColumns(m, down), across)
		} else {
			whole = plainColumns(plainRows(m, across), down)
		}
		want := whole.crop(x0, y0, cw, ch)
		for _, plainC = range []bool{false, true} {
			got := m.resizeCrop(Bicubic, width, height, x0, y0, cw, ch)
			if d := cmp.Diff(want, got); d != "" {
				t.Fatalf("portable C code %v (-plain Go +C):\n%s", plainC, d)
			}
		}
	})
}

// resizeCrop equals resizing the whole image and then cropping it, in every mode.
func TestResizeCropIsACrop(t *testing.T) {
	for _, mode := range []Mode{Mode1, ModeL, ModeI16, ModeP, ModeLA, ModeRGB, ModeRGBA, ModeCMYK} {
		t.Run(mode.String(), func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				m := randomImage(t, mode, 40)
				if mode == ModeP {
					m.Palette = make([]byte, 768)
				}
				width, height := rapid.IntRange(1, 60).Draw(t, "to width"), rapid.IntRange(1, 60).Draw(t, "to height")
				x0, y0 := rapid.IntRange(0, width-1).Draw(t, "x"), rapid.IntRange(0, height-1).Draw(t, "y")
				cw, ch := rapid.IntRange(1, width-x0).Draw(t, "cw"), rapid.IntRange(1, height-y0).Draw(t, "ch")
				whole := m.resized(width, height)
				if d := cmp.Diff(whole.crop(x0, y0, cw, ch), m.resizeCrop(Bicubic, width, height, x0, y0, cw, ch)); d != "" {
					t.Fatal("(-crop of the whole +cropped resize):\n", d)
				}
			})
		})
	}
}

// One position of an axis may use many more source pixels than the others do.
func TestResizeExtremes(t *testing.T) {
	for _, c := range []struct{ w, h, toW, toH int }{
		{100_000, 1, 1, 1}, {1, 100_000, 1, 1}, {100_000, 1, 3, 7}, {1, 100_000, 7, 3},
		{1, 1, 2000, 3}, {3, 1, 1, 500}, {65_535, 2, 224, 224}, {4, 4, 4, 1},
	} {
		for _, mode := range []Mode{ModeL, ModeRGB, ModeRGBA, ModeI16} {
			t.Run(fmt.Sprintf("%v/%dx%d to %dx%d", mode, c.w, c.h, c.toW, c.toH), func(t *testing.T) {
				m := newImage(mode, c.w, c.h)
				for i := range m.Pix {
					m.Pix[i] = 255
				}
				z := m.resized(c.toW, c.toH)
				// White stays white: the weights of every position sum to one.
				for i, v := range z.Pix {
					if v != 255 {
						t.Fatalf("byte %d is %d, want 255", i, v)
					}
				}
			})
		}
	}
}

func TestCubicIsOneAtEveryPhase(t *testing.T) {
	for i := range 64 {
		x := float64(i) / 64
		sum := cubic(x+1) + cubic(x) + cubic(1-x) + cubic(2-x)
		if math.Abs(sum-1) > 1e-12 {
			t.Errorf("the kernel's values at phase %v sum to %v, want 1", x, sum)
		}
	}
}
