"""Makes docs/demo.jpg, the picture in the README, from what `make demo` printed.

    make demo | .venv/bin/python docs/make_picture.py
"""

import re
import sys
import textwrap

from PIL import Image, ImageDraw, ImageFont

captions = {}
for line in sys.stdin:
    if m := re.match(r"(\S+\.jpg) \((direct|textualised)\): (.*)", line):
        captions.setdefault(m[1], {})[m[2]] = m[3]
assert captions, "nothing that `make demo` prints came in"

WIDTH, HEIGHT, TEXT, GAP = 300, 220, 150, 14
paths = list(captions)[:3]
sheet = Image.new("RGB", (len(paths) * (WIDTH + GAP) + GAP, HEIGHT + TEXT + 2 * GAP), "white")
draw = ImageDraw.Draw(sheet)
head, body = ImageFont.load_default(14), ImageFont.load_default(13)
for i, path in enumerate(paths):
    x = GAP + i * (WIDTH + GAP)
    photo = Image.open(path).convert("RGB")
    scale = max(WIDTH / photo.width, HEIGHT / photo.height)
    photo = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.LANCZOS)
    left, top = (photo.width - WIDTH) // 2, (photo.height - HEIGHT) // 2
    sheet.paste(photo.crop((left, top, left + WIDTH, top + HEIGHT)), (x, GAP))
    y = HEIGHT + GAP + 8
    for pipeline in ("direct", "textualised"):
        draw.text((x, y), pipeline, fill="#888", font=head)
        lines = textwrap.wrap(captions[path][pipeline], 42)[:2]
        for n, line in enumerate(lines):
            draw.text((x, y + 20 + 17 * n), line, fill="#222", font=body)
        y += 68
sheet.save("docs/demo.jpg", quality=88)
