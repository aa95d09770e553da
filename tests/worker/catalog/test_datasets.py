"""Datasets: the content of each one, and the error message for each kind of invalid file."""

import gzip
import re
import sys
import types

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from downpour.worker.catalog import datasets
from downpour.worker.catalog import npz as arrays
from downpour.worker.catalog.datasets import DatasetError


def sample_arrays(**changes):
    made = {
        "x_train": np.arange(8 * 4, dtype=np.uint8).reshape(8, 2, 2),
        "y_train": np.arange(8) % 3,
        "x_test": np.arange(4 * 4, dtype=np.uint8).reshape(4, 2, 2),
        "y_test": np.arange(4) % 3,
    }
    return made | changes


def save(path, **changes):
    np.savez(path, **sample_arrays(**changes))
    return str(path)


@pytest.fixture(scope="module")
def mnist():
    return datasets.load("mnist")


def test_mnist_is_the_whole_set(mnist):
    assert mnist.x_train.shape == (60000, 28, 28) and mnist.x_test.shape == (10000, 28, 28)
    assert mnist.x_train.dtype == np.uint8
    assert (mnist.input_shape, mnist.classes, mnist.name) == ((28, 28), 10, "mnist")
    # The published numbers of each digit in the training set.
    assert np.bincount(mnist.y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert mnist.checksum == datasets.MNIST_CHECKSUM


def test_no_array_can_be_written(mnist):
    for name in arrays.ARRAYS:
        with pytest.raises(ValueError, match="read-only"):
            getattr(mnist, name)[0] = 1


def test_a_changed_mnist_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets, "MNIST", tmp_path / "mnist.npz")
    save(tmp_path / "mnist.npz")
    with pytest.raises(DatasetError, match=f"SHA-256 {datasets.MNIST_CHECKSUM}.*install downpour again"):
        datasets.load("mnist")


def test_an_npz_is_loaded_as_it_was_saved(tmp_path):
    path = save(tmp_path / "own.npz")
    loaded = datasets.load(path)
    for name, array in sample_arrays().items():
        np.testing.assert_array_equal(getattr(loaded, name), array)
    assert (loaded.name, loaded.input_shape, loaded.classes) == (path, (2, 2), 3)


def test_features_become_float32_and_keep_their_scale(tmp_path):
    features = {key: sample_arrays()[key].astype(np.float64) for key in ("x_train", "x_test")}
    loaded = datasets.load(save(tmp_path / "own.npz", **features))
    assert loaded.x_train.dtype == loaded.x_test.dtype == np.float32
    np.testing.assert_array_equal(loaded.x_train, features["x_train"])
    assert loaded.scale == 1.0


def test_pixels_are_scaled_to_one(mnist):
    assert mnist.x_train.max() * mnist.scale == 1.0


def test_a_column_of_labels_is_a_vector(tmp_path):
    column = sample_arrays()["y_train"].reshape(-1, 1)
    assert datasets.load(save(tmp_path / "own.npz", y_train=column)).y_train.shape == (8,)


def test_the_checksum_tells_content_shape_and_dtype_apart():
    sums = {
        datasets.checksum_of(sample_arrays(**change))
        for change in (
            {},
            {"x_train": sample_arrays()["x_train"][::-1]},
            {"x_train": sample_arrays()["x_train"].reshape(8, 4)},
            {"y_test": sample_arrays()["y_test"].astype(np.int32)},
        )
    }
    assert len(sums) == 4
    assert datasets.checksum_of(sample_arrays()) == datasets.checksum_of(
        {name: np.asfortranarray(array) for name, array in sample_arrays().items()}
    )


BAD_ARRAYS = {
    "no samples": ({"x_train": np.zeros((0, 2, 2), np.uint8)}, r"x_train must have the shape.*\(0, 2, 2\)"),
    "samples in one axis": ({"x_test": np.zeros(4, np.uint8)}, r"x_test must have the shape.*\(4,\)"),
    "samples of integers": ({"x_train": np.zeros((8, 2, 2), np.int64)}, "x_train must be uint8.*int64"),
    "samples of text": ({"x_train": np.full((8, 2), "a")}, "x_train must be uint8.*<U1"),
    "not a number": ({"x_train": np.full((8, 2, 2), np.nan)}, "x_train must be finite.*NaN"),
    "beyond float32": ({"x_train": np.full((8, 2, 2), 1e300)}, "x_train must be finite.*larger"),
    "test of another shape": ({"x_test": np.zeros((4, 3, 2), np.uint8)}, r"one shape.*\(2, 2\).*\(3, 2\)"),
    "test of another dtype": ({"x_test": np.zeros((4, 2, 2))}, "one shape and dtype.*uint8.*float32"),
    "too few labels": ({"y_train": np.arange(7) % 3}, "y_train must have one label.*8 samples and 7 labels"),
    "too many test labels": ({"y_test": np.arange(5) % 3}, "y_test must have one label.*4 samples and 5"),
    "one-hot labels": ({"y_train": np.eye(8)}, r"y_train must have the shape.*\(8, 8\).*argmax"),
    "labels that are no numbers": ({"y_train": np.full(8, np.nan)}, "y_train must be integers.*float64, not all"),
    "negative labels": ({"y_test": np.arange(4) - 1}, "y_test must be class numbers from 0.*-1"),
    "python objects": ({"y_train": np.array([{}] * 8)}, "must be readable and numeric.*allow_pickle"),
}


@pytest.mark.parametrize(("change", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
def test_invalid_arrays_are_refused_with_the_requirement(tmp_path, change, message):
    with pytest.raises(DatasetError, match=message):
        datasets.load(save(tmp_path / "own.npz", **change))


def test_an_unknown_name_lists_the_choices():
    with pytest.raises(DatasetError, match="mnist, fashion_mnist, .*, or the path.*'mnits'"):
        datasets.load("mnits")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=f"must be a file that exists.*{tmp_path}/none.npz"):
        datasets.load(str(tmp_path / "none.npz"))


def test_missing_arrays_are_named_with_those_that_exist(tmp_path):
    np.savez(tmp_path / "own.npz", x_train=np.zeros((2, 2)), labels=np.zeros(2))
    with pytest.raises(DatasetError, match="with labels, x_train. Save it again with y_train, x_test, y_test"):
        datasets.load(str(tmp_path / "own.npz"))


def test_a_single_array_is_refused_as_a_dataset(tmp_path):
    np.save(tmp_path / "own.npy", np.zeros(3))
    with pytest.raises(DatasetError, match=r"complete .npz.*savez"):
        datasets.load(str(tmp_path / "own.npy"))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_damaged_file_loads_or_raises_dataset_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("damaged") / "own.npz"
    np.savez_compressed(path, **sample_arrays())
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    try:
        loaded = datasets.load(str(path))
    except DatasetError as error:
        assert "must" in str(error)
    else:
        assert len(loaded.x_train) == len(loaded.y_train) > 0


@given(samples=st.integers(1, 300), fraction=st.floats(0, 1, exclude_max=True))
def test_a_split_holds_out_the_last_samples(samples, fraction):
    x, y = np.arange(samples).reshape(-1, 1).astype(np.float32), np.arange(samples)
    dataset = datasets.Dataset("own", x, y, x, y, "")
    try:
        cut = datasets.split(dataset, fraction)
    except DatasetError:
        assert int(samples * (1.0 - fraction)) in (0, samples)
        return
    assert len(cut.x_train) == int(samples * (1.0 - fraction))
    np.testing.assert_array_equal(np.concatenate([cut.y_train, cut.y_validation]), y)
    np.testing.assert_array_equal(cut.x_train[:, 0], cut.y_train)
    np.testing.assert_array_equal(cut.x_validation[:, 0], cut.y_validation)
    assert np.shares_memory(cut.x_train, x)


@pytest.mark.parametrize("fraction", [0.05, 0.1, 1 / 3, 0.7])
def test_a_split_is_that_of_keras(mnist, fraction):
    from keras.src.trainers.data_adapters.array_slicing import train_validation_split

    (x, y), (x_held_out, y_held_out) = train_validation_split((mnist.x_train, mnist.y_train), fraction)
    ours = datasets.split(mnist, fraction)
    assert len(ours.x_train) == len(x) and len(ours.x_validation) == len(x_held_out)
    np.testing.assert_array_equal(ours.y_train, y)
    np.testing.assert_array_equal(ours.y_validation, y_held_out)


@pytest.mark.parametrize("fraction", [-0.1, 1.0, float("nan"), 1 - 1e-9])
def test_a_split_without_samples_on_one_side_is_refused(mnist, fraction):
    with pytest.raises(DatasetError, match=f"validation_split must .*{re.escape(str(fraction))}"):
        datasets.split(mnist, fraction)


def idx(array):
    head = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return head + array.astype(np.uint8).tobytes()


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    """A small set in Fashion-MNIST's place: its two folders do not exist yet, and Keras cannot download."""
    monkeypatch.setattr(datasets, "FASHION_MNIST_PACKAGE", tmp_path / "package")
    expected = {name: array.astype(np.uint8) for name, array in sample_arrays().items()}
    monkeypatch.setattr(datasets, "FASHION_MNIST_CHECKSUM", datasets.checksum_of(expected))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    keras = types.ModuleType("keras.datasets")
    monkeypatch.setattr(keras, "fashion_mnist", types.SimpleNamespace(load_data=lambda: 1 / 0), raising=False)
    monkeypatch.setitem(sys.modules, "keras.datasets", keras)
    return types.SimpleNamespace(
        package=tmp_path / "package",
        cache=tmp_path / "keras/datasets/fashion-mnist",
        keras=keras,
        arrays=expected,
    )


def save_idx(folder, contents):
    folder.mkdir(parents=True)
    for file, array in zip(arrays.IDX_FILES, contents.values(), strict=True):
        (folder / f"{file}.gz").write_bytes(gzip.compress(idx(array)))


@pytest.mark.parametrize("place", ["package", "cache"])
def test_fashion_mnist_is_found_where_it_is_installed(fashion, place):
    save_idx(getattr(fashion, place), fashion.arrays)
    np.testing.assert_array_equal(datasets.load("fashion_mnist").x_train, fashion.arrays["x_train"])


def test_fashion_mnist_is_downloaded_by_keras_at_last(fashion):
    x_train, y_train, x_test, y_test = fashion.arrays.values()
    fashion.keras.fashion_mnist.load_data = lambda: ((x_train, y_train), (x_test, y_test))
    assert datasets.load("fashion_mnist").classes == 3


def test_a_missing_fashion_mnist_lists_the_places_searched(fashion):
    with pytest.raises(DatasetError) as caught:
        datasets.load("fashion_mnist")
    for part in (str(fashion.package), "dataset-fashion-mnist", str(fashion.cache), "division by zero"):
        assert part in str(caught.value)


def test_a_truncated_idx_file_is_named(fashion):
    save_idx(fashion.cache, fashion.arrays)
    file = fashion.cache / f"{arrays.IDX_FILES[0]}.gz"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DatasetError, match=f"{file} must be a complete gzipped IDX file"):
        datasets.load("fashion_mnist")


def test_another_set_in_fashion_mnists_place_is_refused(fashion):
    save_idx(fashion.cache, fashion.arrays | {"y_test": fashion.arrays["y_train"][:4] * 0})
    with pytest.raises(DatasetError, match=f"SHA-256.*{fashion.cache}; delete it"):
        datasets.load("fashion_mnist")


@given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda tail: b"\0\0\x08" + tail))
def test_idx_is_read_whole_or_refused(content):
    try:
        array = arrays.parse_idx(content)
    except ValueError:
        return
    assert array.size == len(content) - 4 - 4 * content[3]
