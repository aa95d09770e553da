"""Keras's side of the comparisons: its optimizer has the settings of the server's."""

from __future__ import annotations

import argparse

import pytest

from downpour.bench.competitors import keras_fit
from downpour.ps.core.schedules import schedule_of


@pytest.mark.parametrize("text", ["constant", "linear:1000", "linear:1000,0.1", "cosine:1000", "cosine:1000,0.2"])
def test_keras_has_the_servers_schedule(text):
    flags = argparse.Namespace(optimizer="adam", learning_rate=0.5, schedule=text, clip_norm=2.0)
    optimizer, factor = keras_fit.optimizer(flags), schedule_of(text)
    assert optimizer.global_clipnorm == 2.0
    for version in (0, 1, 499, 999, 1000, 3000):
        optimizer.iterations.assign(version)
        assert float(optimizer.learning_rate) == pytest.approx(0.5 * factor(version), abs=1e-7)


def test_a_schedule_that_keras_is_not_given_is_refused():
    flags = argparse.Namespace(optimizer="sgd", learning_rate=0.5, schedule="steps:10", clip_norm=0.0)
    with pytest.raises(ValueError, match="must be constant, linear, cosine.*'steps:10'"):
        keras_fit.optimizer(flags)
