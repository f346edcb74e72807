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

// MaxPixels is the largest photo that is read, in pixels. It is Pillow's limit against
// decompression bombs. The size in the header is checked before memory is allocated.
const MaxPixels = 178_956_970

// maxFile is the largest file that is read, in bytes: about twice the size of a photo of
// MaxPixels uncompressed RGB pixels.
const maxFile = 1 << 30

// Errors for use with errors.Is. Every error of this package wraps one of these or, if the
// file could not be read at all, the error of package os.
var (
	// ErrFormat means that the data is not a photo in a supported format.
	ErrFormat = errors.New("not a JPEG, PNG, WebP, GIF or BMP image")
	// ErrUnsupported means that the format is supported, but not this variant of it.
	ErrUnsupported = errors.New("unsupported kind of image")
	// ErrTruncated means that the file ends before the image does.
	ErrTruncated = errors.New("image file is truncated")
	// ErrBroken means that the data contradicts itself.
	ErrBroken = errors.New("image file is damaged")
	// ErrTooLarge means that the header declares more than MaxPixels pixels.
	ErrTooLarge = errors.New("image is too large")
)

// Decode reads a photo from a file. It detects the format from the contents, not from the
// file name. It does not apply the EXIF orientation; neither do Pillow and CLIP's own
// preprocessing.
//
// If the file has several frames, Decode returns the first. Errors name the file and wrap one
// of the Err variables.
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

// DecodeBytes decodes the contents of a file, as Decode does.
func DecodeBytes(data []byte) (*Image, error) { return DecodeWithin(data, MaxPixels) }

// DecodeWithin is DecodeBytes with a lower limit than MaxPixels.
func DecodeWithin(data []byte, maxPixels int) (*Image, error) {
	m, err := decode(data, min(maxPixels, MaxPixels))
	if err != nil {
		return nil, fmt.Errorf("photo: %w", err)
	}
	return m, nil
}

// readFile reads a whole file, but only if its first bytes look like a photo: a mistyped path
// may lead to a video or to an endless device.
func readFile(path string) ([]byte, error) {
	// Check first, because opening a named pipe would block until someone writes to it.
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("is a folder; want an image file")}
	}
	if !st.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: path, Err: errors.New("is not a regular file")}
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readPhoto(path, f, st.Size(), st.Size())
}

// readPhoto reads a photo of so many bytes, as readFile does. room is the size of the buffer for it at first.
func readPhoto(path string, f io.Reader, size, room int64) ([]byte, error) {
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
	if size > maxFile {
		return nil, fmt.Errorf("%s: %w: the file has %d bytes; the limit is %d", path, ErrTooLarge, size, maxFile)
	}
	// The spare capacity lets ReadFrom see the end of the file without growing the buffer. The
	// read is limited again because the file may be growing meanwhile.
	data := bytes.NewBuffer(make([]byte, 0, max(room, int64(n))+bytes.MinRead))
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

// sniff detects the format from the first bytes.
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

// looksLike describes what the data begins with.
func looksLike(data []byte) string {
	for _, k := range []struct {
		at    int
		magic string
		what  string
	}{
		{0, "II*\x00", "TIFF; convert it to PNG first"},
		{0, "MM\x00*", "TIFF; convert it to PNG first"},
		{4, "ftypavif", "AVIF; convert it to PNG first"},
		{4, "ftyphei", "HEIC; convert it to PNG first"},
		{4, "ftypmif1", "HEIF; convert it to PNG first"},
		{0, "\x00\x00\x00\x0cjP", "JPEG 2000; convert it to PNG first"},
		{0, "\xff\x0a", "JPEG XL; convert it to PNG first"},
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
			return !utf8.FullRune(b) // a rune split by the cut
		}
		if !unicode.IsPrint(r) && !unicode.IsSpace(r) {
			return false
		}
		b = b[n:]
	}
	return true
}

// checkSize guards against decompression bombs.
func checkSize(width, height, limit int) error {
	if width < 1 || height < 1 {
		return fmt.Errorf("%w: the header declares %dx%d pixels", ErrBroken, width, height)
	}
	if width > limit/height {
		return fmt.Errorf("%w: %dx%d pixels; the limit is %d pixels in total: scale it down first",
			ErrTooLarge, width, height, limit)
	}
	return nil
}

// checkEarly applies checkSize if the first 64 bytes contain the size, so that a bomb is
// rejected without being read.
func checkEarly(head []byte, limit int) error {
	if bytes.HasPrefix(head, []byte(pngSignature)) && len(head) >= 24 && string(head[12:16]) == "IHDR" {
		return checkSize(int(be32(head[16:])), int(be32(head[20:])), limit)
	}
	return nil
}

// decode decodes an image of at most limit pixels.
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
