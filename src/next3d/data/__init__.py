"""Training pictures: one dataset format, its readers and writers, and the factory of rendered heads."""

from next3d.data.dataset import Batch, Dataset, Sample, collate, open_dataset, pack_numbers
from next3d.data.format import PARTS, Info, read_info, split_of
from next3d.data.loader import Loader, make_loader
from next3d.data.writer import DatasetWriter

__all__ = [
    "PARTS",
    "Batch",
    "Dataset",
    "DatasetWriter",
    "Info",
    "Loader",
    "Sample",
    "collate",
    "make_loader",
    "open_dataset",
    "pack_numbers",
    "read_info",
    "split_of",
]
