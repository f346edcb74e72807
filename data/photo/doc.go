// Package photo turns photo files into the input of CLIP's image encoder, pixel for pixel as
// Pillow and torchvision do in OpenAI's preprocessing.
//
//	m, err := photo.Decode("cat.jpg") // like PIL.Image.open
//	...
//	pre := photo.CLIP(224)
//	x := make([]float32, pre.Len()) // float32 [3, 224, 224]
//	err = pre.Into(x, m)
//
// [Load] does this for many files concurrently with the caller's work.
//
// # What "pixel for pixel" requires
//
// An image keeps the mode in which Pillow would hold it, because CLIP resizes and crops before
// it converts to RGB. A palette image is therefore resized with nearest-neighbour sampling, an
// image with alpha in premultiplied colours, and a CMYK image as ink. [Mode] lists the modes and
// [Image.RGB] describes the conversions.
//
// The JPEG and WebP standards leave rounding and chroma interpolation to the decoder, so this
// package uses Pillow's decoders, libjpeg-turbo and libwebp, through cgo. PNG, GIF and BMP
// leave no such freedom and are decoded in Go, with Pillow's behaviour for damaged files. The
// reference is Pillow itself, in the version named in testdata/expected.json.
//
// # Speed
//
// Resizing is the one step that is slow in Go: the C implementation takes a tenth of the time
// of the plain Go one (BenchmarkResize, BenchmarkResizePlain). Only the pixels that the crop
// keeps are computed.
//
// # Rejected files
//
// Every error wraps one of the Err variables or an error of package os. The size in the header
// is checked against [MaxPixels] before memory is allocated. A truncated file is an error
// whenever Pillow treats it as one.
package photo
