"""Odd picture files, and digests of all pixels as Pillow reads them.

    python tests/reference/pictures.py

writes tests/reference/odd/*, tests/reference/odd.json (SHA-256 of size and pixels, of the files as stored and
after `ImageOps.exif_transpose`) and tests/reference/photos.json (the same of the photographs in examples/photos, turned).
"""

import hashlib
import json
import pathlib
import struct
import sys
import zlib

import numpy
from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).parent
ODD = HERE / "odd"


def ramps(width, height):
    y, x = numpy.mgrid[0:height, 0:width]
    values = [(7 * x + 13 * y) % 256, (3 * x + 5 * y + 40) % 256, ((x * x + y * y) // 8) % 256]
    return Image.fromarray(numpy.stack(values, -1).astype(numpy.uint8), "RGB")


def pixels(image):
    rgb = image.convert("RGB")
    return hashlib.sha256(struct.pack("<II", *rgb.size) + rgb.tobytes()).hexdigest()


def digests(path):
    image = Image.open(path)
    # Pillow turns TIFF files by itself.
    stored = None if path.suffix == ".tif" else pixels(image)
    return {"stored": stored, "turned": pixels(ImageOps.exif_transpose(Image.open(path)))}


def png(width, height, depth, colour, rows, chunks=()):
    """A PNG file by hand, for what Pillow does not write."""
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    for name, data in chunks:
        out += chunk(name, data)
    return out + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows), 9)) + chunk(b"IEND", b"")


def write_odd():
    ODD.mkdir(exist_ok=True)
    for old in ODD.iterdir():
        old.unlink()
    picture = ramps(21, 13)
    # A photograph's worth of smoothness, so that chroma subsampling matters but files stay small.
    smooth = picture.resize((45, 29), Image.BICUBIC)

    def save(name, image, **options):
        image.save(ODD / name, **options)

    for name, sampling in [("444", 0), ("422", 1), ("420", 2)]:
        save(f"jpeg_{name}.jpg", smooth, quality=85, subsampling=sampling)
    save("jpeg_progressive.jpg", smooth, quality=80, progressive=True)
    save("jpeg_restarts.jpg", smooth, quality=80, restart_marker_blocks=1)
    save("jpeg_grey.jpg", smooth.convert("L"), quality=80)
    save("jpeg_cmyk.jpg", smooth.convert("CMYK"), quality=90)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(f"jpeg_orientation_{orientation}.jpg", picture, quality=80, exif=exif)
    exif = Image.Exif()
    exif[0x0112] = 6
    save("png_orientation_6.png", picture, exif=exif)
    save("webp_orientation_6.webp", picture, lossless=True, exif=exif)
    save("tiff_orientation_6.tif", picture, compression="tiff_lzw", exif=exif)

    save("rgb.png", picture)
    alpha = picture.convert("RGBA")
    alpha.putalpha(Image.fromarray((numpy.arange(21 * 13).reshape(13, 21) % 256).astype(numpy.uint8), "L"))
    save("rgba.png", alpha)
    save("grey_alpha.png", alpha.convert("LA"))
    palette = picture.quantize(64)
    save("palette.png", palette)
    save("palette_transparent.png", palette, transparency=3)
    save("palette_16_colours.png", picture.quantize(16), bits=4)
    save("one_bit.png", picture.convert("1"))
    save("bmp.bmp", picture)
    save("bmp_palette.bmp", palette)
    save("gif.gif", palette)
    save("gif_transparent.gif", palette, transparency=5)
    frames = [ramps(21, 13).transpose(Image.Transpose.ROTATE_180).quantize(32), palette]
    save("gif_animated.gif", frames[0], save_all=True, append_images=frames[1:], duration=100)
    save("webp_lossless.webp", picture, lossless=True)
    save("webp_lossy.webp", smooth, quality=80)
    save("webp_alpha.webp", alpha, lossless=True, exact=True)
    save("webp_animated.webp", picture, save_all=True, append_images=[smooth.resize(picture.size)], lossless=True)
    save("tiff.tif", picture)
    save("tiff_deflate.tif", picture, compression="tiff_adobe_deflate")
    save("tiff_grey.tif", picture.convert("L"))
    save("pnm.ppm", picture)
    save("pnm_grey.pgm", picture.convert("L"))
    save("pnm_bits.pbm", picture.convert("1"))

    words = [(numpy.arange(21, dtype=">u2") * 37 + 60 * y) for y in range(13)]
    rows = [row.astype(">u2").tobytes() for row in words]
    (ODD / "grey_16_bits.png").write_bytes(png(21, 13, 16, 0, rows))
    wide = [numpy.stack([row, row * 31, row * 57], -1).astype(">u2").tobytes() for row in words]
    (ODD / "rgb_16_bits.png").write_bytes(png(21, 13, 16, 2, wide))
    wide = [numpy.stack([row, row * 31, row * 57, row * 3], -1).astype(">u2").tobytes() for row in words]
    (ODD / "rgba_16_bits.png").write_bytes(png(21, 13, 16, 6, wide))
    wide = [numpy.stack([row * 57, row * 3], -1).astype(">u2").tobytes() for row in words]
    (ODD / "grey_alpha_16_bits.png").write_bytes(png(21, 13, 16, 4, wide))
    two = [bytes((x * 37 + y) % 256 for x in range(6)) for y in range(13)]
    (ODD / "grey_2_bits.png").write_bytes(png(21, 13, 2, 0, two))
    (ODD / "rgb_transparent.png").write_bytes(
        png(21, 13, 8, 2, [numpy.asarray(picture)[y].tobytes() for y in range(13)], [(b"tRNS", struct.pack(">HHH", 0, 40, 0))])
    )


def main():
    write_odd()
    table = {path.name: digests(path) for path in sorted(ODD.iterdir())}
    (HERE / "odd.json").write_text(json.dumps(table, indent=1) + "\n")
    photos = sys.argv[1] if sys.argv[1:] else HERE.parent.parent / "examples" / "photos"
    table = {path.name: digests(path)["turned"] for path in sorted(pathlib.Path(photos).rglob("*.jpg"))}
    (HERE / "photos.json").write_text(json.dumps(table, indent=1) + "\n")


main()
