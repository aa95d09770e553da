"""Files of a script on two workers: each sees what it would see alone, and what callbacks of worker 0 have written."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from downpour.worker.fit.process.file_delivery import deliver
from tests.support.paths import ROOT

RUNNER = """
import sys
sys.path.insert(0, sys.argv[1])
from downpour.worker.fit.process.script_files import ScriptFiles
rank, shared, script = int(sys.argv[2]), sys.argv[3], sys.argv[4]
files = ScriptFiles(rank, 2, shared)
files.install()
def fit(call, written=lambda: None):
    with files.of_fit(call):
        if rank == 0:
            written()
source = open(script).read()
if "tensorflow" in source:
    from downpour.worker.fit.process.library_patches import replace_functions_of_libraries
    replace_functions_of_libraries(files)
exec(source, {"fit": fit, "rank": rank, "__name__": "__main__"})
"""


class Workers:
    """A folder in which a script runs on worker 0, and then on worker 1, as if worker 0 were far ahead."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.shared = folder / "project", folder / "shared"
        self.folder.mkdir()
        self.shared.mkdir()

    def run(self, script: str, order: tuple[int, ...] = (0, 1)) -> list[str]:
        path = self.folder.parent / "script.py"
        path.write_text(script)
        return [self._run(rank, path) for rank in order]

    def _run(self, rank: int, path: Path) -> str:
        command = [sys.executable, "-c", RUNNER, str(ROOT), str(rank), str(self.shared), str(path)]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def workers(tmp_path: Path) -> Workers:
    return Workers(tmp_path)


ALONE = {
    "mkdir": """
import os, pathlib
os.mkdir("out"); os.makedirs("a/b/c"); pathlib.Path("p").mkdir(); (pathlib.Path("p") / "q" / "r").mkdir(parents=True)
os.makedirs("a/b/c", exist_ok=True)
print(sorted(os.listdir(".")), os.path.isdir("a/b"), sorted(map(str, pathlib.Path(".").rglob("*"))))
try:
    os.mkdir("out")
except FileExistsError as error:
    print("exists", error.filename)
""",
    "exclusive": """
with open("lock", "x") as file: print(file.name, file.write("mine"))
print(open("lock").read())
try:
    open("lock", "x")
except FileExistsError as error:
    print("exists", error.filename)
""",
    "rmtree": """
import os, shutil
print(sorted(os.listdir("old")))
if os.path.exists("old"): shutil.rmtree("old")
print(os.path.exists("old"), os.listdir("."))
os.mkdir("old"); open("old/new.txt", "w").write("x")
print(os.listdir("old"), os.path.getsize("old/new.txt"))
""",
    "counter": """
import os
count = int(open("count").read()) if os.path.exists("count") else 0
open("count", "w").write(str(count + 1))
print(open("count").read())
with open("log", "a") as log: log.write("line\\n")
print(open("log").read())
""",
    "cache": """
import os, pathlib
path = pathlib.Path("cache") / "table.csv"
if path.exists():
    print("found")
else:
    path.parent.mkdir(); path.write_text("1,2\\n" * 5); print("made")
print(len(path.read_text().splitlines()))
""",
    "numpy": """
import numpy as np, os
if not os.path.exists("x.npy"): np.save("x.npy", np.arange(5))
np.savez("all.npz", a=np.ones(3)); np.savetxt("t.txt", np.eye(2))
print(np.load("x.npy").tolist(), np.load("all.npz")["a"].tolist(), np.loadtxt("t.txt").tolist())
memory = np.memmap("m.bin", dtype="int32", mode="w+", shape=(4,)); memory[:] = 7; memory.flush()
print(np.fromfile("m.bin", dtype="int32").tolist())
""",
    "shutil": """
import glob, os, shutil, tempfile, zipfile
os.makedirs("src/deep"); open("src/deep/a.txt", "w").write("a")
shutil.copytree("src", "copy"); shutil.copy("src/deep/a.txt", "b.txt"); shutil.move("b.txt", "c.txt")
os.rename("copy", "moved"); shutil.make_archive("all", "zip", "src")
print(sorted(glob.glob("**/*", recursive=True)), zipfile.ZipFile("all.zip").namelist())
print([(root, sorted(folders), sorted(files)) for root, folders, files in sorted(os.walk("."))])
with tempfile.TemporaryDirectory() as folder:
    open(os.path.join(folder, "t"), "w").write("t"); print(os.listdir(folder))
print(os.path.exists(folder))
os.symlink("c.txt", "link"); print(open("link").read(), os.path.islink("link"), os.stat("link").st_size)
os.remove("c.txt"); print(os.path.exists("c.txt"), os.path.lexists("link"))
""",
    "gfile": """
import tensorflow as tf
gfile = tf.io.gfile
gfile.makedirs("work/deep")
for name in ("b.txt", ".a.txt", "deep/c.txt"):
    with gfile.GFile("work/" + name, "w") as file: file.write(name)
gfile.copy("work/b.txt", "work/d.txt"); gfile.rename("work/b.txt", "work/e.txt")
print(sorted(gfile.glob("work/*.txt")), sorted(gfile.glob(["work/d*", "work/deep/*"])), gfile.exists("work/b.txt"))
for top, folders, files in sorted(gfile.walk("work")): print(top, sorted(folders), sorted(files))
try: gfile.copy("work/d.txt", "work/e.txt")
except tf.errors.AlreadyExistsError: gfile.copy("work/d.txt", "work/e.txt", overwrite=True)
with gfile.GFile("work/e.txt") as file: print(file.read())
""",
    "patterns": """
import tensorflow as tf
def names(paths): return sorted(path.numpy().decode().split("/")[-1] for path in paths)
for name in ("1.csv", "2.csv"): open("old/" + name, "w").write("a,b\\n1,2\\n3,4\\n")
for pattern in ("old/*", ["old/1*", "old/a.txt"], "given"):
    print(names(tf.data.Dataset.list_files(pattern)), names(tf.io.matching_files(pattern)))
rows = tf.data.experimental.make_csv_dataset("old/*.csv", batch_size=8, num_epochs=1, label_name="b", shuffle=False)
print([(sorted(x["a"].numpy()), sorted(y.numpy())) for x, y in rows])
print(len(list(tf.data.experimental.CsvDataset(["old/1.csv"], [tf.int32, tf.int32], header=True))))
""",
    "graphs": """
import os, shutil
import keras, tensorflow as tf
if os.path.exists("old/3.txt"): raise SystemExit("a file of another worker was found")
for number in range(4): open(f"old/{number}.txt", "w").write(f"{number}\\nline\\n")
for label in ("cats", "dogs"):
    os.makedirs(f"texts/{label}")
    for number in range(3): open(f"texts/{label}/{number}.txt", "w").write(f"{label} {number}")
with tf.io.TFRecordWriter("old/r.tfrecord") as writer: writer.write(b"record")
os.remove("old/a.txt")
names = tf.data.Dataset.from_tensor_slices([f"old/{number}.txt" for number in range(4)])
print([each.numpy() for each in names.map(tf.io.read_file, num_parallel_calls=2)])
print([each.numpy() for each in names.interleave(tf.data.TextLineDataset, cycle_length=2)])
print([each.numpy() for each in names.batch(2).flat_map(lambda some: tf.data.TextLineDataset(some))])
print([each.numpy() for each in tf.data.TextLineDataset(names)])
records = tf.data.Dataset.list_files("old/*.tfrecord").interleave(lambda name: tf.data.TFRecordDataset(name))
print([each.numpy() for each in records])
print(tf.io.read_file(tf.constant("old/1.txt")).numpy(), tf.io.read_file("old/1.txt").numpy())
print(sorted(os.path.basename(name) for name in tf.function(tf.io.matching_files)(tf.constant("old/*.txt")).numpy()))
open("old/table", "w").write("x 7\\ny 8\\n")
table = tf.lookup.TextFileInitializer("old/table", tf.string, 0, tf.int64, 1, delimiter=" ")
print(tf.lookup.StaticHashTable(table, -1).lookup(tf.constant(["y", "z"])).numpy())
@tf.function
def write(name): tf.io.write_file(name, "written in a graph")
write(tf.constant("settings"))
print(open("settings").read())
texts = keras.utils.text_dataset_from_directory("texts", batch_size=2, shuffle=False, verbose=False)
print([(x.numpy().tolist(), y.numpy().tolist()) for x, y in texts.repeat(2)])
print(len(list(tf.data.Dataset.range(8).snapshot("kept"))), os.path.isdir("kept"))
shutil.rmtree("kept")  # of random names
try:
    list(tf.data.Dataset.from_tensors("old/a.txt").map(tf.io.read_file))
except tf.errors.NotFoundError:
    print("a.txt is removed")
""",
    "databases": """
import os, sqlite3, tensorflow  # with it, functions of libraries are replaced
from sqlite3 import dbapi2  # as SQLAlchemy imports it
def rows(connect, *args, **kwargs):
    database = connect(*args, **kwargs)
    database.execute("create table t (v)"); database.execute("insert into t values (1)"); database.commit()
    found = database.execute("select v from t").fetchall(); database.close(); return found
print(rows(sqlite3.connect, "a.db"), rows(dbapi2.connect, "b.db"))
print(rows(dbapi2.connect, database=os.path.abspath("c.db")))
print(rows(dbapi2.connect, "file:d%20e.db?mode=rwc", uri=True))
print(rows(sqlite3.connect, f"file://{os.path.abspath('f.db')}", uri=True))
print(rows(sqlite3.connect, ":memory:"), rows(sqlite3.connect, "file::memory:?cache=shared", uri=True))
print(sqlite3.connect("file:a.db?mode=ro", uri=True).execute("select v from t").fetchall(), sorted(os.listdir(".")))
""",
    "chdir": """
import os
os.makedirs("work/in"); os.chdir("work"); open("here", "w").write("1")
print(os.listdir("."), os.path.relpath(os.getcwd(), ".."))
os.chdir("in"); open("there", "w").write("22"); print(os.path.getsize("there"), os.listdir(".."))
""",
    "times": """
import os
open("a", "w").write("1"); os.utime("a", (5, 5)); os.chmod("a", 0o600)
print(os.stat("a").st_mtime, oct(os.stat("a").st_mode))
os.chmod("given", 0o600); print(open("given").read())
""",
    "module": """
import importlib, inspect, pathlib, sys
sys.path.insert(0, "."); sys.dont_write_bytecode = True
pathlib.Path("generated.py").write_text("def answer():\\n    return 42\\n"); importlib.invalidate_caches()
import generated
print(generated.answer(), inspect.getsource(generated.answer))
""",
    "atomic": """
import os
open("settings.tmp", "w").write("new"); os.replace("settings.tmp", "settings")
print(open("settings").read(), sorted(os.listdir(".")))
with open("settings", "r+") as file: file.seek(3); file.write("er")
print(open("settings").read())
""",
}


def given(folder: Path) -> None:
    (folder / "old").mkdir()
    (folder / "old" / "a.txt").write_text("a")
    (folder / "given").write_text("given")
    (folder / "settings").write_text("old")
    (folder / "log").write_text("before\n")


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("case", ALONE)
def test_each_worker_sees_what_it_would_see_alone(tmp_path: Path, case: str, order: tuple[int, int]) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    given(alone)
    (tmp_path / "case.py").write_text(ALONE[case])
    done = subprocess.run(
        [sys.executable, "../case.py"], cwd=alone, capture_output=True, text=True, timeout=60, check=True
    )
    workers = Workers(tmp_path)
    given(workers.folder)
    expected = sorted(done.stdout.splitlines())
    for output in workers.run(ALONE[case], order):
        assert sorted(output.splitlines()) == expected
    assert tree(workers.folder) == tree(alone)  # worker 1 has changed nothing


def tree(folder: Path) -> dict[str, Any]:
    def content(path: Path) -> bytes | None:
        return path.read_bytes() if path.is_file() and path.suffix != ".zip" else None  # which contains times

    return {str(path.relative_to(folder)): content(path) for path in folder.rglob("*")}


def test_what_callbacks_of_worker_0_write_within_fit_is_found_after_it(workers: Workers) -> None:
    outputs = workers.run("""
import os, json
os.mkdir("logs"); open("best", "w").write("before")
def callbacks():
    open("logs/log.csv", "w").write("a,b")
    open("best", "w").write("after")
fit(1, callbacks)
print(open("logs/log.csv").read(), open("best").read(), os.listdir("logs"))
os.remove("logs/log.csv")
print(os.path.exists("logs/log.csv"))
fit(2, lambda: open("logs/log.csv", "w").write("second"))
print(open("logs/log.csv").read())
""")
    assert outputs[0] == outputs[1] == "a,b after ['log.csv']\nFalse\nsecond\n"


def test_a_file_that_worker_0_rewrites_stays_whole_for_one_that_reads_it(workers: Workers) -> None:
    (workers.folder / "table").write_text("old\n" * 1000)
    with (workers.folder / "table").open() as reading:
        assert reading.readline() == "old\n"
        workers.run('open("table", "w").write("new")', order=(0,))
        assert len(reading.readlines()) == 999
    assert (workers.folder / "table").read_text() == "new"
    assert workers.run('print(open("table").read().count("old"))', order=(1,)) == ["1000\n"]


def test_a_job_of_one_worker_replaces_nothing() -> None:
    script = (
        "import builtins, os; before = (builtins.open, os.stat)\n"
        "from downpour.worker.fit.process.script_files import ScriptFiles\n"
        "ScriptFiles(0, 1, '/nowhere').install(); assert (builtins.open, os.stat) == before"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=60)


def test_files_of_one_worker_alone_are_delivered_and_no_others(workers: Workers) -> None:
    workers.run("""
import os
os.makedirs("out"); os.makedirs(f"of-{rank}/deep"); os.makedirs("gone")
for name in (f"out/{rank}.txt", f"of-{rank}/deep/note.txt", "same.txt", "gone/same.txt"):
    open(name, "w").write(str(rank))
if rank == 0:
    os.remove("gone/same.txt"); os.rmdir("gone")
fit(1, lambda: open("log.csv", "w").write("of worker 0"))
""")
    here = workers.folder
    assert not (here / "out" / "1.txt").exists()
    delivered = deliver(str(workers.shared))
    assert sorted(delivered) == [str(here / "of-1" / "deep" / "note.txt"), str(here / "out" / "1.txt")]
    texts = {name: (here / name).read_text() for name in ("out/0.txt", "out/1.txt", "of-1/deep/note.txt", "same.txt")}
    assert texts == {"out/0.txt": "0", "out/1.txt": "1", "of-1/deep/note.txt": "1", "same.txt": "0"}
    assert not (here / "gone").exists() and (here / "log.csv").read_text() == "of worker 0"
    assert deliver(str(workers.shared)) == []
