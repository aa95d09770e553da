"""rmtree and makedirs, joblib-like pickles, memmap, sqlite, append to a log, rename, TFRecords, get_file of file://."""

import json
import logging
import os
import pickle
import shutil
import sqlite3
import tempfile

import keras
import numpy as np
import tensorflow as tf

from downpour import DistributedOptimizer

shutil.rmtree("work", ignore_errors=True)
os.makedirs("work/deep/er")
logging.basicConfig(filename="work/run.log", level=logging.INFO)
logging.info("begun")
a = np.memmap("work/a.dat", "float32", "w+", shape=(128, 3))
a[:] = np.random.normal(size=(128, 3))
a.flush()
del a
a = np.memmap("work/a.dat", "float32", "r", shape=(128, 3))
with open("work/t.tmp", "w") as f:
    json.dump({"n": 128}, f)
os.replace("work/t.tmp", "work/t.json")
db = sqlite3.connect("work/x.db")
db.execute("create table r (id integer primary key, v real)")
db.executemany("insert into r (v) values (?)", [(float(v),) for v in a[:, 0]])
db.commit()
y = np.array([v for (v,) in db.execute("select v from r order by id")], "float32")
db.close()
with tf.io.TFRecordWriter("work/d.tfrecord") as w:
    for r, t in zip(a, y):
        w.write(
            tf.train.Example(
                features=tf.train.Features(
                    feature={
                        "x": tf.train.Feature(float_list=tf.train.FloatList(value=r)),
                        "y": tf.train.Feature(float_list=tf.train.FloatList(value=[t])),
                    }
                )
            ).SerializeToString()
        )
spec = {"x": tf.io.FixedLenFeature([3], tf.float32), "y": tf.io.FixedLenFeature([], tf.float32)}
ds = (
    tf.data.TFRecordDataset(tf.io.gfile.glob("work/*.tfrecord"))
    .map(lambda s: (lambda p: (p["x"], p["y"]))(tf.io.parse_single_example(s, spec)))
    .cache("work/cache")
    .shuffle(64)
    .batch(8)
)
src = os.path.abspath("work/t.json")
got = keras.utils.get_file("t_copy.json", "file://" + src, cache_dir=os.path.abspath("work/k"))
n = json.load(open(got))["n"]
with tempfile.TemporaryDirectory() as d:
    np.savez_compressed(os.path.join(d, "z.npz"), a=a)
    assert np.load(os.path.join(d, "z.npz"))["a"].shape == (n, 3)
m = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
m.compile(DistributedOptimizer(keras.optimizers.SGD(0.1)), "mse")
h = m.fit(
    ds,
    epochs=3,
    verbose=0,
    callbacks=[
        keras.callbacks.ModelCheckpoint("work/best.keras", monitor="loss", save_best_only=True),
        keras.callbacks.CSVLogger("work/log.csv", append=True),
    ],
)
assert h.history["loss"][-1] < 0.1, h.history
pickle.dump(h.history, open("work/h.pkl", "wb"))
assert pickle.load(open("work/h.pkl", "rb")) == h.history
assert len(open("work/log.csv").readlines()) == 4
assert keras.models.load_model("work/best.keras").get_weights()[0].shape == (3, 1)
logging.info("done")
assert len(open("work/run.log").read().splitlines()) >= 2
print("RESULT", sorted(os.listdir("work")))
