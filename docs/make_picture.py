"""Makes docs/demo.jpg, the picture in the README, from what `make demo` left in
work/demo: the first validation photos with a true caption and what the direct and
the textualised decoder say. Not chosen by how good they are.

    .venv/bin/python docs/make_picture.py [work/demo]
"""

import json
import pathlib
import sys
import textwrap

from PIL import Image, ImageDraw, ImageFont

run = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "work/demo")
val = json.loads((run / "world/annotations/captions_val2014.json").read_text())
photos = val["images"][:4]
truth = {}
for a in val["annotations"]:
    truth.setdefault(a["image_id"], a["caption"])
said = {"ground truth": truth}
for name, bridge in (("direct", "direct"), ("textualised", "cyclegan")):
    results = json.loads((run / f"seed-0/captions-{bridge}/results.json").read_text())
    said[name] = {r["image_id"]: r["caption"] for r in results}

SIZE, TEXT, GAP = 224, 240, 14
sheet = Image.new("RGB", (len(photos) * (SIZE + GAP) + GAP, SIZE + TEXT + 2 * GAP), "white")
draw = ImageDraw.Draw(sheet)
head, body = ImageFont.load_default(14), ImageFont.load_default(13)
for i, photo in enumerate(photos):
    x, y = GAP + i * (SIZE + GAP), SIZE + GAP + 8
    sheet.paste(Image.open(run / "world/val2014" / photo["file_name"]).convert("RGB"), (x, GAP))
    for name, captions in said.items():
        draw.text((x, y), name, fill="#777", font=head)
        lines = textwrap.wrap(captions[photo["id"]], 34)[:3]
        for n, line in enumerate(lines):
            draw.text((x, y + 19 + 16 * n), line, fill="#222", font=body)
        y += 78
sheet.save("docs/demo.jpg", quality=88)
