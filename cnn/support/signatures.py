"""Recognizes files that are not supported pictures by their first bytes."""

CAMERA = (".3fr", ".arw", ".cr2", ".cr3", ".dng", ".nef", ".nrw", ".orf", ".pef", ".raf", ".rw2", ".srw")
PHONE = (".heic", ".heif", ".hif")

_CONVERT = "convert it to PNG or JPEG"
_GIVE = "give the picture itself"
_AGAIN = "copy or download it again"
_HEIC = "a HEIC picture of a phone: export it as JPEG, or set the phone's camera to JPEG"
_RAW = "a raw picture of a camera: develop it and save it as PNG, TIFF or JPEG"
_PAGES = "export the page as PNG"
_VIDEO = "a video or audio file: save one frame as PNG"
_UNPACK = "unpack it and give the pictures in it"

# The first bytes of each format, with its name and what to do.
_FIRST_BYTES = (
    (b"%PDF", f"a PDF: {_PAGES}"),
    (b"%!PS", f"a PostScript file: {_PAGES}"),
    (b"\xc5\xd0\xd3\xc6", f"a PostScript file: {_PAGES}"),
    (b"AT&TFORM", f"a DjVu document: {_PAGES}"),
    (b"8BPS", f"a Photoshop file: {_CONVERT}"),
    (b"gimp xcf", f"a GIMP file: {_CONVERT}"),
    (b"\xff\x0a", f"a JPEG XL picture: {_CONVERT}"),
    (b"\0\0\0\x0cJXL ", f"a JPEG XL picture: {_CONVERT}"),
    (b"\0\0\1\0", f"an icon: {_CONVERT}"),
    (b"v/1\1", f"an OpenEXR picture: {_CONVERT}"),
    (b"#?RADIANCE", f"a Radiance picture: {_CONVERT}"),
    (b"SIMPLE  =", f"a FITS file: {_CONVERT}"),
    (b"DDS ", f"a DirectDraw texture: {_CONVERT}"),
    (b"FUJIFILMCCD-RAW", _RAW),
    (b"IIRO", _RAW),
    (b"IIRS", _RAW),
    (b"IIU\0", _RAW),
    (b"PK\3\4", f"a zip archive or an office document: {_UNPACK}"),
    (b"Rar!", f"a RAR archive: {_UNPACK}"),
    (b"7z\xbc\xaf", f"a 7z archive: {_UNPACK}"),
    (b"\x1f\x8b", f"a gzip archive: {_UNPACK}"),
    (b"\xfd7zXZ", f"an xz archive: {_UNPACK}"),
    (b"BZh", f"a bzip2 archive: {_UNPACK}"),
    (b"\x93NUMPY", "a NumPy array: save it as PNG, or pass it to predict in Python"),
    (b"\x89HDF", "an HDF5 file: save the picture in it as PNG"),
    (b"\x89PNG", f"a damaged or incomplete PNG picture: {_AGAIN}"),
    (b"\xff\xd8\xff", f"a damaged or incomplete JPEG picture: {_AGAIN}"),
    (b"GIF8", f"a damaged or incomplete GIF picture: {_AGAIN}"),
    (b"BM", f"a damaged or incomplete BMP picture: {_AGAIN}"),
    (b"II*\0", f"a damaged or unusual TIFF picture: {_CONVERT}"),
    (b"MM\0*", f"a damaged or unusual TIFF picture: {_CONVERT}"),
    (b"II+\0", f"a damaged or unusual TIFF picture: {_CONVERT}"),
    (b"MM\0+", f"a damaged or unusual TIFF picture: {_CONVERT}"),
    (b"OggS", _VIDEO),
    (b"\x1aE\xdf\xa3", _VIDEO),
)

# The four bytes after "ftyp".
_BRANDS = (
    ((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), _HEIC),
    ((b"avif", b"avis"), f"a damaged or incomplete AVIF picture: {_AGAIN}"),
    ((b"crx ",), _RAW),
    ((b"",), _VIDEO),
)


def describe_suffix(suffix: str) -> str | None:
    """The format with this suffix and what to do, if pictures in that format cannot be read."""
    return _RAW if suffix.lower() in CAMERA else None


def describe_contents(data: bytes) -> str | None:
    """A description such as "a PDF: export the page as PNG"; None if the format is unknown."""
    if not data:
        return f"an empty file: {_AGAIN}"
    if data[4:8] == b"ftyp":
        return next(what for brands, what in _BRANDS if data[8:12].startswith(brands))
    if data[:4] == b"RIFF":
        return f"a damaged or incomplete WebP picture: {_AGAIN}" if data[8:12] == b"WEBP" else _VIDEO
    if data[128:132] == b"DICM":
        return f"a DICOM picture: {_CONVERT}"
    for first, what in _FIRST_BYTES:
        if data.startswith(first):
            return what
    return _describe_text(data[:4096])


def _describe_text(data: bytes) -> str | None:
    if not data.strip(b"\0"):
        return f"a file of zeros: {_AGAIN}"
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(data) - 3:  # otherwise a character was cut in two
            return None
        text = data[: error.start].decode("utf-8", "replace")
    text = text.lower()
    if "<svg" in text:
        return "an SVG drawing: export it as PNG"
    if "<html" in text or "<!doctype html" in text:
        return "a web page: download the picture that it shows"
    is_text = all(letter.isprintable() or letter.isspace() for letter in text)
    return f"a text file: {_GIVE}" if is_text else None
