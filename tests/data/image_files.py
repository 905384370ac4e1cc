"""Image files made by hand, for the tests of this folder."""

import io
import struct
import zlib


def saved(image, file_format, **options):
    file = io.BytesIO()
    image.save(file, file_format, **options)
    file.seek(0)
    return file


def png(width, height, bits, color, scanlines, *chunks):
    """A PNG written by hand: for headers and depths Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    body = b"\x89PNG\r\n\x1a\n"
    for kind, content in [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(scanlines)), (b"IEND", b"")]:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        body += struct.pack(">I", len(content)) + kind + content + checksum
    return io.BytesIO(body)
