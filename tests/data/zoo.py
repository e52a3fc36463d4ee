"""Files of every common kind, whole, odd and damaged, each built here from nothing."""

import io
import struct
import zlib

import numpy as np
import pillow_heif
from PIL import Image

WIDTH, HEIGHT = 48, 40


def picture(seed: int = 0, width: int = WIDTH, height: int = HEIGHT) -> Image.Image:
    """A gradient with noise, so that every format has something to store; the seed moves both."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    turn = rng.uniform(0, 2 * np.pi)
    wave = 127 + 100 * np.sin(columns / 7 * np.cos(turn) + rows / 7 * np.sin(turn))
    pixels = np.stack([wave, 255 - wave, columns * 5 + rows], axis=-1) + rng.normal(0, 8, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def photo(seed: int, width: int = 200, height: int = 150) -> Image.Image:
    """Blotches of two sizes, far from every other seed."""
    rng = np.random.default_rng(seed)
    grids = [rng.integers(0, 255, (*shape, 3), np.uint8) for shape in ((6, 8), (30, 40))]
    coarse, fine = (Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC) for grid in grids)
    return Image.blend(coarse, fine, 0.35)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, color: int, rows: bytes, interlaced: bool = False) -> bytes:
    """A PNG from its filtered rows, whatever the header promises of them."""
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, int(interlaced))
    body = _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(rows)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def interlaced_png(image: Image.Image) -> bytes:
    """Adam7, which Pillow reads but does not write: seven passes, each a small picture of its own."""
    pixels, passes = np.asarray(image.convert("RGB")), b""
    for top, left, down, right in [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)]:
        passes += b"".join(b"\0" + row.tobytes() for row in pixels[top::down, left::right])
    passes += b"".join(b"\0" + row.tobytes() for row in pixels[1::2])
    return png(image.width, image.height, 8, 2, passes, interlaced=True)


def gray_ramp(seed: int = 0) -> np.ndarray:
    """uint16 [HEIGHT, WIDTH], nearly all above 255, where Pillow's own conversion to RGB gives white."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return ((rows * 11 + columns * (5 + seed)) * 90 + 400 * (seed + columns % 3)).astype(np.uint16)


def with_alpha(image: Image.Image) -> Image.Image:
    image = image.convert("RGBA")
    image.putalpha(picture(9, *image.size).convert("L"))
    return image


def jpeg_with_thumbnail() -> bytes:
    """An EXIF segment that holds a whole JPEG, end-of-image marker included, before the picture itself."""
    photo, exif = encode(picture(), "JPEG"), b"Exif\0\0" + encode(picture(1, 32, 24), "JPEG")
    return photo[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + photo[2:]


def whole_images() -> dict[str, bytes]:
    """Name and bytes of files that must be accepted."""
    rgb = picture()
    alpha = with_alpha(rgb)
    photo = encode(rgb, "JPEG")
    return {
        "baseline.jpg": photo,
        "progressive.jpg": encode(rgb, "JPEG", progressive=True),
        "restarts.jpg": encode(rgb, "JPEG", restart_marker_rows=1),
        "gray.jpg": encode(rgb.convert("L"), "JPEG"),
        "cmyk.jpg": encode(rgb.convert("CMYK"), "JPEG"),
        "thumbnail.jpg": jpeg_with_thumbnail(),
        "rotated_by_exif.jpg": encode(
            rgb, "JPEG", exif=b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06" + b"\0" * 7
        ),
        "true_color.png": encode(rgb, "PNG"),
        "palette.png": encode(rgb.quantize(32), "PNG"),
        "transparent_color.png": encode(rgb.quantize(32), "PNG", transparency=3),
        "one_bit.png": encode(rgb.convert("1"), "PNG"),
        "gray.png": encode(rgb.convert("L"), "PNG"),
        "gray_16_bit.png": encode(Image.fromarray(gray_ramp()), "PNG"),
        "alpha.png": encode(alpha, "PNG"),
        "gray_alpha.png": encode(alpha.convert("LA"), "PNG"),
        "interlaced.png": interlaced_png(rgb),
    }


def odd_but_usable() -> dict[str, bytes]:
    """Not as the format's book has it, but whole; also accepted. No point in cutting these: what trails is no image."""
    photo = encode(picture(), "JPEG")
    return {
        "png_inside.jpg": encode(picture(), "PNG"),
        "no_ending": photo,
        "long_garbage.jpg": photo + b"\0garbage" * 1000,  # a phone's motion photo has a film there
        "two_ends.jpg": photo + b"\xff\xd9",
        "two_pictures.jpg": encode(picture(), "MPO", save_all=True, append_images=[picture(1)]),
        "strip.png": encode(Image.new("L", (32, 9000), 77), "PNG"),
    }


def converted() -> dict[str, tuple[bytes, str]]:
    """Name and bytes of files that are converted, and what the manifest says of them."""
    rgb, heic = picture(), io.BytesIO()
    frames, alpha = [picture(seed) for seed in range(2)], with_alpha(rgb)
    pillow_heif.from_pillow(rgb).save(heic, quality=90)
    dark = Image.fromarray(gray_ramp() >> 4)  # 12 bits in 16
    return {
        "phone.heic": (heic.getvalue(), "HEIF to JPEG"),
        "scan.tiff": (encode(rgb, "TIFF", compression="tiff_lzw"), "TIFF to PNG"),
        "cmyk.tiff": (encode(rgb.convert("CMYK"), "TIFF"), "TIFF to PNG"),
        "x_ray.tiff": (encode(dark, "TIFF"), "TIFF to PNG"),
        "x_ray.png": (encode(dark, "PNG"), "16-bit PNG to PNG"),
        "plain.ppm": (encode(rgb, "PPM"), "PPM to PNG"),
        "tiff_inside.jpg": (encode(rgb, "TIFF"), "TIFF to PNG"),
        "still.gif": (encode(rgb, "GIF"), "GIF to PNG"),
        "animated.gif": (encode(frames[0], "GIF", save_all=True, append_images=frames[1:]), "GIF to PNG"),
        "lossy.webp": (encode(rgb, "WEBP"), "WEBP to PNG"),
        "alpha.webp": (encode(alpha, "WEBP"), "WEBP to PNG"),
        "palette.bmp": (encode(rgb.quantize(32), "BMP"), "BMP to PNG"),
        "color_24_bit.bmp": (encode(rgb, "BMP"), "BMP to PNG"),
    }


def refused() -> dict[str, tuple[bytes, str]]:
    """Name, bytes, and a part of the reason that must be given."""
    rgb = picture()
    frames, photo = [picture(seed) for seed in range(2)], encode(rgb, "JPEG")
    return {
        "empty.jpg": (b"", "not an image"),
        "text.png": (b"Ein Text, kein Bild. " * 50, "not an image"),
        "page.jpg": (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "not an image"),
        "icon.ico": (encode(rgb, "ICO"), "not an image"),
        "pages.tiff": (encode(rgb, "TIFF", save_all=True, append_images=frames), "several pages"),
        "decimal.tiff": (encode(rgb.convert("F"), "TIFF"), "decimal numbers"),
        "scan.dcm": (bytes(128) + b"DICM" + bytes(900), "DICOM, HEIC: export as PNG"),
        "broken.heic": (b"\0\0\0\x18ftypheic" + bytes(900), "HEIC: export as PNG"),
        "lossless.jpg": (photo.replace(b"\xff\xc0", b"\xff\xc3"), "a lossless or arithmetic JPEG"),
        "arithmetic.jpg": (photo.replace(b"\xff\xc0", b"\xff\xc9"), "a lossless or arithmetic JPEG"),
        "half_with_an_end.jpg": (photo[: len(photo) * 2 // 3] + b"\xff\xd9", "damaged"),
        "pixel.gif": (encode(Image.new("P", (1, 1)), "GIF"), "1 x 1: each side needs 32 pixels"),
        "narrow.png": (encode(picture(0, 400, 31), "PNG"), "400 x 31: each side needs 32 pixels"),
        "bomb.png": (png(30000, 30000, 8, 2, b""), "more than 100,000,000 in all are not read"),
        "big.png": (png(11000, 11000, 8, 2, b""), "11000 x 11000: "),
        "few_rows.png": (png(WIDTH, HEIGHT, 8, 0, b"\0" * (WIDTH + 1) * 3), "a part of the PNG is missing"),
        "header_only.jpg": (encode(rgb, "JPEG")[:20], "not an image"),
        "cut.webp": (encode(rgb, "WEBP")[:-200], ""),
        "cut.tiff": (encode(rgb, "TIFF")[:-900], ""),
    }
