// Package photo turns photo files into the input of CLIP's image encoder, pixel for pixel as
// Pillow and torchvision do in OpenAI's preprocessing.
//
//	m, err := photo.Decode("cat.jpg")         // as PIL.Image.open
//	x, err := photo.CLIP(224).Apply(m)        // float32 [3, 224, 224]
//
// [Load] does this for many files beside the caller's work.
//
// # What "pixel for pixel" takes
//
// An image keeps the mode in which Pillow would hold it, because the order of CLIP's steps is
// resize, crop, and only then conversion to RGB: a palette image is therefore resized by
// taking nearest pixels, one with alpha in premultiplied colours, one of CMYK as ink. The
// modes are in [Mode], the resampling rule is at [Image.Resize], conversions at [Image.RGB].
//
// JPEG and WebP leave their decoders room (rounding, interpolation of chroma), so the decoders
// are those that Pillow carries: libjpeg-turbo and libwebp, called through cgo. PNG, GIF and
// BMP leave none and are read in Go, with Pillow's choices for damaged files. Pillow itself
// is the reference in the version that testdata/expected.json names.
//
// # Speed
//
// Resizing is the part that Go alone is slow at: its C form takes a tenth of the time of the
// plain Go (BenchmarkResize, BenchmarkResizePlain). Only the pixels that the crop keeps are
// computed.
//
// # Files that are refused
//
// Every error wraps one of the Err variables, or an error of package os. Sizes are checked in
// the header against [MaxPixels], before memory is taken. A file cut short is an error where it
// is one for Pillow.
package photo
