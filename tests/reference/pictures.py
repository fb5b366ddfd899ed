"""Picture files of every kind that Pillow reads, and digests of all pixels as Pillow reads them.

    python tests/reference/pictures.py

writes tests/reference/odd/*, tests/reference/odd.json (SHA-256 of size and pixels after `convert("RGB")`, of the files
as stored and after `ImageOps.exif_transpose`; null where Pillow itself refuses the file) and tests/reference/photos.json
(the same of the photographs in examples/photos, turned).
"""

import hashlib
import io
import json
import math
import pathlib
import struct
import sys
import warnings
import zlib

import numpy
from PIL import Image, ImageOps

HERE = pathlib.Path(__file__).parent
ODD = HERE / "odd"
WIDTH, HEIGHT = 21, 13

warnings.simplefilter("ignore")


def ramps(width, height):
    y, x = numpy.mgrid[0:height, 0:width]
    values = [(7 * x + 13 * y) % 256, (3 * x + 5 * y + 40) % 256, ((x * x + y * y) // 8) % 256]
    return Image.fromarray(numpy.stack(values, -1).astype(numpy.uint8), "RGB")


def pixels(image):
    rgb = image.convert("RGB")
    return hashlib.sha256(struct.pack("<II", *rgb.size) + rgb.tobytes()).hexdigest()


def digests(path):
    try:
        # Pillow turns TIFF files by itself.
        stored = None if path.suffix in (".tif", ".tiff") else pixels(Image.open(path))
        return {"stored": stored, "turned": pixels(ImageOps.exif_transpose(Image.open(path)))}
    except Exception:
        return None


PICTURE = ramps(WIDTH, HEIGHT)
# A photograph's worth of smoothness, so that chroma subsampling matters but files stay small.
SMOOTH = PICTURE.resize((45, 29), Image.BICUBIC)
ARRAY = numpy.asarray(PICTURE)
ALPHA = PICTURE.convert("RGBA")
ALPHA.putalpha(Image.fromarray((numpy.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) % 256).astype(numpy.uint8), "L"))
PALETTE = PICTURE.quantize(64)
# One that is wider than it is high and tells all eight orientations apart.
SMALL = ramps(7, 4)


def write(name, data):
    (ODD / name).write_bytes(data)


def save(name, image, **options):
    image.save(ODD / name, **options)


def saved(image, format, **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


# ---------------------------------------------------------------------------------------------------------------- PNG


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, depth, color, rows, chunks=(), after=(), interlace=0, pixels=None):
    """A PNG file by hand, for what Pillow does not write."""
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlace))
    for name, data in chunks:
        out += chunk(name, data)
    stream = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    # In two chunks, the first of them empty.
    out += chunk(b"IDAT", b"") + chunk(b"IDAT", stream[:9]) + chunk(b"IDAT", stream[9:])
    for name, data in after:
        out += chunk(name, data)
    return out + chunk(b"IEND", b"")


def packed(values, bits):
    """Rows of whole numbers, most significant bits first."""
    rows = []
    for row in values:
        text = "".join(format(int(value), f"0{bits}b") for value in row)
        text += "0" * (-len(text) % 8)
        rows.append(bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8)))
    return rows


PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png_files():
    save("rgb.png", PICTURE)
    save("rgba.png", ALPHA)
    save("grey.png", PICTURE.convert("L"))
    save("grey_alpha.png", ALPHA.convert("LA"))
    save("palette.png", PALETTE)
    save("palette_transparent.png", PALETTE, transparency=3)
    save("palette_16_colours.png", PICTURE.quantize(16), bits=4)
    save("palette_4_colours.png", PICTURE.quantize(4), bits=2)
    save("palette_2_colours.png", PICTURE.quantize(2), bits=1)
    save("one_bit.png", PICTURE.convert("1"))
    words = numpy.stack([(numpy.arange(WIDTH) * 37 + 60 * y) for y in range(HEIGHT)])

    def wide(*factors):
        stacked = numpy.stack([words * factor for factor in factors], -1) % 65536
        return [row.astype(">u2").tobytes() for row in stacked]

    write("grey_16_bits.png", png(WIDTH, HEIGHT, 16, 0, wide(1)))
    write("grey_16_bits_deep.png", png(WIDTH, HEIGHT, 16, 0, wide(61)))
    write("grey_16_bits_transparent.png", png(WIDTH, HEIGHT, 16, 0, wide(61), [(b"tRNS", struct.pack(">H", 61 * 37))]))
    write("rgb_16_bits.png", png(WIDTH, HEIGHT, 16, 2, wide(1, 31, 57)))
    write("rgba_16_bits.png", png(WIDTH, HEIGHT, 16, 6, wide(1, 31, 57, 3)))
    write("grey_alpha_16_bits.png", png(WIDTH, HEIGHT, 16, 4, wide(57, 3)))
    write("grey_2_bits.png", png(WIDTH, HEIGHT, 2, 0, [bytes((x * 37 + y) % 256 for x in range(6)) for y in range(HEIGHT)]))
    write("grey_4_bits.png", png(WIDTH, HEIGHT, 4, 0, [bytes((x * 37 + y) % 256 for x in range(11)) for y in range(HEIGHT)]))
    write("grey_transparent.png", png(WIDTH, HEIGHT, 8, 0, [bytes(range(y, y + WIDTH)) for y in range(HEIGHT)], [(b"tRNS", struct.pack(">H", 9))]))
    write("one_bit_transparent.png", png(WIDTH, HEIGHT, 1, 0, [bytes([y * 7, y * 91 % 256, 255]) for y in range(HEIGHT)], [(b"tRNS", struct.pack(">H", 1))]))
    rows = [row.tobytes() for row in ARRAY]
    write("rgb_transparent.png", png(WIDTH, HEIGHT, 8, 2, rows, [(b"tRNS", struct.pack(">HHH", 0, 40, 0))]))
    write("rgb_with_gamma.png", png(WIDTH, HEIGHT, 8, 2, rows, [(b"gAMA", struct.pack(">I", 10000)), (b"sBIT", b"\5\6\5"), (b"bKGD", bytes(6))]))
    # Indices beyond the palette, and a palette longer than the depth needs.
    indices = [bytes((x + 3 * y) % 64 for x in range(WIDTH)) for y in range(HEIGHT)]
    write("palette_short.png", png(WIDTH, HEIGHT, 8, 3, indices, [(b"PLTE", bytes(range(90)))]))
    write("palette_long.png", png(WIDTH, HEIGHT, 4, 3, packed([[(x + y) % 16 for x in range(WIDTH)] for y in range(HEIGHT)], 4), [(b"PLTE", bytes(range(60)))]))
    write("palette_absent.png", png(WIDTH, HEIGHT, 8, 3, indices))
    for depth, color, name in [(8, 2, "rgb"), (1, 0, "one_bit"), (16, 6, "rgba_16_bits")]:
        samples = {2: 3, 0: 1, 6: 4}[color]
        values = (numpy.arange(WIDTH * HEIGHT * samples).reshape(HEIGHT, WIDTH, samples) * 211) % (1 << depth)
        stream = []
        for x0, y0, dx, dy in PASSES:
            part = values[y0::dy, x0::dx]
            if part.size:
                stream += packed(part.reshape(part.shape[0], -1), depth)
        write(f"interlaced_{name}.png", png(WIDTH, HEIGHT, depth, color, stream, interlace=1))
    save("apng.png", PICTURE, save_all=True, append_images=[PICTURE.transpose(Image.Transpose.ROTATE_180)], duration=100)
    save("apng_default_image.png", PICTURE, save_all=True, default_image=True, append_images=[PALETTE.convert("RGB")])
    text = b"Comment\0no XMP"
    write("trailing_bytes.png", saved(PICTURE, "PNG") + b"trailing")
    write("with_text.png", png(WIDTH, HEIGHT, 8, 2, rows, [(b"tEXt", text), (b"zzZz", b"private")]))
    whole = saved(SMOOTH, "PNG")
    write("truncated.png", whole[: len(whole) // 2])
    write("without_end.png", saved(PICTURE, "PNG")[:-12])
    damaged = bytearray(png(WIDTH, HEIGHT, 8, 2, rows, [(b"tEXt", text)]))
    damaged[41] ^= 1
    write("damaged_text.png", bytes(damaged))
    damaged = bytearray(png(WIDTH, HEIGHT, 8, 2, rows))
    damaged[-20] ^= 1
    write("damaged_pixels.png", bytes(damaged))
    # The stream ends a row early.
    write("rows_missing.png", png(WIDTH, HEIGHT, 8, 2, rows[:-1]))
    write("rows_more.png", png(WIDTH, HEIGHT, 8, 2, rows + rows[:1]))


# --------------------------------------------------------------------------------------------------------------- JPEG


def jpeg_segments(data):
    """Splits into the segments before the first scan, and what follows."""
    at, out = 2, []
    while data[at + 1] != 0xDA:
        length = struct.unpack(">H", data[at + 2 : at + 4])[0]
        out.append(data[at : at + 2 + length])
        at += 2 + length
    return out, data[at:]


def jpeg_with(data, *segments, keep=lambda marker: True):
    """`data` with segments (marker, payload) put in front, and of its own those that `keep` takes."""
    own, scan = jpeg_segments(data)
    new = b"".join(b"\xff" + bytes([marker]) + struct.pack(">H", len(payload) + 2) + payload for marker, payload in segments)
    return b"\xff\xd8" + new + b"".join(part for part in own if keep(part[1])) + scan


def jpeg_files():
    for name, sampling in [("444", 0), ("422", 1), ("420", 2)]:
        save(f"jpeg_{name}.jpg", SMOOTH, quality=85, subsampling=sampling)
    save("jpeg_progressive.jpg", SMOOTH, quality=80, progressive=True)
    save("jpeg_progressive_444.jpg", SMOOTH, quality=95, progressive=True, subsampling=0)
    save("jpeg_restarts.jpg", SMOOTH, quality=80, restart_marker_blocks=1)
    save("jpeg_grey.jpg", SMOOTH.convert("L"), quality=80)
    save("jpeg_cmyk.jpg", SMOOTH.convert("CMYK"), quality=90)
    save("jpeg_rgb.jpg", SMOOTH, quality=90, keep_rgb=True)
    save("jpeg_low_quality.jpg", SMOOTH, quality=5)
    save("jpeg_one_pixel.jpg", SMOOTH.resize((1, 1)), quality=90)
    save("jpeg_narrow.jpg", SMOOTH.resize((1, 33)), quality=90)
    save("jpeg_wide.jpg", SMOOTH.resize((33, 2)), quality=90)
    large = ramps(160, 99).resize((203, 117), Image.BICUBIC)
    for name, sampling in [("422", 1), ("420", 2)]:
        save(f"jpeg_large_{name}.jpg", large, quality=60, subsampling=sampling)
    # Pillow writes three ways of subsampling. Others: the blocks of these, told to lie otherwise.
    for name, sampling, told in [("440", 1, 0x12), ("411", 2, 0x41), ("441", 2, 0x14)]:
        other = bytearray(saved(SMOOTH.resize((32, 32)), "JPEG", quality=85, subsampling=sampling))
        at = other.index(b"\xff\xc0")
        other[at + 11] = told
        write(f"jpeg_{name}.jpg", bytes(other))
    gray = bytearray(saved(SMOOTH.convert("L").resize((32, 32)), "JPEG", quality=85))
    at = gray.index(b"\xff\xc0")
    gray[at + 11] = 0x22
    write("jpeg_grey_sampling_22.jpg", bytes(gray))
    # What says how three or four components are colors.
    adobe = lambda transform: (0xEE, b"Adobe\0\x64\0\0\0\0" + bytes([transform]))
    cmyk = saved(SMOOTH.convert("CMYK"), "JPEG", quality=90)
    unmarked = lambda marker: marker not in (0xE0, 0xEE)
    write("jpeg_cmyk_unmarked.jpg", jpeg_with(cmyk, keep=unmarked))
    write("jpeg_ycck.jpg", jpeg_with(cmyk, adobe(2), keep=unmarked))
    write("jpeg_cmyk_transform_1.jpg", jpeg_with(cmyk, adobe(1), keep=unmarked))
    rgb = saved(SMOOTH, "JPEG", quality=90, subsampling=0)
    write("jpeg_unmarked.jpg", jpeg_with(rgb, keep=unmarked))
    write("jpeg_adobe_rgb.jpg", jpeg_with(rgb, adobe(0), keep=unmarked))
    write("jpeg_adobe_ycc.jpg", jpeg_with(rgb, adobe(1), keep=unmarked))
    write("jpeg_jfif_and_adobe_rgb.jpg", jpeg_with(rgb, adobe(0)))
    # Damage.
    whole = saved(SMOOTH, "JPEG", quality=85)
    write("jpeg_trailing_bytes.jpg", whole + b"trailing bytes")
    write("jpeg_without_end.jpg", whole[:-2])
    write("jpeg_half_an_end.jpg", whole[:-1])
    write("jpeg_truncated.jpg", whole[: len(whole) - 60])
    progressive = saved(SMOOTH, "JPEG", quality=85, progressive=True)
    write("jpeg_progressive_without_end.jpg", progressive[:-2])
    write("jpeg_progressive_truncated.jpg", progressive[: len(progressive) - 60])
    write("jpeg_ends_early.jpg", whole[: len(whole) - 60] + b"\xff\xd9")
    write("jpeg_fill_bytes.jpg", whole[:2] + b"\xff\xff" + whole[2:])
    write("jpeg_junk_between.jpg", whole[:20] + b"junk" + whole[20:])
    middle = bytearray(saved(SMOOTH, "JPEG", quality=85, restart_marker_blocks=2))
    middle[len(middle) - 120] ^= 0x55
    write("jpeg_damaged_scan.jpg", bytes(middle))
    write("mpo.mpo", saved(SMOOTH, "MPO", quality=85, save_all=True, append_images=[SMOOTH.transpose(Image.Transpose.ROTATE_180)]))
    save("jpeg_comment.jpg", SMOOTH, quality=80, comment="a comment")
    save("jpeg_profile.jpg", SMALL, quality=80, icc_profile=b"profile" * 12000)
    # Two tables of quantization with 16 bits.
    deep = saved(SMOOTH, "JPEG", qtables=[[300] * 64, [400] * 64])
    write("jpeg_deep_tables.jpg", deep)


# -------------------------------------------------------------------------------------------------------- Orientation


def tiff_header(value, endian="<", kind=3, count=1, more=()):
    """EXIF data with an orientation tag of any type."""
    code = {1: "B", 3: "H", 4: "I", 8: "h", 9: "i"}
    if kind in code:
        data = struct.pack(endian + code[kind] * count, *([value] * count)).ljust(4, b"\0")
    else:
        data = value
    entries = sorted([*more, (0x0112, kind, count, data)])
    out = (b"II*\0" if endian == "<" else b"MM\0*") + struct.pack(endian + "IH", 8, len(entries))
    for tag, kind, count, data in entries:
        out += struct.pack(endian + "HHI", tag, kind, count) + data[:4]
    return out + bytes(4)


XMP = """<?xpacket begin="" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" xmlns:tiff="http://ns.adobe.com/tiff/1.0/" %s</rdf:Description></rdf:RDF></x:xmpmeta><?xpacket end="w"?>"""
ATTRIBUTE = (XMP % 'tiff:Orientation="6">').encode()
ELEMENT = (XMP % "><tiff:Orientation>8</tiff:Orientation>").encode()


def webp_with(data, flags, *chunks):
    """`data`, a still lossless WebP file, with chunks as an extended one."""
    body = data[12:]
    part = lambda name, data: name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    size = struct.pack("<I", SMALL.width - 1)[:3] + struct.pack("<I", SMALL.height - 1)[:3]
    body = part(b"VP8X", bytes([flags, 0, 0, 0]) + size) + body + b"".join(part(*chunk) for chunk in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def orientation_files():
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        save(f"jpeg_orientation_{orientation}.jpg", PICTURE, quality=80, exif=exif)
    exif = Image.Exif()
    exif[0x0112] = 6
    save("png_orientation_6.png", PICTURE, exif=exif)
    save("webp_orientation_6.webp", PICTURE, lossless=True, exif=exif)
    save("tiff_orientation_6.tif", PICTURE, compression="tiff_lzw", exif=exif)
    for orientation in (2, 3, 4, 5, 7, 8):
        write(f"tiff_orientation_{orientation}.tif", tiff(SMALL.width, SMALL.height, [(262, 2), (258, (8, 8, 8)), (277, 3), (274, orientation)], [SMALL.tobytes()]))
    write("tiff_orientation_xmp.tif", tiff(SMALL.width, SMALL.height, [(262, 2), (258, (8, 8, 8)), (277, 3), (700, ATTRIBUTE)], [SMALL.tobytes()]))

    jpeg = saved(SMALL, "JPEG", quality=80)
    app1 = lambda payload: (0xE1, payload)
    heading, address = b"Exif\0\0", b"http://ns.adobe.com/xap/1.0/\0"
    turned = tiff_header(6)
    both = {
        "big_endian": [heading + tiff_header(6, ">")],
        "doubled_header": [heading * 2 + turned],
        "tripled_header": [heading * 3 + turned],
        "xmp_attribute": [address + ATTRIBUTE],
        "xmp_element": [address + ELEMENT],
        "xmp_spaced": [address + (XMP % 'tiff:Orientation = "6">').encode()],
        "xmp_single_quotes": [address + (XMP % "tiff:Orientation='6'>").encode()],
        "xmp_after_exif": [heading + tiff_header(3), address + ATTRIBUTE],
        "xmp_before_exif": [address + ATTRIBUTE, heading + tiff_header(3)],
        "xmp_and_exif_1": [heading + tiff_header(1), address + ATTRIBUTE],
        "xmp_and_exif_without": [heading + b"II*\0\x08\0\0\0\0\0\0\0\0\0", address + ATTRIBUTE],
        "xmp_12": [address + (XMP % 'tiff:Orientation="12">').encode()],
        "value_0": [heading + tiff_header(0)],
        "value_9": [heading + tiff_header(9)],
        "value_0_and_xmp": [heading + tiff_header(0), address + ATTRIBUTE],
        "value_262": [heading + tiff_header(262)],
        "byte": [heading + tiff_header(6, kind=1)],
        "long": [heading + tiff_header(6, kind=4)],
        "signed_short": [heading + tiff_header(6, kind=8)],
        "signed_long_big_endian": [heading + tiff_header(6, ">", kind=9)],
        "two_values": [heading + tiff_header(6, count=2)],
        "text": [heading + tiff_header(b"6\0\0\0", kind=2, count=2)],
        "undefined": [heading + tiff_header(b"\x06\0\0\0", kind=7, count=1)],
        "unknown_type": [heading + tiff_header(b"\x06\0\0\0", kind=77, count=1)],
        "float": [heading + tiff_header(struct.pack("<f", 6.0), kind=11, count=1)],
        "unsorted": [heading + tiff_header(6, more=[(0x0100, 3, 1, b"\1\0\0\0"), (0x9999, 3, 1, b"\1\0\0\0")])],
        "bad_entry_before": [heading + tiff_header(6, more=[(0x010F, 2, 400, struct.pack("<I", 9999))])],
        "split": [heading + turned[:20], heading + turned[20:]],
        "twice": [heading + turned, heading + tiff_header(3)],
        "no_header": [turned],
        "cut": [heading + turned[:14]],
        "cut_in_value": [heading + turned[:19]],
        "garbage": [heading + b"garbage that is no TIFF header"],
        "only_header": [heading],
        "only_header_and_xmp": [heading, address + ATTRIBUTE],
        "offset_far": [heading + b"II*\0\xff\xff\0\0" + turned[8:]],
        "offset_16": [heading + b"II*\0\x10\0\0\0" + bytes(8) + turned[8:]],
        "big_tiff": [heading + b"II+\0\x08\0\0\0" + struct.pack("<QQHHQHHHH", 16, 1, 0x0112, 3, 1, 6, 0, 0, 0) + bytes(8)],
        "second_directory": [heading + b"II*\0" + struct.pack("<IH", 8, 0) + struct.pack("<I", 14) + turned[8:]],
        "wrong_magic": [heading + b"II\0*" + turned[4:]],
    }
    for name, payloads in both.items():
        write(f"exif_{name}.jpg", jpeg_with(jpeg, *map(app1, payloads)))
    # EXIF after the frame header, and after the scan.
    own, scan = jpeg_segments(jpeg)
    late = b"\xff\xe1" + struct.pack(">H", len(heading + turned) + 2) + heading + turned
    write("exif_after_tables.jpg", b"\xff\xd8" + b"".join(own) + late + scan)
    write("exif_after_scan.jpg", b"\xff\xd8" + b"".join(own) + scan[:-2] + late + scan[-2:])

    rows = [row.tobytes() for row in numpy.asarray(SMALL)]
    small_png = lambda before=(), after=(): png(SMALL.width, SMALL.height, 8, 2, rows, before, after)
    profile = lambda data: b"\nexif\n%8d\n" % len(data) + b"\n".join(data.hex().encode()[at : at + 72] for at in range(0, len(data.hex()), 72)) + b"\n"
    text = lambda key, value: key + b"\0" + value
    compressed = lambda key, value: key + b"\0\0" + zlib.compress(value)
    international = lambda value, packed=False: b"XML:com.adobe.xmp\0" + (b"\1\0" if packed else b"\0\0") + b"\0\0" + (zlib.compress(value) if packed else value)
    raw = b"Raw profile type exif"
    for name, before, after in [
        ("exif", [(b"eXIf", tiff_header(6, ">"))], []),
        ("exif_after_pixels", [], [(b"eXIf", turned)]),
        ("exif_with_header", [(b"eXIf", heading + turned)], []),
        ("exif_with_two_headers", [(b"eXIf", heading * 2 + turned)], []),
        ("raw_profile", [(b"zTXt", compressed(raw, profile(heading + turned)))], []),
        ("raw_profile_text", [(b"tEXt", text(raw, profile(heading + turned)))], []),
        ("raw_profile_without_header", [(b"zTXt", compressed(raw, profile(turned)))], []),
        ("raw_profile_app1", [(b"zTXt", compressed(b"Raw profile type APP1", profile(heading + turned)))], []),
        ("raw_profile_after_pixels", [], [(b"zTXt", compressed(raw, profile(heading + turned)))]),
        ("raw_profile_and_exif", [(b"zTXt", compressed(raw, profile(heading + turned))), (b"eXIf", tiff_header(3))], []),
        ("raw_profile_broken", [(b"zTXt", compressed(raw, b"\nexif\n  9\nnot hexadecimal\n"))], []),
        ("xmp_attribute", [(b"iTXt", international(ATTRIBUTE))], []),
        ("xmp_element", [(b"iTXt", international(ELEMENT))], []),
        ("xmp_compressed", [(b"iTXt", international(ATTRIBUTE, True))], []),
        ("xmp_after_pixels", [], [(b"iTXt", international(ATTRIBUTE))]),
        ("xmp_as_text", [(b"tEXt", text(b"XML:com.adobe.xmp", ATTRIBUTE))], []),
        ("xmp_and_exif", [(b"iTXt", international(ATTRIBUTE)), (b"eXIf", tiff_header(3))], []),
        ("text_exif", [(b"tEXt", text(b"exif", heading + turned))], []),
        ("text_xmp", [(b"tEXt", text(b"xmp", ATTRIBUTE))], []),
    ]:
        write(f"orientation_{name}.png", small_png(before, after))

    webp = saved(SMALL, "WEBP", lossless=True)
    for name, flags, chunks in [
        ("exif", 8, [(b"EXIF", tiff_header(6))]),
        ("exif_big_endian", 8, [(b"EXIF", tiff_header(6, ">"))]),
        ("exif_with_header", 8, [(b"EXIF", heading + turned)]),
        ("exif_with_two_headers", 8, [(b"EXIF", heading * 2 + turned)]),
        ("exif_without_flag", 0, [(b"EXIF", turned)]),
        ("xmp_attribute", 4, [(b"XMP ", ATTRIBUTE)]),
        ("xmp_element", 4, [(b"XMP ", ELEMENT)]),
        ("xmp_and_exif", 12, [(b"EXIF", tiff_header(3)), (b"XMP ", ATTRIBUTE)]),
    ]:
        write(f"orientation_{name}.webp", webp_with(webp, flags, *chunks))
    gif = saved(SMALL.quantize(16), "GIF")
    end = gif.rindex(b",")
    packet = b"!\xff\x0bXMP DataXMP" + ATTRIBUTE + b"\1" + bytes(range(255, -1, -1)) + b"\0\0"
    at = 13 + 3 * 16
    write("orientation_xmp.gif", gif[:at] + packet + gif[at:])


# --------------------------------------------------------------------------------------------------------------- TIFF


def tiff(width, height, tags, data, endian="<", compression=1, big=False, more_pages=False):
    """A TIFF file by hand. `data`: strips, or tiles when the tags say so. Values: whole numbers, tuples of them, bytes."""
    tags = dict(tags)
    tags.setdefault(256, width)
    tags.setdefault(257, height)
    tags.setdefault(259, compression)
    offsets, counts = (324, 325) if 322 in tags else (273, 279)
    at = 16 if big else 8
    places = []
    for part in data:
        places.append(at)
        at += len(part)
    tags.setdefault(offsets, tuple(places))
    tags.setdefault(counts, tuple(len(part) for part in data))
    if 322 not in tags:
        tags.setdefault(278, height if len(data) == 1 else -(-height // len(data)))
    at += at % 2
    body = b"".join(data) + b"\0" * (at - (16 if big else 8) - sum(map(len, data)))
    word, entry_size, inline = ("Q", 20, 8) if big else ("I", 12, 4)
    directory = at
    extra_at = directory + (8 if big else 2) + entry_size * len(tags) + (8 if big else 4)
    entries, extra = b"", b""
    for tag, value in sorted(tags.items()):
        kind = None
        if isinstance(value, tuple) and value and isinstance(value[0], tuple):
            kind, value = value[0][0], value[1]
        if isinstance(value, bytes):
            kind, count, packed_value = kind or 7, len(value), value
        else:
            values = value if isinstance(value, tuple) else (value,)
            if kind in (5, 10):
                packed_value = b"".join(struct.pack(endian + "II", *pair) for pair in values)
            elif kind == 12 or any(isinstance(v, float) for v in values):
                kind = 11
                packed_value = struct.pack(endian + "f" * len(values), *values)
            else:
                kind = kind or (4 if tag in (273, 279, 324, 325) or max(values) > 65535 else 3)
                packed_value = struct.pack(endian + {1: "B", 3: "H", 4: "I", 16: "Q"}[kind] * len(values), *values)
            count = len(values)
        if len(packed_value) > inline:
            field = struct.pack(endian + word, extra_at + len(extra))
            extra += packed_value + b"\0" * (len(packed_value) % 2)
        else:
            field = packed_value.ljust(inline, b"\0")
        entries += struct.pack(endian + "HH" + word, tag, kind, count) + field
    mark = b"II" if endian == "<" else b"MM"
    if big:
        head = mark + struct.pack(endian + "HHHQ", 43, 8, 0, directory)
    else:
        head = mark + struct.pack(endian + "HI", 42, directory)
    return head + body + struct.pack(endian + ("Q" if big else "H"), len(tags)) + entries + struct.pack(endian + word, 0) + extra


def tiff_files():
    save("tiff.tif", PICTURE)
    save("tiff_deflate.tif", PICTURE, compression="tiff_adobe_deflate")
    save("tiff_grey.tif", PICTURE.convert("L"))
    for compression in ["tiff_lzw", "packbits", "zstd", "tiff_deflate", "lzma"]:
        save(f"tiff_{compression.removeprefix('tiff_')}_rgb.tif", SMOOTH, compression=compression)
    save("tiff_packbits_runs.tif", PICTURE.quantize(3), compression="packbits")
    save("tiff_packbits_one_bit.tif", SMOOTH.convert("1"), compression="packbits")
    save("tiff_lzw_predictor.tif", SMOOTH, compression="tiff_lzw", tiffinfo={317: 2})
    save("tiff_deflate_predictor_grey.tif", SMOOTH.convert("L"), compression="tiff_adobe_deflate", tiffinfo={317: 2})
    save("tiff_zstd_grey.tif", SMOOTH.convert("L"), compression="zstd")
    save("tiff_strips.tif", SMOOTH, compression="tiff_lzw", strip_size=45 * 3 * 4)
    save("tiff_big.tif", PICTURE, big_tiff=True)
    save("tiff_palette.tif", PALETTE)
    save("tiff_palette_lzw.tif", PALETTE, compression="tiff_lzw")
    save("tiff_rgba.tif", ALPHA)
    save("tiff_grey_alpha.tif", ALPHA.convert("LA"))
    save("tiff_one_bit.tif", PICTURE.convert("1"))
    for compression in ["group4", "group3", "tiff_ccitt"]:
        save(f"tiff_{compression}.tif", SMOOTH.convert("1"), compression=compression)
    save("tiff_group3_large.tif", photo().convert("1"), compression="group3")
    save("tiff_cmyk.tif", PICTURE.convert("CMYK"))
    save("tiff_cmyk_lzw.tif", PICTURE.convert("CMYK"), compression="tiff_lzw")
    save("tiff_ycbcr.tif", PICTURE.convert("YCbCr"))
    save("tiff_lab.tif", PICTURE.convert("LAB"))
    save("tiff_multi_page.tif", PICTURE, save_all=True, append_images=[SMOOTH])
    for name, quality in [("tiff_jpeg.tif", 85), ("tiff_jpeg_low.tif", 20)]:
        save(name, SMOOTH, compression="jpeg", quality=quality)
    save("tiff_jpeg_strips.tif", ramps(67, 61), compression="jpeg", strip_size=67 * 3 * 16)
    save("tiff_jpeg_grey.tif", SMOOTH.convert("L"), compression="jpeg")
    save("tiff_jpeg_ycbcr.tif", SMOOTH.convert("YCbCr"), compression="jpeg")
    save("tiff_jpeg_cmyk.tif", SMOOTH.convert("CMYK"), compression="jpeg")
    for name, kind in [("f", "f4"), ("i", "i4")]:
        values = (numpy.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) * 2.3 - 100).astype(kind)
        save(f"tiff_{'float' if name == 'f' else 'int32'}.tif", Image.fromarray(values))
        save(f"tiff_{'float' if name == 'f' else 'int32'}_lzw.tif", Image.fromarray(values), compression="tiff_lzw")
    words = (numpy.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) * 3).astype("<u2")
    save("tiff_16_bits.tif", Image.fromarray(words))
    save("tiff_16_bits_lzw.tif", Image.fromarray(words), compression="tiff_lzw")

    values = numpy.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH)
    for endian, side in [("<", "little"), (">", "big")]:
        def raw(array, kind):
            return [array.astype(endian + kind).tobytes()]
        write(f"tiff_{side}_grey_16.tif", tiff(WIDTH, HEIGHT, [(262, 1), (258, 16)], raw(values * 3, "u2"), endian))
        write(f"tiff_{side}_grey_16_white_is_zero.tif", tiff(WIDTH, HEIGHT, [(262, 0), (258, 16)], raw(values, "u2"), endian))
        write(f"tiff_{side}_grey_16_signed.tif", tiff(WIDTH, HEIGHT, [(262, 1), (258, 16), (339, 2)], raw(values * 3 - 300, "i2"), endian))
        write(f"tiff_{side}_grey_32.tif", tiff(WIDTH, HEIGHT, [(262, 1), (258, 32)], raw(values * 3, "u4"), endian))
        write(f"tiff_{side}_grey_32_high.tif", tiff(WIDTH, HEIGHT, [(262, 1), (258, 32)], raw(values * 15728640, "u4"), endian))
        write(f"tiff_{side}_grey_32_signed.tif", tiff(WIDTH, HEIGHT, [(262, 1), (258, 32), (339, 2)], raw(values - 100, "i4"), endian))
        floats = values * 1.37 - 40
        floats[0, :4] = [math.nan, math.inf, -math.inf, 254.999]
        write(f"tiff_{side}_float.tif", tiff(WIDTH, HEIGHT, [(262, 1), (258, 32), (339, 3)], raw(floats, "f4"), endian))
        write(f"tiff_{side}_float_white_is_zero.tif", tiff(WIDTH, HEIGHT, [(262, 0), (258, 32), (339, 3)], raw(values * 1.37 - 40, "f4"), endian))
        write(f"tiff_{side}_double.tif", tiff(WIDTH, HEIGHT, [(262, 1), (258, 64), (339, 3)], raw(values * 1.37, "f8"), endian))
        write(f"tiff_{side}_half.tif", tiff(WIDTH, HEIGHT, [(262, 1), (258, 16), (339, 3)], raw(values * 1.37, "f2"), endian))
        deep = numpy.stack([values * 71, values * 201, values * 113], -1) % 65536
        write(f"tiff_{side}_rgb_16.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (16,) * 3), (277, 3)], raw(deep, "u2"), endian))
        four = numpy.concatenate([deep, (values * 230 % 65536)[..., None]], -1)
        for extra in (None, 0, 1, 2):
            tags = [(262, 2), (258, (16,) * 4), (277, 4)] + ([(338, extra)] if extra is not None else [])
            write(f"tiff_{side}_rgba_16_extra_{extra}.tif", tiff(WIDTH, HEIGHT, tags, raw(four, "u2"), endian))
        write(f"tiff_{side}_cmyk_16.tif", tiff(WIDTH, HEIGHT, [(262, 5), (258, (16,) * 4), (277, 4)], raw(four, "u2"), endian))
    rgb = ARRAY.tobytes()
    write("tiff_big_endian_rgb.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 3), (277, 3)], [rgb], ">"))
    write("tiff_bigtiff_big_endian.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 3), (277, 3)], [rgb], ">", big=True))
    write("tiff_one_bits_per_sample.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, 8), (277, 3)], [rgb]))
    write("tiff_no_bits_per_sample.tif", tiff(16, 4, [(262, 1)], [bytes([0x5A, 0xF0] * 4)]))
    write("tiff_no_photometric.tif", tiff(WIDTH, HEIGHT, [(258, 8)], [bytes(range(256)) + bytes(WIDTH * HEIGHT - 256)]))
    rgba = numpy.asarray(ALPHA)
    for extra in (None, 0, 1, 2, 999):
        tags = [(262, 2), (258, (8,) * 4), (277, 4)] + ([(338, extra)] if extra is not None else [])
        write(f"tiff_rgba_extra_{extra}.tif", tiff(WIDTH, HEIGHT, tags, [rgba.tobytes()]))
        if extra != 999:
            write(f"tiff_rgba_extra_{extra}_deflate.tif", tiff(WIDTH, HEIGHT, tags, [zlib.compress(rgba.tobytes())], compression=8))
    five = numpy.concatenate([rgba, rgba[..., :1]], -1)
    for extra in ((0, 0), (1, 0), (2, 0)):
        write(f"tiff_five_samples_{extra[0]}.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 5), (277, 5), (338, extra)], [five.tobytes()]))
    write("tiff_cmyk_five.tif", tiff(WIDTH, HEIGHT, [(262, 5), (258, (8,) * 5), (277, 5), (338, 0)], [five.tobytes()]))
    gray_alpha = numpy.stack([values % 256, values * 7 % 256], -1).astype("u1")
    for extra in (0, 1, 2):
        write(f"tiff_grey_extra_{extra}.tif", tiff(WIDTH, HEIGHT, [(262, 1), (258, (8, 8)), (277, 2), (338, extra)], [gray_alpha.tobytes()]))
    gray = (values % 256).astype("u1").tobytes()
    for photometric in (0, 1):
        write(f"tiff_grey_{photometric}.tif", tiff(WIDTH, HEIGHT, [(262, photometric), (258, 8)], [gray]))
        write(f"tiff_grey_{photometric}_deflate.tif", tiff(WIDTH, HEIGHT, [(262, photometric), (258, 8)], [zlib.compress(gray)], compression=8))
        for bits in (1, 2, 4):
            rows = b"".join(packed(values % (1 << bits) if bits > 1 else values * values // 7 % 2, bits))
            write(f"tiff_grey_{photometric}_{bits}_bits.tif", tiff(WIDTH, HEIGHT, [(262, photometric), (258, bits)], [rows]))
            write(f"tiff_grey_{photometric}_{bits}_bits_reversed.tif", tiff(WIDTH, HEIGHT, [(262, photometric), (258, bits), (266, 2)], [rows]))
            write(f"tiff_grey_{photometric}_{bits}_bits_deflate.tif", tiff(WIDTH, HEIGHT, [(262, photometric), (258, bits)], [zlib.compress(rows)], compression=8))
    write("tiff_grey_12_bits.tif", tiff(WIDTH, HEIGHT, [(262, 1), (258, 12)], [b"".join(packed(values * 13, 12))]))
    write("tiff_grey_signed_8.tif", tiff(WIDTH, HEIGHT, [(262, 1), (258, 8), (339, 2)], [gray]))
    write("tiff_reversed_deflate.tif", tiff(WIDTH, HEIGHT, [(262, 1), (258, 8), (266, 2)], [bytes(int(f"{b:08b}"[::-1], 2) for b in zlib.compress(gray))], compression=8))
    write("tiff_reversed_rgb.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 3), (277, 3), (266, 2)], [rgb]))
    for bits in (1, 2, 4, 8):
        colors = tuple((index * 7919 * (channel + 1)) % 65536 for channel in range(3) for index in range(1 << bits))
        rows = b"".join(packed(values % (1 << bits), bits))
        write(f"tiff_palette_{bits}_bits.tif", tiff(WIDTH, HEIGHT, [(262, 3), (258, bits), (320, colors)], [rows]))
    eight = tuple(range(256)) * 3
    write("tiff_palette_of_bytes.tif", tiff(WIDTH, HEIGHT, [(262, 3), (258, 8), (320, eight)], [gray]))
    write("tiff_palette_alpha.tif", tiff(WIDTH, HEIGHT, [(262, 3), (258, (8, 8)), (277, 2), (338, 2), (320, colors)], [gray_alpha.tobytes()]))
    # Several strips; one plane a sample; tiles.
    strips = [ARRAY[y : y + 5].tobytes() for y in range(0, HEIGHT, 5)]
    write("tiff_raw_strips.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 3), (277, 3), (278, 5)], strips))
    write("tiff_deflate_strips.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 3), (277, 3), (278, 5)], [zlib.compress(strip) for strip in strips], compression=8))
    planes = [ARRAY[..., channel].tobytes() for channel in range(3)]
    write("tiff_planar.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 3), (277, 3), (284, 2), (278, HEIGHT)], planes))
    write("tiff_planar_deflate.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 3), (277, 3), (284, 2), (278, HEIGHT)], [zlib.compress(plane) for plane in planes], compression=8))
    in_strips = [ARRAY[y : y + 5, :, channel].tobytes() for channel in range(3) for y in range(0, HEIGHT, 5)]
    write("tiff_planar_strips.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 3), (277, 3), (284, 2), (278, 5)], in_strips))
    write("tiff_planar_strips_deflate.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 3), (277, 3), (284, 2), (278, 5)], [zlib.compress(plane) for plane in in_strips], compression=8))
    deep_planes = [deep[..., channel].astype("<u2").tobytes() for channel in range(3)]
    write("tiff_planar_16_deflate.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (16,) * 3), (277, 3), (284, 2), (278, HEIGHT)], [zlib.compress(plane) for plane in deep_planes], compression=8))
    four_planes = planes + [rgba[..., 3].tobytes()]
    for extra in (0, 1, 2):
        write(f"tiff_planar_extra_{extra}.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 4), (277, 4), (338, extra), (284, 2), (278, HEIGHT)], four_planes))
        write(f"tiff_planar_extra_{extra}_deflate.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 4), (277, 4), (338, extra), (284, 2), (278, HEIGHT)], [zlib.compress(plane) for plane in four_planes], compression=8))
    padded = numpy.pad(ARRAY, ((0, 3), (0, 11), (0, 0)), constant_values=99)
    tiles = [padded[0:16, x : x + 16].tobytes() for x in (0, 16)]
    write("tiff_tiles.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 3), (277, 3), (322, 16), (323, 16)], tiles))
    write("tiff_tiles_deflate.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 3), (277, 3), (322, 16), (323, 16)], [zlib.compress(tile) for tile in tiles], compression=8))
    plane_tiles = [numpy.frombuffer(tile, "u1").reshape(16, 16, 3)[..., channel].tobytes() for channel in range(3) for tile in tiles]
    write("tiff_tiles_planar.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 3), (277, 3), (284, 2), (322, 16), (323, 16)], plane_tiles))
    write("tiff_tiles_planar_deflate.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 3), (277, 3), (284, 2), (322, 16), (323, 16)], [zlib.compress(tile) for tile in plane_tiles], compression=8))
    bit_tiles = [b"".join(packed((values * values // 7 % 2)[:, x : x + 16].tolist() + [[0] * 16] * 3, 1)) if x == 0 else b"".join(packed([list(row[16:]) + [0] * 11 for row in (values * values // 7 % 2)] + [[0] * 16] * 3, 1)) for x in (0, 16)]
    write("tiff_tiles_one_bit_deflate.tif", tiff(WIDTH, HEIGHT, [(262, 1), (258, 1), (322, 16), (323, 16)], [zlib.compress(tile) for tile in bit_tiles], compression=8))
    # Predictors.
    def differences(array):
        return numpy.concatenate([array[:, :1], array[:, 1:] - array[:, :-1]], 1)
    write("tiff_predictor_8.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 3), (277, 3), (317, 2)], [zlib.compress(differences(ARRAY).tobytes())], compression=8))
    write("tiff_predictor_16.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (16,) * 3), (277, 3), (317, 2)], [zlib.compress(differences(deep.astype("<u2")).tobytes())], compression=8))
    write("tiff_predictor_16_big_endian.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (16,) * 3), (277, 3), (317, 2)], [zlib.compress(differences(deep.astype("u2")).astype(">u2").tobytes())], ">", compression=8))
    write("tiff_predictor_32.tif", tiff(WIDTH, HEIGHT, [(262, 1), (258, 32), (339, 2), (317, 2)], [zlib.compress(differences((values - 50).astype("<i4")).tobytes())], compression=8))
    def float_rows(array, endian):
        bytes_ = array.astype(">f4").view("u1").reshape(HEIGHT, WIDTH, 4).transpose(0, 2, 1).reshape(HEIGHT, -1)
        return differences(bytes_).tobytes()
    for endian, side in [("<", "little"), (">", "big")]:
        write(f"tiff_predictor_float_{side}.tif", tiff(WIDTH, HEIGHT, [(262, 1), (258, 32), (339, 3), (317, 3)], [zlib.compress(float_rows(values * 1.37 - 40, endian))], endian, compression=8))
    planar_differences = [zlib.compress(differences(ARRAY[..., channel]).tobytes()) for channel in range(3)]
    write("tiff_predictor_planar.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 3), (277, 3), (284, 2), (317, 2), (278, HEIGHT)], planar_differences, compression=8))
    # Luma and chroma.
    ycc = numpy.asarray(PICTURE.convert("YCbCr"))
    write("tiff_ycc_raw.tif", tiff(WIDTH, HEIGHT, [(262, 6), (258, (8,) * 3), (277, 3), (530, (1, 1))], [ycc.tobytes()]))
    write("tiff_ycc_deflate.tif", tiff(WIDTH, HEIGHT, [(262, 6), (258, (8,) * 3), (277, 3), (530, (1, 1))], [zlib.compress(ycc.tobytes())], compression=8))
    reference = ((5,), tuple((v, 1) for v in (16, 235, 128, 240, 128, 240)))
    write("tiff_ycc_reference_deflate.tif", tiff(WIDTH, HEIGHT, [(262, 6), (258, (8,) * 3), (277, 3), (530, (1, 1)), (532, reference)], [zlib.compress(ycc.tobytes())], compression=8))
    for across, down in [(2, 1), (2, 2), (1, 2), (4, 1), (4, 2), (4, 4)]:
        full = numpy.pad(ycc, ((0, -HEIGHT % down), (0, -WIDTH % across), (0, 0)), mode="edge")
        out = b""
        for y in range(0, full.shape[0], down):
            for x in range(0, full.shape[1], across):
                out += full[y : y + down, x : x + across, 0].tobytes() + full[y, x, 1:].tobytes()
        tags = [(262, 6), (258, (8,) * 3), (277, 3), (530, (across, down))]
        write(f"tiff_ycc_{across}{down}_deflate.tif", tiff(WIDTH, HEIGHT, tags, [zlib.compress(out)], compression=8))
        if (across, down) == (2, 2):
            write("tiff_ycc_22_raw.tif", tiff(WIDTH, HEIGHT, tags, [out]))
    # Pictures in JPEG, as other programs write them: whole files, without common tables.
    for name, sampling, declared in [("444", 0, (1, 1)), ("420", 2, (2, 2)), ("422", 1, (2, 1))]:
        part = saved(SMOOTH, "JPEG", quality=85, subsampling=sampling)
        write(f"tiff_jpeg_whole_{name}.tif", tiff(45, 29, [(262, 6), (258, (8,) * 3), (277, 3), (530, declared)], [part], compression=7))
    part = saved(SMOOTH, "JPEG", quality=85, subsampling=0)
    write("tiff_jpeg_whole_as_rgb.tif", tiff(45, 29, [(262, 2), (258, (8,) * 3), (277, 3)], [part], compression=7))
    write("tiff_jpeg_whole_kept_rgb.tif", tiff(45, 29, [(262, 2), (258, (8,) * 3), (277, 3)], [saved(SMOOTH, "JPEG", quality=85, keep_rgb=True)], compression=7))
    square = [saved(ramps(32, 32).crop((x, y, x + 16, y + 16)), "JPEG", quality=90, subsampling=2) for y in (0, 16) for x in (0, 16)]
    write("tiff_jpeg_tiles.tif", tiff(27, 30, [(262, 6), (258, (8,) * 3), (277, 3), (530, (2, 2)), (322, 16), (323, 16)], square, compression=7))
    planes = [saved(Image.fromarray(numpy.asarray(SMOOTH)[..., channel]), "JPEG", quality=90) for channel in range(3)]
    write("tiff_jpeg_planar.tif", tiff(45, 29, [(262, 2), (258, (8,) * 3), (277, 3), (284, 2), (278, 29)], planes, compression=7))
    old = saved(SMOOTH, "JPEG", quality=85)
    write("tiff_jpeg_old.tif", tiff(45, 29, [(262, 6), (258, (8,) * 3), (277, 3), (530, (2, 2)), (513, 8), (514, len(old))], [old], compression=6))
    # Damage.
    write("tiff_truncated.tif", saved(PICTURE, "TIFF")[:500])
    write("tiff_cut_strip.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 3), (277, 3), (279, 2000)], [rgb[:700]]))
    write("tiff_cut_deflate.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 3), (277, 3)], [zlib.compress(rgb)[:200]], compression=8))
    write("tiff_short_count.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 3), (277, 3), (279, 10)], [rgb]))
    write("tiff_no_counts.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 3), (277, 3), (279, 0)], [rgb]))
    write("tiff_rows_per_strip_huge.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 3), (277, 3), (278, 4294967295)], [rgb]))
    write("tiff_rows_per_strip_huge_deflate.tif", tiff(WIDTH, HEIGHT, [(262, 2), (258, (8,) * 3), (277, 3), (278, 4294967295)], [zlib.compress(rgb)], compression=8))
    write("tiff_logl.tif", tiff(WIDTH, HEIGHT, [(262, 32844), (258, 16)], [bytes(2 * WIDTH * HEIGHT)]))


# --------------------------------------------------------------------------------------------------------- BMP and DIB


def bmp(width, height, bits, data, compression=0, palette=b"", header=40, masks=(), colors=0, gap=0, dib=False, planes=1):
    if header == 12:
        head = struct.pack("<IHHHH", 12, width, height & 0xFFFF, planes, bits)
    else:
        head = struct.pack("<IiiHHIIiiII", header, width, height, planes, bits, compression, len(data), 2835, 2835, colors, 0)
        inside = b"".join(struct.pack("<I", mask) for mask in masks)
        if header == 40:
            palette = inside + palette
        else:
            head += inside.ljust(header - 40, b"\0")
    rest = head + palette + bytes(gap)
    if dib:
        return rest + data
    return b"BM" + struct.pack("<IHHI", 14 + len(rest) + len(data), 0, 0, 14 + len(rest)) + rest + data


def bmp_rows(rows):
    return b"".join(row + b"\0" * (-len(row) % 4) for row in rows)


def bmp_files():
    save("bmp.bmp", PICTURE)
    save("bmp_palette.bmp", PALETTE)
    save("bmp_grey.bmp", PICTURE.convert("L"))
    save("bmp_one_bit.bmp", PICTURE.convert("1"))
    save("bmp_rgba.bmp", ALPHA)
    save("dib.dib", PICTURE)
    save("dib_palette.dib", PALETTE)
    values = numpy.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH)
    colors = lambda count, size: b"".join(bytes([index * 37 % 256, index * 91 % 256, index * 13 % 256, 0][:size]) for index in range(count))
    for bits in (1, 2, 4, 8):
        rows = bmp_rows(packed(values % (1 << bits), bits))
        write(f"bmp_{bits}_bits.bmp", bmp(WIDTH, HEIGHT, bits, rows, palette=colors(1 << bits, 4)))
        write(f"bmp_{bits}_bits_top_down.bmp", bmp(WIDTH, -HEIGHT, bits, rows, palette=colors(1 << bits, 4)))
        write(f"bmp_{bits}_bits_os2.bmp", bmp(WIDTH, HEIGHT, bits, rows, palette=colors(1 << bits, 3), header=12))
    write("bmp_1_bit_inverted.bmp", bmp(WIDTH, HEIGHT, 1, bmp_rows(packed(values % 2, 1)), palette=b"\xff\xff\xff\0\0\0\0\0"))
    write("bmp_4_bits_grey_ramp.bmp", bmp(WIDTH, HEIGHT, 4, bmp_rows(packed(values % 16, 4)), palette=b"".join(bytes([v, v, v, 0]) for v in range(16))))
    write("bmp_few_colours.bmp", bmp(WIDTH, HEIGHT, 8, bmp_rows(packed(values % 10, 8)), palette=colors(10, 4), colors=10))
    write("bmp_index_beyond.bmp", bmp(WIDTH, HEIGHT, 8, bmp_rows(packed(values % 200, 8)), palette=colors(10, 4), colors=10))
    write("bmp_two_colours_of_8_bits.bmp", bmp(WIDTH, HEIGHT, 8, bmp_rows(packed(values % 3, 8)), palette=b"\0\0\0\0\xff\xff\xff\0", colors=2))
    rgb_rows = bmp_rows([row.tobytes() for row in ARRAY])
    write("bmp_top_down.bmp", bmp(WIDTH, -HEIGHT, 24, rgb_rows))
    write("bmp_os2_24.bmp", bmp(WIDTH, HEIGHT, 24, rgb_rows, header=12))
    write("bmp_gap.bmp", bmp(WIDTH, HEIGHT, 24, rgb_rows, gap=6))
    for header in (52, 56, 64, 108, 124):
        write(f"bmp_header_{header}.bmp", bmp(WIDTH, HEIGHT, 24, rgb_rows, header=header))
    words = bmp_rows([(row * 241 % 65536).astype("<u2").tobytes() for row in values])
    write("bmp_16.bmp", bmp(WIDTH, HEIGHT, 16, words))
    write("bmp_16_top_down.bmp", bmp(WIDTH, -HEIGHT, 16, words))
    write("bmp_16_565.bmp", bmp(WIDTH, HEIGHT, 16, words, 3, masks=(0xF800, 0x7E0, 0x1F)))
    write("bmp_16_555.bmp", bmp(WIDTH, HEIGHT, 16, words, 3, masks=(0x7C00, 0x3E0, 0x1F)))
    write("bmp_16_4444.bmp", bmp(WIDTH, HEIGHT, 16, words, 3, masks=(0xF00, 0xF0, 0xF)))
    write("bmp_16_565_v4.bmp", bmp(WIDTH, HEIGHT, 16, words, 3, header=108, masks=(0xF800, 0x7E0, 0x1F, 0)))
    quads = bmp_rows([(row.astype("u8") * 40503 * 65537 % 2**32).astype("<u4").tobytes() for row in values])
    write("bmp_32.bmp", bmp(WIDTH, HEIGHT, 32, quads))
    write("bmp_32_top_down.bmp", bmp(WIDTH, -HEIGHT, 32, quads))
    for name, masks in [
        ("bgrx", (0xFF0000, 0xFF00, 0xFF, 0)),
        ("xbgr", (0xFF000000, 0xFF0000, 0xFF00, 0)),
        ("bgxr", (0xFF000000, 0xFF00, 0xFF, 0)),
        ("abgr", (0xFF000000, 0xFF0000, 0xFF00, 0xFF)),
        ("rgba", (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
        ("bgra", (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
        ("bgar", (0xFF000000, 0xFF00, 0xFF, 0xFF0000)),
        ("none", (0, 0, 0, 0)),
        ("rgbx", (0xFF, 0xFF00, 0xFF0000, 0)),
        ("10_bits", (0x3FF00000, 0xFFC00, 0x3FF, 0)),
    ]:
        write(f"bmp_32_{name}.bmp", bmp(WIDTH, HEIGHT, 32, quads, 3, header=124, masks=masks))
        if name in ("bgrx", "xbgr", "bgra"):
            write(f"bmp_32_{name}_v3.bmp", bmp(WIDTH, HEIGHT, 32, quads, 3, masks=masks[:3]))
    palette = colors(256, 4)
    run8 = b"".join(b"\x05" + bytes([y * 9]) + b"\0\x07" + bytes(range(y, y + 7)) + b"\0" + b"\x09" + bytes([200 - y]) + b"\0\0" for y in range(HEIGHT))
    write("bmp_rle8.bmp", bmp(WIDTH, HEIGHT, 8, run8 + b"\0\1", 1, palette=palette))
    write("bmp_rle8_top_down.bmp", bmp(WIDTH, -HEIGHT, 8, run8 + b"\0\1", 1, palette=palette))
    write("bmp_rle8_without_end.bmp", bmp(WIDTH, HEIGHT, 8, run8, 1, palette=palette))
    write("bmp_rle8_delta.bmp", bmp(WIDTH, HEIGHT, 8, b"\x05\x21\0\2\3\2\x04\x42\0\0\x03\x63\0\1", 1, palette=palette))
    write("bmp_rle8_delta_whole.bmp", bmp(WIDTH, HEIGHT, 8, b"\x05\x21\0\2\3\2\x04\x42\0\0\x03\x63\0\0" + b"\x15\x30\0\0" * 8 + b"\0\2\x15\x01\0\1", 1, palette=palette))
    write("bmp_rle8_long_run.bmp", bmp(WIDTH, HEIGHT, 8, (b"\xff\x21\0\0") * HEIGHT + b"\0\1", 1, palette=palette))
    write("bmp_rle8_short.bmp", bmp(WIDTH, HEIGHT, 8, run8[: len(run8) // 2], 1, palette=palette))
    run4 = b"".join(b"\x05" + bytes([y * 9]) + b"\0\x07" + bytes([0x12, 0x34, 0x56, 0x70]) + b"\x09" + bytes([200 - y]) + b"\0\0" for y in range(HEIGHT))
    write("bmp_rle4.bmp", bmp(WIDTH, HEIGHT, 4, run4 + b"\0\1", 2, palette=colors(16, 4)))
    write("bmp_jpeg.bmp", bmp(45, 29, 0, saved(SMOOTH, "JPEG"), 4))
    write("bmp_png.bmp", bmp(45, 29, 0, saved(SMOOTH, "PNG"), 5))
    whole = bmp(WIDTH, HEIGHT, 24, rgb_rows)
    write("bmp_truncated.bmp", whole[:400])
    write("bmp_last_byte_missing.bmp", whole[:-1])
    write("bmp_last_padding_missing.bmp", bmp(7, 4, 24, bmp_rows([row.tobytes() for row in numpy.asarray(SMALL)])[:-3]))
    write("bmp_trailing_bytes.bmp", whole + b"trailing")
    write("bmp_no_palette.bmp", bmp(WIDTH, HEIGHT, 8, bmp_rows(packed(values % 200, 8))))


# --------------------------------------------------------------------------------------------------------------- PNM


def pnm_files():
    save("pnm.ppm", PICTURE)
    save("pnm_grey.pgm", PICTURE.convert("L"))
    save("pnm_bits.pbm", PICTURE.convert("1"))
    values = numpy.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH)
    for maxval in (1, 3, 15, 100, 200, 254, 255, 256, 1000, 4095, 65534, 65535):
        kind = "u1" if maxval < 256 else ">u2"
        gray = values * 239 % (maxval + 1)
        write(f"pnm_grey_{maxval}.pgm", b"P5\n%d %d\n%d\n" % (WIDTH, HEIGHT, maxval) + gray.astype(kind).tobytes())
        rgb = numpy.stack([gray, values * 31 % (maxval + 1), values * 97 % (maxval + 1)], -1)
        write(f"pnm_{maxval}.ppm", b"P6\n%d %d\n%d\n" % (WIDTH, HEIGHT, maxval) + rgb.astype(kind).tobytes())
        lines = lambda array: "\n".join(" ".join(map(str, row.ravel())) for row in array) + "\n"
        write(f"pnm_grey_{maxval}_text.pgm", (f"P2 {WIDTH} {HEIGHT} {maxval}\n" + lines(gray)).encode())
        if maxval in (3, 255, 1000, 65535):
            write(f"pnm_{maxval}_text.ppm", (f"P3 {WIDTH} {HEIGHT}\n{maxval}\n" + lines(rgb)).encode())
    bits = values * values // 7 % 2
    text = "\n".join("".join(map(str, row)) for row in bits)
    write("pnm_bits_text.pbm", f"P1\n# a comment\n{WIDTH} {HEIGHT}\n{text}\n".encode())
    write("pnm_bits_text_spaced.pbm", f"P1 {WIDTH} {HEIGHT} {' '.join(text)} # end".encode())
    write("pnm_comments.ppm", b"P6 # one\n# two\n%d #three\n %d\n# four\n255\n" % (WIDTH, HEIGHT) + ARRAY.tobytes())
    write("pnm_comment_before_pixels.ppm", b"P6 %d %d 255# no newline before\n" % (WIDTH, HEIGHT) + ARRAY.tobytes())
    write("pnm_comments_text.pgm", b"P2 4 2 9 # maxval\n1 2 # first\n3 4 5#joined\n6 7 8\n")
    write("pnm_carriage_returns.pgm", b"P5\r4 2\r255\r" + bytes(range(8)))
    write("pnm_windows_lines.pgm", b"P2\r\n4 2\r\n9\r\n1 2 3 4\r\n5 6 7 8\r\n")
    write("pnm_above_maxval.pgm", b"P5 4 2 100\n" + bytes([0, 50, 100, 101, 150, 200, 250, 255]))
    write("pnm_above_maxval_text.pgm", b"P2 4 1 100\n0 50 100 101\n")
    write("pnm_above_maxval.ppm", b"P6 2 1 100\n" + bytes([0, 50, 100, 101, 150, 255]))
    write("pnm_maxval_0.pgm", b"P5 2 1 0\n\0\0")
    write("pnm_maxval_65536.pgm", b"P5 2 1 65536\n\0\0\0\0")
    write("pnm_truncated.ppm", b"P6 %d %d 255\n" % (WIDTH, HEIGHT) + ARRAY.tobytes()[:-1])
    write("pnm_truncated_text.pgm", b"P2 4 2 9\n1 2 3 4 5 6 7\n")
    write("pnm_truncated_bits.pbm", b"P4 21 13\n" + bytes(30))
    write("pnm_trailing_bytes.ppm", b"P6 %d %d 255\n" % (WIDTH, HEIGHT) + ARRAY.tobytes() + b"trailing")
    write("pnm_two_pictures.pgm", b"P5 4 2 255\n" + bytes(range(8)) + b"P5 4 2 255\n" + bytes(8))
    write("pnm_zero_wide.ppm", b"P6 0 3 255\n")
    write("pnm_negative_text.pgm", b"P2 2 1 9\n1 -2\n")
    write("pnm_plus_text.pgm", b"P2 2 1 9\n1 +2\n")
    write("pam.pam", b"P7\nWIDTH %d\nHEIGHT %d\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n" % (WIDTH, HEIGHT) + ARRAY.tobytes())
    floats = (values * 1.37 - 40).astype("<f4")
    write("pfm_grey.pfm", b"Pf\n%d %d\n-1.0\n" % (WIDTH, HEIGHT) + floats[::-1].tobytes())
    write("pfm_grey_big_endian.pfm", b"Pf\n%d %d\n1.0\n" % (WIDTH, HEIGHT) + floats[::-1].astype(">f4").tobytes())


# --------------------------------------------------------------------------------------------------------------- GIF


def lzw(indices, bits):
    """Codes of one length, the table cleared before it grows: what any reader must take."""
    clear, size = 1 << bits, bits + 1
    room = (1 << size) - clear - 2
    codes = []
    for at, index in enumerate(indices):
        if at % room == 0:
            codes.append(clear)
        codes.append(index)
    codes.append(clear + 1)
    number = 0
    for at, code in enumerate(codes):
        number |= code << (at * size)
    data = number.to_bytes(-(-len(codes) * size // 8), "little")
    blocks = b"".join(bytes([len(data[at : at + 255])]) + data[at : at + 255] for at in range(0, len(data), 255))
    return bytes([bits]) + blocks + b"\0"


def gif(width, height, frames, palette=None, background=0, before=b""):
    """`frames`: (left, top, width, height, indices, {palette, transparent, interlaced, disposal, bits})."""
    size = lambda palette: (len(palette) // 3).bit_length() - 2
    out = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80 | size(palette) if palette else 0, background, 0)
    out += (palette or b"") + before
    for left, top, across, down, indices, options in frames:
        transparent = options.get("transparent")
        if transparent is not None or "disposal" in options:
            flags = (transparent is not None) | options.get("disposal", 0) << 2
            out += b"!\xf9\x04" + bytes([flags]) + struct.pack("<H", 10) + bytes([transparent or 0, 0])
        local = options.get("palette")
        flags = (0x80 | size(local) if local else 0) | (0x40 if options.get("interlaced") else 0)
        out += b"," + struct.pack("<HHHHB", left, top, across, down, flags) + (local or b"")
        rows = [indices[at : at + across] for at in range(0, across * down, across)]
        if options.get("interlaced"):
            rows = rows[0::8] + rows[4::8] + rows[2::4] + rows[1::2]
        flat = [index for row in rows for index in row]
        out += options.get("data") or lzw(flat, options.get("bits", 8))
    return out + b";"


def gif_files():
    save("gif.gif", PALETTE)
    save("gif_transparent.gif", PALETTE, transparency=5)
    save("gif_grey.gif", PICTURE.convert("L"))
    save("gif_interlaced.gif", PALETTE, interlace=True)
    frames = [PICTURE.transpose(Image.Transpose.ROTATE_180).quantize(32), PALETTE]
    save("gif_animated.gif", frames[0], save_all=True, append_images=frames[1:], duration=100)
    colors = bytes(index * factor % 256 for index in range(256) for factor in (37, 91, 13))
    red_first = b"\xff\0\0" + colors[3:]
    other = bytes(255 - value for value in red_first)
    grays = bytes(index for index in range(256) for _ in range(3))
    indices = [(x * 7 + y * 3) % 256 for y in range(6) for x in range(9)]
    inset = (4, 2, 9, 6, indices)
    for name, options in [
        ("plain", {}),
        ("transparent", {"transparent": 9}),
        ("local_palette", {"palette": other}),
        ("local_palette_transparent", {"palette": other, "transparent": 9}),
        ("interlaced", {"interlaced": True}),
        ("disposal_2", {"disposal": 2}),
        ("disposal_2_transparent", {"disposal": 2, "transparent": 7}),
        ("disposal_3", {"disposal": 3}),
        ("disposal_3_transparent", {"disposal": 3, "transparent": 7}),
    ]:
        write(f"gif_inset_{name}.gif", gif(WIDTH, HEIGHT, [(*inset, options)], red_first, background=5))
    write("gif_inset_greys.gif", gif(WIDTH, HEIGHT, [(*inset, {})], grays, background=5))
    write("gif_inset_greys_transparent.gif", gif(WIDTH, HEIGHT, [(*inset, {"transparent": 200})], grays))
    write("gif_local_greys.gif", gif(WIDTH, HEIGHT, [(*inset, {"palette": grays})], red_first))
    write("gif_no_palette.gif", gif(WIDTH, HEIGHT, [(*inset, {})]))
    write("gif_only_local_palette.gif", gif(WIDTH, HEIGHT, [(*inset, {"palette": red_first})]))
    write("gif_transparent_beyond.gif", gif(WIDTH, HEIGHT, [(*inset, {"transparent": 200})], red_first[:48]))
    write("gif_index_beyond.gif", gif(WIDTH, HEIGHT, [(*inset, {})], red_first[:48]))
    write("gif_outside.gif", gif(10, 5, [(*inset, {})], red_first))
    write("gif_outside_transparent.gif", gif(10, 5, [(*inset, {"transparent": 9})], red_first))
    write("gif_animated_inset.gif", gif(WIDTH, HEIGHT, [(*inset, {}), (0, 0, 9, 6, indices, {"palette": other})], red_first))
    write("gif_empty_screen.gif", gif(0, 0, [(0, 0, 9, 6, indices, {})], red_first))
    write("gif_two_controls.gif", gif(WIDTH, HEIGHT, [(*inset, {})], red_first, before=b"!\xf9\x04\x01\0\0\x09\0!\xf9\x04\0\0\0\0\0"))
    write("gif_comment.gif", gif(WIDTH, HEIGHT, [(*inset, {})], red_first, before=b"!\xfe\x05hello\x05there\0!\xff\x0bNETSCAPE2.0\x03\1\0\0\0"))
    few = [index % 4 for index in indices]
    write("gif_2_bits.gif", gif(9, 6, [(0, 0, 9, 6, few, {"bits": 2})], red_first[:12]))
    write("gif_tall_interlaced.gif", gif(3, 17, [(0, 0, 3, 17, [(5 * at) % 256 for at in range(51)], {"interlaced": True})], red_first))
    write("gif_codes_missing.gif", gif(9, 6, [(0, 0, 9, 6, indices, {"data": lzw(indices[:40], 8)})], red_first))
    write("gif_codes_more.gif", gif(9, 6, [(0, 0, 9, 6, indices, {"data": lzw(indices + indices, 8)})], red_first))
    whole = gif(9, 6, [(0, 0, 9, 6, indices, {})], red_first)
    write("gif_truncated.gif", whole[:-30])
    write("gif_without_end.gif", whole[:-1])
    write("gif_without_terminator.gif", whole[:-2])
    write("gif_no_frame.gif", gif(9, 6, [], red_first))
    write("gif_junk_before_frame.gif", gif(9, 6, [(0, 0, 9, 6, indices, {})], red_first, before=b"\0\0junk"))
    write("gif_trailing_bytes.gif", whole + b"trailing")
    write("gif_87a.gif", b"GIF87a" + whole[6:])
    write("gif_lzw_grown.gif", saved(ramps(120, 90).quantize(256), "GIF")[:])


# --------------------------------------------------------------------------------------------------------------- WebP


def webp_files():
    save("webp_lossless.webp", PICTURE, lossless=True)
    save("webp_lossy.webp", SMOOTH, quality=80)
    save("webp_lossy_low.webp", SMOOTH, quality=5)
    save("webp_lossy_method_0.webp", SMOOTH, quality=50, method=0)
    save("webp_lossy_method_6.webp", SMOOTH, quality=50, method=6)
    large = ramps(160, 99).resize((203, 117), Image.BICUBIC)
    save("webp_lossy_large.webp", large, quality=30)
    save("webp_lossy_photo.webp", photo(), quality=40)
    save("webp_lossless_photo.webp", photo().resize((60, 40)), lossless=True, method=6)
    save("webp_lossless_palette.webp", PICTURE.quantize(12).convert("RGB"), lossless=True)
    save("webp_lossless_grey.webp", SMOOTH.convert("L"), lossless=True)
    save("webp_near_lossless.webp", SMOOTH, lossless=True, quality=40)
    save("webp_alpha.webp", ALPHA, lossless=True, exact=True)
    save("webp_alpha_not_exact.webp", ALPHA, lossless=True)
    save("webp_alpha_lossy.webp", ALPHA.resize(SMOOTH.size), quality=70)
    save("webp_alpha_lossy_low.webp", ALPHA.resize(SMOOTH.size), quality=70, alpha_quality=20)
    save("webp_animated.webp", PICTURE, save_all=True, append_images=[SMOOTH.resize(PICTURE.size)], lossless=True)
    save("webp_animated_lossy.webp", SMOOTH, save_all=True, append_images=[SMOOTH.transpose(Image.Transpose.ROTATE_180)], quality=60)
    save("webp_animated_alpha.webp", ALPHA, save_all=True, append_images=[ALPHA.transpose(Image.Transpose.ROTATE_180)], lossless=True)
    save("webp_one_pixel.webp", SMOOTH.resize((1, 1)), quality=80)
    save("webp_narrow.webp", SMOOTH.resize((1, 33)), quality=80)
    # A first frame that covers a part of the canvas.
    def part(name, data):
        return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)
    three = lambda value: struct.pack("<I", value)[:3]
    for name, alpha, source in [("opaque", 0, SMALL), ("alpha", 0x10, ALPHA.crop((3, 0, 10, 4)))]:
        still = saved(source, "WEBP", lossless=True, exact=True)[12:]
        if still[:4] == b"VP8X":
            still = still[18:]
        for blend in (0, 2):
            frame = part(b"ANMF", three(2) + three(1) + three(6) + three(3) + three(100) + bytes([blend]) + still)
            body = part(b"VP8X", bytes([2 | alpha, 0, 0, 0]) + three(WIDTH - 1) + three(HEIGHT - 1)) + part(b"ANIM", b"\x10\x80\xf0\xff\0\0") + frame
            write(f"webp_inset_{name}_{blend}.webp", b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body)
    whole = saved(SMOOTH, "WEBP", quality=80)
    write("webp_truncated.webp", whole[: len(whole) // 2])
    write("webp_last_byte_missing.webp", whole[:-1])
    write("webp_trailing_bytes.webp", whole + b"trailing")
    lossless = saved(SMOOTH, "WEBP", lossless=True)
    write("webp_lossless_truncated.webp", lossless[: len(lossless) // 2])


def photo():
    photos = sorted((HERE.parent.parent / "examples" / "photos").rglob("*.jpg"))
    return Image.open(photos[3]).convert("RGB").resize((150, 100), Image.LANCZOS)


# --------------------------------------------------------------------------------------------------------------- Others


def other_files():
    """What is refused by name."""
    save("avif.avif", SMOOTH, quality=60)
    save("jpeg2000.jp2", SMOOTH)
    save("icon.ico", SMOOTH.resize((16, 16)))


def write_odd():
    ODD.mkdir(exist_ok=True)
    for old in ODD.iterdir():
        old.unlink()
    for files in (png_files, jpeg_files, orientation_files, tiff_files, bmp_files, pnm_files, gif_files, webp_files, other_files):
        files()


def main():
    write_odd()
    table = {path.name: digests(path) for path in sorted(ODD.iterdir())}
    (HERE / "odd.json").write_text(json.dumps(table, indent=1) + "\n")
    photos = sys.argv[1] if sys.argv[1:] else HERE.parent.parent / "examples" / "photos"
    table = {path.name: digests(path)["turned"] for path in sorted(pathlib.Path(photos).rglob("*.jpg"))}
    (HERE / "photos.json").write_text(json.dumps(table, indent=1) + "\n")


main()
