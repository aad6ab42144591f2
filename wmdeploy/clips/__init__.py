"""Clips: what they are, and how they are read, written, recorded and split.

Importing this package loads neither PyTorch nor a decoder; those come when a clip is read.
"""

from wmdeploy.clips.clip import Clip
from wmdeploy.clips.find import find_clips
from wmdeploy.clips.fit import area_resize
from wmdeploy.clips.folder import ClipEntry, DataFolder, read_data_folder, split_clips
from wmdeploy.clips.read import count_frames, iter_frames, read_clip
from wmdeploy.clips.record import RecordOptions, RecordSummary, record
from wmdeploy.clips.source import ReadOptions
from wmdeploy.clips.write import (
    check_suffix,
    side_by_side,
    write_npz,
    write_npz_frames,
    write_video,
)

__all__ = [
    "Clip",
    "ClipEntry",
    "DataFolder",
    "ReadOptions",
    "RecordOptions",
    "RecordSummary",
    "area_resize",
    "check_suffix",
    "count_frames",
    "find_clips",
    "iter_frames",
    "read_clip",
    "read_data_folder",
    "record",
    "side_by_side",
    "split_clips",
    "write_npz",
    "write_npz_frames",
    "write_video",
]
