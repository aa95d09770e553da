"""Replaces functions of TensorFlow, h5py and Keras that open files without Python's functions.

The replaced functions translate their paths to the places of the files in the worker's view; see `file_patches`.
"""

from __future__ import annotations

import functools
import glob
import importlib
import inspect
import os
import shutil
import sqlite3
import sys
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from downpour.worker.fit.process.script_files import FOLDER, PATTERN, READ, UPDATE, WRITE, ScriptFiles

READERS = (tf.data.TextLineDataset, tf.data.TFRecordDataset, tf.data.FixedLengthRecordDataset)
URI = 6  # the place of this argument of `sqlite3.connect` after the database
USES = {"r": READ, "a": UPDATE, "r+": UPDATE, "a+": UPDATE}  # of the modes of opening a file


def replace_functions_of_libraries(files: ScriptFiles) -> None:
    """Replace the libraries' functions that open files, so that they use the worker's view.

    Args:
        files: The files of this worker.
    """
    dataset, saved_model = tf.data.Dataset, importlib.import_module("tensorflow.saved_model")
    for owner, name, parameter, use in (
        (dataset, "cache", "filename", FOLDER),
        (dataset, "save", "path", FOLDER),
        (dataset, "snapshot", "path", FOLDER),
        (tf.summary, "create_file_writer", "logdir", FOLDER),
        (saved_model, "save", "export_dir", FOLDER),
        (saved_model, "load", "export_dir", READ),
        (tf.train.Checkpoint, "save", "file_prefix", FOLDER),
        (tf.train.Checkpoint, "write", "file_prefix", FOLDER),
        (tf.train.Checkpoint, "read", "save_path", READ),
        (tf.train.Checkpoint, "restore", "save_path", READ),
        (tf.train.CheckpointManager, "__init__", "directory", FOLDER),
        (tf.train, "latest_checkpoint", "checkpoint_dir", READ),
        (tf.data.experimental, "make_csv_dataset", "file_pattern", PATTERN),
        (tf.data.experimental.CsvDataset, "__init__", "filenames", READ),
        (tf.data.experimental.SqlDataset, "__init__", "data_source_name", READ),
        (tf.lookup.TextFileInitializer, "__init__", "filename", READ),
        (tf.io, "matching_files", "pattern", PATTERN),
        (tf.io, "write_file", "filename", WRITE),
        (tf.io, "read_file", "filename", READ),
        (tf.io.TFRecordWriter, "__init__", "path", WRITE),
        *((kind, "__init__", "filenames", READ) for kind in READERS),
    ):
        setattr(owner, name, _with_path(files, use, getattr(owner, name), parameter))
    setattr(dataset, "load", staticmethod(_with_path(files, READ, dataset.load, "path")))  # noqa: B010
    listed = _with_path(files, PATTERN, dataset.list_files, "file_pattern")
    setattr(dataset, "list_files", staticmethod(listed))  # noqa: B010
    _replace_h5py(files)
    _replace_sqlite(files)
    _replace_gfile(files)
    _share_downloads(files)


def _with_path(files: ScriptFiles, use: str, own: Callable[..., Any], parameter: str) -> Callable[..., Any]:
    try:
        position = list(inspect.signature(own).parameters).index(parameter)
    except ValueError:  # a function written in C has no signature; its first parameter is the path
        position = 0

    def placed(given: Any) -> Any:
        if isinstance(given, tf.data.Dataset):
            return given.map(placed) if files.translates(use) else given
        if tf.is_tensor(given):
            return _placed_tensor(files, given, use)
        if use == PATTERN:
            return _matching(files, given)
        if isinstance(given, list | tuple):
            return [placed(path) for path in given]
        return given if isinstance(given, str) and not given else files.place(given, use)

    @functools.wraps(own)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        if parameter in kwargs:
            kwargs[parameter] = placed(kwargs[parameter])
        elif len(args) > position:
            args = (*args[:position], placed(args[position]), *args[position + 1 :])
        return own(*args, **kwargs)

    return replaced


def _placed_tensor(files: ScriptFiles, given: Any, use: str) -> Any:
    """Return the places of the paths in a tensor, which may be known only when the graph of a dataset runs."""
    if not files.translates(use) or given.dtype != tf.string:
        return given

    def places(paths: np.ndarray) -> np.ndarray:
        named = [os.fsdecode(path) for path in np.ravel(paths)]
        if use == PATTERN:
            return np.array([os.fsencode(path) for path in _matching(files, named)], object)
        found = [os.fsencode(files.place(path, use) if path else path) for path in named]
        return np.array(found, object).reshape(np.shape(paths))

    placed = tf.numpy_function(places, [given], tf.string)
    placed.set_shape([None] if use == PATTERN else given.shape)
    return placed


def _matching(files: ScriptFiles, given: Any) -> Any:
    """Return where the worker has the files that patterns match; the patterns themselves if it has none."""
    patterns = given if isinstance(given, list | tuple) else [given]
    if files.files is None or any(not isinstance(each, str) or "://" in each for each in patterns):
        return given
    return [files.place(path, READ) for path in _glob(patterns)] or given


def _replace_h5py(files: ScriptFiles) -> None:
    h5py = importlib.import_module("h5py")
    own = h5py.File.__init__

    @functools.wraps(own)
    def opened(self: Any, name: Any, mode: str = "r", *args: Any, **kwargs: Any) -> None:
        in_memory = kwargs.get("driver") == "core" and not kwargs.get("backing_store", True)
        own(self, name if in_memory else files.place(name, USES.get(mode, WRITE)), mode, *args, **kwargs)

    setattr(h5py.File, "__init__", opened)  # noqa: B010


def _replace_sqlite(files: ScriptFiles) -> None:
    """Replace `connect` in both modules that have it: SQLAlchemy, and what rests on it, call the second."""
    own = sqlite3.connect

    @functools.wraps(own)
    def connect(database: Any, *args: Any, **kwargs: Any) -> sqlite3.Connection:
        is_uri = kwargs.get("uri", args[URI] if len(args) > URI else False)
        return own(_database(files, database, bool(is_uri)), *args, **kwargs)

    for module in (sqlite3, sqlite3.dbapi2):
        setattr(module, "connect", connect)  # noqa: B010


def _database(files: ScriptFiles, given: Any, is_uri: bool) -> Any:
    """Return the place of a database, which may be a URI such as `file:a.db?mode=ro`."""
    if isinstance(given, str) and is_uri and given.startswith("file:"):
        path, mark, query = given.removeprefix("file:").partition("?")
        if not path or path == ":memory:" or "mode=memory" in query:
            return given
        path = urllib.parse.unquote("/" + path.lstrip("/") if path.startswith("/") else path)
        place = os.fspath(files.place(path, READ if "mode=ro" in query or "immutable=1" in query else UPDATE))
        return f"file:{urllib.parse.quote(place)}{mark}{query}"
    return given if isinstance(given, str) and given in ("", ":memory:") else files.place(given, UPDATE)


def _replace_gfile(files: ScriptFiles) -> None:
    """Make TensorFlow's functions on local files call those of Python, which are replaced already."""
    gfile: Any = tf.io.gfile

    own = gfile.GFile.__init__

    @functools.wraps(own)
    def opened(self: Any, name: Any, mode: str = "r", *args: Any, **kwargs: Any) -> None:
        own(self, files.place(name, USES.get(mode.replace("b", ""), WRITE)), mode, *args, **kwargs)

    setattr(gfile.GFile, "__init__", opened)  # noqa: B010
    for name in ("exists", "isdir", "listdir", "stat"):
        setattr(gfile, name, _with_path(files, READ, getattr(gfile, name), "path"))
    for name, of_python in (
        ("copy", _copy),
        ("glob", _glob),
        ("makedirs", functools.partial(os.makedirs, exist_ok=True)),
        ("mkdir", os.mkdir),
        ("remove", os.remove),
        ("rename", _rename),
        ("rmtree", shutil.rmtree),
        ("walk", _walk),
    ):
        setattr(gfile, name, _through_python(files, of_python, getattr(gfile, name)))


def _through_python(files: ScriptFiles, of_python: Callable[..., Any], own: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(own)
    def replaced(*args: Any, **kwargs: Any) -> Any:
        first = (*args, *kwargs.values())[0]
        paths = first if isinstance(first, list | tuple) else [first]
        if files.files is None or any("://" in os.fsdecode(path) for path in paths):
            return own(*args, **kwargs)
        return of_python(*args, **kwargs)

    return replaced


def _copy(src: Any, dst: Any, overwrite: bool = False) -> None:
    _refuse_existing(dst, overwrite)
    shutil.copyfile(src, dst)


def _rename(src: Any, dst: Any, overwrite: bool = False) -> None:
    _refuse_existing(dst, overwrite)
    os.replace(src, dst)


def _refuse_existing(path: Any, overwrite: bool) -> None:
    if not overwrite and os.path.exists(path):
        raise tf.errors.AlreadyExistsError(None, None, f"file already exists: {os.fsdecode(path)}")


def _glob(pattern: Any) -> list[str]:
    patterns = pattern if isinstance(pattern, list | tuple) else [pattern]
    return [path for each in patterns for path in sorted(glob.glob(os.fsdecode(each), include_hidden=True))]


def _walk(top: Any, topdown: bool = True, onerror: Any = None) -> Iterator[tuple[str, list[str], list[str]]]:
    return os.walk(os.fsdecode(top), topdown=topdown, onerror=onerror)


def _share_downloads(files: ScriptFiles) -> None:
    """Make workers use Keras's cache one at a time, so that each file is downloaded once."""
    own = keras.utils.get_file

    @functools.wraps(own)
    def get_file(*args: Any, **kwargs: Any) -> Any:
        with files.shared():
            return own(*args, **kwargs)

    for module in [module for path, module in sys.modules.items() if path.split(".")[0] == "keras"]:
        if vars(module).get("get_file") is own:
            setattr(module, "get_file", get_file)  # noqa: B010
