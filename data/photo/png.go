package photo

import (
	"compress/flate"
	"compress/zlib"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

const pngSignature = "\x89PNG\r\n\x1a\n"

// pngKind is one of the fifteen combinations of bit depth and colour type, with the mode in
// which Pillow keeps it. As in Pillow, 16-bit colour keeps only the high bytes, and 16-bit grey
// with alpha becomes RGBA.
type pngKind struct {
	depth, colour byte
}

const (
	pngGrey      = 0
	pngTrue      = 2
	pngIndexed   = 3
	pngGreyAlpha = 4
	pngTrueAlpha = 6
)

func (k pngKind) mode() (Mode, bool) {
	switch k {
	case pngKind{1, pngGrey}:
		return Mode1, true
	case pngKind{2, pngGrey}, pngKind{4, pngGrey}, pngKind{8, pngGrey}:
		return ModeL, true
	case pngKind{16, pngGrey}:
		return ModeI16, true
	case pngKind{8, pngTrue}, pngKind{16, pngTrue}:
		return ModeRGB, true
	case pngKind{1, pngIndexed}, pngKind{2, pngIndexed}, pngKind{4, pngIndexed}, pngKind{8, pngIndexed}:
		return ModeP, true
	case pngKind{8, pngGreyAlpha}:
		return ModeLA, true
	case pngKind{16, pngGreyAlpha}, pngKind{8, pngTrueAlpha}, pngKind{16, pngTrueAlpha}:
		return ModeRGBA, true
	}
	return 0, false
}

// bits returns the number of bits per pixel in the file.
func (k pngKind) bits() int {
	n := int(k.depth)
	switch k.colour {
	case pngTrue:
		n *= 3
	case pngGreyAlpha:
		n *= 2
	case pngTrueAlpha:
		n *= 4
	}
	return n
}

// pngChunks iterates over the chunks of a file.
type pngChunks struct {
	data []byte
	at   int // at most len(data)
}

// skip advances by n bytes, or to the end.
func (c *pngChunks) skip(n int) { c.at = min(c.at+n, len(c.data)) }

// next reads the head of a chunk: its name and the length of its data.
func (c *pngChunks) next() (name string, length int, err error) {
	if len(c.data)-c.at < 8 {
		return "", 0, fmt.Errorf("%w: the PNG ends where a chunk should begin", ErrTruncated)
	}
	head := c.data[c.at : c.at+8]
	name = string(head[4:])
	for _, b := range head[4:] {
		letter := b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '_'
		if !letter {
			return "", 0, fmt.Errorf("%w: invalid PNG chunk name %q", ErrBroken, name)
		}
	}
	c.at += 8
	return name, int(be32(head)), nil
}

// body reads the data of the chunk whose head was read last, and its checksum.
func (c *pngChunks) body(name string, length int) ([]byte, error) {
	if length > len(c.data)-c.at-4 {
		return nil, fmt.Errorf("%w: the PNG ends inside chunk %s", ErrTruncated, name)
	}
	body := c.data[c.at : c.at+length]
	sum := crc32.NewIEEE()
	io.WriteString(sum, name)
	sum.Write(body)
	if got, want := sum.Sum32(), be32(c.data[c.at+length:]); got != want {
		return nil, fmt.Errorf("%w: PNG chunk %s has checksum %08x, want %08x", ErrBroken, name, got, want)
	}
	c.at += length + 4
	return body, nil
}

// pngImageData reads the contents of the image data chunks as one stream. Like Pillow, it
// ignores their checksums: the stream has a checksum of its own.
type pngImageData struct {
	pngChunks
	end int   // end of the current chunk's data, possibly beyond the end of the file
	cut bool  // the file ended inside a chunk
	err error // the reason why there is no more image data
}

// fill advances to the next chunk with data.
func (d *pngImageData) fill() error {
	for d.at == d.end {
		if d.err != nil {
			return d.err
		}
		if len(d.data)-d.at < 4 {
			d.cut = true
			return io.ErrUnexpectedEOF
		}
		before := d.at
		d.at += 4
		name, length, err := d.next()
		if err == nil && name != "IDAT" {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			d.at, d.end, d.err = before, before, err
			return err
		}
		d.end = d.at + length
	}
	if d.at == len(d.data) {
		d.cut = true
		return io.ErrUnexpectedEOF
	}
	return nil
}

func (d *pngImageData) Read(p []byte) (int, error) {
	if err := d.fill(); err != nil {
		return 0, err
	}
	n := copy(p, d.data[d.at:min(d.end, len(d.data))])
	d.at += n
	return n, nil
}

// ReadByte saves the decompressor a buffer of its own.
func (d *pngImageData) ReadByte() (byte, error) {
	if d.at >= d.end || d.at >= len(d.data) {
		if err := d.fill(); err != nil {
			return 0, err
		}
	}
	b := d.data[d.at]
	d.at++
	return b, nil
}

var _ io.ByteReader = (*pngImageData)(nil)

func decodePNG(data []byte, limit int) (*Image, error) {
	chunks := pngChunks{data: data, at: len(pngSignature)}
	var (
		seen          bool
		width, height int
		kind          pngKind
		interlaced    bool
		palette       []byte
		firstLength   int
	)
header:
	for {
		name, length, err := chunks.next()
		if err != nil {
			return nil, err
		}
		if name == "IDAT" {
			firstLength = length
			break header
		}
		body, err := chunks.body(name, length)
		if err != nil {
			return nil, err
		}
		switch name {
		case "IHDR":
			if len(body) < 13 {
				return nil, fmt.Errorf("%w: PNG chunk IHDR has %d bytes, want 13", ErrBroken, len(body))
			}
			seen = true
			width, height = int(be32(body)), int(be32(body[4:]))
			kind = pngKind{depth: body[8], colour: body[9]}
			if body[11] != 0 {
				return nil, fmt.Errorf("%w: PNG filter method %d, want 0", ErrUnsupported, body[11])
			}
			interlaced = body[12] != 0
			if err := checkSize(width, height, limit); err != nil {
				return nil, err
			}
		case "PLTE":
			palette = body
		case "IEND":
			return nil, fmt.Errorf("%w: the PNG has no image data", ErrBroken)
		}
	}
	if !seen {
		return nil, fmt.Errorf("%w: the PNG has no IHDR chunk before its image data", ErrBroken)
	}
	mode, ok := kind.mode()
	if !ok {
		return nil, fmt.Errorf("%w: PNG with colour type %d and %d bits", ErrUnsupported, kind.colour, kind.depth)
	}
	if mode == ModeP && len(palette)/3 > 256 {
		return nil, fmt.Errorf("%w: the PNG's palette has %d colours; the limit is 256", ErrBroken, len(palette)/3)
	}

	src := &pngImageData{pngChunks: chunks, end: chunks.at + firstLength}
	m := newImage(mode, width, height)
	if mode == ModeP {
		m.Palette = make([]byte, 768)
		copy(m.Palette, palette[:len(palette)/3*3])
	}
	if err := readPNGRows(src, m, kind, interlaced); err != nil {
		return nil, err
	}
	if err := pngTail(src); err != nil {
		return nil, err
	}
	return m, nil
}

// pngTail checks what follows the image, as far as Pillow does: a truncated chunk means that
// the file is truncated, but a missing end chunk is accepted.
func pngTail(src *pngImageData) error {
	c := src.pngChunks
	c.skip(src.end - c.at)
	for {
		c.skip(4)
		name, length, err := c.next()
		if err != nil || name == "IEND" {
			return nil
		}
		if length > len(c.data)-c.at {
			return fmt.Errorf("%w: the PNG ends inside chunk %s", ErrTruncated, name)
		}
		c.skip(length)
	}
}

// adam7 lists the seven passes of an interlaced image: first column and row, and the steps.
var adam7 = [7]struct{ x, y, dx, dy int }{
	{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4}, {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2},
}

func readPNGRows(src *pngImageData, m *Image, kind pngKind, interlaced bool) error {
	z, err := zlib.NewReader(src)
	if err != nil {
		return pngStreamError(src, err)
	}
	defer z.Close()

	bits := kind.bits()
	pixel := (bits + 7) / 8 // how far back filters look
	size := (m.Width*bits + 7) / 8
	// Each buffer holds a filter byte and a row, preceded by zeros for filters that look back.
	now, before := make([]byte, pixel+1+size), make([]byte, pixel+1+size)

	passes := adam7[:]
	if !interlaced {
		passes = []struct{ x, y, dx, dy int }{{0, 0, 1, 1}}
	}
	out := m.Mode.BytesPerPixel()
	for _, p := range passes {
		columns := (m.Width - p.x + p.dx - 1) / p.dx
		if columns <= 0 {
			continue
		}
		n := (columns*bits + 7) / 8
		clear(before)
		for y := p.y; y < m.Height; y += p.dy {
			raw := now[pixel : pixel+1+n]
			got, err := io.ReadFull(z, raw)
			if err == io.EOF && got == 0 {
				// The stream ended early, but intact and at the end of a row. Pillow accepts
				// this as a complete image and leaves the rest black.
				return nil
			}
			if err != nil {
				return pngStreamError(src, err)
			}
			filter := raw[0]
			raw[0] = 0
			if err := unfilter(filter, now[:pixel+1+n], before[:pixel+1+n], pixel); err != nil {
				return err
			}
			unpackPNG(m.row(y)[p.x*out:], raw[1:], columns, p.dx*out, kind)
			now, before = before, now
		}
	}
	// A wrong checksum after the last row is an error; a missing one is not.
	var one [1]byte
	var corrupt flate.CorruptInputError
	if n, err := z.Read(one[:]); n == 0 && (errors.Is(err, zlib.ErrChecksum) || errors.As(err, &corrupt)) {
		return pngStreamError(src, err)
	}
	return nil
}

func pngStreamError(src *pngImageData, err error) error {
	switch {
	case src.err != nil && !errors.Is(src.err, io.ErrUnexpectedEOF):
		return src.err
	case src.cut || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF):
		return fmt.Errorf("%w: the PNG's image data ends before its last row", ErrTruncated)
	default:
		return fmt.Errorf("%w: the PNG's image data cannot be decompressed: %w", ErrBroken, err)
	}
}

// unfilter undoes one of PNG's five row filters in place. Both rows are preceded by as many
// zeros as a pixel has bytes, and by the filter byte.
func unfilter(filter byte, now, before []byte, pixel int) error {
	row := now[pixel+1:]
	up := before[pixel+1:][:len(row)]
	switch filter {
	case 0:
	case 1:
		// The byte one pixel to the left, which is already unfiltered.
		for i := pixel; i < len(row); i++ {
			row[i] += row[i-pixel]
		}
	case 2:
		for i := range row {
			row[i] += up[i]
		}
	case 3:
		for i := range min(pixel, len(row)) {
			row[i] += up[i] / 2
		}
		for i := pixel; i < len(row); i++ {
			row[i] += byte((int(row[i-pixel]) + int(up[i])) / 2)
		}
	case 4:
		for i := range min(pixel, len(row)) {
			row[i] += up[i]
		}
		left, corner := row[:len(row)-min(pixel, len(row))], up[:len(row)-min(pixel, len(row))]
		rest, above := row[min(pixel, len(row)):][:len(left)], up[min(pixel, len(row)):][:len(left)]
		for i := range rest {
			rest[i] += paeth(int(left[i]), int(above[i]), int(corner[i]))
		}
	default:
		return fmt.Errorf("%w: invalid PNG row filter %d: must be between 0 and 4", ErrBroken, filter)
	}
	return nil
}

// paeth returns whichever of left, above and corner is nearest to left + above - corner.
func paeth(left, above, corner int) byte {
	toLeft, toAbove := above-corner, left-corner
	toCorner := toLeft + toAbove
	toLeft, toAbove, toCorner = max(toLeft, -toLeft), max(toAbove, -toAbove), max(toCorner, -toCorner)
	// Written so that the compiler emits no branches: noise defeats branch prediction.
	near := above
	if toCorner < toAbove {
		near = corner
	}
	if toLeft <= min(toAbove, toCorner) {
		near = left
	}
	return byte(near)
}

// unpackPNG writes the n pixels of a row to out, step bytes apart.
func unpackPNG(out, raw []byte, n, step int, kind pngKind) {
	switch kind {
	case pngKind{1, pngGrey}:
		unpackBits(out, raw, n, step, 1, 255)
	case pngKind{2, pngGrey}:
		unpackBits(out, raw, n, step, 2, 85)
	case pngKind{4, pngGrey}:
		unpackBits(out, raw, n, step, 4, 17)
	case pngKind{1, pngIndexed}, pngKind{2, pngIndexed}, pngKind{4, pngIndexed}:
		unpackBits(out, raw, n, step, int(kind.depth), 1)
	case pngKind{8, pngGrey}, pngKind{8, pngIndexed}:
		if step == 1 {
			copy(out[:n], raw)
			return
		}
		for i := range n {
			out[i*step] = raw[i]
		}
	case pngKind{16, pngGrey}:
		for i := range n {
			out[i*step], out[i*step+1] = raw[2*i+1], raw[2*i]
		}
	case pngKind{8, pngTrue}:
		for i := range n {
			o, r := out[i*step:i*step+3], raw[3*i:3*i+3]
			o[0], o[1], o[2] = r[0], r[1], r[2]
		}
	case pngKind{16, pngTrue}:
		for i := range n {
			o, r := out[i*step:i*step+3], raw[6*i:6*i+6]
			o[0], o[1], o[2] = r[0], r[2], r[4]
		}
	case pngKind{8, pngGreyAlpha}:
		for i := range n {
			o, r := out[i*step:i*step+4], raw[2*i:2*i+2]
			o[0], o[1], o[2], o[3] = r[0], r[0], r[0], r[1]
		}
	case pngKind{16, pngGreyAlpha}:
		for i := range n {
			o, r := out[i*step:i*step+4], raw[4*i:4*i+4]
			o[0], o[1], o[2], o[3] = r[0], r[0], r[0], r[2]
		}
	case pngKind{8, pngTrueAlpha}:
		for i := range n {
			copy(out[i*step:i*step+4], raw[4*i:4*i+4])
		}
	case pngKind{16, pngTrueAlpha}:
		for i := range n {
			o, r := out[i*step:i*step+4], raw[8*i:8*i+8]
			o[0], o[1], o[2], o[3] = r[0], r[2], r[4], r[6]
		}
	}
}

// unpackBits expands samples of depth bits, highest bits first, and scales them.
func unpackBits(out, raw []byte, n, step, depth int, scale byte) {
	mask := byte(1<<depth - 1)
	for i := range n {
		at := i * depth
		v := raw[at/8] >> (8 - depth - at%8) & mask
		out[i*step] = v * scale
	}
}
