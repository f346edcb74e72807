"""Writes small, unusual images to images/ and Pillow's results for them to expected.json.

    python make_fixtures.py

It needs Pillow, numpy, torch and torchvision; expected.json records their versions.
Running it again gives the same images (fixed seed) and, with the same versions, the same
expectations. The photos in ../../../testdata/photos are only read.

expected.json:
  versions   what the expectations were made with
  normalize  ToTensor and Normalize of every sample value, f32 bits in hex [3][256]
  images     for each file: "error" if Pillow rejects it, otherwise mode, size, "pixels" (the
             image's own samples), "rgb" (convert("RGB")), "resized" to other sizes, and
             "clip": torchvision's Resize, CenterCrop, convert, ToTensor, Normalize
  cuts       files truncated to "keep" bytes: rejected or not, and the resulting rgb
  photos     the same for real photos, as hashes only
Samples are stored as base64 of zlib data, or as a hash if there are many. Black-and-white images have one byte per
pixel, 0 or 255.
"""

import base64
import hashlib
import io
import json
import pathlib
import struct
import warnings
import zlib

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, features
from torchvision import transforms

warnings.simplefilter("ignore")
HERE = pathlib.Path(__file__).parent
OUT = HERE / "images"
PHOTOS = HERE / "../../../testdata/photos"
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
rng = np.random.default_rng(20240607)


# ---- pictures ---------------------------------------------------------------------------

def picture(w, h, channels=3):
    """A ramp with a block of noise and hard edges: something for every filter to get wrong."""
    y, x = np.mgrid[0:h, 0:w]
    a = np.stack([(x * (5 + 2 * c) + y * (11 - 3 * c)) % 256 for c in range(channels)], -1)
    a[h // 4 : h // 2 + 1, w // 4 : w // 2 + 1] = rng.integers(0, 256, a[h // 4 : h // 2 + 1, w // 4 : w // 2 + 1].shape)
    a[h // 2 :, : w // 3] = 255
    return a.astype(np.uint8)


def put(name, data):
    (OUT / name).write_bytes(data)


def save(name, image, **options):
    b = io.BytesIO()
    image.save(b, **options)
    put(name, b.getvalue())
    return b.getvalue()


# ---- a small baseline JPEG encoder, for what Pillow does not write ------------------------

ZIGZAG = sorted(range(64), key=lambda i: (i // 8 + i % 8, i // 8 if (i // 8 + i % 8) % 2 else i % 8))
COS = np.array([[np.cos((2 * x + 1) * u * np.pi / 16) * (np.sqrt(0.125) if u == 0 else 0.5) for x in range(8)] for u in range(8)])
# Huffman tables of our own: every DC size 0..11 with 4 bits, every AC symbol with 8 bits or 9.
DC_SYMBOLS = list(range(12))
AC_SYMBOLS = [r << 4 | s for r in range(16) for s in range(1, 11)] + [0x00, 0xF0]
DC_BITS = [0, 0, 0, 12] + [0] * 12
AC_BITS = [0] * 7 + [162] + [0] * 8


def marker(code, body):
    return bytes([0xFF, code]) + struct.pack(">H", len(body) + 2) + body


def jpeg(planes, sampling, size, *, ids=None, adobe=None, jfif=False, restart=0, quant16=False, precision=8, sof=0xC0, scans=None):
    """Encodes planes (2-D arrays of samples, already subsampled) of an image of the size."""
    w, h = size
    ids = ids or list(range(1, len(planes) + 1))
    hmax, vmax = max(s[0] for s in sampling), max(s[1] for s in sampling)
    mcus_x, mcus_y = -(-w // (8 * hmax)), -(-h // (8 * vmax))
    q = np.full(64, 3)
    out = b"\xff\xd8"
    if jfif:
        out += marker(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")
    if adobe is not None:
        out += marker(0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([adobe]))
    out += marker(0xDB, (b"\x10" + b"".join(struct.pack(">H", v) for v in q)) if quant16 else b"\0" + bytes(q.tolist()))
    frame = struct.pack(">BHHB", precision, h, w, len(planes))
    for i, (sh, sv) in zip(ids, sampling):
        frame += bytes([i, sh << 4 | sv, 0])
    out += marker(sof, frame)
    out += marker(0xC4, b"\0" + bytes(DC_BITS) + bytes(DC_SYMBOLS))
    out += marker(0xC4, b"\x10" + bytes(AC_BITS) + bytes(AC_SYMBOLS))
    if restart:
        out += marker(0xDD, struct.pack(">H", restart))

    blocks = []
    for p, (sh, sv) in zip(planes, sampling):
        full = np.pad(p.astype(float), ((0, mcus_y * 8 * sv - p.shape[0]), (0, mcus_x * 8 * sh - p.shape[1])), "edge") - 128
        blocks.append(full)
    for scan in scans or [list(range(len(planes)))]:
        out += marker(0xDA, bytes([len(scan)]) + b"".join(bytes([ids[c], 0]) for c in scan) + b"\0\x3f\0")
        out += entropy(blocks, sampling, scan, (mcus_x, mcus_y), planes, q, restart)
    return out + b"\xff\xd9"


def entropy(blocks, sampling, scan, mcus, planes, q, restart):
    bits, out = [], b""

    def number(v, n):
        bits.extend((v >> i) & 1 for i in range(n - 1, -1, -1))

    def flush():
        nonlocal bits, out
        bits += [1] * (-len(bits) % 8)
        packed = np.packbits(np.array(bits, np.uint8)).tobytes()
        out += packed.replace(b"\xff", b"\xff\0")
        bits = []

    def magnitude(v):
        n = int(abs(v)).bit_length()
        return n, v if v >= 0 else v + (1 << n) - 1

    last = {c: 0 for c in scan}

    def block(c, by, bx):
        coef = np.rint((COS @ blocks[c][by * 8 : by * 8 + 8, bx * 8 : bx * 8 + 8] @ COS.T).reshape(64) / q).astype(int)
        z = [int(coef[i]) for i in ZIGZAG]
        n, v = magnitude(z[0] - last[c])
        last[c] = z[0]
        number(n, 4)
        number(v, n)
        run = 0
        for k in range(1, 64):
            if z[k] == 0:
                run += 1
                continue
            while run > 15:
                number(AC_SYMBOLS.index(0xF0), 8)
                run -= 16
            n, v = magnitude(z[k])
            number(AC_SYMBOLS.index(run << 4 | n), 8)
            number(v, n)
            run = 0
        if run:
            number(AC_SYMBOLS.index(0), 8)

    if len(scan) == 1:
        c = scan[0]
        units = [[(c, y, x)] for y in range(-(-planes[c].shape[0] // 8)) for x in range(-(-planes[c].shape[1] // 8))]
    else:
        units = [
            [(c, my * sampling[c][1] + v, mx * sampling[c][0] + h) for c in scan for v in range(sampling[c][1]) for h in range(sampling[c][0])]
            for my in range(mcus[1])
            for mx in range(mcus[0])
        ]
    for i, unit in enumerate(units):
        if restart and i and i % restart == 0:
            flush()
            out += bytes([0xFF, 0xD0 + (i // restart - 1) % 8])
            last = {c: 0 for c in scan}
        for u in unit:
            block(*u)
    flush()
    return out


def subsampled(plane, w, h, s, most):
    """The samples that a component with factors s keeps of a w by h image."""
    cw, ch = -(-w * s[0] // most[0]), -(-h * s[1] // most[1])
    xs = np.minimum(np.arange(cw) * most[0] // s[0], w - 1)
    ys = np.minimum(np.arange(ch) * most[1] // s[1], h - 1)
    return plane[ys][:, xs]


def write_jpegs():
    w, h = 29, 22
    rgb = picture(w, h)
    ycc = np.asarray(Image.fromarray(rgb).convert("YCbCr"))

    def odd(name, sampling, source=ycc, **options):
        most = max(s[0] for s in sampling), max(s[1] for s in sampling)
        planes = [subsampled(source[..., c], w, h, s, most) for c, s in enumerate(sampling)]
        put(name, jpeg(planes, sampling, (w, h), **options))

    one = (1, 1)
    odd("jpeg_444.jpg", [one] * 3, jfif=True)
    odd("jpeg_422.jpg", [(2, 1), one, one], jfif=True)
    odd("jpeg_420.jpg", [(2, 2), one, one], jfif=True)
    odd("jpeg_440.jpg", [(1, 2), one, one], jfif=True)
    odd("jpeg_411.jpg", [(4, 1), one, one], jfif=True)
    odd("jpeg_410.jpg", [(4, 2), one, one], jfif=True)
    odd("jpeg_441.jpg", [(1, 4), one, one], jfif=True)
    odd("jpeg_h3.jpg", [(3, 1), one, one], jfif=True)
    odd("jpeg_fewer_luma.jpg", [one, (2, 1), (2, 1)], jfif=True)
    odd("jpeg_mixed_chroma.jpg", [(2, 2), (1, 2), (2, 1)], jfif=True)
    odd("jpeg_2x2_all.jpg", [(2, 2)] * 3, jfif=True)
    odd("jpeg_restart.jpg", [(2, 2), one, one], jfif=True, restart=2)
    odd("jpeg_three_scans.jpg", [(2, 2), one, one], jfif=True, scans=[[0], [1], [2]])
    odd("jpeg_16bit_quantisation.jpg", [one] * 3, jfif=True, quant16=True, sof=0xC1)
    odd("jpeg_no_marker.jpg", [(2, 1), one, one])
    odd("jpeg_adobe_rgb.jpg", [one] * 3, source=rgb, adobe=0)
    odd("jpeg_adobe_ycc.jpg", [one] * 3, adobe=1)
    odd("jpeg_ids_rgb.jpg", [one] * 3, source=rgb, ids=[82, 71, 66])
    odd("jpeg_grey.jpg", [one], jfif=True)
    odd("jpeg_grey_2x2.jpg", [(2, 2)], jfif=True)
    inks = picture(w, h, 4)
    odd("jpeg_cmyk_plain.jpg", [one] * 4, source=inks)
    odd("jpeg_cmyk_adobe.jpg", [one] * 4, source=inks, adobe=0)
    odd("jpeg_ycck.jpg", [one] * 4, source=inks, adobe=2)
    odd("jpeg_ycck_420.jpg", [(2, 2), one, one, (2, 2)], source=inks, adobe=2)
    odd("jpeg_two_components.jpg", [one] * 2, jfif=True)
    odd("jpeg_12bit.jpg", [one] * 3, jfif=True, precision=12, sof=0xC1)
    odd("jpeg_hierarchical.jpg", [one] * 3, jfif=True, sof=0xC5)

    im = Image.fromarray(rgb)
    base = save("jpeg_pillow.jpg", im, format="JPEG", quality=80)
    save("jpeg_progressive.jpg", im, format="JPEG", progressive=True)
    save("jpeg_progressive_grey.jpg", im.convert("L"), format="JPEG", progressive=True)
    save("jpeg_progressive_444.jpg", im, format="JPEG", progressive=True, subsampling=0, quality=95)
    save("jpeg_quality1.jpg", im, format="JPEG", quality=1)
    save("jpeg_optimised.jpg", im, format="JPEG", optimize=True)
    save("jpeg_cmyk_pillow.jpg", im.convert("CMYK"), format="JPEG")
    exif = Image.Exif()
    exif[0x0112] = 6
    save("jpeg_exif_rotated.jpg", im, format="JPEG", exif=exif)
    put("jpeg_no_end.jpg", base[:-2])
    put("jpeg_junk_after.jpg", base + b"junk" * 50)
    put("jpeg_junk_before_marker.jpg", base[:2] + b"\0\1\2" + base[2:])
    put("jpeg_fill_bytes.jpg", base[:2] + b"\xff\xff\xff" + base[2:])
    for w, h in ((1, 1), (1, 17), (17, 1), (8, 8), (16, 16), (2, 3), (33, 7)):
        save(f"jpeg_size_{w}x{h}.jpg", Image.fromarray(picture(w, h)), format="JPEG")


# ---- PNG ---------------------------------------------------------------------------------

def chunk(name, body, crc=None):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body) if crc is None else crc)


CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def filtered(rows, pixel, first):
    """Filters rows of bytes with filters 0 to 4 in turn."""
    out, before = b"", None
    for i, row in enumerate(rows):
        f = (first + i) % 5
        before = before if before is not None else [0] * len(row)
        line = [f]
        for j, v in enumerate(row):
            left = row[j - pixel] if j >= pixel else 0
            up = before[j]
            corner = before[j - pixel] if j >= pixel else 0
            p = left + up - corner
            near = min((abs(p - left), 0, left), (abs(p - up), 1, up), (abs(p - corner), 2, corner))[2]
            line.append((v - [0, left, up, (left + up) // 2, near][f]) % 256)
        out += bytes(line)
        before = row
    return out


def png_rows(samples, depth):
    if depth == 16:
        return [row.astype(">u2").tobytes() for row in samples]
    return [
        np.packbits(np.unpackbits(row.astype(np.uint8)[:, None], axis=1)[:, 8 - depth :].reshape(-1)).tobytes() for row in samples
    ]


def png_stream(samples, depth, colour, interlaced):
    """samples: [h, w, channels]"""
    n = CHANNELS[colour]
    pixel = max(1, depth * n // 8)
    passes = PASSES if interlaced else [(0, 0, 1, 1)]
    out = b""
    for i, (x, y, dx, dy) in enumerate(passes):
        part = samples[y::dy, x::dx]
        if part.size:
            out += filtered(png_rows(part.reshape(part.shape[0], -1), depth), pixel, i)
    return out


def png(samples, depth, colour, *, interlaced=False, before=b"", after=b"", stream=None, split=None, wrap=zlib.compress):
    h, w = samples.shape[:2]
    data = wrap(png_stream(samples, depth, colour, interlaced) if stream is None else stream)
    parts = [data] if split is None else [data[i : i + split] for i in range(0, len(data), split)] + [b""]
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, interlaced))
        + before
        + b"".join(chunk(b"IDAT", p) for p in parts)
        + after
        + chunk(b"IEND", b"")
    )


def write_pngs():
    def samples(w, h, depth, colour):
        n = CHANNELS[colour]
        if depth == 16:
            a = picture(w, h, n).astype(np.uint16) * 257
            a ^= rng.integers(0, 300, a.shape).astype(np.uint16)
            return a
        return picture(w, h, n) >> (8 - depth)

    palette = rng.integers(0, 256, 768).astype(np.uint8).tobytes()
    for colour, depths in {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}.items():
        for depth in depths:
            plte = chunk(b"PLTE", palette[: 3 << depth]) if colour == 3 else b""
            for interlaced in (False, True):
                name = f"png_colour{colour}_{depth}bit{'_interlaced' if interlaced else ''}.png"
                put(name, png(samples(19, 14, depth, colour), depth, colour, interlaced=interlaced, before=plte))
    for w, h in ((1, 1), (2, 1), (1, 5), (5, 1), (3, 3), (4, 9)):
        put(f"png_interlaced_{w}x{h}.png", png(samples(w, h, 8, 2), 8, 2, interlaced=True))
        put(f"png_interlaced_1bit_{w}x{h}.png", png(samples(w, h, 1, 0), 1, 0, interlaced=True))
    s8, s2, sp = samples(19, 14, 8, 0), samples(19, 14, 8, 2), samples(19, 14, 4, 3)
    grey16 = rng.integers(0, 700, (14, 19, 1)).astype(np.uint16)
    put("png_16bit_low.png", png(grey16, 16, 0))
    put("png_trns_grey.png", png(s8, 8, 0, before=chunk(b"tRNS", b"\0\x20")))
    put("png_trns_1bit.png", png(samples(19, 14, 1, 0), 1, 0, before=chunk(b"tRNS", b"\0\1")))
    put("png_trns_true.png", png(s2, 8, 2, before=chunk(b"tRNS", b"\0\1\0\2\0\3")))
    put("png_trns_palette_one.png", png(sp, 4, 3, before=chunk(b"PLTE", palette[:48]) + chunk(b"tRNS", b"\xff\xff\0\xff")))
    put("png_trns_palette_many.png", png(sp, 4, 3, before=chunk(b"PLTE", palette[:48]) + chunk(b"tRNS", bytes(range(0, 160, 10)))))
    put("png_palette_short.png", png(sp, 4, 3, before=chunk(b"PLTE", palette[:15])))
    put("png_palette_odd_length.png", png(sp, 4, 3, before=chunk(b"PLTE", palette[:47])))
    put("png_palette_missing.png", png(sp, 4, 3))
    put("png_palette_too_long.png", png(sp, 4, 3, before=chunk(b"PLTE", palette + b"abc")))
    put("png_many_idat.png", png(s2, 8, 2, split=7))
    put("png_text_after.png", png(s2, 8, 2, after=chunk(b"tEXt", b"Comment\0hello")))
    put("png_gamma.png", png(s2, 8, 2, before=chunk(b"gAMA", struct.pack(">I", 100000))))
    put("png_stored.png", png(s2, 8, 2, wrap=lambda d: zlib.compress(d, 0)))
    stream = png_stream(s2, 8, 2, False)
    put("png_rows_missing.png", png(s2, 8, 2, stream=stream[: 58 * 9]))
    put("png_row_cut.png", png(s2, 8, 2, stream=stream[: 58 * 9 + 20]))
    put("png_rows_more.png", png(s2, 8, 2, stream=stream + stream))
    put("png_bad_filter.png", png(s2, 8, 2, stream=stream[:58] + b"\7" + stream[59:]))
    put("png_bad_adler.png", png(s2, 8, 2, wrap=lambda d: zlib.compress(d)[:-1] + b"\0"))
    put("png_bad_deflate.png", png(s2, 8, 2, wrap=lambda d: b"\x78\x9c" + b"\xff" * 40))
    good = png(s2, 8, 2)
    put("png_bad_idat_crc.png", good[:-16] + b"abcd" + good[-12:])
    put("png_bad_header_crc.png", good[:29] + b"abcd" + good[33:])
    put("png_no_iend.png", good[:-12])
    put("png_bad_depth.png", good[:25] + b"\5" + good[26:29] + struct.pack(">I", zlib.crc32(good[12:25] + b"\5" + good[26:29])) + good[33:])
    im = Image.fromarray(picture(20, 15, 4))
    save("png_animated.png", im, format="PNG", save_all=True, append_images=[im.rotate(180)], duration=50)
    # Straight alpha that makes premultiplying lossy.
    a = picture(20, 15, 4)
    a[..., 3] = rng.integers(0, 6, a.shape[:2])
    save("png_faint_alpha.png", Image.fromarray(a), format="PNG")


# ---- WebP, GIF, BMP ------------------------------------------------------------------------

def riff(*chunks):
    body = b"WEBP" + b"".join(n + struct.pack("<I", len(d)) + d + b"\0" * (len(d) % 2) for n, d in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def write_webps():
    rgb, rgba = Image.fromarray(picture(27, 18)), Image.fromarray(picture(27, 18, 4))
    lossy = save("webp_lossy.webp", rgb, format="WEBP", quality=70)
    save("webp_lossy_q5.webp", rgb, format="WEBP", quality=5)
    save("webp_lossless.webp", rgb, format="WEBP", lossless=True)
    save("webp_lossy_alpha.webp", rgba, format="WEBP", quality=70)
    lossless = save("webp_lossless_alpha.webp", rgba, format="WEBP", lossless=True, exact=True)
    save("webp_lossless_opaque_rgba.webp", rgb.convert("RGBA"), format="WEBP", lossless=True)
    for w, h in ((1, 1), (1, 9), (9, 1), (16, 16), (17, 33)):
        save(f"webp_size_{w}x{h}.webp", Image.fromarray(picture(w, h)), format="WEBP")
    save("webp_animated.webp", rgba, format="WEBP", save_all=True, append_images=[rgba.rotate(180)], duration=70)
    exif = Image.Exif()
    exif[0x0112] = 3
    save("webp_exif_rotated.webp", rgb, format="WEBP", exif=exif)

    # An animation whose first frame is smaller than its canvas.
    def animated(payload, flags, x=4, y=2, canvas=(40, 30)):
        def u24(v):
            return struct.pack("<I", v)[:3]

        frame = u24(x // 2) + u24(y // 2) + u24(26) + u24(17) + u24(100) + b"\0"
        frame += payload[0] + struct.pack("<I", len(payload[1])) + payload[1] + b"\0" * (len(payload[1]) % 2)
        return riff(
            (b"VP8X", bytes([2 | flags, 0, 0, 0]) + u24(canvas[0] - 1) + u24(canvas[1] - 1)),
            (b"ANIM", b"\x10\x20\x30\xff\0\0"),
            (b"ANMF", frame),
        )

    def payload(data):
        return data[12:16], data[20 : 20 + struct.unpack("<I", data[16:20])[0]]

    put("webp_animated_offset.webp", animated(payload(lossless), 16))
    put("webp_animated_offset_opaque.webp", animated(payload(lossy), 0))
    put("webp_animated_outside.webp", animated(payload(lossy), 0, x=20))
    put("webp_no_chunk.webp", b"RIFF\4\0\0\0WEBP" + b"VP8 ")


def write_gifs():
    im = Image.fromarray(picture(23, 17)).quantize(31)
    plain = save("gif_plain.gif", im, format="GIF", interlace=False)
    save("gif_interlaced.gif", im, format="GIF", interlace=True)
    save("gif_transparent.gif", im, format="GIF", transparency=5)
    save("gif_grey.gif", Image.fromarray(picture(23, 17, 1)[..., 0]), format="GIF")
    save("gif_two_colours.gif", im.convert("L").convert("1"), format="GIF")
    save("gif_animated.gif", im, format="GIF", save_all=True, append_images=[im.rotate(180)], duration=70)
    noise = Image.fromarray(rng.integers(0, 256, (100, 70)).astype(np.uint8)).convert("P")
    save("gif_table_full.gif", noise, format="GIF", interlace=False)

    def edit(data, canvas, at):
        i = data.index(b",", 13 + (3 << (data[10] & 7) + 1))
        return data[:6] + struct.pack("<HH", *canvas) + data[10 : i + 1] + struct.pack("<HH", *at) + data[i + 5 :]

    put("gif_inside_canvas.gif", edit(plain, (40, 30), (7, 5)))
    put("gif_beyond_canvas.gif", edit(plain, (20, 10), (7, 5)))
    i = plain.index(b",", 13 + (3 << (plain[10] & 7) + 1))
    put("gif_inside_transparent.gif", edit(plain[:i] + b"!\xf9\4\1\0\0\x09\0" + plain[i:], (40, 30), (7, 5)))
    put("gif_no_frame.gif", plain[:i] + b";")


def write_bmps():
    im = Image.fromarray(picture(21, 13))
    save("bmp_1bit.bmp", im.convert("1"), format="BMP")
    save("bmp_grey.bmp", im.convert("L"), format="BMP")
    save("bmp_palette.bmp", im.quantize(50), format="BMP")
    rgb = save("bmp_24bit.bmp", im, format="BMP")
    save("bmp_alpha.bmp", Image.fromarray(picture(21, 13, 4)), format="BMP")

    def bmp(bits, data, compression=0, masks=b"", palette=b"", height=13, width=21):
        head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 2835, 2835, len(palette) // 4, 0)
        start = 14 + len(head) + len(masks) + len(palette)
        return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + head + masks + palette + data

    noise = rng.integers(0, 256, 13 * 84).astype(np.uint8).tobytes()
    put("bmp_32bit.bmp", bmp(32, noise))
    put("bmp_16bit_555.bmp", bmp(16, noise[: 13 * 44]))
    put("bmp_16bit_565.bmp", bmp(16, noise[: 13 * 44], 3, struct.pack("<III", 0xF800, 0x7E0, 0x1F)))
    put("bmp_16bit_odd_masks.bmp", bmp(16, noise[: 13 * 44], 3, struct.pack("<III", 0xF00, 0xF0, 0xF)))
    put("bmp_32bit_masks.bmp", bmp(32, noise, 3, struct.pack("<III", 0xFF000000, 0xFF0000, 0xFF00)))
    put("bmp_4bit.bmp", bmp(4, noise[: 13 * 12], palette=noise[:64]))
    put("bmp_1bit_colours.bmp", bmp(1, noise[: 13 * 4], palette=noise[:8]))
    put("bmp_top_down.bmp", bmp(24, noise[: 13 * 64], height=-13))
    put("bmp_os2.bmp", b"BM" + struct.pack("<IHHI", 26 + 13 * 64, 0, 0, 26) + struct.pack("<IHHHH", 12, 21, 13, 1, 24) + noise[: 13 * 64])
    put("bmp_last_padding_missing.bmp", rgb[:-1])


# ---- what Pillow makes of them ---------------------------------------------------------------

def sha(data):
    return hashlib.sha256(data).hexdigest()


def pack(data):
    """The bytes where they are few, so that a test can say what differs; else their hash."""
    if len(data) > 2000:
        return "sha256:" + sha(data)
    return base64.b64encode(zlib.compress(data, 9)).decode()


def samples_of(im):
    return (im.convert("L") if im.mode == "1" else im).tobytes()


def clip(im, size):
    cut = transforms.Compose([transforms.Resize(size, interpolation=transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(size)])
    pixels = cut(im).convert("RGB")
    values = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])(pixels)
    return pixels.tobytes(), values.numpy().tobytes()


def describe(path):
    try:
        im = Image.open(path)
        im.load()
    except Exception as e:  # whatever Pillow raises, it refuses
        return {"file": path.name, "error": type(e).__name__}
    w, h = im.size
    sizes = {(w * 2 + 1, h + 3), (max(1, w // 2), max(1, h // 3)), (max(1, w - 1), max(1, h // 4)), (1, h), (w + 5, 1)}
    entry = {"file": path.name, "mode": im.mode, "width": w, "height": h, "pixels": pack(samples_of(im)), "rgb": pack(im.convert("RGB").tobytes())}
    entry["resized"] = [{"width": a, "height": b, "pixels": pack(samples_of(im.resize((a, b), Image.Resampling.BICUBIC)))} for a, b in sorted(sizes)]
    entry["clip"] = []
    for size in (5, 16):
        pixels, values = clip(im, size)
        entry["clip"].append({"size": size, "pixels": pack(pixels), "f32_sha256": sha(values)})
    return entry


def cuts(path):
    data = path.read_bytes()
    for keep in sorted({len(data) * p // 100 for p in (5, 25, 50, 75, 90, 97)} | {len(data) - n for n in (1, 2, 3, 5, 9, 13, 17)}):
        entry = {"file": path.name, "keep": keep}
        try:
            im = Image.open(io.BytesIO(data[:keep]))
            im.load()
            entry["rgb_sha256"] = sha(im.convert("RGB").tobytes())
        except Exception as e:
            entry["error"] = type(e).__name__
        yield entry


def photo(path):
    im = Image.open(path)
    entry = {"file": path.name, "mode": im.mode, "width": im.width, "height": im.height, "rgb_sha256": sha(im.convert("RGB").tobytes()), "clip": []}
    for size in (224, 336):
        pixels, values = clip(im, size)
        entry["clip"].append({"size": size, "pixels_sha256": sha(pixels), "f32_sha256": sha(values)})
    return entry


def main():
    OUT.mkdir(exist_ok=True)
    for old in OUT.iterdir():
        old.unlink()
    write_jpegs()
    write_pngs()
    write_webps()
    write_gifs()
    write_bmps()

    every = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, 2)
    table = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])(Image.fromarray(every)).numpy()
    files = sorted(OUT.iterdir())
    cut = [f for f in files if f.name in (
        "jpeg_pillow.jpg", "jpeg_progressive.jpg", "jpeg_cmyk_adobe.jpg", "png_colour2_8bit.png", "png_colour3_4bit_interlaced.png",
        "png_text_after.png", "webp_lossy.webp", "webp_lossless_alpha.webp", "webp_animated.webp", "gif_plain.gif", "gif_interlaced.gif", "bmp_24bit.bmp", "bmp_palette.bmp",
    )]
    sections = {
        "versions": {
            "Pillow": PIL.__version__,
            "libjpeg-turbo": features.version("libjpeg_turbo"),
            "libwebp": features.version("webp"),
            "numpy": np.__version__,
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
        },
        "normalize": [["%08x" % v for v in row.view(np.uint32).reshape(-1)] for row in table],
        "images": [describe(f) for f in files],
        "cuts": [c for f in cut for c in cuts(f)],
        "photos": [photo(f) for f in sorted(PHOTOS.glob("*.jpg"))],
    }
    # An entry a line, so that a change shows as the lines that it touches.
    lines = []
    for name, value in sections.items():
        if isinstance(value, dict):
            lines.append(f"  {json.dumps(name)}: {json.dumps(value)}")
        else:
            lines.append(f"  {json.dumps(name)}: [\n" + ",\n".join("    " + json.dumps(v) for v in value) + "\n  ]")
    (HERE / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    for kind in ("jpeg", "png", "webp", "gif", "bmp"):
        mine = [e for e in sections["images"] if e["file"].startswith(kind)]
        print(f"{kind}: {len(mine)} images, {sum('error' in e for e in mine)} refused: {[e['file'] for e in mine if 'error' in e]}")


if __name__ == "__main__":
    main()
