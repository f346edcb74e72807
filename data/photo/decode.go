package photo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"unicode"
	"unicode/utf8"
)

// MaxPixels is the largest photo that is read, in pixels: Pillow's limit against
// decompression bombs. The size is checked in the header, before the image gets its memory.
const MaxPixels = 178_956_970

// maxFile bounds what is read of one file. A photo of MaxPixels RGB pixels stored without
// any compression is half of it.
const maxFile = 1 << 30

// What went wrong with a photo, for errors.Is. The errors of this package wrap one of these,
// or, where the file could not be read at all, the error of package os.
var (
	// ErrFormat: the bytes are not a photo in a format that is read here.
	ErrFormat = errors.New("not a JPEG, PNG, WebP, GIF or BMP image")
	// ErrUnsupported: a known format in a variety that is not read here.
	ErrUnsupported = errors.New("unsupported kind of image")
	// ErrTruncated: the file ends before the image does.
	ErrTruncated = errors.New("image file is truncated")
	// ErrBroken: the data contradicts itself.
	ErrBroken = errors.New("image file is damaged")
	// ErrTooLarge: the header promises more than MaxPixels pixels.
	ErrTooLarge = errors.New("image is too large")
)

// Decode reads the photo in a file. The contents decide the format, whatever the name says.
// The orientation in EXIF data is not applied: Pillow does not apply it either, and neither
// does CLIP's own preprocessing.
//
// Of a file with several frames the first is taken. Errors name the file and wrap one of
// the Err variables.
func Decode(path string) (*Image, error) {
	data, err := readFile(path)
	if err != nil {
		return nil, fmt.Errorf("photo: %w", err)
	}
	m, err := decode(data, MaxPixels)
	if err != nil {
		return nil, fmt.Errorf("photo: %s: %w", path, err)
	}
	return m, nil
}

// readFile reads a whole file, but not before its first bytes look like a photo: a mistyped
// path may lead to a film or to a device without an end.
func readFile(path string) ([]byte, error) {
	// Opening a named pipe would wait for its other end, so look before.
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("is a folder, want an image file")}
	}
	if !st.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("is not a regular file")}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, 64)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	if _, err := sniff(head[:n]); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if err := checkEarly(head[:n], MaxPixels); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	size := st.Size()
	if size > maxFile {
		return nil, fmt.Errorf("%s: %w: the file has %d bytes, at most %d are read", path, ErrTooLarge, size, maxFile)
	}
	// One byte more than the file had, to see its end without growing; bounded again because
	// the file may be growing meanwhile.
	data := bytes.NewBuffer(make([]byte, 0, max(size, int64(n))+bytes.MinRead))
	data.Write(head[:n])
	if _, err := data.ReadFrom(io.LimitReader(f, maxFile)); err != nil {
		return nil, err
	}
	return data.Bytes(), nil
}

type format uint8

const (
	formatJPEG format = iota + 1
	formatPNG
	formatWebP
	formatGIF
	formatBMP
)

// sniff tells the format from the first bytes.
func sniff(data []byte) (format, error) {
	switch {
	case len(data) == 0:
		return 0, fmt.Errorf("%w: the file is empty (0 bytes)", ErrFormat)
	case bytes.HasPrefix(data, []byte("\xff\xd8\xff")):
		return formatJPEG, nil
	case bytes.HasPrefix(data, []byte(pngSignature)):
		return formatPNG, nil
	case len(data) >= 16 && string(data[:4]) == "RIFF" && string(data[8:12]) == "WEBP":
		return formatWebP, nil
	case bytes.HasPrefix(data, []byte("GIF87a")), bytes.HasPrefix(data, []byte("GIF89a")):
		return formatGIF, nil
	case bytes.HasPrefix(data, []byte("BM")):
		return formatBMP, nil
	}
	return 0, fmt.Errorf("%w: %s", ErrFormat, looksLike(data))
}

// looksLike says in words what data begins with.
func looksLike(data []byte) string {
	for _, k := range []struct {
		at    int
		magic string
		what  string
	}{
		{0, "II*\x00", "TIFF, convert it to PNG first"},
		{0, "MM\x00*", "TIFF, convert it to PNG first"},
		{4, "ftypavif", "AVIF, convert it to PNG first"},
		{4, "ftyphei", "HEIC, convert it to PNG first"},
		{4, "ftypmif1", "HEIF, convert it to PNG first"},
		{0, "\x00\x00\x00\x0cjP", "JPEG 2000, convert it to PNG first"},
		{0, "\xff\x0a", "JPEG XL, convert it to PNG first"},
		{0, "%PDF", "PDF"},
		{0, "PK\x03\x04", "a zip archive"},
		{0, "\x1f\x8b", "gzip"},
		{0, "\x7fELF", "a program"},
		{0, "\xff\xd8", "a JPEG cut off after its first two bytes"},
		{0, "RIFF", "RIFF, but not WebP"},
		{0, "<?xml", "XML"},
		{0, "<svg", "SVG"},
		{0, "<!DOCTYPE", "a web page"},
		{0, "<html", "a web page"},
	} {
		if len(data) >= k.at && bytes.HasPrefix(data[k.at:], []byte(k.magic)) {
			return fmt.Sprintf("it begins with %q and looks like %s", data[:min(len(data), 16)], k.what)
		}
	}
	if text := data[:min(len(data), 16)]; isText(text) {
		return fmt.Sprintf("it begins with the text %q", text)
	}
	return fmt.Sprintf("it begins with the bytes % x", data[:min(len(data), 16)])
}

func isText(b []byte) bool {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			return !utf8.FullRune(b) // a rune that the cut goes through
		}
		if !unicode.IsPrint(r) && !unicode.IsSpace(r) {
			return false
		}
		b = b[n:]
	}
	return true
}

// checkSize is the guard against decompression bombs.
func checkSize(width, height, limit int) error {
	if width < 1 || height < 1 {
		return fmt.Errorf("%w: the header says %dx%d pixels", ErrBroken, width, height)
	}
	if width > limit/height {
		return fmt.Errorf("%w: %dx%d pixels, at most %d in all are read: make it smaller first",
			ErrTooLarge, width, height, limit)
	}
	return nil
}

// checkEarly applies checkSize where the first 64 bytes tell the size, so that a bomb is
// refused without reading it.
func checkEarly(head []byte, limit int) error {
	if bytes.HasPrefix(head, []byte(pngSignature)) && len(head) >= 24 && string(head[12:16]) == "IHDR" {
		return checkSize(int(be32(head[16:])), int(be32(head[20:])), limit)
	}
	return nil
}

// decode reads an image of at most limit pixels.
func decode(data []byte, limit int) (*Image, error) {
	f, err := sniff(data)
	if err != nil {
		return nil, err
	}
	switch f {
	case formatJPEG:
		return decodeJPEG(data, limit)
	case formatPNG:
		return decodePNG(data, limit)
	case formatWebP:
		return decodeWebP(data, limit)
	case formatGIF:
		return decodeGIF(data, limit)
	default:
		return decodeBMP(data, limit)
	}
}

func be32(b []byte) uint32 {
	_ = b[3]
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func le32(b []byte) uint32 {
	_ = b[3]
	return uint32(b[3])<<24 | uint32(b[2])<<16 | uint32(b[1])<<8 | uint32(b[0])
}

func le16(b []byte) int {
	_ = b[1]
	return int(b[1])<<8 | int(b[0])
}
