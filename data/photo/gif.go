package photo

import "fmt"

// decodeGIF decodes the first frame as specified by GIF89a, and like Pillow where GIF89a is
// silent: pixels outside the frame get the transparent index if there is one, otherwise 0; a
// palette that is the plain grey ramp makes the image grey.
func decodeGIF(data []byte, limit int) (*Image, error) {
	cut := fmt.Errorf("%w: the GIF ends before its first frame does", ErrTruncated)
	if len(data) < 13 {
		return nil, cut
	}
	width, height := le16(data[6:]), le16(data[8:])
	flags := data[10]
	rest := data[13:]
	take := func(n int) ([]byte, bool) {
		if n > len(rest) {
			return nil, false
		}
		b := rest[:n]
		rest = rest[n:]
		return b, true
	}
	var palette []byte
	if flags&128 != 0 {
		p, ok := take(3 << (flags&7 + 1))
		if !ok {
			return nil, cut
		}
		if !isGreyRamp(p) {
			palette = p
		}
	}
	transparent := -1
	for {
		kind, ok := take(1)
		if !ok {
			return nil, cut
		}
		switch kind[0] {
		case ';':
			return nil, fmt.Errorf("%w: the GIF has no frames", ErrBroken)
		case '!':
			label, ok := take(1)
			if !ok {
				return nil, cut
			}
			for first := true; ; first = false {
				n, ok := take(1)
				if !ok {
					return nil, cut
				}
				if n[0] == 0 {
					break
				}
				block, ok := take(int(n[0]))
				if !ok {
					return nil, cut
				}
				if first && label[0] == 249 && len(block) >= 4 && block[0]&1 != 0 {
					transparent = int(block[3])
				}
			}
		case ',':
			h, ok := take(9)
			if !ok {
				return nil, cut
			}
			f := gifFrame{x: le16(h), y: le16(h[2:]), w: le16(h[4:]), h: le16(h[6:]), interlaced: h[8]&64 != 0}
			if h[8]&128 != 0 {
				p, ok := take(3 << (h[8]&7 + 1))
				if !ok {
					return nil, cut
				}
				palette = p
				if isGreyRamp(p) {
					palette = nil
				}
			}
			width, height = max(width, f.x+f.w), max(height, f.y+f.h)
			if err := checkSize(width, height, limit); err != nil {
				return nil, err
			}
			bits, ok := take(1)
			if !ok {
				return nil, cut
			}
			m := newImage(ModeL, width, height)
			if palette != nil {
				m.Mode = ModeP
				m.Palette = make([]byte, 768)
				copy(m.Palette, palette)
			}
			if transparent > 0 {
				for i := range m.Pix {
					m.Pix[i] = byte(transparent)
				}
			}
			if f.w < 1 || f.h < 1 {
				return nil, fmt.Errorf("%w: the GIF's first frame has size %dx%d", ErrBroken, f.w, f.h)
			}
			if err := f.read(m, rest, int(bits[0])); err != nil {
				return nil, err
			}
			return m, nil
		}
	}
}

func isGreyRamp(p []byte) bool {
	for i, v := range p {
		if int(v) != i/3 {
			return false
		}
	}
	return true
}

type gifFrame struct {
	x, y, w, h int
	interlaced bool
}

// read decodes the frame's LZW codes (least significant bit first, in blocks that start with
// a length byte) into the frame's place in m.
func (f gifFrame) read(m *Image, data []byte, bits int) error {
	const codes = 4096
	if bits > 12 {
		return fmt.Errorf("%w: GIF code size of %d bits; the limit is 12", ErrBroken, bits)
	}
	var (
		clearCode = 1 << bits
		endCode   = clearCode + 1
		next      = clearCode + 2 // the first free code
		size      = bits + 1
		last      = -1 // the previous code; -1 after a clear
		first     byte // the first byte of the previous code's text
		prefix    [codes]uint16
		suffix    [codes]byte
		text      [codes + 1]byte // the text of a code, filled from the end
		window    uint
		have      int
		block     int
		x, y      int
		pass      int
	)
	bad := fmt.Errorf("%w: invalid GIF code", ErrBroken)
	for {
		for have < size {
			if block == 0 {
				// A block is used only if it is complete.
				if len(data) < 1 || len(data) < 1+int(data[0]) {
					return fmt.Errorf("%w: the GIF's first frame ends before its last row", ErrTruncated)
				}
				block = int(data[0])
				data = data[1:]
				continue
			}
			window |= uint(data[0]) << have
			data = data[1:]
			have += 8
			block--
		}
		code := int(window & (1<<size - 1))
		window >>= size
		have -= size
		switch {
		case code == clearCode:
			next, size, last = clearCode+2, bits+1, -1
			continue
		case code == endCode:
			return fmt.Errorf("%w: the GIF's first frame ends before its last row", ErrTruncated)
		}
		at := len(text)
		if last < 0 {
			if code > clearCode {
				return bad
			}
			at--
			text[at] = byte(code)
			first, last = byte(code), code
		} else {
			if code > next {
				return bad
			}
			c := code
			if c == next {
				// The code about to be defined: the previous text and its first byte.
				at--
				text[at] = first
				c = last
			}
			for c >= clearCode {
				if at == 0 || c >= codes {
					return bad
				}
				at--
				text[at] = suffix[c]
				c = int(prefix[c])
			}
			if at == 0 {
				return bad
			}
			at--
			text[at] = byte(c)
			first = byte(c)
			if next < codes {
				prefix[next], suffix[next] = uint16(last), byte(c)
				if next == 1<<size-1 && size < 12 {
					size++
				}
				next++
			}
			last = code
		}
		for run := text[at:]; len(run) > 0; {
			n := copy(m.row(f.y + y)[f.x+x:f.x+f.w], run)
			run = run[n:]
			if x += n; x < f.w {
				continue
			}
			x = 0
			if y, pass = f.nextRow(y, pass); y < 0 {
				return nil
			}
		}
	}
}

// nextRow returns the row that follows y in the file and its pass; the row is -1 after the last.
func (f gifFrame) nextRow(y, pass int) (int, int) {
	if !f.interlaced {
		if y+1 == f.h {
			return -1, 0
		}
		return y + 1, 0
	}
	start, step := [...]int{0, 4, 2, 1}, [...]int{8, 8, 4, 2}
	for y += step[pass]; y >= f.h; y = start[pass] {
		if pass++; pass == len(start) {
			return -1, 0
		}
	}
	return y, pass
}
