"""Replaces functions of TensorFlow, h5py and Keras that open files without Python's functions.

Their paths lead to where the worker's view has the file; see `file_patches`.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import shutil
import sqlite3
import sys
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from downpour.worker.fit.process.script_files import FOLDER, READ, UPDATE, WRITE, ScriptFiles

READERS = (tf.data.TextLineDataset, tf.data.TFRecordDataset, tf.data.FixedLengthRecordDataset)
USES = {"r": READ, "a": UPDATE, "r+": UPDATE, "a+": UPDATE}  # of the modes of opening a file


def replace_functions_of_libraries(files: ScriptFiles) -> None:
    """Let the functions that the libraries export find and write files where the worker has them."""
    dataset, saved_model = tf.data.Dataset, importlib.import_module("tensorflow.saved_model")
    for owner, name, parameter, use in (
        (dataset, "cache", "filename", FOLDER),
        (dataset, "save", "path", FOLDER),
        (tf.summary, "create_file_writer", "logdir", FOLDER),
        (saved_model, "save", "export_dir", FOLDER),
        (saved_model, "load", "export_dir", READ),
        (tf.train.Checkpoint, "save", "file_prefix", FOLDER),
        (tf.train.Checkpoint, "write", "file_prefix", FOLDER),
        (tf.train.Checkpoint, "read", "save_path", READ),
        (tf.train.Checkpoint, "restore", "save_path", READ),
        (tf.train.CheckpointManager, "__init__", "directory", FOLDER),
        (tf.train, "latest_checkpoint", "checkpoint_dir", READ),
        (tf.io, "write_file", "filename", WRITE),
        (tf.io, "read_file", "filename", READ),
        (tf.io.TFRecordWriter, "__init__", "path", WRITE),
        (sqlite3, "connect", "database", UPDATE),
        *((kind, "__init__", "filenames", READ) for kind in READERS),
    ):
        setattr(owner, name, _with_path(files, use, getattr(owner, name), parameter))
    for name, parameter in (("load", "path"), ("list_files", "file_pattern")):
        setattr(dataset, name, staticmethod(_with_path(files, READ, getattr(dataset, name), parameter)))
    _replace_h5py(files)
    _replace_gfile(files)
    _share_downloads(files)


def _with_path(files: ScriptFiles, use: str, own: Callable[..., Any], parameter: str) -> Callable[..., Any]:
    try:
        position = list(inspect.signature(own).parameters).index(parameter)
    except ValueError:  # of a function in C, whose first parameter it is
        position = 0

    def placed(given: Any) -> Any:
        if isinstance(given, list | tuple):
            return [files.place(path, use) for path in given]
        return given if isinstance(given, str) and given in ("", ":memory:") else files.place(given, use)

    @functools.wraps(own)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        if parameter in kwargs:
            kwargs[parameter] = placed(kwargs[parameter])
        elif len(args) > position:
            args = (*args[:position], placed(args[position]), *args[position + 1 :])
        return own(*args, **kwargs)

    return replaced


def _replace_h5py(files: ScriptFiles) -> None:
    h5py = importlib.import_module("h5py")
    own = h5py.File.__init__

    @functools.wraps(own)
    def opened(self: Any, name: Any, mode: str = "r", *args: Any, **kwargs: Any) -> None:
        in_memory = kwargs.get("driver") == "core" and not kwargs.get("backing_store", True)
        own(self, name if in_memory else files.place(name, USES.get(mode, WRITE)), mode, *args, **kwargs)

    setattr(h5py.File, "__init__", opened)  # noqa: B010


def _replace_gfile(files: ScriptFiles) -> None:
    """Let TensorFlow's functions on local files use those of Python, which are replaced already."""
    gfile: Any = tf.io.gfile

    own = gfile.GFile.__init__

    @functools.wraps(own)
    def opened(self: Any, name: Any, mode: str = "r", *args: Any, **kwargs: Any) -> None:
        own(self, files.place(name, USES.get(mode.replace("b", ""), WRITE)), mode, *args, **kwargs)

    setattr(gfile.GFile, "__init__", opened)  # noqa: B010
    for name in ("exists", "isdir", "listdir", "stat"):
        setattr(gfile, name, _with_path(files, READ, getattr(gfile, name), "path"))
    for name in ("makedirs", "mkdir", "remove", "rmtree"):
        setattr(gfile, name, _through_python(files, name, getattr(gfile, name)))


def _through_python(files: ScriptFiles, name: str, own: Callable[..., Any]) -> Callable[..., Any]:
    of_python: dict[str, Callable[[Any], Any]] = {
        "makedirs": functools.partial(os.makedirs, exist_ok=True),
        "mkdir": os.mkdir,
        "remove": os.remove,
        "rmtree": shutil.rmtree,
    }

    @functools.wraps(own)
    def replaced(path: Any) -> None:
        if files.files is None or "://" in os.fsdecode(path):
            own(path)
        else:
            of_python[name](path)

    return replaced


def _share_downloads(files: ScriptFiles) -> None:
    """Let one worker after the other look into Keras's cache, so that each file is downloaded once."""
    own = keras.utils.get_file

    @functools.wraps(own)
    def get_file(*args: Any, **kwargs: Any) -> Any:
        with files.shared():
            return own(*args, **kwargs)

    for module in [module for path, module in sys.modules.items() if path.split(".")[0] == "keras"]:
        if vars(module).get("get_file") is own:
            setattr(module, "get_file", get_file)  # noqa: B010
