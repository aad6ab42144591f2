"""Which files are clips, by their suffix, and the one format that each suffix promises.

Readers open a file as that format only. A library that looked at the content instead would run
whatever decoder a stranger's file asks for: Ghostscript on a text named `0.png`, a playlist named
`x.mkv`.
"""

_MOV, _MATROSKA, _MPEG = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "mpeg,mpegvideo"

# suffix -> the demuxers of FFmpeg that may read it
VIDEO_FORMATS = {
    ".3g2": _MOV,
    ".3gp": _MOV,
    ".asf": "asf",
    ".avi": "avi",
    ".f4v": _MOV,
    ".flv": "flv",
    ".gif": "gif",
    ".m2ts": "mpegts",
    ".m4v": _MOV,
    ".mkv": _MATROSKA,
    ".mov": _MOV,
    ".mp4": _MOV,
    ".mpeg": _MPEG,
    ".mpg": _MPEG,
    ".mts": "mpegts",
    ".mxf": "mxf",
    ".ogg": "ogg",
    ".ogv": "ogg",
    ".qt": _MOV,
    ".ts": "mpegts",
    ".vob": _MPEG,
    ".webm": _MATROSKA,
    ".wmv": "asf",
    ".y4m": "yuv4mpegpipe",
}

# suffix -> the format of Pillow that may read it
PICTURE_FORMATS = {
    ".bmp": "BMP",
    ".jpeg": "JPEG",
    ".jpg": "JPEG",
    ".png": "PNG",
    ".ppm": "PPM",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".webp": "WEBP",
}

VIDEO_SUFFIXES = frozenset(VIDEO_FORMATS)
PICTURE_SUFFIXES = frozenset(PICTURE_FORMATS)
ARRAY_SUFFIXES = frozenset({".npz", ".npy", ".hdf5", ".h5"})
CLIP_SUFFIXES = VIDEO_SUFFIXES | PICTURE_SUFFIXES | ARRAY_SUFFIXES  # all that a reader takes
