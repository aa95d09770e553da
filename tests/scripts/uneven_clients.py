"""Clients of `downpour.connect` of which worker 0 ends long before the others: nothing that they push is lost."""

import time

import numpy as np

import downpour

with downpour.connect(None, {"w": np.zeros(4)}, optimizer="sgd", learning_rate=1.0) as client:
    client.pull()
    for _ in range(1 if client.rank == 0 else 40):
        client.push_pull({"w": np.ones(4)})
        if client.rank:
            time.sleep(0.2)
    print("RESULT", client.rank, client.pull()["w"][0])
